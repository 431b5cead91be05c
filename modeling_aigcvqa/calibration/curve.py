"""A monotone curve from quality scores to mean opinion scores (MOS), and how wrong it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..uncertainty_aigcvqa import COVERAGE, conformal_half_width

try:
    from scipy.optimize import isotonic_regression
    from scipy.stats import spearmanr
except ImportError as error:
    raise ImportError("calibration needs scipy: pip install 'aigcvqa[compare]'") from error

MIN_RATED = 20  # clips
FOLDS = 5


@dataclass(frozen=True)
class Curve:
    """A monotone curve, linear between its points.

    Attributes:
        scores, mos: the points (P,), both rising.
        error: mean absolute error on clips that the curve was not fitted to, in units of the MOS.
        error_of_mean: of the mean MOS as the estimate for every clip, on the same clips.
        half_width: the largest error of `COVERAGE` of these clips.
        srocc: rank correlation of the quality scores with the MOS.
        clips: number of rated clips.
        folds_by: "prompt" or "clip": what is never both in the fit and in the measured error.
    """

    scores: np.ndarray
    mos: np.ndarray
    error: float
    error_of_mean: float
    half_width: float
    srocc: float
    clips: int
    folds_by: str

    @property
    def is_useful(self) -> bool:
        """Whether it estimates the MOS of new clips better than the mean MOS does."""
        return len(self.scores) > 1 and self.error < self.error_of_mean

    def to_config(self, of: str, branches: Sequence[str]) -> dict[str, Any]:
        """The `calibration` of a config; `of` says what the rated clips are."""
        return {
            "of": of,
            "clips": self.clips,
            "branches": list(branches),
            "scores": self.scores.tolist(),
            "mos": self.mos.tolist(),
            "error": self.error,
            "half_width": self.half_width,
            "coverage": COVERAGE,
        }


def fit_curve(quality: Sequence[float], mos: Sequence[float], prompts: Sequence[str | None]) -> Curve:
    """Fit a curve by isotonic regression, and measure its error by cross-validation in five folds.

    The level of each block of the regression stands at the mean score of the block, with lines between them (centred
    isotonic regression; Oron and Flournoy, 2017), so that different scores keep their order.

    Args:
        quality, mos: of N clips.
        prompts: of the clips. Clips of one prompt are in one fold, if there are enough prompts.

    Raises:
        ValueError: for fewer than `MIN_RATED` clips.
    """
    quality, mos = np.asarray(quality, np.float64), np.asarray(mos, np.float64)
    if len(mos) < MIN_RATED:
        raise ValueError(f"{len(mos)} clips have a score and a MOS; a calibration needs at least {MIN_RATED}.")
    names = np.asarray([prompt or f"clip {number}" for number, prompt in enumerate(prompts)])
    by_prompt = len(np.unique(names)) >= FOLDS
    errors, errors_of_mean = np.empty(len(mos)), np.empty(len(mos))
    for held_out in _folds(names if by_prompt else np.arange(len(mos))):
        others = ~held_out
        points = isotonic_points(quality[others], mos[others])
        errors[held_out] = np.abs(np.interp(quality[held_out], *points) - mos[held_out])
        errors_of_mean[held_out] = np.abs(mos[others].mean() - mos[held_out])
    is_constant = np.ptp(quality) == 0 or np.ptp(mos) == 0
    return Curve(
        *isotonic_points(quality, mos),
        error=float(errors.mean()),
        error_of_mean=float(errors_of_mean.mean()),
        half_width=conformal_half_width(errors.tolist(), COVERAGE),
        srocc=0.0 if is_constant else float(spearmanr(quality, mos).statistic),
        clips=len(mos),
        folds_by="prompt" if by_prompt else "clip",
    )


def isotonic_points(quality: np.ndarray, mos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points (P,), (P,) of the curve for scores (N,) and MOS (N,)."""
    places, inverse, counts = np.unique(quality, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, mos) / counts
    fitted = isotonic_regression(means, weights=counts)
    starts = fitted.blocks[:-1]
    centres = np.add.reduceat(places * counts, starts) / np.add.reduceat(counts, starts)
    return centres, fitted.x[starts]


def _folds(names: np.ndarray) -> list[np.ndarray]:
    """Masks (N,) of the samples in each fold; samples with the same name are in the same fold."""
    codes = np.unique(names, return_inverse=True)[1]
    fold_of = np.random.default_rng(0).permutation(codes.max() + 1) % FOLDS
    return [fold_of[codes] == fold for fold in range(FOLDS)]
