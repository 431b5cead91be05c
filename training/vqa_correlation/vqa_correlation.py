"""SROCC, PLCC, KROCC, RMSE and pairwise accuracy of video-quality scores, as one `evaluate` metric.

The functions on arrays (`correlation_metrics`, `grouped_metrics`, `group_mean_metrics`, `correlation_report`,
`pairwise_accuracy`) need no `evaluate` object; `VQACorrelation` at the end wraps them for `evaluate.load`.

Sources
- RMSE after matching mean and deviation: the test scripts of DOVER (Wu et al., ICCV 2023) and T2VQA (Kou et al., 2024).
- Four-parameter logistic: VQEG Final Report (2000), as the image- and video-quality literature prints it.
- Main score (SROCC + PLCC) / 2: NTIRE 2024 Quality Assessment of AI-Generated Content, video track.
- Accuracy with ties: Deutsch, Foster and Freitag, "Ties Matter", EMNLP 2023 (arXiv 2305.14324), the protocol of
  VideoGen-RewardBench (Liu et al., 2025).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy import optimize, stats
from scipy.special import expit

_CITATION = """\
@inproceedings{lu2024aigcvqa,
  title={AIGC-VQA: A Holistic Perception Metric for AIGC Video Quality Assessment},
  author={Lu, Yiting and others},
  booktitle={CVPR Workshops},
  year={2024}
}
@inproceedings{deutsch2023ties,
  title={Ties Matter: Meta-Evaluating Modern Metrics with Pairwise Accuracy and Tie Calibration},
  author={Deutsch, Daniel and Foster, George and Freitag, Markus},
  booktitle={EMNLP},
  year={2023}
}
"""

_DESCRIPTION = """\
Agreement of predicted video-quality scores with human opinion: SROCC, PLCC, KROCC, RMSE (after matching mean and
deviation, and after a four-parameter logistic fit) and the main score (SROCC + PLCC) / 2, each with a bootstrap
interval, overall, per generator, per category and between the generators' means; pairwise accuracy with and without
ties for preference data (config_name="pairs").
"""

_KWARGS_DESCRIPTION = """
Args, by config_name:
    predictions (floats), references (floats, the MOS): "default", "generators", "categories" and "grouped".
    generators (strings): a column of "generators" and "grouped"; elsewhere an optional list given to compute().
    categories (strings): a column of "categories" and "grouped"; elsewhere an optional list given to compute().
        An empty string leaves the sample out of the groups, not out of the overall figures.
    predictions_a, predictions_b (floats), preferences ("A", "B", "same", or 1, -1, 0): "pairs".
    num_bootstrap (int): resamples behind each interval; 0 for none. Defaults to 1000.
    confidence_level (float): defaults to 0.95.
    seed (int): seed of the resampling. Defaults to 0.
    logistic (bool): whether to fit the four-parameter logistic. Defaults to True. Not in "pairs".
    max_logistic_bootstrap (int): resamples behind the logistic's intervals, at most. Defaults to 200. Not in "pairs".
    min_group_size (int): smaller groups get null metrics. Defaults to 3. Not in "pairs".
    tie_threshold (float): only in "pairs": |a - b| up to it counts as a tie; calibrated on the data when not given.
Returns:
    srocc, plcc, krocc, rmse, rmse_logistic, plcc_logistic, main_score, logistic_parameters, logistic_converged,
    num_samples, intervals {metric: [low, high]}; with groups also per_generator, per_category, generator_means.
    "pairs": accuracy_without_ties, accuracy_with_ties, tie_threshold, num_pairs, num_human_ties, num_model_ties,
    intervals.
Examples:
    >>> metric = evaluate.load("training/vqa_correlation")
    >>> result = metric.compute(predictions=[1.0, 2.0, 4.0, 3.0], references=[10.0, 20.0, 30.0, 40.0])
    >>> round(result["srocc"], 4)
    0.8
