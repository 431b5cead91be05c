"""Bootstrap of samples, or of clusters of samples: resampling with replacement, and percentile intervals.

A resample is a row of weights that say how often each sample was drawn. The statistics of a block of resamples are then
matrix products.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .checks import as_groups, as_vector, check_bootstrap

# Elements of an array with one block of resamples, about 16 MiB as float64.
BLOCK_ELEMENTS = 2_000_000
# An interval needs at least this share of resamples with a value, which constant resamples do not have.
MIN_VALID_RESAMPLES = 0.5

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights (B, N) -> values (B,) by name


def resamples(
    num_samples: int, num_bootstrap: int, seed: Any, clusters: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Blocks of float64 weights (B, N) for N samples, `num_bootstrap` rows in total.

    Args:
        clusters: names (N,). Samples with the same name are drawn together; None draws every sample on its own.
    """
    codes = np.arange(num_samples) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    number = codes.max() + 1
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // num_samples)
    for start in range(0, num_bootstrap, block):
        drawn = rng.integers(0, number, (min(block, num_bootstrap - start), number))
        # Every row gets its own range of numbers, so that one bincount counts the draws of all rows.
        drawn += number * np.arange(len(drawn))[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield counts.astype(np.float64)[:, codes]


def drawn_samples(weights: np.ndarray) -> np.ndarray:
    """Weights (N,) of one resample -> indices of the M drawn samples (M,)."""
    return np.repeat(np.arange(weights.size), weights.astype(np.int64))


def distributions(
    statistic: Statistic, num_samples: int, num_bootstrap: int, seed: Any, clusters: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Values (R,) of a statistic on R resamples, by name; {} for no resamples."""
    blocks = [statistic(weights) for weights in resamples(num_samples, num_bootstrap, seed, clusters)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def intervals(values: dict[str, np.ndarray], confidence_level: float) -> dict[str, list[float] | None]:
    """Percentile intervals [low, high] of values (R,), by name.

    Resamples without a value (NaN) are left out. The interval is None if more than half of the resamples are left out.
    """
    tail = (1 - confidence_level) / 2
    found = {}
    for name, resampled in values.items():
        valid = resampled[np.isfinite(resampled)]
        enough = valid.size >= max(1, MIN_VALID_RESAMPLES * resampled.size)
        found[name] = [float(end) for end in np.quantile(valid, [tail, 1 - tail])] if enough else None
    return found


def mean_interval(
    values: Any,
    clusters: Sequence[str] | None = None,
    *,
    num_bootstrap: int = 1000,
    confidence_level: float = 0.95,
    seed: int = 0,
) -> list[float] | None:
    """Percentile interval [low, high] of the mean of values (N,); None if `num_bootstrap` is 0.

    `clusters` (N,), `num_bootstrap`, `confidence_level` and `seed`: see `correlation_metrics`.
    """
    check_bootstrap(num_bootstrap, confidence_level)
    values = as_vector(values, "values")
    groups = None if clusters is None else as_groups(clusters, "clusters", values.size)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": weights @ values / weights.sum(1)}

    found = distributions(statistic, values.size, num_bootstrap, seed, groups)
    return intervals(found, confidence_level)["mean"] if found else None
