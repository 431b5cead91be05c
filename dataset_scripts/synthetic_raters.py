"""The quality of a clip, computed from its three latent qualities, and the simulated raters who give opinion scores."""

import numpy as np
from scipy.stats import spearmanr

NUM_RATERS = 27
DIMENSIONS = ("technical", "aesthetic", "alignment")
WEIGHTS = {"technical": 0.4, "aesthetic": 0.3, "alignment": 0.3}
INTERACTION = 0.4

_LOWEST, _HIGHEST = 8.0, 92.0  # points that a flawless rater gives to quality 0 and 1


def quality_of(technical: float, aesthetic: float, alignment: float) -> float:
    """The overall quality in 0..1, without noise.

    quality = (1 - k) * (0.4 t + 0.3 a + 0.3 l) + k * (t * a * l) ** (1/3), with k = 0.4.

    With the arithmetic mean alone, a perfect picture of the wrong thing would keep most of its points. The geometric
    mean adds an interaction: a clip that fails badly in one respect gains little from the other two.
    """
    linear = WEIGHTS["technical"] * technical + WEIGHTS["aesthetic"] * aesthetic + WEIGHTS["alignment"] * alignment
    return (1 - INTERACTION) * linear + INTERACTION * (technical * aesthetic * alignment) ** (1 / 3)


def make_raters(seed: int) -> dict[str, np.ndarray]:
    """The traits of the 27 raters, each (27,): bias in points, scale, standard deviation of the noise in points."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    return {
        "bias": rng.normal(0.0, 6.0, NUM_RATERS),
        "scale": np.clip(rng.normal(1.0, 0.15, NUM_RATERS), 0.5, 1.5),
        "noise": rng.uniform(9.0, 18.0, NUM_RATERS),
    }


def opinion(value: float, raters: dict[str, np.ndarray], rater: int, rng: np.random.Generator) -> float:
    """One rater's opinion, in 0..100, about a value in 0..1."""
    points = _LOWEST + (_HIGHEST - _LOWEST) * value
    noise = rng.normal(0.0, raters["noise"][rater])
    return float(np.clip(50.0 + raters["scale"][rater] * (points - 50.0) + raters["bias"][rater] + noise, 0.0, 100.0))


def mean_opinion(value: float, raters: dict[str, np.ndarray], rng: np.random.Generator) -> float:
    """The mean of the raters' opinions, each in 0..100, about a value in 0..1."""
    points = _LOWEST + (_HIGHEST - _LOWEST) * value
    noise = rng.normal(0.0, 1.0, NUM_RATERS) * raters["noise"]
    opinions = 50.0 + raters["scale"] * (points - 50.0) + raters["bias"] + noise
    return float(np.clip(opinions, 0.0, 100.0).mean())


def noise_ceiling(mos: list[float], quality: list[float]) -> float:
    """SROCC of the MOS with the quality without noise: the SROCC of a perfect predictor on these clips."""
    return float(spearmanr(mos, quality).statistic)
