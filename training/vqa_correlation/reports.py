"""Figures of scores against MOS: overall, per group, and between the means of the groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from .checks import MIN_SAMPLES, as_groups, as_vectors, check_bootstrap, check_enough, check_varies, floats, is_constant
from .correlations import CORRELATION_NAMES, point_metrics, resampled_metrics
from .logistic import LOGISTIC_DETAILS, LOGISTIC_NAMES, MAX_LOGISTIC_BOOTSTRAP, logistic_report
from .resampling import distributions, intervals, resamples

# The correlation of two points is always +1 or -1, so two samples in a group or two generators tell nothing.
MIN_GROUP_SIZE = 3


def correlation_metrics(
    scores: Any,
    mos: Any,
    *,
    num_bootstrap: int = 0,
    confidence_level: float = 0.95,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
    logistic: bool = True,
    max_logistic_bootstrap: int = MAX_LOGISTIC_BOOTSTRAP,
    names: tuple[str, str] = ("scores", "mos"),
) -> dict[str, Any]:
    """SROCC, PLCC, KROCC (tau-b), RMSE and main score, and RMSE and PLCC after a logistic fit.

    Args:
        scores: predictions (N,) on any scale, N >= 2, not constant. (N, 1) is refused.
        mos: mean opinion scores (N,), not constant.
        num_bootstrap: number of resamples for each percentile interval; 0 for no intervals.
        confidence_level: confidence level of the intervals, in (0, 1).
        seed: seed of the resampling. The samples are sorted first, so their order has no effect.
        clusters: name of the cluster of each sample (N,), such as the prompt of a clip. The samples of a cluster are
            not independent and are drawn together. None draws every sample on its own.
        logistic: whether to fit the four-parameter logistic, which takes the most time.
        max_logistic_bootstrap: maximum number of resamples for the intervals after the logistic fit.
        names: names of the first two arguments in error messages.

    Returns:
        srocc, plcc, krocc, main_score in -1..1; rmse (after the scores are given the mean and standard deviation of the
        MOS) and rmse_logistic in units of the MOS; plcc_logistic; logistic_parameters (upper, lower, centre, scale) and
        logistic_converged, see `fit_logistic`; num_samples; intervals, `{metric: [low, high]}`. The four entries about
        the logistic fit are None below 5 samples. An interval is None if more than half of its resamples are constant.
    """
    check_bootstrap(num_bootstrap, confidence_level)
    scores, mos = as_vectors(scores, mos, names)
    check_enough(scores, names[0])
    check_varies(scores, names[0], "check that the model's weights are loaded and that its inputs differ")
    check_varies(mos, names[1], "check that the right label column was read")
    order = np.lexsort((mos, scores))
    groups = None if clusters is None else as_groups(clusters, "clusters", scores.size)[order]
    scores, mos = scores[order], mos[order]
    resampled = distributions(resampled_metrics(scores, mos), scores.size, num_bootstrap, seed, groups)
    result = floats(point_metrics(scores, mos)) | {"num_samples": int(scores.size)}
    result["intervals"] = intervals(resampled, confidence_level)
    if logistic:
        number = min(num_bootstrap, max_logistic_bootstrap)
        fit = logistic_report(scores, mos, number, confidence_level, seed, groups)
        result["intervals"] |= fit.pop("intervals")
        result |= fit
    return result


def metrics_or_none(
    scores: np.ndarray, mos: np.ndarray, min_samples: int = MIN_SAMPLES, logistic: bool = True, **settings: Any
) -> dict[str, Any]:
    """`correlation_metrics` of scores (N,) and MOS (N,), or None for every figure if they are constant or too few."""
    if scores.size >= max(min_samples, MIN_SAMPLES) and not is_constant(scores) and not is_constant(mos):
        return correlation_metrics(scores, mos, logistic=logistic, **settings)
    names = (*CORRELATION_NAMES, *(LOGISTIC_NAMES + LOGISTIC_DETAILS if logistic else ()))
    return {**dict.fromkeys(names), "num_samples": int(scores.size), "intervals": {}}


def _members(groups: np.ndarray) -> dict[str, np.ndarray]:
    """Name of each group, sorted -> indices of its samples. Samples without a group ("") are left out."""
    return {str(name): np.flatnonzero(groups == name) for name in sorted(set(groups.tolist()) - {""})}


def grouped_metrics(
    scores: Any,
    mos: Any,
    groups: Sequence[str],
    *,
    min_group_size: int = MIN_GROUP_SIZE,
    clusters: Sequence[str] | None = None,
    **settings: Any,
) -> dict[str, dict[str, Any]]:
    """`correlation_metrics` of each group separately: scores (N,), MOS (N,), group names (N,) -> {name: metrics}.

    Every figure is None for a group with fewer than `min_group_size` samples, or with constant scores or MOS. RMSE is
    computed with the mean and standard deviation within the group. `clusters` (N,) and `settings`: see
    `correlation_metrics`.
    """
    scores, mos = as_vectors(scores, mos, settings.get("names", ("scores", "mos")))
    together = None if clusters is None else as_groups(clusters, "clusters", scores.size)
    results = {}
    for name, index in _members(as_groups(groups, "groups", scores.size)).items():
        own = None if together is None else together[index]
        results[name] = metrics_or_none(scores[index], mos[index], min_group_size, clusters=own, **settings)
    return results


def _row_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """PLCC of each row: (B, G) and (B, G) -> (B,), NaN where a row is constant."""
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)), -1, 1)


def _resampled_means(values: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Values (N, 2) of one group -> means (R, 2) of R resamples."""
    return np.concatenate([weights @ values / len(values) for weights in resamples(len(values), num_bootstrap, seed)])


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
    """SROCC and PLCC between the mean scores and the mean MOS of the groups.

    They tell whether the scores rank generators as people do. Scores (N,), MOS (N,), group names (N,). Both are None
    for fewer than 3 groups and for constant means. The intervals resample the clips within each group; every resample
    has all groups. `num_bootstrap`, `confidence_level`, `seed` and `names`: see `correlation_metrics`.
    """
    check_bootstrap(num_bootstrap, confidence_level)
    scores, mos = as_vectors(scores, mos, names)
    members = _members(as_groups(groups, "groups", scores.size))
    data = [np.stack([scores[index], mos[index]], axis=1) for index in members.values()]
    means = np.array([values.mean(0) for values in data]).reshape(-1, 2)
    result = {"srocc": None, "plcc": None, "num_groups": len(members), "intervals": {}}
    result["mean_scores"] = dict(zip(members, means[:, 0].tolist(), strict=True))
    result["mean_mos"] = dict(zip(members, means[:, 1].tolist(), strict=True))
    if len(members) < MIN_GROUP_SIZE or is_constant(means[:, 0]) or is_constant(means[:, 1]):
        return result
    result["srocc"] = float(stats.spearmanr(means[:, 0], means[:, 1]).statistic)
    result["plcc"] = float(stats.pearsonr(means[:, 0], means[:, 1]).statistic)
    if num_bootstrap:
        ordered = [values[np.lexsort((values[:, 1], values[:, 0]))] for values in data]
        # Each group has its own seed. With a common seed, groups of equal size would draw the same indices.
        draws = [_resampled_means(values, num_bootstrap, [seed, number]) for number, values in enumerate(ordered)]
        x, y = np.moveaxis(np.stack(draws, axis=1), 2, 0)
        correlations = {"srocc": _row_correlation(stats.rankdata(x, axis=1), stats.rankdata(y, axis=1))}
        correlations["plcc"] = _row_correlation(x, y)
        result["intervals"] = intervals(correlations, confidence_level)
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
    """`correlation_metrics` of all samples, plus figures per group.

    Args:
        scores, mos: (N,) each.
        generators: name of the generator of each sample (N,), "" or None for a sample without one. Adds
            `per_generator` (see `grouped_metrics`) and `generator_means` (see `group_mean_metrics`).
        categories: the same for categories. Adds `per_category`.
        min_group_size: see `grouped_metrics`.
        settings: keyword arguments of `correlation_metrics`.
    """
    report = correlation_metrics(scores, mos, **settings)
    num_samples = report["num_samples"]
    if generators is not None:
        generators = as_groups(generators, "generators", num_samples)
        report["per_generator"] = grouped_metrics(scores, mos, generators, min_group_size=min_group_size, **settings)
        shared = ("num_bootstrap", "confidence_level", "seed", "names")
        mean_settings = {name: settings[name] for name in shared if name in settings}
        report["generator_means"] = group_mean_metrics(scores, mos, generators, **mean_settings)
    if categories is not None:
        categories = as_groups(categories, "categories", num_samples)
        report["per_category"] = grouped_metrics(scores, mos, categories, min_group_size=min_group_size, **settings)
    return report
