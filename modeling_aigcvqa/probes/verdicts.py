"""From the scores of many clips to one row per probe, with a verdict. The thresholds stand at the top of this file."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..names_aigcvqa import SCORES
from .degradations import DEGRADATIONS, STRENGTHS
from .tricks import ASCENT, ASCENT_TITLE, TRICKS

GOOD, PARTLY, BAD = "good", "partly", "bad"

# A degradation is noticed if the quality of at least so many clips falls when it is strong, and falls further from mild
# to strong. Half of the clips is chance.
NOTICED, FURTHER, BARELY_NOTICED = 0.9, 0.8, 0.7
# A trick is resisted if it raises the mean quality by at most so many deviations of the clips' scores.
RESISTED, BARELY_RESISTED = 0.1, 0.5
# A prompt is told apart if the clip's own beats at least so many of the others.
TOLD_APART, BARELY_TOLD_APART = 0.9, 0.7
# A score is steady if it moves by at most so many deviations in the mean; where only rounding differs, by far less.
STEADY, BARELY_STEADY = 0.1, 0.3
ROUNDING, BARELY_ROUNDING = 0.01, 0.05

STEADINESS_TITLES = {
    "again": "A second run",
    "batch": "Another batch",
    "bfloat16": "bfloat16 in place of the dtype of the weights",
    "frame_dropped": "One frame dropped",
    "pixel_shifted": "Shifted by one pixel",
    "encoded_again": "Encoded again (H.264, rate factor 12)",
    "half_resolution": "Half the resolution",
    "half_frame_rate": "Half the frame rate",
}


@dataclass(frozen=True)
class Row:
    """A probe and what came of it.

    Attributes:
        group: "degradations", "tricks", "swaps" or "steadiness".
        name, title: of the probe.
        figures: by name.
        verdict: "good", "partly" or "bad".
        worst: the file of the clip that shows it worst; None where no picture could.
    """

    group: str
    name: str
    title: str
    figures: dict[str, float]
    verdict: str
    worst: str | None = field(default=None)


def rows_of(records: list[dict[str, Any]]) -> list[Row]:
    """One row per probe.

    Args:
        records: of at least three clips, as `Prober` gives them, with their `file`.
    """
    spread = {name: _spread(records, name) for name in SCORES if name in records[0]["original"]}
    return [
        *(_degradation_row(records, name) for name in DEGRADATIONS),
        *(_trick_row(records, name, spread) for name in records[0]["tricks"]),
        *_swap_rows(records),
        *(_steadiness_row(records, name, spread) for name in STEADINESS_TITLES),
    ]


def _spread(records: list[dict], name: str) -> float:
    """The deviation of the clips' scores, which tells how large a change is."""
    return float(np.std([record["original"][name] for record in records], ddof=1)) or float("nan")


def _changes(records: list[dict], group: str, name: str, score: str = "quality_score") -> np.ndarray:
    return np.array([record[group][name][score] - record["original"][score] for record in records])


def _degradation_row(records: list[dict], name: str) -> Row:
    falls = {strength: _changes(records, "degradations", f"{name}/{strength}") for strength in STRENGTHS}
    figures = {f"falls_{strength}": float(np.mean(change < 0)) for strength, change in falls.items()}
    figures["falls_further"] = float(np.mean(falls["strong"] < falls["mild"]))
    noticed = figures["falls_strong"]
    verdict = PARTLY if noticed >= BARELY_NOTICED else BAD
    if noticed >= NOTICED and figures["falls_further"] >= FURTHER:
        verdict = GOOD
    worst = records[int(falls["strong"].argmax())]["file"]
    return Row("degradations", name, DEGRADATIONS[name].title, figures, verdict, worst)


def _trick_row(records: list[dict], name: str, spread: dict[str, float]) -> Row:
    figures = {
        f"lift_{score.removesuffix('_score')}": float(_changes(records, "tricks", name, score).mean() / deviation)
        for score, deviation in spread.items()
    }
    change = _changes(records, "tricks", name)
    figures["raised"] = float(np.mean(change > 0))
    verdict = _graded(figures["lift_quality"], RESISTED, BARELY_RESISTED)
    title = ASCENT_TITLE if name == ASCENT else TRICKS[name].title
    return Row("tricks", name, title, figures, verdict, records[int(change.argmax())]["file"])


def _swap_rows(records: list[dict]) -> list[Row]:
    """Own prompts against those of other clips. Equal scores count as lost."""
    wins = [np.mean([own > other for other in others]) for own, *others in _swaps(records) if others]
    if not wins:
        return []
    share = float(np.mean(wins))
    verdict = _graded(-share, -TOLD_APART, -BARELY_TOLD_APART)
    return [Row("swaps", "own_prompt", "Own prompt against those of other clips", {"wins": share}, verdict)]


def _swaps(records: list[dict]) -> list[list[float]]:
    return [record["swaps"] for record in records if "swaps" in record]


def _steadiness_row(records: list[dict], name: str, spread: dict[str, float]) -> Row:
    change = np.abs(_changes(records, "steadiness", name)) / spread["quality_score"]
    figures = {"mean_change": float(change.mean()), "largest_change": float(change.max())}
    if name == "again":
        verdict = GOOD if figures["largest_change"] == 0 else BAD
    elif name in ("batch", "bfloat16"):
        verdict = _graded(figures["mean_change"], ROUNDING, BARELY_ROUNDING)
    else:
        verdict = _graded(figures["mean_change"], STEADY, BARELY_STEADY)
    return Row("steadiness", name, STEADINESS_TITLES[name], figures, verdict)


def _graded(value: float, good: float, partly: float) -> str:
    if value <= good:
        return GOOD
    return PARTLY if value <= partly else BAD
