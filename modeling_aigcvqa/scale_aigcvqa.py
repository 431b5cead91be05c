"""What the numbers mean: where scores lie among the scores of reference clips, and which opinion they stand for.

A config may hold two things. Its `reference` has quantiles of the scores of some clips: a score then has a percentile
among them. Its `calibration` is a monotone curve from the quality score to the mean opinion scores (MOS) of some clips.
Both are of the weights that they stand beside, and say nothing about clips of another kind.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from .names_aigcvqa import BRANCHES, PERCENTILE_OF, QUALITY_MOS, SCORES

RANGES = ("very low", "low", "middle", "high", "very high")  # each a fifth of the reference
LEVELS = 101  # quantiles of a reference, from the smallest score to the largest
MIN_REFERENCE = 20  # clips


def make_reference(of: str, scores: Mapping[str, Sequence[float]], branches: Sequence[str]) -> dict[str, Any]:
    """The reference of a config.

    Args:
        of: what the clips are, as the reader of a percentile needs to know it: "240 clips of generator X".
        scores: scores (N,) of the same N clips by name: "quality_score", ...
        branches: whose sum the quality score is.

    Raises:
        ValueError: for fewer than `MIN_REFERENCE` clips.
    """
    clips = min(map(len, scores.values()))
    if clips < MIN_REFERENCE:
        raise ValueError(f"{clips} clips have scores; a reference needs at least {MIN_REFERENCE}.")
    quantiles = {name: _quantiles(sorted(values)) for name, values in scores.items()}
    return {"of": of, "clips": clips, "branches": list(branches), "quantiles": quantiles}


def _quantiles(ordered: list[float]) -> list[float]:
    """`LEVELS` evenly spaced quantiles, linear between two scores (method 7 of Hyndman and Fan, 1996)."""
    places = [level * (len(ordered) - 1) / (LEVELS - 1) for level in range(LEVELS)]
    return [_between(ordered, place) for place in places]


def _between(values: Sequence[float], place: float) -> float:
    below = min(int(place), len(values) - 2)
    return values[below] + (place - below) * (values[below + 1] - values[below])


def percentile(value: float, quantiles: Sequence[float]) -> float:
    """The share of reference scores below `value`, 0 to 100; equal ones count half."""
    left, right = bisect_left(quantiles, value), bisect_right(quantiles, value)
    step = 100 / (len(quantiles) - 1)
    if left < right:  # one of the quantiles, or several equal ones
        return (left + right - 1) / 2 * step
    if left in (0, len(quantiles)):  # below or above all
        return 0.0 if left == 0 else 100.0
    low, high = quantiles[left - 1 : left + 1]
    return (left - 1 + (value - low) / (high - low)) * step


def range_of(percent: float) -> str:
    """The word for a percentile: "very low" for the lowest fifth of the reference, ..., "very high" for the highest."""
    return RANGES[min(int(percent / 20), len(RANGES) - 1)]


def precision_of(clips: int) -> float:
    """By how many points a percentile may be off, as half a 95 % interval, because the reference is a sample."""
    return 100 * 1.96 * math.sqrt(0.25 / clips)


def on_scale(
    scores: Mapping[str, Any], reference: dict | None, calibration: dict | None, branches: Sequence[str]
) -> dict[str, float]:
    """The percentiles of a clip's scores, `quality_percentile`, ..., and `quality_mos`, its MOS by the calibration.

    Args:
        scores: of the clip, by name; none for a clip that could not be scored.
        branches: that are built. What is of another sum than theirs is left out.
    """
    result = {}
    for score, name in PERCENTILE_OF.items():
        quantiles = reference["quantiles"].get(score) if reference else None
        is_of_this_sum = score != SCORES[0] or (reference and reference["branches"] == list(branches))
        if score in scores and quantiles and is_of_this_sum:
            result[name] = percentile(scores[score], quantiles)
    if SCORES[0] in scores and calibration and calibration["branches"] == list(branches):
        result[QUALITY_MOS] = calibrated(scores[SCORES[0]], calibration)
    return result


def calibrated(quality: float, calibration: dict) -> float:
    """The MOS of a quality score: linear between the points of the curve, constant beyond its ends."""
    points, mos = calibration["scores"], calibration["mos"]
    if quality <= points[0]:
        return mos[0]
    if quality >= points[-1]:
        return mos[-1]
    above = bisect_right(points, quality)
    share = (quality - points[above - 1]) / (points[above] - points[above - 1])
    return mos[above - 1] + share * (mos[above] - mos[above - 1])


def about_scale(reference: dict | None, calibration: dict | None) -> str:
    """What percentiles, words and the MOS are of, in sentences for those who read them."""
    sentences = []
    if reference:
        sentences.append(
            f"A percentile is the share of {reference['of']} ({reference['clips']} clips) that score lower, give or "
            f"take {math.ceil(precision_of(reference['clips']))} points; each of the five words is a fifth of them. "
            "It says nothing about clips of another kind."
        )
    if calibration:
        sentences.append(
            f"The MOS is estimated from {calibration['clips']} ratings of {calibration['of']}; it was wrong by "
            f"{calibration['error']:.3g} on average for clips that the curve had not seen, and by at most "
            f"{calibration['half_width']:.3g} for {calibration['coverage']:.0%} of them."
        )
    return " ".join(sentences)


def check_reference(reference: dict) -> None:
    """Raise ValueError unless it is the reference of a config; names what is wrong."""
    _check_common(reference, "reference")
    quantiles = reference.get("quantiles")
    if not isinstance(quantiles, dict) or not quantiles or not set(quantiles) <= set(SCORES):
        raise ValueError(f"reference: expected quantiles of {list(SCORES)} (got {quantiles!r:.100}).")
    for name, values in quantiles.items():
        _check_curve(values, f"reference: the quantiles of {name}", LEVELS, LEVELS)


def check_calibration(calibration: dict) -> None:
    """Raise ValueError unless it is the calibration of a config; names what is wrong."""
    _check_common(calibration, "calibration")
    _check_curve(calibration.get("scores"), "calibration: the scores", 2, 10_000, strictly=True)
    points = len(calibration["scores"])
    _check_curve(calibration.get("mos"), "calibration: the mos", points, points)
    for name in ("error", "half_width", "coverage"):
        if not _is_number(calibration.get(name)) or calibration[name] < 0:
            raise ValueError(f"calibration: {name}={calibration.get(name)!r}: expected a number of at least 0.")


def _check_common(content: dict, field: str) -> None:
    if not isinstance(content.get("of"), str) or not _is_number(content.get("clips")) or content["clips"] < 1:
        raise ValueError(
            f"{field}: expected `of`, the name of the clips, and `clips`, their number (got {content!r:.100})."
        )
    branches = content.get("branches")
    if not isinstance(branches, list | tuple) or not set(branches) <= set(BRANCHES):
        raise ValueError(f"{field}: branches={branches!r}: expected a list of some of {list(BRANCHES)}.")


def _check_curve(values: Any, what: str, least: int, most: int, strictly: bool = False) -> None:
    if (
        not isinstance(values, list | tuple)
        or not least <= len(values) <= most
        or not all(_is_number(value) for value in values)
        or any(a > b or (strictly and a == b) for a, b in zip(values, values[1:]))
    ):
        raise ValueError(f"{what} are not {least} or more finite numbers in rising order (got {values!r:.100}).")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["about_scale", "make_reference", "on_scale", "percentile", "range_of"]
