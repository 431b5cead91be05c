"""The figures of a set of scores: overall, per group, and between the groups' means."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from .checks import (
    MIN_SAMPLES,
    as_groups,
    as_vector,
    check_bootstrap,
    check_enough,
    check_lengths,
    check_varies,
    floats,
    is_constant,
)
from .correlations import CORRELATION_NAMES, point_metrics, resampled_metrics
from .logistic import LOGISTIC_DETAILS, LOGISTIC_NAMES, MAX_LOGISTIC_BOOTSTRAP, logistic_report
from .resampling import distributions, intervals, resamples

# Two points always correlate by +1 or -1, which says nothing of a group or of a pair of generators.
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
    """SROCC, PLCC, KROCC (tau-b), RMSE, main score and the figures after a logistic fit.

    Args:
        scores: predictions (N,), N >= 2, any scale, not constant. (N, 1) is refused.
        mos: mean opinion scores (N,), not constant.
        num_bootstrap: resamples behind each percentile interval, 0 for none.
        confidence_level: share of the interval, in (0, 1).
        seed: seed of the resampling. The samples are sorted first, so their order changes nothing.
        clusters: names (N,) of samples that are no independent ones and are drawn together, such as the prompts of
            clips. None draws every sample by itself.
        logistic: whether to fit the four-parameter logistic, the slowest part.
        max_logistic_bootstrap: the logistic's intervals use at most so many of the resamples.
        names: what error messages call the two arguments.

    Returns:
        srocc, plcc, krocc, main_score in -1..1; rmse (after giving the scores the mean and deviation of the MOS) and
        rmse_logistic in units of the MOS; plcc_logistic; logistic_parameters (upper, lower, centre, scale) and
        logistic_converged, see `fit_logistic`; num_samples; intervals, `{metric: [low, high]}`. The logistic's entries
        are None below 5 samples. An interval is None where over half of the resamples are constant.
    """
    check_bootstrap(num_bootstrap, confidence_level)
    scores, mos = as_vector(scores, names[0]), as_vector(mos, names[1])
    check_lengths({names[0]: scores, names[1]: mos})
    for values, name in zip((scores, mos), names, strict=True):
        check_enough(values, name)
    check_varies(scores, names[0], "check that the model's weights are loaded and that its inputs differ")
    check_varies(mos, names[1], "check that the right label column was read")
    order = np.lexsort((mos, scores))
    groups = None if clusters is None else as_groups(clusters, "clusters", scores.size)[order]
    scores, mos = scores[order], mos[order]
    values = point_metrics(scores, mos)
    resampled = distributions(resampled_metrics(scores, mos), scores.size, num_bootstrap, seed, groups)
    result = {
        **floats(values),
        "num_samples": int(scores.size),
        "intervals": intervals(resampled, confidence_level),
    }
    if logistic:
        number = min(num_bootstrap, max_logistic_bootstrap)
        fit = logistic_report(scores, mos, number, confidence_level, seed, groups)
        result["intervals"] |= fit.pop("intervals")
        result |= fit
    return result


def _too_small_or_constant(scores: np.ndarray, mos: np.ndarray, min_size: int) -> bool:
    return scores.size < max(min_size, MIN_SAMPLES) or is_constant(scores) or is_constant(mos)


def _members(groups: np.ndarray) -> dict[str, np.ndarray]:
    """Group name -> indices of its samples, by name; the samples without a group ("") are left out."""
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
    """`correlation_metrics` of each group on its own: scores (N,), MOS (N,), group names (N,) -> {name: metrics}.

    A group below `min_group_size` or with constant scores or MOS gets None for every figure, and its num_samples. The
    RMSE matches mean and deviation within the group. `clusters` (N,) and `settings` as for `correlation_metrics`.
    """
    names = settings.get("names", ("scores", "mos"))
    scores, mos = as_vector(scores, names[0]), as_vector(mos, names[1])
    check_lengths({names[0]: scores, names[1]: mos})
    together = None if clusters is None else as_groups(clusters, "clusters", scores.size)
    results = {}
    for name, index in _members(as_groups(groups, "groups", scores.size)).items():
        if _too_small_or_constant(scores[index], mos[index], min_group_size):
            results[name] = _null_metrics(index.size, settings.get("logistic", True))
        else:
            own = None if together is None else together[index]
            results[name] = correlation_metrics(scores[index], mos[index], clusters=own, **settings)
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
    """SROCC and PLCC between the groups' mean scores and mean MOS: does the metric rank the generators as people do?

    Scores (N,), MOS (N,), group names (N,). With fewer than 3 groups (two means always correlate by +1 or -1) or
    constant means both figures are None. The intervals resample the clips within each group and keep
    the groups as they are.
    """
    check_bootstrap(num_bootstrap, confidence_level)
    scores, mos = as_vector(scores, names[0]), as_vector(mos, names[1])
    check_lengths({names[0]: scores, names[1]: mos})
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
        # A seed of its own for each group: with a common one, groups of equal size would be resampled in step.
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
    """`correlation_metrics` overall, with per_generator, per_category and generator_means where the groups are given.

    Scores (N,), MOS (N,), names (N,) of generators and categories, "" or None for none. `settings`: num_bootstrap,
    confidence_level, seed, logistic, max_logistic_bootstrap, names, as for `correlation_metrics`.
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