"""

MIN_SAMPLES = 2
# Two points always correlate by +1 or -1, which says nothing of a group or of a pair of generators.
MIN_GROUP_SIZE = 3
# The logistic has four parameters: with four points or fewer it passes through all of them.
MIN_LOGISTIC_SAMPLES = 5
# Up to here KROCC's resamples are one product with the (N, N) matrix of concordant pairs (32 MiB at 2048); above, scipy
# sorts each resample in O(N log N).
MAX_CONCORDANCE_SAMPLES = 2048
# A fit takes milliseconds, so the logistic's intervals use fewer resamples, each fitted to a relative 1e-6 of its
# squared error in at most so many evaluations: where the data are nearly linear, more only wander in a flat valley.
MAX_LOGISTIC_BOOTSTRAP = 200
MAX_RESAMPLE_EVALUATIONS = 100
MAX_FIT_EVALUATIONS = 2000
# Elements of one block of resamples: bounds the memory at about 16 MiB for each array of a block.
BLOCK_ELEMENTS = 2_000_000
# An interval needs this share of resamples whose scores and MOS are not constant.
MIN_VALID_RESAMPLES = 0.5

CORRELATION_NAMES = ("srocc", "plcc", "krocc", "rmse", "main_score")
LOGISTIC_NAMES = ("rmse_logistic", "plcc_logistic")
LOGISTIC_DETAILS = ("logistic_parameters", "logistic_converged")

COLUMNS = {
    "default": ("predictions", "references"),
    "generators": ("predictions", "references", "generators"),
    "categories": ("predictions", "references", "categories"),
    "grouped": ("predictions", "references", "generators", "categories"),
    "pairs": ("predictions_a", "predictions_b", "preferences"),
}
COLUMN_TYPES = {"generators": "string", "categories": "string", "preferences": "int64"}
PREFERENCES = {"a": 1, "b": -1, "same": 0, "tie": 0, "1": 1, "-1": -1, "0": 0}


# --------------------------------------------------------------------------------------------------------- arguments


def _as_array(values: Any) -> np.ndarray:
    """An array of any sequence or tensor; tensors may live on a device, carry gradients or be bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values)


def _check_shape(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; pass a 1-D array (N,), one value per sample, for example by squeeze(-1)."
        )
    return array


def _as_vector(values: Any, name: str) -> np.ndarray:
    """Finite float64 values of shape (N,), or a ValueError that names the argument."""
    if values is None:
        raise ValueError(f"{name} is missing; pass one number per sample.")
    try:
        array = _check_shape(_as_array(values), name).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a 1-D array (N,) of numbers: {error}") from error
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"{name} holds {bad.size} NaN or infinite values (first: {array[bad[0]]} at index {bad[0]}); "
            "score those samples again or leave them out of every column."
        )
    return array


def _check_lengths(columns: dict[str, Any]) -> None:
    first, *others = columns
    for name in others:
        if len(columns[name]) != len(columns[first]):
            raise ValueError(
                f"{first} has {len(columns[first])} samples but {name} has {len(columns[name])}; "
                "pass exactly one value of each per sample, in the same order."
            )


def _check_enough(array: np.ndarray, name: str) -> None:
    if array.size < MIN_SAMPLES:
        raise ValueError(
            f"{name} has {array.size} samples; at least {MIN_SAMPLES} are needed, add more before compute."
        )


def _is_constant(array: np.ndarray) -> bool:
    """Whether (N,) values are equal up to rounding, the limit below which scipy calls an input nearly constant."""
    return bool(np.ptp(array) <= 1e-13 * np.abs(array).max())


def _check_varies(array: np.ndarray, name: str, remedy: str) -> None:
    if _is_constant(array):
        raise ValueError(
            f"{name} is constant (all {array.size} values are {array[0]}), so no correlation is defined; {remedy}."
        )


def _check_bootstrap(num_bootstrap: int, confidence_level: float) -> None:
    if num_bootstrap != int(num_bootstrap) or num_bootstrap < 0:
        raise ValueError(f"num_bootstrap={num_bootstrap} must be a whole number; pass 0 for no intervals, or 1000.")
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level={confidence_level} must lie between 0 and 1; pass 0.95 for 95 %.")


def _as_groups(values: Any, name: str, num_samples: int) -> np.ndarray:
    """Group names, strings (N,); None and "" mean that the sample belongs to no group."""
    if isinstance(values, str):
        raise TypeError(f"{name}={values!r} is one string; pass a list with one string per sample.")
    groups = np.array(["" if value is None else str(value) for value in values], dtype=object)
    if groups.size != num_samples:
        raise ValueError(
            f"{name} has {groups.size} samples but predictions has {num_samples}; pass one per sample. Where samples "
            "come by add_batch or from several processes, load config_name='grouped' and pass it to add_batch."
        )
    return groups


def _as_preferences(values: Any) -> np.ndarray:
    """Human labels as int64 (N,): 1 prefers A, -1 prefers B, 0 is a tie."""
    array = _check_shape(np.asarray(values) if not hasattr(values, "detach") else _as_array(values), "preferences")
    keys = [value.strip().lower() if isinstance(value, str) else f"{value:g}" for value in array.tolist()]
    for index, key in enumerate(keys):
        if key not in PREFERENCES:
            raise ValueError(
                f"preferences holds {array.tolist()[index]!r} at index {index}; "
                "write 'A', 'B' or 'same' (or 1, -1 or 0)."
            )
    return np.array([PREFERENCES[key] for key in keys], dtype=np.int64)


def _floats(values: dict[str, float]) -> dict[str, float | None]:
    """Plain floats, ready for JSON; what is undefined is None."""
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


# --------------------------------------------------------------------------------------------------------- bootstrap


