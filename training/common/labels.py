"""Labels that no loss can use are found before the first step. A branch may have labels on some clips only."""

import math

import numpy as np
from datasets import Dataset

from .arguments import SUM
from .pairs import Pairs

SHOWN = 5  # clips named in a message
MIN_LABELLED = 2  # the losses compare clips


def check_labels(clips: dict[str, Dataset], columns: dict[str, str]) -> dict[str, int]:
    """Check the labels of all parts; returns how many training clips have none, for the scores where some have none.

    Args:
        clips: the clips by part, "train" and "validation".
        columns: label column of each score. An empty label is allowed for a branch, not for `mos` or quality.

    Raises:
        ValueError: for a column that is missing, a label that is no finite number or is missing, or a branch with too
            few labels; names the ids of the clips.
    """
    complete = {"mos", columns[SUM]}
    for part, rows in clips.items():
        missing = sorted({*complete, *columns.values()} - set(rows.column_names))
        if missing:
            raise ValueError(f"labels={columns}: the data set has no column {missing} (it has {rows.column_names}).")
        for column in sorted({*complete, *columns.values()}):
            _check_column(part, column, rows["id"], rows[column], column in complete)
    number = len(clips["train"])
    labelled = {score: sum(label is not None for label in clips["train"][name]) for score, name in columns.items()}
    for score, count in labelled.items():
        if count < MIN_LABELLED:
            raise ValueError(
                f"column '{columns[score]}', the labels of {score}: {count} of {number} training clips have one, but "
                f"the losses compare clips and need {MIN_LABELLED}. Name another column with --labels, or leave the "
                "branch out with --branches."
            )
    return {score: number - count for score, count in labelled.items() if count < number}


def check_preferences(data: str, pairs: dict[str, Pairs], columns: dict[str, str]) -> dict[str, int]:
    """Check the preferences of all parts; returns how many training pairs have none, as `check_labels` does.

    Args:
        data: the data set, for messages.
        pairs: the pairs by part, "train" and "validation".
        columns: column of the preferences of each score.

    Raises:
        ValueError: for a column that is missing or in which a part has no preference.
    """
    for part, found in pairs.items():
        for score, column in columns.items():
            if column not in found.preferences:
                raise ValueError(
                    f"'{data}' has no column {column!r} with preferences for the {score} score (it has "
                    f"{sorted(found.preferences)}); name one with --labels {score}=COLUMN."
                )
            if not np.isfinite(found.preferences[column]).any():
                raise ValueError(f"'{data}', column {column!r}: no pair of the {part} part has a preference.")
    found = {score: int(np.isnan(pairs["train"].preferences[column]).sum()) for score, column in columns.items()}
    return {score: number for score, number in found.items() if number}


def _check_column(part: str, column: str, ids: list, labels: list, complete: bool) -> None:
    wrong = [f"{name} ({label!r})" for name, label in zip(ids, labels) if label is not None and not _is_finite(label)]
    if wrong:
        raise ValueError(
            f"column '{column}' of the {part} part: {len(wrong)} labels are no finite numbers: {some(wrong)}. Correct "
            "them, or leave the labels of a branch empty where there are none."
        )
    empty = [name for name, label in zip(ids, labels) if label is None]
    if empty and complete:
        raise ValueError(
            f"column '{column}' of the {part} part: {len(empty)} clips have no label: {some(empty)}. Add it, or leave "
            "these clips out of the split."
        )


def _is_finite(label: object) -> bool:
    return isinstance(label, int | float) and math.isfinite(label)


def some(names: list) -> str:
    """The first names of a list, for a message."""
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
