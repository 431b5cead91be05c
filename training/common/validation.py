"""Validation: score the validation clips on all processes, compute the metrics, and choose the best epoch."""

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.vqa_correlation.correlations import CORRELATION_NAMES
from training.vqa_correlation.reports import metrics_or_none

from .arguments import SUM
from .sources import Source
from .steps import score, to_device

MIN_CLIPS = 3  # two points always correlate perfectly
WORST = -1.0  # lowest main score that there is
ROUNDING = 8 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Scored:
    """Scores of the validation clips of one data set.

    Args:
        indices: places (N,) of the clips that were scored, in order.
        scores, labels: (N,) by name; pairs have no labels here.
    """

    indices: list[int]
    scores: dict[str, Tensor]
    labels: dict[str, Tensor]


def validation_batches(
    numbers: list[int], batch_size: int, rank: int, num_processes: int
) -> list[list[tuple[int, int, int]]]:
    """This process's batches of `(0, source, index)`, for data sets with these numbers of clips.

    The last clip of a data set is repeated so that all processes have equally many.
    """
    batches = []
    for source, number in enumerate(numbers):
        share = list(range(rank, number, num_processes))
        share += [number - 1] * (math.ceil(number / num_processes) - len(share))
        keys = [(0, source, index) for index in share]
        batches += [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    return batches


def score_clips(
    accelerator: Accelerator, model: nn.Module, loader: DataLoader, scores: list[str]
) -> tuple[list[Scored], list[str]]:
    """The scores of each data set, and the messages of the unreadable clips."""
    modes = {module: module.training for module in model.modules()}  # frozen parts do not train, see `train_mode`
    model.eval()
    rows, failed = {}, []
    bar = tqdm(loader, desc="validation", leave=False, disable=not accelerator.is_main_process or None)
    for batch in bar:
        batch = to_device(batch, accelerator.device)
        with torch.no_grad():
            outputs = score(model, batch, scores)
        labels = batch["labels"]
        for row, index in enumerate(batch["index"].tolist()):
            rows[batch["source"], index] = [
                {name: values[name][row].item() for name in scores if name in values} for values in (outputs, labels)
            ]
        failed += batch["failed"]
    for module, training in modes.items():
        module.training = training
    return _by_source(dict(gather_object(list(rows.items())))), gather_object(failed)


def _by_source(rows: dict[tuple[int, int], list[dict[str, float]]]) -> list[Scored]:
    """Sort the (scores, labels) of clips, by (source, index), into the data sets."""
    found = []
    for source in sorted({source for source, _ in rows}):
        keys = sorted(key for key in rows if key[0] == source)
        values = [
            {name: torch.tensor([rows[key][place][name] for key in keys]) for name in rows[keys[0]][place]}
            for place in (0, 1)
        ]
        found.append(Scored([index for _, index in keys], *values))
    return found


def all_metrics(sources: list[Source], scored: list[Scored]) -> dict[str, float | None]:
    """The figures of each data set, and of all of them together.

    Keys are such as `quality/srocc`; with several data sets, those of one are such as `quality@T2VQA-DB/srocc`.
    Together, labels are put on the scale of the first data set with a MOS.
    """
    found = [
        validation_metrics(own.scores, own.labels) if source.has_mos else pair_metrics(source, own)
        for source, own in zip(sources, scored)
    ]
    if len(sources) == 1:
        return found[0]
    row = together(sources, scored)
    for source, metrics in zip(sources, found):
        row |= {key.replace("/", f"@{source.name}/"): value for key, value in metrics.items()}
    return row


def together(sources: list[Source], scored: list[Scored]) -> dict[str, float | None]:
    """The figures of the clips of all data sets with a MOS, and the accuracies on the pairs of all others."""
    row: dict[str, float | None] = {}
    with_mos = [(source, own) for source, own in zip(sources, scored) if source.has_mos]
    if with_mos:
        names, scale = with_mos[0][1].scores, with_mos[0][0].scale
        labels = {
            name: torch.cat(
                [
                    (own.labels[name].double() - source.scale[0]) / source.scale[1] * scale[1] + scale[0]
                    for source, own in with_mos
                ]
            )
            for name in names
        }
        row |= validation_metrics(
            {name: torch.cat([own.scores[name] for _, own in with_mos]) for name in names}, labels
        )
    others = [(source, own) for source, own in zip(sources, scored) if not source.has_mos]
    for name in others[0][1].scores if others else ():
        decided = torch.cat([agreements(source, own, name) for source, own in others])
        accuracy = decided.mean().item() if len(decided) else None
        row[f"{name}/accuracy"] = accuracy
        row.setdefault(f"{name}/main_score", None if accuracy is None else 2 * accuracy - 1)
    return row


def pair_metrics(source: Source, scored: Scored) -> dict[str, float | None]:
    """Accuracy of every score on the pairs with a preferred clip, and its main score, 2 x accuracy - 1.

    Both are None if all scores are equal. A tie of the scores counts half.
    """
    results: dict[str, float | None] = {}
    for name, values in scored.scores.items():
        decided = agreements(source, scored, name)
        accuracy = None if is_constant(values) or not len(decided) else decided.mean().item()
        results[f"{name}/accuracy"] = accuracy
        results[f"{name}/main_score"] = None if accuracy is None else 2 * accuracy - 1
    return results


def agreements(source: Source, scored: Scored, name: str) -> Tensor:
    """For every validation pair with a preferred clip and both scores: 1 if the score prefers it too, 0.5 for a tie."""
    pairs = source.pairs["validation"]
    values = torch.full((len(pairs.clips),), math.nan)
    values[scored.indices] = scored.scores[name].float()
    difference = torch.diff(values[torch.from_numpy(pairs.places)], dim=1)[:, 0].neg()  # A minus B
    preferences = torch.from_numpy(pairs.preferences[source.columns[name]]).float()
    decided = (difference * preferences)[preferences.isfinite() & (preferences != 0) & difference.isfinite()]
    return (decided > 0).float() + 0.5 * (decided == 0)


def validation_metrics(scores: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, float | None]:
    """SROCC, PLCC, KROCC, RMSE and main score of every score, with keys such as `quality/srocc`.

    Clips without a label (NaN) do not count. The figures of a score are None, undefined, if it or its labels are
    constant or if fewer than `MIN_CLIPS` clips have a label.
    """
    results = {}
    for name in scores:
        labelled = labels[name].isfinite()
        values, mos = scores[name][labelled].double(), labels[name][labelled].double()
        if len(values) and is_constant(values):
            values = torch.full_like(values, values[0])
        found = metrics_or_none(values.numpy(), mos.numpy(), MIN_CLIPS, logistic=False)
        results |= {f"{name}/{key}": found[key] for key in CORRELATION_NAMES}
    return results


def is_constant(scores: Tensor) -> bool:
    """Whether scores (N,), computed in float32, differ by rounding only."""
    return bool((scores.max() - scores.min()) <= ROUNDING * scores.abs().max())


def selection_score(metrics: dict[str, float | None], figures: list[str]) -> float:
    """The value that the best epoch maximises: the mean of the main scores of `figures`, see `chosen_figures`.

    An undefined figure counts as `WORST`.
    """
    found = [metrics[f"{name}/main_score"] for name in figures]
    return sum(WORST if value is None else value for value in found) / len(found)


def chosen_figures(terms: list[str], sources: list[Source]) -> list[str]:
    """The figures that decide which epoch is the best: on each data set quality, or without it all `terms`."""
    names = [SUM] if SUM in terms else terms
    return names if len(sources) == 1 else [f"{name}@{source.name}" for source in sources for name in names]


def undefined(metrics: dict[str, float | None]) -> list[str]:
    """The scores without figures in a row of the history."""
    return [key.split("/")[0] for key, value in metrics.items() if key.endswith("/main_score") and value is None]
