"""How baselines read and score clips: in batches, and one clip that cannot be scored costs itself alone."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.pipelines.pt_utils import PipelineDataset

Score = Callable[[Dataset], Iterator[dict]]
EXTENDED = "extended"  # in the result of a clip for which the published protocol has no answer


def scored_in_batches(
    name: str,
    prepare: Callable[[dict], dict],
    compute: Callable[[list[dict]], list[float]],
    batch_size: int,
    workers: int,
) -> Score:
    """The `score` of a `Scorer`.

    Args:
        name: of the score.
        prepare: a row of `load_clips` -> what `compute` needs; raises ValueError, TypeError or OSError for a clip that
            cannot be read. With a true `EXTENDED`, the result of the clip has it too.
        compute: prepared clips -> their scores, in order.
        workers: processes that prepare.
    """

    def score(clips: Dataset) -> Iterator[dict]:
        items = PipelineDataset(clips, _prepared, {"prepare": prepare})
        for batch in DataLoader(items, batch_size=batch_size, num_workers=workers, collate_fn=list):
            good = [item for item in batch if "error" not in item]
            scores = iter(compute(good) if good else [])
            for item in batch:
                yield item if "error" in item else {name: next(scores)} | _extended(item)

    return score


def _prepared(row: dict, prepare: Callable[[dict], dict]) -> dict[str, Any]:
    try:
        return prepare(row)
    except (ValueError, TypeError, OSError) as error:
        return {"error": str(error)}


def _extended(item: dict) -> dict[str, bool]:
    return {EXTENDED: True} if item.get(EXTENDED) else {}


def prompt_of(row: dict) -> str:
    """The prompt of a row. Raises ValueError if it has none."""
    prompt = row.get("prompt") or ""
    if not prompt.strip():
        raise ValueError("the clip has no prompt, but this baseline compares frames with the prompt.")
    return prompt


def chosen_device(device: str) -> str:
    """The device; "auto" for a GPU if there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
