"""SROCC, PLCC, KROCC, RMSE and main score between scores and MOS, for all samples and for blocks of resamples.

RMSE is computed after the scores are given the mean and standard deviation of the MOS, as in the test scripts of DOVER
(Wu et al., ICCV 2023) and T2VQA (Kou et al., 2024). The main score (SROCC + PLCC) / 2 is from NTIRE 2024 Quality
Assessment of AI-Generated Content, video track.
"""

import numpy as np
from scipy import stats

from .resampling import Statistic, drawn_samples

# Up to this N, KROCC of a block of resamples is a product with the (N, N) matrix of concordant pairs (32 MiB at 2048).
# For more samples scipy computes each resample in O(N log N).
MAX_CONCORDANCE_SAMPLES = 2048
CORRELATION_NAMES = ("srocc", "plcc", "krocc", "rmse", "main_score")


class Ranked:
    """Values (N,), sorted once, so that the mid-ranks in each resample can be computed without another sort."""

    def __init__(self, values: np.ndarray):
        self.order = np.argsort(values, kind="stable")
        _, self.starts, self.codes = np.unique(values[self.order], return_index=True, return_inverse=True)
        self.dense = np.empty(values.size, dtype=np.int64)
        self.dense[self.order] = self.codes

    def counts(self, weights: np.ndarray) -> np.ndarray:
        """Weights (B, N) -> how often each of the U distinct values was drawn (B, U)."""
        return np.add.reduceat(weights[:, self.order], self.starts, axis=1)

    def centred_ranks(self, counts: np.ndarray) -> np.ndarray:
        """Counts (B, U) -> mid-ranks of the samples minus the mean rank (B, N), (M + 1) / 2 for M drawn samples."""
        ranks = np.cumsum(counts, axis=1)
        middle = ranks - (counts - 1) / 2
        return middle[:, self.dense] - (ranks[:, -1:] + 1) / 2


def _weighted_plcc(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """PLCC of each resample: standardised x and y (N,), weights (B, N) -> (B,)."""
    sums = weights @ np.stack([x, y, x * x, y * y, x * y], axis=1) / weights.sum(1)[:, None]
    mean_x, mean_y, xx, yy, xy = sums.T
    return (xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2))


def _weighted_sd(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Standard deviation of each resample: standardised y (N,), weights (B, N) -> (B,)."""
    drawn = weights.sum(1)
    return np.sqrt(np.maximum(weights @ (y * y) / drawn - (weights @ y / drawn) ** 2, 0))


def _weighted_krocc(
    concordance: np.ndarray, weights: np.ndarray, counts_x: np.ndarray, counts_y: np.ndarray
) -> np.ndarray:
    """Kendall's tau-b of each resample: concordance (N, N), weights (B, N), counts (B, U) and (B, V) -> (B,)."""
    concordant = np.einsum("bn,bn->b", weights @ concordance, weights) / 2
    drawn = weights.sum(1)
    pairs = drawn * (drawn - 1) / 2
    untied_x = pairs - (counts_x * (counts_x - 1)).sum(1) / 2
    untied_y = pairs - (counts_y * (counts_y - 1)).sum(1) / 2
    return concordant / np.sqrt(untied_x * untied_y)


def krocc(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b of x (N,) and y (N,). The asymptotic method skips the exact p-value, which is not needed."""
    return stats.kendalltau(x, y, method="asymptotic" if x.size > 2 else "auto").statistic


def point_metrics(scores: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """The figures in `CORRELATION_NAMES` for scores (N,) and MOS (N,)."""
    srocc = stats.spearmanr(scores, mos).statistic
    plcc = stats.pearsonr(scores, mos).statistic
    matched = (scores - scores.mean()) / scores.std() * mos.std() + mos.mean()
    rmse = np.sqrt(np.mean((matched - mos) ** 2))
    return {"srocc": srocc, "plcc": plcc, "krocc": krocc(scores, mos), "rmse": rmse, "main_score": (srocc + plcc) / 2}


def resampled_metrics(scores: np.ndarray, mos: np.ndarray) -> Statistic:
    """`point_metrics` for blocks of resamples of scores (N,) and MOS (N,). Constant resamples give NaN."""
    x, y = (scores - scores.mean()) / scores.std(), (mos - mos.mean()) / mos.std()
    ranked_x, ranked_y = Ranked(scores), Ranked(mos)
    concordance = None
    if x.size <= MAX_CONCORDANCE_SAMPLES:
        signs_x, signs_y = (np.sign(ranked.dense[:, None] - ranked.dense) for ranked in (ranked_x, ranked_y))
        concordance = (signs_x * signs_y).astype(np.float64)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        counts_x, counts_y = ranked_x.counts(weights), ranked_y.counts(weights)
        constant = np.maximum(counts_x.max(1), counts_y.max(1)) == weights.sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ranks_x, ranks_y = ranked_x.centred_ranks(counts_x), ranked_y.centred_ranks(counts_y)
            covariance = np.einsum("bn,bn,bn->b", weights, ranks_x, ranks_y)
            variances = np.einsum("bn,bn->b", weights, ranks_x**2) * np.einsum("bn,bn->b", weights, ranks_y**2)
            srocc = covariance / np.sqrt(variances)
            plcc = np.clip(_weighted_plcc(x, y, weights), -1, 1)
            # The mean squared error between matched scores and MOS is 2 sd^2 (1 - PLCC).
            rmse = mos.std() * _weighted_sd(y, weights) * np.sqrt(2 * (1 - plcc))
            if concordance is not None:
                tau = _weighted_krocc(concordance, weights, counts_x, counts_y)
            else:
                drawn = map(drawn_samples, weights)
                tau = np.array([krocc(ranked_x.dense[row], ranked_y.dense[row]) for row in drawn])
        values = {"srocc": srocc, "plcc": plcc, "krocc": tau, "rmse": rmse, "main_score": (srocc + plcc) / 2}
        return {name: np.where(constant, np.nan, value) for name, value in values.items()}

    return statistic
