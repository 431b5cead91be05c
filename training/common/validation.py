"""Validation: score the validation clips on all processes, compute the metrics, and choose the best epoch."""

import math

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.vqa_correlation.correlations import CORRELATION_NAMES
from training.vqa_correlation.reports import metrics_or_none

from .arguments import SUM
from .steps import score, to_device

MIN_CLIPS = 3  # two points always correlate perfectly
WORST = -1.0  # lowest main score that there is
ROUNDING = 8 * torch.finfo(torch.float32).eps


def validation_batches(num_clips: int, batch_size: int, rank: int, num_processes: int) -> list[list[tuple[int, int]]]:
    """This process's batches of `(0, index)`. The last clip is repeated so that all processes have equally many."""
    share = list(range(rank, num_clips, num_processes))
    share += [num_clips - 1] * (math.ceil(num_clips / num_processes) - len(share))
    return [[(0, index) for index in share[start : start + batch_size]] for start in range(0, len(share), batch_size)]


def score_clips(
    accelerator: Accelerator, model: nn.Module, loader: DataLoader, scores: list[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Scores and labels (N,) by name, in the order of the data set, and the messages of the unreadable clips."""
    modes = {module: module.training for module in model.modules()}  # frozen parts do not train, see `train_mode`
    model.eval()
    rows, failed = {}, []
    bar = tqdm(loader, desc="validation", leave=False, disable=not accelerator.is_main_process or None)
    for batch in bar:
        batch = to_device(batch, accelerator.device)
        with torch.no_grad():
            outputs = score(model, batch, scores)
        for row, index in enumerate(batch["index"].tolist()):
            rows[index] = {name: (outputs[name][row].item(), batch["labels"][name][row].item()) for name in scores}
        failed += batch["failed"]
    for module, training in modes.items():
        module.training = training
    rows = dict(gather_object(list(rows.items())))
    ordered = [rows[index] for index in sorted(rows)]
    predicted, labels = (
        {name: torch.tensor([row[name][place] for row in ordered]) for name in scores} for place in (0, 1)
    )
    return predicted, labels, gather_object(failed)


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


def selection_score(metrics: dict[str, float | None], terms: list[str]) -> float:
    """The value that the best epoch maximises: the main score of quality, or the mean over `terms` without quality.

    An undefined figure counts as `WORST`.
    """
    found = [metrics[f"{name}/main_score"] for name in chosen_terms(terms)]
    return sum(WORST if value is None else value for value in found) / len(found)


def chosen_terms(terms: list[str]) -> list[str]:
    """The scores that decide which epoch is the best."""
    return [SUM] if SUM in terms else terms


def undefined(metrics: dict[str, float | None]) -> list[str]:
    """The scores without figures in a row of the history."""
    return [key.split("/")[0] for key, value in metrics.items() if key.endswith("/main_score") and value is None]
