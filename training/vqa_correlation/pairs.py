"""Accuracy of score differences against human preferences, without and with ties.

Accuracy with ties is from Deutsch, Foster and Freitag, "Ties Matter", EMNLP 2023 (arXiv 2305.14324), and is used by
VideoGen-RewardBench (Liu et al., 2025).
"""

from typing import Any

import numpy as np

from .checks import (
    as_groups,
    as_preferences,
    as_vectors,
    check_bootstrap,
    check_enough,
    check_lengths,
    check_varies,
    floats,
)
from .resampling import distributions, intervals


class _Pairs:
    """Pairs sorted by |a - b|. Each distinct |a - b| is a candidate for the tie threshold."""

    def __init__(self, difference: np.ndarray, preferences: np.ndarray):
        self.order = order = np.lexsort((preferences, difference, np.abs(difference)))
        self.size = np.abs(difference[order])
        self.is_tie = preferences[order] == 0
        self.is_agreed = difference[order] * preferences[order] > 0
        self.run_ends = np.flatnonzero(np.diff(self.size, append=np.inf) > 0)

    def without_ties(self, weights: np.ndarray) -> np.ndarray:
        """Weights (B, N) -> share (B,) of the pairs with a human preference in which the scores agree with it."""
        with np.errstate(invalid="ignore"):
            return weights @ self.is_agreed / (weights @ ~self.is_tie)

    def calibrated(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (B, N) -> best accuracy with ties (B,) and the smallest threshold (B,) that reaches it."""
        gains = np.cumsum(weights * (self.is_tie.astype(float) - self.is_agreed), axis=1)[:, self.run_ends]
        gains = np.concatenate([np.zeros((len(weights), 1)), gains], axis=1)
        thresholds = np.append(0.0, self.size[self.run_ends])
        best = gains.argmax(1)
        agreed = weights @ self.is_agreed + gains[np.arange(len(weights)), best]
        return agreed / weights.sum(1), thresholds[best]

    def at_threshold(self, weights: np.ndarray, threshold: float) -> np.ndarray:
        """Weights (B, N) -> accuracy with ties (B,) at a fixed threshold."""
        correct = np.where(self.size <= threshold, self.is_tie, self.is_agreed)
        return weights @ correct / weights.sum(1)


def pairwise_accuracy(
    scores_a: Any,
    scores_b: Any,
    preferences: Any,
    *,
    tie_threshold: float | None = None,
    num_bootstrap: int = 0,
    confidence_level: float = 0.95,
    seed: int = 0,
    names: tuple[str, str] = ("scores_a", "scores_b"),
    clusters: Any = None,
) -> dict[str, Any]:
    """Accuracy of score differences against human preferences, without and with ties.

    Without ties: among the pairs in which people prefer one clip, the share in which the scores prefer the same clip.
    Equal scores count as wrong. None if every pair is a human tie.

    With ties: accuracy over all pairs with the three classes A, B and tie, where the scores tie if |a - b| is at most
    the threshold. By default the threshold with the highest accuracy on the given pairs is used (tie calibration,
    Deutsch et al., 2023), which makes the accuracy optimistic; to avoid this, pass a threshold found on other data.

    Args:
        scores_a, scores_b: scores (N,) of the two clips of each pair, N >= 2.
        preferences: (N,) of "A", "B", "same" (also "tie"; any case) or 1, -1, 0.
        tie_threshold: number >= 0; None for tie calibration.
        num_bootstrap, confidence_level, seed, names: see `correlation_metrics`; each resample is calibrated anew.
        clusters: names (N,) of pairs that are resampled together, such as prompts; None resamples single pairs.
    """
    check_bootstrap(num_bootstrap, confidence_level)
    if tie_threshold is not None and not 0 <= tie_threshold < np.inf:
        raise ValueError(f"tie_threshold={tie_threshold} must be finite and at least 0; pass None to calibrate it.")
    scores_a, scores_b = as_vectors(scores_a, scores_b, names)
    preferences = as_preferences(preferences)
    check_lengths({names[0]: scores_a, "preferences": preferences})
    check_enough(scores_a, names[0])
    check_varies(np.concatenate([scores_a, scores_b]), f"{names[0]} with {names[1]}", "check that the model is loaded")
    pairs = _Pairs(scores_a - scores_b, preferences)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        calibrate = tie_threshold is None
        with_ties = pairs.calibrated(weights)[0] if calibrate else pairs.at_threshold(weights, tie_threshold)
        return {"accuracy_without_ties": pairs.without_ties(weights), "accuracy_with_ties": with_ties}

    once = np.ones((1, scores_a.size))
    threshold = pairs.calibrated(once)[1][0] if tie_threshold is None else tie_threshold
    clusters = None if clusters is None else as_groups(clusters, "clusters", scores_a.size)[pairs.order]
    resampled = distributions(statistic, scores_a.size, num_bootstrap, seed, clusters)
    return {
        **floats({name: values[0] for name, values in statistic(once).items()}),
        "tie_threshold": float(threshold),
        "num_pairs": int(scores_a.size),
        "num_human_ties": int((preferences == 0).sum()),
        "num_model_ties": int((np.abs(scores_a - scores_b) <= threshold).sum()),
        "intervals": intervals(resampled, confidence_level),
    }
