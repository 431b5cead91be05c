"""Figures of scores against MOS, with intervals that respect repeated prompts.

The metrics are those of `vqa_correlation`. An interval "by clip" resamples clips. Clips of one prompt are no
independent samples, so where prompts repeat there is an interval "by prompt" too: prompts are resampled, each with all
of its clips.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.vqa_correlation.correlations import CORRELATION_NAMES
from training.vqa_correlation.logistic import LOGISTIC_NAMES
from training.vqa_correlation.reports import correlation_metrics, group_mean_metrics, grouped_metrics

FIT_PARAMETERS = ("upper", "lower", "centre", "scale")
# Fewer prompts have too few different resamples for an interval (one prompt has a single one: itself).
MIN_PROMPTS = 5


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Args:
        num_resamples: behind each interval; 0 for no intervals.
        confidence_level: share of the percentile interval, in (0, 1).
        seed: of the resampling.
    """

    num_resamples: int = 1000
    confidence_level: float = 0.95
    seed: int = 0

    def settings(self) -> dict[str, float]:
        """The same for the functions of `vqa_correlation`."""
        return {
            "num_bootstrap": self.num_resamples,
            "confidence_level": self.confidence_level,
            "seed": self.seed,
        }


def prompt_groups(table: pd.DataFrame) -> np.ndarray:
    """A name (N,) for the prompt of each clip: `prompt_id` where there is one, else the text without case and spacing.

    A clip without a prompt is a group of its own.
    """
    if "prompt_id" in table:
        return table["prompt_id"].astype(str).to_numpy(dtype=object)
    texts = [" ".join(str(prompt or "").casefold().split()) for prompt in table["prompt"]]
    return np.array([text or f"\0{index}" for index, text in enumerate(texts)], dtype=object)


def varies(values: np.ndarray) -> bool:
    return len(values) > 1 and np.ptp(values) > 1e-13 * np.abs(values).max()


def entry(value: float | None, by_clip: list[float] | None, by_prompt: list[float] | None, repeats: bool) -> dict:
    """A figure as metrics.json holds it: `low` and `high` are by prompt where prompts repeat, else by clip."""
    low, high = (by_prompt if repeats else by_clip) or (None, None)
    return {"value": value, "low": low, "high": high, "by_clip": by_clip, "by_prompt": by_prompt}


def undefined(names: Iterable[str]) -> dict[str, dict]:
    """The figures where scores or MOS are constant."""
    return {name: entry(None, None, None, False) for name in names}


def repeat(prompts: np.ndarray) -> bool:
    """Whether a prompt has several clips."""
    return len(set(prompts)) < len(prompts)


def figures_of(
    report: dict, scores: np.ndarray, mos: np.ndarray, prompts: np.ndarray, bootstrap: Bootstrap
) -> dict[str, dict]:
    """Figures of `vqa_correlation` for scores, MOS and prompts (N,), with both kinds of intervals.

    Those after the logistic fit have intervals by clip alone: a fit for every resample takes too long.
    """
    by_prompt = {}
    if report["srocc"] is not None and repeat(prompts) and len(set(prompts)) >= MIN_PROMPTS:
        settings = bootstrap.settings()
        by_prompt = correlation_metrics(scores, mos, clusters=prompts, logistic=False, **settings)["intervals"]
    figures = {}
    for name in (*CORRELATION_NAMES, *LOGISTIC_NAMES):
        if name in report:
            repeats = repeat(prompts) and name in CORRELATION_NAMES
            figures[name] = entry(report[name], report["intervals"].get(name), by_prompt.get(name), repeats)
    return figures


def all_figures(table: pd.DataFrame, scores: list[str], bootstrap: Bootstrap) -> dict[str, dict | None]:
    """Figures of the columns `scores` against the column `mos`.

    Args:
        table: a row a clip: id, prompt, mos, the scores, and generator, category, prompt_id where the data have them.

    Returns:
        metrics {score: {metric: {value, low, high, by_clip, by_prompt}}}, every value None where the scores are
        constant or fewer than 2; fit {score: parameters of the logistic, or None}; by_generator and by_category
        {name: {num_clips, metrics}} and generator_means {score: {num_groups, srocc, plcc, mean_scores, mean_mos}}, None
        where the data have no such column.
    """
    whole = {score: _score_figures(table, score, bootstrap) for score in scores}
    means = {score: _generator_means(table, score, bootstrap) for score in scores} if "generator" in table else None
    return {
        "metrics": {score: figures for score, (figures, _) in whole.items()},
        "fit": {score: fit for score, (_, fit) in whole.items()},
        "by_generator": _by_group(table, "generator", scores, bootstrap),
        "by_category": _by_group(table, "category", scores, bootstrap),
        "generator_means": means,
    }


def _score_figures(table: pd.DataFrame, score: str, bootstrap: Bootstrap) -> tuple[dict, dict | None]:
    """Figures of one score, and the parameters of its logistic."""
    scores, mos = table[score].to_numpy(float), table["mos"].to_numpy(float)
    if not varies(scores) or not varies(mos):
        return undefined((*CORRELATION_NAMES, *LOGISTIC_NAMES)), None
    report = correlation_metrics(scores, mos, **bootstrap.settings())
    fit = None
    if report["logistic_parameters"] is not None:
        fit = dict(zip(FIT_PARAMETERS, report["logistic_parameters"])) | {"converged": report["logistic_converged"]}
    return figures_of(report, scores, mos, prompt_groups(table), bootstrap), fit


def _by_group(table: pd.DataFrame, column: str, scores: list[str], bootstrap: Bootstrap) -> dict[str, dict] | None:
    """Figures of every group of a column on its own."""
    if column not in table:
        return None
    groups = table[column].fillna("").astype(str)
    result: dict[str, dict] = {}
    for score in scores:
        columns = (table[score].to_numpy(float), table["mos"].to_numpy(float))
        reports = grouped_metrics(*columns, groups.tolist(), logistic=False, **bootstrap.settings())
        for name, report in reports.items():
            rows = table[groups == name]
            group = result.setdefault(name, {"num_clips": len(rows), "metrics": {}})
            columns = (rows[score].to_numpy(float), rows["mos"].to_numpy(float))
            group["metrics"][score] = figures_of(report, *columns, prompt_groups(rows), bootstrap)
    return result


def _generator_means(table: pd.DataFrame, score: str, bootstrap: Bootstrap) -> dict:
    """Does the score rank the generators as people do? Its intervals resample clips within each generator."""
    generators = table["generator"].fillna("").astype(str).tolist()
    result = group_mean_metrics(table[score].tolist(), table["mos"].tolist(), generators, **bootstrap.settings())
    intervals = result.pop("intervals")
    return result | {name: entry(result[name], intervals.get(name), None, False) for name in ("srocc", "plcc")}