def _resamples(num_samples: int, num_bootstrap: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of indices (B, N), drawn with replacement, num_bootstrap rows in all."""
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // num_samples)
    for start in range(0, num_bootstrap, block):
        yield rng.integers(0, num_samples, (min(block, num_bootstrap - start), num_samples))


def _counts(indices: np.ndarray) -> np.ndarray:
    """How often each sample was drawn: indices (B, N) -> float64 (B, N)."""
    num_rows, num_samples = indices.shape
    flat = indices + num_samples * np.arange(num_rows)[:, None]
    return np.bincount(flat.ravel(), minlength=indices.size).reshape(indices.shape).astype(np.float64)


def _intervals(distributions: dict[str, np.ndarray], confidence_level: float) -> dict[str, list[float] | None]:
    """Percentile intervals of bootstrap distributions (R,). Resamples without a value (NaN) are left out."""
    tail = (1 - confidence_level) / 2
    intervals = {}
    for name, values in distributions.items():
        valid = values[np.isfinite(values)]
        enough = valid.size >= max(1, MIN_VALID_RESAMPLES * values.size)
        intervals[name] = [float(end) for end in np.quantile(valid, [tail, 1 - tail])] if enough else None
    return intervals


def _bootstrap(
    statistic: Callable[[np.ndarray], dict[str, np.ndarray]], num_samples: int, num_bootstrap: int, seed: int
) -> dict[str, np.ndarray]:
    """Distributions (R,) of a statistic that maps a block of indices (B, N) to values (B,) by name."""
    blocks = [statistic(indices) for indices in _resamples(num_samples, num_bootstrap, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


# ------------------------------------------------------------------------------------------------------ correlations


class _Ranked:
    """Values (N,) prepared once so that the mid-ranks of every resample follow from its counts without a sort."""

    def __init__(self, values: np.ndarray):
        self.order = np.argsort(values, kind="stable")
        _, self.starts, self.codes = np.unique(values[self.order], return_index=True, return_inverse=True)
        self.dense = np.empty(values.size, dtype=np.int64)
        self.dense[self.order] = self.codes

    def counts(self, weights: np.ndarray) -> np.ndarray:
        """Weights (B, N) -> draws of each of the U distinct values (B, U)."""
        return np.add.reduceat(weights[:, self.order], self.starts, axis=1)

    def centred_ranks(self, counts: np.ndarray) -> np.ndarray:
        """Counts (B, U) -> mid-ranks of the samples less their mean (N + 1)/2, (B, N). Exact halves."""
        middle = np.cumsum(counts, axis=1) - (counts - 1) / 2
        return middle[:, self.dense] - (self.dense.size + 1) / 2


def _weighted_plcc(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """PLCC of resamples: standardised x and y (N,), counts (B, N) -> (B,)."""
    sums = weights @ np.stack([x, y, x * x, y * y, x * y], axis=1) / x.size
    mean_x, mean_y, xx, yy, xy = sums.T
    return (xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2))


def _weighted_sd(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Deviation of resamples: standardised y (N,), counts (B, N) -> (B,)."""
    return np.sqrt(np.maximum(weights @ (y * y) / y.size - (weights @ y / y.size) ** 2, 0))


def _weighted_krocc(
    concordance: np.ndarray, weights: np.ndarray, counts_x: np.ndarray, counts_y: np.ndarray
) -> np.ndarray:
    """Kendall's tau-b of resamples, concordance (N, N), counts (B, N), (B, U), (B, V) -> (B,)."""
    concordant = np.einsum("bn,bn->b", weights @ concordance, weights) / 2
    pairs = weights.shape[1] * (weights.shape[1] - 1) / 2
    untied_x = pairs - (counts_x * (counts_x - 1)).sum(1) / 2
    untied_y = pairs - (counts_y * (counts_y - 1)).sum(1) / 2
    return concordant / np.sqrt(untied_x * untied_y)


def _krocc(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b of (N,) and (N,). The asymptotic method skips the exact p-value, which is not used here."""
    return stats.kendalltau(x, y, method="asymptotic" if x.size > 2 else "auto").statistic


def _point_metrics(scores: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """The five figures of (N,) scores and (N,) MOS, by scipy."""
    srocc = stats.spearmanr(scores, mos).statistic
    plcc = stats.pearsonr(scores, mos).statistic
    matched = (scores - scores.mean()) / scores.std() * mos.std() + mos.mean()
    rmse = np.sqrt(np.mean((matched - mos) ** 2))
    return {"srocc": srocc, "plcc": plcc, "krocc": _krocc(scores, mos), "rmse": rmse, "main_score": (srocc + plcc) / 2}


def _resampled_metrics(scores: np.ndarray, mos: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The figures of `_point_metrics` for blocks of resamples: indices (B, N) -> values (B,), NaN where constant."""
    x, y = (scores - scores.mean()) / scores.std(), (mos - mos.mean()) / mos.std()
    ranked_x, ranked_y = _Ranked(scores), _Ranked(mos)
    concordance = None
    if x.size <= MAX_CONCORDANCE_SAMPLES:
        concordance = np.sign(ranked_x.dense[:, None] - ranked_x.dense) * np.sign(
            ranked_y.dense[:, None] - ranked_y.dense
        )
        concordance = concordance.astype(np.float64)

    def statistic(indices: np.ndarray) -> dict[str, np.ndarray]:
        weights = _counts(indices)
        counts_x, counts_y = ranked_x.counts(weights), ranked_y.counts(weights)
        constant = (counts_x.max(1) == x.size) | (counts_y.max(1) == x.size)
        with np.errstate(divide="ignore", invalid="ignore"):
            ranks_x, ranks_y = ranked_x.centred_ranks(counts_x), ranked_y.centred_ranks(counts_y)
            covariance = np.einsum("bn,bn,bn->b", weights, ranks_x, ranks_y)
            variances = np.einsum("bn,bn->b", weights, ranks_x**2) * np.einsum("bn,bn->b", weights, ranks_y**2)
            srocc = covariance / np.sqrt(variances)
            plcc = np.clip(_weighted_plcc(x, y, weights), -1, 1)
            # Between matched scores and MOS the mean square is 2 sd^2 (1 - PLCC).
            rmse = mos.std() * _weighted_sd(y, weights) * np.sqrt(2 * (1 - plcc))
            if concordance is not None:
                krocc = _weighted_krocc(concordance, weights, counts_x, counts_y)
            else:
                krocc = np.array([_krocc(ranked_x.dense[row], ranked_y.dense[row]) for row in indices])
        values = {"srocc": srocc, "plcc": plcc, "krocc": krocc, "rmse": rmse, "main_score": (srocc + plcc) / 2}
        return {name: np.where(constant, np.nan, value) for name, value in values.items()}

    return statistic


# ---------------------------------------------------------------------------------------------------------- logistic


def logistic_curve(scores: np.ndarray, upper: float, lower: float, centre: float, scale: float) -> np.ndarray:
    """The four-parameter logistic, lower + (upper - lower) / (1 + exp(-(scores - centre) / |scale|)), (N,) -> (N,)."""
    return lower + (upper - lower) * expit((np.asarray(scores) - centre) / abs(scale))


def _standard_logistic(x: np.ndarray, upper: float, lower: float, centre: float, log_scale: float) -> np.ndarray:
    return lower + (upper - lower) * expit((x - centre) * np.exp(-np.clip(log_scale, -20, 20)))


def _standard_jacobian(x: np.ndarray, upper: float, lower: float, centre: float, log_scale: float) -> np.ndarray:
    """(N, 4) derivatives of `_standard_logistic`; the logarithm of the scale keeps it positive."""
    slope = np.exp(-np.clip(log_scale, -20, 20))
    gate = expit((x - centre) * slope)
    steep = (upper - lower) * gate * (1 - gate) * slope
    return np.stack([gate, 1 - gate, -steep, -steep * (x - centre)], axis=1)


def _search(
    x: np.ndarray, y: np.ndarray, start: Sequence[float], tolerance: float, max_evaluations: int
) -> tuple[np.ndarray, bool]:
    """Levenberg-Marquardt from `start`: the parameters (4,) where it stops, and whether it converged.

    This is what `scipy.optimize.curve_fit` runs, but `leastsq` keeps the parameters when the evaluations are used up.
    """
    with np.errstate(all="ignore"):
        parameters, _, _, _, status = optimize.leastsq(
            lambda parameters: _standard_logistic(x, *parameters) - y,
            start,
            Dfun=lambda parameters: _standard_jacobian(x, *parameters),
            ftol=tolerance,
            xtol=tolerance,
            maxfev=max_evaluations,
            full_output=True,
        )
    return parameters, status in (1, 2, 3, 4)


def _squared_error(x: np.ndarray, y: np.ndarray, parameters: np.ndarray) -> float:
    return float(np.sum((_standard_logistic(x, *parameters) - y) ** 2))


def _starts(x: np.ndarray, y: np.ndarray, plcc: float) -> list[list[float]]:
    """Starts for standardised (N,) and (N,): upper, lower, centre, logarithm of the scale."""
    upper, lower = (y.max(), y.min()) if plcc >= 0 else (y.min(), y.max())
    # So wide that it is the straight line of least squares: slope (upper - lower) / (4 scale) = PLCC.
    wide = 4.0
    line = [2 * plcc * np.exp(wide), -2 * plcc * np.exp(wide), 0.0, wide]
    literature = [upper, lower, 0.0, 0.0]
    return [literature, line, [upper, lower, -1.0, 0.0], [upper, lower, 1.0, 0.0], [upper, lower, 0.0, -2.0]]


def _fit_standard(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool]:
    """Parameters (4,) for standardised (N,) and (N,), and whether the search for them converged.

    The first start is the literature's (range of the MOS, mean and deviation of the scores), turned over for a negative
    correlation. A straight line is a limit of the logistic, so a fit worse than the line is a local minimum: then the
    line itself and shifted and steeper starts follow, and the best of all is kept.
    """
    plcc = float(np.mean(x * y))
    acceptable = y.size * (1 - plcc**2) * (1 + 1e-6) + 1e-12
    best, best_error, best_converged = None, np.inf, False
    for start in _starts(x, y, plcc):
        parameters, converged = _search(x, y, start, 1e-8, MAX_FIT_EVALUATIONS)
        error = _squared_error(x, y, parameters)
        if best is None or error < best_error:
            best, best_error, best_converged = parameters, error, converged
        if best_error <= acceptable:
            break
    return best, best_converged


def fit_logistic(scores: Any, mos: Any) -> tuple[np.ndarray, bool] | None:
    """Least-squares parameters (4,) of `logistic_curve` from (N,) scores to (N,) MOS, and whether the search converged.

    Parameters: upper, lower, centre, scale > 0. A search that is still moving after 2,000 evaluations gives its
    parameters with False: the data are then a limit of the logistic (a line, an exponential, a step), and the curve is
    already as close as makes no difference. None with fewer than 5 samples or constant values.
    """
    scores, mos = _as_vector(scores, "scores"), _as_vector(mos, "mos")
    _check_lengths({"scores": scores, "mos": mos})
    if scores.size < MIN_LOGISTIC_SAMPLES or _is_constant(scores) or _is_constant(mos):
        return None
    fitted, converged = _fit_standard((scores - scores.mean()) / scores.std(), (mos - mos.mean()) / mos.std())
    upper, lower, centre, log_scale = fitted
    parameters = [
        mos.mean() + mos.std() * upper,
        mos.mean() + mos.std() * lower,
        scores.mean() + scores.std() * centre,
        scores.std() * np.exp(np.clip(log_scale, -20, 20)),
    ]
    return np.array(parameters), converged


def _logistic_metrics(fitted: np.ndarray, mos: np.ndarray) -> dict[str, float]:
    """RMSE and PLCC between the fitted scores (N,) and the MOS (N,)."""
    constant = _is_constant(fitted) or _is_constant(mos)
    plcc = np.nan if constant else np.corrcoef(fitted, mos)[0, 1]
    return {"rmse_logistic": np.sqrt(np.mean((fitted - mos) ** 2)), "plcc_logistic": plcc}


def _resampled_logistic(
    scores: np.ndarray, mos: np.ndarray, parameters: np.ndarray
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The logistic figures for blocks of resamples, fitted again on each from the fit on all samples."""
    x, y = (scores - scores.mean()) / scores.std(), (mos - mos.mean()) / mos.std()
    upper, lower = (parameters[:2] - mos.mean()) / mos.std()
    start = [upper, lower, (parameters[2] - scores.mean()) / scores.std(), np.log(parameters[3] / scores.std())]

    def one(row: np.ndarray) -> dict[str, float]:
        found, _ = _search(x[row], y[row], start, 1e-6, MAX_RESAMPLE_EVALUATIONS)
        values = _logistic_metrics(_standard_logistic(x[row], *found), y[row])
        return {**values, "rmse_logistic": values["rmse_logistic"] * mos.std()}

    def statistic(indices: np.ndarray) -> dict[str, np.ndarray]:
        rows = [one(row) for row in indices]
        return {name: np.array([row[name] for row in rows]) for name in LOGISTIC_NAMES}

    return statistic


# ----------------------------------------------------------------------------------------------------------- reports


def correlation_metrics(
    scores: Any,
    mos: Any,
    *,
    num_bootstrap: int = 0,
    confidence_level: float = 0.95,
    seed: int = 0,
    logistic: bool = True,
    max_logistic_bootstrap: int = MAX_LOGISTIC_BOOTSTRAP,
    names: tuple[str, str] = ("scores", "mos"),
) -> dict[str, Any]:
    """SROCC, PLCC, KROCC (tau-b), RMSE, main score and the figures after a logistic fit.

    Args:
        scores: predictions (N,), N >= 2, any scale, not constant. (N, 1) is refused.
        mos: mean opinion scores (N,), not constant.
        num_bootstrap: resamples behind each percentile interval, 0 for none. All samples are resampled alike: clips of
            one prompt count as independent.
        confidence_level: share of the interval, in (0, 1).
        seed: seed of the resampling. The samples are sorted first, so their order changes nothing.
        logistic: whether to fit the four-parameter logistic, the slowest part.
        max_logistic_bootstrap: the logistic's intervals use at most so many of the resamples.
        names: what error messages call the two arguments.

    Returns:
        srocc, plcc, krocc, main_score in -1..1; rmse (after giving the scores the mean and deviation of the MOS) and
        rmse_logistic in units of the MOS; plcc_logistic; logistic_parameters (upper, lower, centre, scale) and
        logistic_converged, see `fit_logistic`; num_samples; intervals, `{metric: [low, high]}`. The logistic's entries
        are None below 5 samples. An interval is None where over half of the resamples are constant.
    """
    _check_bootstrap(num_bootstrap, confidence_level)
    scores, mos = _as_vector(scores, names[0]), _as_vector(mos, names[1])
    _check_lengths({names[0]: scores, names[1]: mos})
    for values, name in zip((scores, mos), names, strict=True):
        _check_enough(values, name)
    _check_varies(scores, names[0], "check that the model's weights are loaded and that its inputs differ")
    _check_varies(mos, names[1], "check that the right label column was read")
    order = np.lexsort((mos, scores))
    scores, mos = scores[order], mos[order]
    values = _point_metrics(scores, mos)
    distributions = _bootstrap(_resampled_metrics(scores, mos), scores.size, num_bootstrap, seed)
    result = {
        **_floats(values),
        "num_samples": int(scores.size),
        "intervals": _intervals(distributions, confidence_level),
    }
    if logistic:
        fit = _logistic_report(scores, mos, min(num_bootstrap, max_logistic_bootstrap), confidence_level, seed)
        result["intervals"] |= fit.pop("intervals")
        result |= fit
    return result


def _logistic_report(
    scores: np.ndarray, mos: np.ndarray, num_bootstrap: int, confidence_level: float, seed: int
) -> dict[str, Any]:
    """The logistic's part of `correlation_metrics`; every value None where there is no fit."""
    fit = fit_logistic(scores, mos)
    if fit is None:
        intervals = dict.fromkeys(LOGISTIC_NAMES) if num_bootstrap else {}
        return {**dict.fromkeys((*LOGISTIC_NAMES, *LOGISTIC_DETAILS)), "intervals": intervals}
    parameters, converged = fit
    values = _logistic_metrics(logistic_curve(scores, *parameters), mos)
    distributions = _bootstrap(_resampled_logistic(scores, mos, parameters), scores.size, num_bootstrap, seed)
    return {
        **_floats(values),
        "logistic_parameters": [float(value) for value in parameters],
        "logistic_converged": bool(converged),
        "intervals": _intervals(distributions, confidence_level),
    }


def _too_small_or_constant(scores: np.ndarray, mos: np.ndarray, min_size: int) -> bool:
    return scores.size < max(min_size, MIN_SAMPLES) or _is_constant(scores) or _is_constant(mos)


def _members(groups: np.ndarray) -> dict[str, np.ndarray]:
    """Group name -> indices of its samples, by name; the samples without a group ("") are left out."""
    return {str(name): np.flatnonzero(groups == name) for name in sorted(set(groups.tolist()) - {""})}


def grouped_metrics(
    scores: Any, mos: Any, groups: Sequence[str], *, min_group_size: int = MIN_GROUP_SIZE, **settings: Any
) -> dict[str, dict[str, Any]]:
    """`correlation_metrics` of each group on its own: scores (N,), MOS (N,), group names (N,) -> {name: metrics}.

    A group below `min_group_size` or with constant scores or MOS gets None for every figure, and its num_samples. The
    RMSE matches mean and deviation within the group. `settings` go to `correlation_metrics`.
    """
    names = settings.get("names", ("scores", "mos"))
    scores, mos = _as_vector(scores, names[0]), _as_vector(mos, names[1])
    _check_lengths({names[0]: scores, names[1]: mos})
    results = {}
    for name, index in _members(_as_groups(groups, "groups", scores.size)).items():
        if _too_small_or_constant(scores[index], mos[index], min_group_size):
            results[name] = _null_metrics(index.size, settings.get("logistic", True))
        else:
            results[name] = correlation_metrics(scores[index], mos[index], **settings)
    return results


def _null_metrics(num_samples: int, logistic: bool) -> dict[str, Any]:
    result = {**dict.fromkeys(CORRELATION_NAMES), "num_samples": int(num_samples), "intervals": {}}
    return {**result, **dict.fromkeys((*LOGISTIC_NAMES, *LOGISTIC_DETAILS))} if logistic else result


def _row_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """PLCC of each row: (B, G) and (B, G) -> (B,), NaN where a row is constant."""
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)), -1, 1)


