"""The bootstrap: samples, or clusters of samples that belong together, are drawn with replacement.

Every resample is a row of weights, how often each sample was drawn. Statistics of all resamples of a block are then
matrix products.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .checks import as_groups, as_vector, check_bootstrap

# Elements of one block of resamples: bounds the memory at about 16 MiB for each array of a block.
BLOCK_ELEMENTS = 2_000_000
# An interval needs this share of resamples whose scores and MOS are not constant.
MIN_VALID_RESAMPLES = 0.5

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights (B, N) -> values (B,) by name


def resamples(
    num_samples: int, num_bootstrap: int, seed: Any, clusters: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Blocks of weights (B, N), float64, `num_bootstrap` rows in all.

    Args:
        num_samples: N.
        seed: of the drawing.
        clusters: names (N,); samples of one name are drawn together. None draws every sample by itself.
    """
    codes = np.arange(num_samples) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    number = codes.max() + 1
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // num_samples)
    for start in range(0, num_bootstrap, block):
        drawn = rng.integers(0, number, (min(block, num_bootstrap - start), number))
        yield _counts(drawn)[:, codes]


def _counts(indices: np.ndarray) -> np.ndarray:
    """How often each of K things was drawn: indices (B, K) -> float64 (B, K)."""
    num_rows, number = indices.shape
    flat = indices + number * np.arange(num_rows)[:, None]
    return np.bincount(flat.ravel(), minlength=indices.size).reshape(indices.shape).astype(np.float64)


def drawn_samples(weights: np.ndarray) -> np.ndarray:
    """The samples of one resample as indices: weights (N,) -> (M,)."""
    return np.repeat(np.arange(weights.size), weights.astype(np.int64))


def distributions(
    statistic: Statistic, num_samples: int, num_bootstrap: int, seed: Any, clusters: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The values (R,) of a statistic on R resamples, by name."""
    blocks = [statistic(weights) for weights in resamples(num_samples, num_bootstrap, seed, clusters)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def intervals(values: dict[str, np.ndarray], confidence_level: float) -> dict[str, list[float] | None]:
    """Percentile intervals [low, high] of values (R,), by name.

    Resamples without a value (NaN) are left out; None where more than half of them have none.
    """
    tail = (1 - confidence_level) / 2
    found = {}
    for name, of_resamples in values.items():
        valid = of_resamples[np.isfinite(of_resamples)]
        enough = valid.size >= max(1, MIN_VALID_RESAMPLES * of_resamples.size)
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
    """Percentile interval [low, high] of the mean of values (N,); None without resamples.

    Args:
        values: numbers (N,).
        clusters: names (N,) of samples that are drawn together, such as the prompts of clips; None for none.
    """
    check_bootstrap(num_bootstrap, confidence_level)
    values = as_vector(values, "values")
    groups = None if clusters is None else as_groups(clusters, "clusters", values.size)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": weights @ values / weights.sum(1)}

    found = distributions(statistic, values.size, num_bootstrap, seed, groups)
    return intervals(found, confidence_level)["mean"] if found else None
