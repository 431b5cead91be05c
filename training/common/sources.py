"""The data sets of a run: clips with a MOS, or pairs of clips with preferences. Each gives batches of its own."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor

from modeling_aigcvqa.provenance_aigcvqa import Provenance

from .arguments import StageArguments
from .clips import data_name, load_splits, rows_of_part, some_clips
from .labels import check_labels, check_preferences, some
from .pairs import Pairs, load_pairs

TRAINED_PARTS = ("train", "validation")
MIN_VALIDATED = 3  # clips, which a correlation needs; of pairs, as many


@dataclass(frozen=True)
class Source:
    """A data set to train on.

    Args:
        name: its name in messages and figures; every source of a run has another one.
        columns: column of the MOS, or of the preferences, of each score.
        clips: the clips of the parts "train" and "validation"; of pairs, those that occur in one.
        pairs: the pairs by part; None for clips with a MOS.
        weight: how often the data set is seen in an epoch.
        unlabelled: number of training clips without a label, for the scores of which some have none.
        maps: names of the maps of a teacher; the column `teacher_maps` names the file that has them.
        map_weight: weight of the loss on these maps.
        teacher: the provenance of the model whose scores are the labels; None for labels of people.
    """

    name: str
    columns: dict[str, str]
    clips: dict[str, Dataset]
    pairs: dict[str, Pairs] | None = None
    weight: float = 1.0
    unlabelled: dict[str, int] = field(default_factory=dict)
    maps: tuple[str, ...] = ()
    map_weight: float = 0.0
    teacher: Provenance | None = None

    @property
    def has_mos(self) -> bool:
        return self.pairs is None

    @cached_property
    def mos(self) -> Tensor:
        """The MOS (N,) of the training clips, float64."""
        return torch.tensor(self.clips["train"]["mos"], dtype=torch.float64)

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the MOS of the training clips."""
        return self.mos.mean().item(), self.mos.std().item()

    @property
    def num_train(self) -> int:
        """Number of training clips, or of training pairs."""
        return len(self.clips["train"] if self.has_mos else self.pairs["train"])

    @property
    def description(self) -> str:
        """The numbers of clips or pairs, for the banner."""
        if self.has_mos:
            return f"{len(self.clips['train'])} train, {len(self.clips['validation'])} validation"
        pairs = ", ".join(f"{len(self.pairs[part])} {part}" for part in TRAINED_PARTS)
        return f"{pairs} pairs of {sum(len(clips) for clips in self.clips.values())} clips"


def load_sources(arguments: StageArguments, scores: list[str], accelerator: Accelerator) -> list[Source]:
    """The data sets of a run, those with a MOS first, and their labels checked.

    Args:
        scores: names of the scores that may have a loss.

    Raises:
        ValueError: if a part has too few clips or pairs, or for labels that no loss can use; names the data set.
    """
    sources = []
    for number, (data, split_file) in enumerate(zip(arguments.all_data, arguments.split_files)):
        common = {"name": _names(arguments.all_data)[number], "weight": arguments.all_weights[number]}
        with accelerator.main_process_first():  # the other processes find the cache that the main process wrote
            if number < len(arguments.data):
                columns = arguments.label_columns(scores)
                clips = load_parts(arguments, data, split_file, accelerator)
                unlabelled = check_labels(clips, columns)
                sources.append(Source(columns=columns, clips=clips, unlabelled=unlabelled, **common))
            else:
                columns = arguments.preference_columns(scores)
                pairs = load_parts_of_pairs(arguments, data, split_file)
                unlabelled = check_preferences(data, pairs, columns)
                clips = {part: found.clips for part, found in pairs.items()}
                sources.append(Source(columns=columns, clips=clips, pairs=pairs, unlabelled=unlabelled, **common))
    return sources


def _names(data: list[str]) -> list[str]:
    """The names of the data sets; those that occur more than once get a number."""
    names = [data_name(entry) for entry in data]
    counts, seen = Counter(names), Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name}-{seen[name]}" if counts[name] > 1 else name)
    return unique


def load_parts(
    arguments: StageArguments, data: str, split_file: str | None, accelerator: Accelerator
) -> dict[str, Dataset]:
    """The clips of the parts "train" and "validation" of a data set with a MOS.

    Raises:
        ValueError: if a part has too few clips.
    """
    splits = load_splits(data)
    clips = {part: rows_of_part(splits, data, split_file, part) for part in TRAINED_PARTS}
    if split_file is None:  # a split file names the clips that are wanted, see `check_labels`
        clips = {part: _with_mos(rows, part, accelerator) for part, rows in clips.items()}
    clips["validation"] = some_clips(clips["validation"], arguments.max_eval_clips, arguments.seed)
    check_numbers(data, "clips", clips, arguments.batch_size)
    return clips


def load_parts_of_pairs(arguments: StageArguments, data: str, split_file: str | None) -> dict[str, Pairs]:
    """The pairs of the parts "train" and "validation" of a data set with preferences.

    Raises:
        ValueError: if a part has too few pairs.
    """
    pairs = {part: load_pairs(data, split_file, part) for part in TRAINED_PARTS}
    pairs["validation"] = pairs["validation"].some(arguments.max_eval_clips, arguments.seed)
    check_numbers(data, "pairs", pairs, arguments.batch_size // 2)
    return pairs


def check_numbers(data: str, what: str, parts: dict, batch: int) -> None:
    """Raise ValueError if the parts "train" and "validation" have too few clips or pairs."""
    for part, needed in (("train", batch), ("validation", MIN_VALIDATED)):
        if len(parts[part]) < needed:
            raise ValueError(
                f"'{data}' has {len(parts[part])} {what} in the {part} part, which needs at least {needed}; choose "
                "another split or, for the train part, a lower batch_size."
            )


def _with_mos(rows: Dataset, part: str, accelerator: Accelerator) -> Dataset:
    """The rows that have a MOS; says how many have none."""
    mos = list(rows["mos"])
    without = [name for name, value in zip(rows["id"], mos) if value is None]
    if not without:
        return rows
    accelerator.print(f"left out: {len(without)} of {len(rows)} clips of the {part} part have no MOS: {some(without)}")
    return rows.select([index for index, value in enumerate(mos) if value is not None])