def _resampled_means(values: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Means (R, 2) of resamples of one group's values (N, 2)."""
    return np.concatenate(
        [_counts(block) @ values / len(values) for block in _resamples(len(values), num_bootstrap, seed)]
    )


def group_mean_metrics(
    scores: Any,
    mos: Any,
    groups: Sequence[str],
    *,
    num_bootstrap: int = 0,
    confidence_level: float = 0.95,
    seed: int = 0,
    names: tuple[str, str] = ("scores", "mos"),
) -> dict[str, Any]:
    """SROCC and PLCC between the groups' mean scores and mean MOS: does the metric rank the generators as people do?

    Scores (N,), MOS (N,), group names (N,). With fewer than 3 groups (two means always correlate by +1 or -1) or
    constant means both figures are None. The intervals resample the clips within each group and keep
    the groups as they are.
    """
    _check_bootstrap(num_bootstrap, confidence_level)
    scores, mos = _as_vector(scores, names[0]), _as_vector(mos, names[1])
    _check_lengths({names[0]: scores, names[1]: mos})
    members = _members(_as_groups(groups, "groups", scores.size))
    data = [np.stack([scores[index], mos[index]], axis=1) for index in members.values()]
    means = np.array([values.mean(0) for values in data]).reshape(-1, 2)
    result = {"srocc": None, "plcc": None, "num_groups": len(members), "intervals": {}}
    result["mean_scores"] = dict(zip(members, means[:, 0].tolist(), strict=True))
    result["mean_mos"] = dict(zip(members, means[:, 1].tolist(), strict=True))
    if len(members) < MIN_GROUP_SIZE or _is_constant(means[:, 0]) or _is_constant(means[:, 1]):
        return result
    result["srocc"] = float(stats.spearmanr(means[:, 0], means[:, 1]).statistic)
    result["plcc"] = float(stats.pearsonr(means[:, 0], means[:, 1]).statistic)
    if num_bootstrap:
        ordered = [values[np.lexsort((values[:, 1], values[:, 0]))] for values in data]
        # A seed of its own for each group: with a common one, groups of equal size would be resampled in step.
        draws = [_resampled_means(values, num_bootstrap, [seed, number]) for number, values in enumerate(ordered)]
        x, y = np.moveaxis(np.stack(draws, axis=1), 2, 0)
        distributions = {"srocc": _row_correlation(stats.rankdata(x, axis=1), stats.rankdata(y, axis=1))}
        distributions["plcc"] = _row_correlation(x, y)
        result["intervals"] = _intervals(distributions, confidence_level)
    return result


def correlation_report(
    scores: Any,
    mos: Any,
    generators: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    *,
    min_group_size: int = MIN_GROUP_SIZE,
    **settings: Any,
) -> dict[str, Any]:
    """`correlation_metrics` overall, with per_generator, per_category and generator_means where the groups are given.

    Scores (N,), MOS (N,), names (N,) of generators and categories, "" or None for none. `settings`: num_bootstrap,
    confidence_level, seed, logistic, max_logistic_bootstrap, names, as for `correlation_metrics`.
    """
    report = correlation_metrics(scores, mos, **settings)
    num_samples = report["num_samples"]
    if generators is not None:
        generators = _as_groups(generators, "generators", num_samples)
        report["per_generator"] = grouped_metrics(scores, mos, generators, min_group_size=min_group_size, **settings)
        shared = ("num_bootstrap", "confidence_level", "seed", "names")
        mean_settings = {name: settings[name] for name in shared if name in settings}
        report["generator_means"] = group_mean_metrics(scores, mos, generators, **mean_settings)
    if categories is not None:
        categories = _as_groups(categories, "categories", num_samples)
        report["per_category"] = grouped_metrics(scores, mos, categories, min_group_size=min_group_size, **settings)
    return report


# ------------------------------------------------------------------------------------------------- pairwise accuracy


class _Pairs:
    """Pairs sorted by |a - b|, with the ends of runs of equal differences as the candidates of the tie threshold."""

    def __init__(self, difference: np.ndarray, preferences: np.ndarray):
        order = np.lexsort((preferences, difference, np.abs(difference)))
        self.size = np.abs(difference[order])
        self.is_tie = preferences[order] == 0
        self.is_agreed = difference[order] * preferences[order] > 0
        self.run_ends = np.flatnonzero(np.diff(self.size, append=np.inf) > 0)

    def without_ties(self, weights: np.ndarray) -> np.ndarray:
        """Counts (B, N) -> share (B,) of the pairs with a human preference that the scores order alike."""
        with np.errstate(invalid="ignore"):
            return weights @ self.is_agreed / (weights @ ~self.is_tie)

    def calibrated(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts (B, N) -> best accuracy with ties (B,) and the smallest threshold (B,) that reaches it."""
        gains = np.cumsum(weights * (self.is_tie.astype(float) - self.is_agreed), axis=1)[:, self.run_ends]
        gains = np.concatenate([np.zeros((len(weights), 1)), gains], axis=1)
        thresholds = np.append(0.0, self.size[self.run_ends])
        best = gains.argmax(1)
        agreed = weights @ self.is_agreed + gains[np.arange(len(weights)), best]
        return agreed / weights.sum(1), thresholds[best]

    def at_threshold(self, weights: np.ndarray, threshold: float) -> np.ndarray:
        """Counts (B, N) -> accuracy with ties (B,) at a fixed threshold."""
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
) -> dict[str, Any]:
    """Accuracy of score differences against human preferences, without and with ties.

    Without ties: of the pairs in which people prefer one clip, the share that the scores order alike; equal scores are
    wrong. None where every pair is a human tie. With ties: three classes, A, B and tie, over all pairs; the scores tie
    where |a - b| <= threshold. The threshold is the one of highest accuracy on these very pairs (tie calibration,
    Deutsch et al. 2023), so the figure is optimistic; give `tie_threshold` found on other data to avoid that.

    Args:
        scores_a, scores_b: scores (N,) of the two clips of each pair, N >= 2.
        preferences: (N,) of "A", "B", "same" (also "tie"; any case) or 1, -1, 0.
        tie_threshold: None to calibrate, else a number >= 0.
        num_bootstrap, confidence_level, seed, names: as for `correlation_metrics`; each resample is calibrated anew.
    """
    _check_bootstrap(num_bootstrap, confidence_level)
    if tie_threshold is not None and not 0 <= tie_threshold < np.inf:
        raise ValueError(f"tie_threshold={tie_threshold} must be a number of at least 0; pass None to calibrate it.")
    scores_a, scores_b = _as_vector(scores_a, names[0]), _as_vector(scores_b, names[1])
    preferences = _as_preferences(preferences)
    _check_lengths({names[0]: scores_a, names[1]: scores_b, "preferences": preferences})
    _check_enough(scores_a, names[0])
    _check_varies(np.concatenate([scores_a, scores_b]), f"{names[0]} with {names[1]}", "check that the model is loaded")
    pairs = _Pairs(scores_a - scores_b, preferences)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        calibrate = tie_threshold is None
        with_ties = pairs.calibrated(weights)[0] if calibrate else pairs.at_threshold(weights, tie_threshold)
        return {"accuracy_without_ties": pairs.without_ties(weights), "accuracy_with_ties": with_ties}

    once = np.ones((1, scores_a.size))
    threshold = pairs.calibrated(once)[1][0] if tie_threshold is None else tie_threshold
    distributions = _bootstrap(lambda indices: statistic(_counts(indices)), scores_a.size, num_bootstrap, seed)
    return {
        **_floats({name: values[0] for name, values in statistic(once).items()}),
        "tie_threshold": float(threshold),
        "num_pairs": int(scores_a.size),
        "num_human_ties": int((preferences == 0).sum()),
        "num_model_ties": int((np.abs(scores_a - scores_b) <= threshold).sum()),
        "intervals": _intervals(distributions, confidence_level),
    }


# ---------------------------------------------------------------------------------------------------- evaluate metric


class VQACorrelation(evaluate.Metric):
    """The `evaluate` metric. `config_name` fixes the columns: see `COLUMNS` and the metric card."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in COLUMNS:
            raise ValueError(f"config_name={self.config_name!r} is unknown; choose one of {sorted(COLUMNS)}.")
        types = {name: datasets.Value(COLUMN_TYPES.get(name, "float64")) for name in COLUMNS[self.config_name]}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(types),
            reference_urls=["https://arxiv.org/abs/2305.14324"],
        )

    def add(self, *, prediction: float | None = None, reference: float | None = None, **kwargs: Any) -> None:
        """Add one sample; columns other than the two keep their plural names."""
        if "preferences" in kwargs:
            kwargs["preferences"] = int(_as_preferences([kwargs["preferences"]])[0])
        super().add(prediction=prediction, reference=reference, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add a batch: every column of the configuration, 1-D and of one length. Checked before anything is stored."""
        given = {"predictions": predictions, "references": references, **kwargs}
        batch = {name: self._checked_column(name, given.get(name)) for name in COLUMNS[self.config_name]}
        _check_lengths(batch)
        extra = {name: values for name, values in given.items() if name not in batch and values is not None}
        super().add_batch(**{**batch, **extra})

    def _checked_column(self, name: str, values: Any) -> Any:
        if values is None:
            raise ValueError(
                f"{name} is missing; config_name={self.config_name!r} needs {', '.join(COLUMNS[self.config_name])} in "
                "every batch. Pass it, or load another config_name."
            )
        if name == "preferences":
            return _as_preferences(values)
        if COLUMN_TYPES.get(name) == "string":
            return ["" if value is None else str(value) for value in values]
        return _check_shape(_as_array(values), name)

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        inputs.setdefault("num_bootstrap", 1000)
        if self.config_name == "pairs":
            scores_a, scores_b = inputs.pop("predictions_a"), inputs.pop("predictions_b")
            return pairwise_accuracy(scores_a, scores_b, names=("predictions_a", "predictions_b"), **inputs)
        scores, mos = inputs.pop("predictions"), inputs.pop("references")
        return correlation_report(scores, mos, names=("predictions", "references"), **inputs)
