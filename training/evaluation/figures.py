"""Correlations of scores with MOS, with intervals that take repeated prompts into account.

The figures come from `vqa_correlation`. An interval "by clip" resamples clips. Clips with the same prompt are not
independent, so where prompts repeat there is also an interval "by prompt", which resamples prompts together with all of
their clips.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from training.vqa_correlation.correlations import CORRELATION_NAMES
from training.vqa_correlation.logistic import LOGISTIC_NAMES
from training.vqa_correlation.reports import MIN_GROUP_SIZE, correlation_metrics, group_mean_metrics, metrics_or_none

FIT_PARAMETERS = ("upper", "lower", "centre", "scale")
# With fewer prompts there are too few different resamples for an interval; a single prompt has only one.
MIN_PROMPTS = 5


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the intervals, under the names that `vqa_correlation` uses.

    Args:
        num_bootstrap: number of resamples for each interval; 0 for no intervals.
        confidence_level: confidence level of the percentile intervals, in (0, 1).
        seed: seed of the resampling.
    """

    num_bootstrap: int = 1000
    confidence_level: float = 0.95
    seed: int = 0


def prompt_groups(table: pd.DataFrame) -> np.ndarray:
    """Names (N,) that are equal for clips with the same prompt.

    The name is `prompt_id` if the table has this column, otherwise the prompt without differences in case and spacing.
    A clip without a prompt shares its name with no other clip.
    """
    if "prompt_id" in table:
        return table["prompt_id"].astype(str).to_numpy(dtype=object)
    texts = [" ".join(str(prompt or "").casefold().split()) for prompt in table["prompt"]]
    return np.array([text or f"\0{index}" for index, text in enumerate(texts)], dtype=object)


def repeat(prompts: np.ndarray) -> bool:
    """Whether at least two of the clips with these prompts (N,) have the same prompt."""
    return len(set(prompts)) < len(prompts)


def entry(value: float | None, by_clip: list[float] | None, by_prompt: list[float] | None, repeats: bool) -> dict:
    """A figure as in metrics.json: `low` and `high` are by prompt if prompts repeat, otherwise by clip."""
    low, high = (by_prompt if repeats else by_clip) or (None, None)
    return {"value": value, "low": low, "high": high, "by_clip": by_clip, "by_prompt": by_prompt}


def score_figures(
    table: pd.DataFrame, score: str, bootstrap: Bootstrap, label: str = "mos", logistic: bool = False, **options: Any
) -> tuple[dict[str, dict], dict | None]:
    """Figures of the column `score` against the column `label`, and the logistic fit if `logistic` is true.

    The figures are `{metric: {value, low, high, by_clip, by_prompt}}`. Every value is None if one of the columns is
    constant or if there are fewer clips than `min_samples` in `options`. Figures after the logistic fit have intervals
    by clip only, because a fit of every resample takes too long.
    """
    scores, labels = table[score].to_numpy(float), table[label].to_numpy(float)
    prompts, settings = prompt_groups(table), asdict(bootstrap)
    report = metrics_or_none(scores, labels, logistic=logistic, **settings, **options)
    by_prompt = {}
    if report["srocc"] is not None and repeat(prompts) and len(set(prompts)) >= MIN_PROMPTS:
        by_prompt = correlation_metrics(scores, labels, clusters=prompts, logistic=False, **settings)["intervals"]
    figures = {}
    for name in (*CORRELATION_NAMES, *(LOGISTIC_NAMES if logistic else ())):
        repeats = repeat(prompts) and name in CORRELATION_NAMES
        figures[name] = entry(report[name], report["intervals"].get(name), by_prompt.get(name), repeats)
    if not report.get("logistic_parameters"):
        return figures, None
    fit = dict(zip(FIT_PARAMETERS, report["logistic_parameters"], strict=True))
    return figures, fit | {"converged": report["logistic_converged"]}


def all_figures(table: pd.DataFrame, scores: list[str], bootstrap: Bootstrap) -> dict[str, dict | None]:
    """Figures of the columns `scores` against the column `mos`.

    Args:
        table: one row per clip with id, prompt, mos and the scores, and optionally generator, category and prompt_id.

    Returns:
        metrics {score: figures}, see `score_figures`; fit {score: parameters of the logistic, or None}; by_generator
        and by_category {name: {num_clips, metrics}}; generator_means {score: {num_groups, srocc, plcc, mean_scores,
        mean_mos}}. The last three are None if the table lacks the column.
    """
    whole = {score: score_figures(table, score, bootstrap, logistic=True) for score in scores}
    means = {score: _generator_means(table, score, bootstrap) for score in scores} if "generator" in table else None
    return {
        "metrics": {score: figures for score, (figures, _) in whole.items()},
        "fit": {score: fit for score, (_, fit) in whole.items()},
        "by_generator": _by_group(table, "generator", scores, bootstrap),
        "by_category": _by_group(table, "category", scores, bootstrap),
        "generator_means": means,
    }


def _by_group(table: pd.DataFrame, column: str, scores: list[str], bootstrap: Bootstrap) -> dict[str, dict] | None:
    """Figures of each group of a column separately. Clips without a group are left out."""
    if column not in table:
        return None
    groups = table[column].fillna("").astype(str)
    result = {}
    for name, rows in table[groups != ""].groupby(groups):
        figures = {score: score_figures(rows, score, bootstrap, min_samples=MIN_GROUP_SIZE)[0] for score in scores}
        result[name] = {"num_clips": len(rows), "metrics": figures}
    return result


def _generator_means(table: pd.DataFrame, score: str, bootstrap: Bootstrap) -> dict:
    """Correlations between the generators' means. The intervals resample the clips within each generator."""
    generators = table["generator"].fillna("")
    result = group_mean_metrics(table[score], table["mos"], generators, **asdict(bootstrap))
    intervals = result.pop("intervals")
    return result | {name: entry(result[name], intervals.get(name), None, False) for name in ("srocc", "plcc")}
