"""Markdown report of an evaluation, with one scatter plot per score."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from modeling_aigcvqa.common.files import whole_file, write_text
from training.common.probes import probe_rows
from training.common.text import METRIC_TITLES, figure_text, markdown_table
from training.vqa_correlation.logistic import logistic_curve

from .figures import FIT_PARAMETERS, MIN_PROMPTS

FITTED = {"plcc_logistic": "PLCC after the fit", "rmse_logistic": "RMSE after the fit"}
MAX_LISTED = 20


def write_report(folder: Path, result: dict[str, Any], table: pd.DataFrame) -> None:
    """Write report.md and its plots into `folder`.

    Args:
        result: content of metrics.json.
        table: one row per scored clip, as in predictions.csv.
    """
    plots = {score: _scatter(folder, score, result, table) for score in result["metrics"]}
    parts = [
        "# Evaluation",
        _facts(result),
        "## All clips",
        markdown_table(["score", *METRIC_TITLES.values()], metric_rows(result["metrics"], METRIC_TITLES)),
        _protocol(result),
        markdown_table(["score", *FITTED.values()], metric_rows(result["metrics"], FITTED)),
        _interval(result.get("interval")),
        _latents(result.get("latents")),
        _prompt_swap(result.get("prompt_swap")),
        _probes(result.get("probes")),
        _groups("generator", result),
        _generator_means(result["generator_means"]),
        _groups("category", result),
        "## Scores against MOS",
        "\n".join(f"![{score}]({plot.name})" for score, plot in plots.items()),
        _failed(result["failed"]),
        _missing(result["missing"]),
    ]
    write_text(folder / "report.md", "\n\n".join(part for part in parts if part) + "\n")


def metric_rows(metrics: dict[str, dict], names: dict[str, str]) -> list[list[str]]:
    """One table row per score with the metrics in `names`, a dict from metric to title."""
    return [[score, *(figure_text(figures.get(name)) for name in names)] for score, figures in metrics.items()]


def _facts(result: dict) -> str:
    facts = {
        "model": result["model"],
        "baseline": result["baseline"],
        "weights": result["model_note"],
        "data": result["data"],
        "split file": result["split_file"],
        "part": result["part"],
        "clips": f"{result['num_clips']} of {result['num_in_part']}; {result['num_failed']} could not be scored",
        "extended": _extended(result.get("num_extended")),
        "prompts": result["num_prompts"],
        "command": f"`{result['command']}`",
    }
    facts |= {f"scores of {name}": source for name, source in (result["predictions"] or {}).items()}
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _extended(clips: int | None) -> str | None:
    return f"the published protocol has no answer for {clips} clips; its natural extension was taken" if clips else None


def _protocol(result: dict) -> str:
    bootstrap, level = result["bootstrap"], f"{result['bootstrap']['confidence_level']:.0%}"
    text = "RMSE is computed after the scores are given the mean and standard deviation of the MOS. "
    if not bootstrap["num_resamples"]:
        return text + "Intervals are left out (`--num_bootstrap 0`)."
    text += f"Brackets show {level} percentile intervals from {bootstrap['num_resamples']} resamples of "
    if bootstrap["resampled"] == "clips":
        return text + "clips."
    return text + (
        f"prompts, each with all of its clips; they need at least {MIN_PROMPTS} prompts. Figures after the "
        "four-parameter logistic fit and correlations of the generators' means have intervals from resamples of clips. "
        "For the other figures metrics.json has such intervals too, but they are too narrow because prompts repeat."
    )


def _latents(latents: dict | None) -> str:
    if not latents:
        return ""
    names = list(next(iter(latents["srocc"].values())))
    rows = []
    for score, row in latents["srocc"].items():
        own = score.removesuffix("_score")
        cells = [f"**{figure_text(row[name])}**" if name == own else figure_text(row[name]) for name in names]
        rows.append([score, *cells, "yes" if latents["own_latent_is_best"][score] else "NO"])
    best = [*("yes" if latents["own_score_is_best"].get(name) else "NO" for name in names), ""]
    rows.append(["own score is best", *best])
    return (
        "## Each branch against each noiseless latent\n\nSROCC, which should be highest between the score and the "
        "latent of the same branch (bold).\n\n" + markdown_table(["", *names, "own latent is best"], rows)
    )


def _prompt_swap(swap: dict | None) -> str:
    if not swap:
        return ""
    share, clips = swap["share"], f"{swap['num_clips']} {swap['clips']}"
    interval = "" if share["low"] is None else f" [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
    return (
        "## The right prompt against another prompt\n\n"
        f"{swap['score']} is higher with the right prompt than with a random other prompt of the same category for "
        f"{100 * share['value']:.1f} %{interval} of {clips} (chance: 50 %; seed {swap['seed']})."
    )


def _interval(interval: dict | None) -> str:
    if not interval:
        return ""
    return (
        f"The model states that the MOS lies within {interval['half_width']:.4g} of the quality score for "
        f"{interval['coverage']:.0%} of clips. It does for {interval['measured_coverage']:.1%} of these."
    )


def _probes(probes: dict | None) -> str:
    if not probes:
        return ""
    return (
        f"## Probes\n\n{probes['clips']} clips; what was done and measured stands on [the page](probes/index.html).\n\n"
        + markdown_table(["probe", "figure", "verdict"], probe_rows(probes))
    )


def _groups(kind: str, result: dict) -> str:
    groups = result[f"by_{kind}"]
    if not groups:
        return ""
    parts = [f"## By {kind}"]
    for score in result["metrics"]:
        rows = [
            [name, group["num_clips"], *(figure_text(group["metrics"][score][metric]) for metric in METRIC_TITLES)]
            for name, group in groups.items()
        ]
        parts.append(f"{score}:\n\n" + markdown_table([kind, "clips", *METRIC_TITLES.values()], rows))
    return "\n\n".join(parts)


def _generator_means(means: dict | None) -> str:
    if not means or all(entry["srocc"]["value"] is None for entry in means.values()):
        return ""
    rows = [
        [score, entry["num_groups"], figure_text(entry["srocc"]), figure_text(entry["plcc"])]
        for score, entry in means.items()
    ]
    return "Correlation between the mean scores and the mean MOS of the generators:\n\n" + markdown_table(
        ["score", "generators", "SROCC", "PLCC"], rows
    )


def _failed(failed: list[dict]) -> str:
    if not failed:
        return ""
    lines = [f"- `{row['id']}`: {row['error']}" for row in failed[:MAX_LISTED]]
    if len(failed) > MAX_LISTED:
        lines.append(f"- and {len(failed) - MAX_LISTED} more (predictions.csv)")
    return "## Clips that could not be scored\n\nAll figures leave these clips out.\n\n" + "\n".join(lines)


def _missing(missing: dict[str, int]) -> str:
    lines = [f"- {name}: {count} clips without a score" for name, count in missing.items() if count]
    if not lines:
        return ""
    return "## Missing scores\n\nAll figures use only the clips that have every score.\n\n" + "\n".join(lines)


def _scatter(folder: Path, score: str, result: dict, table: pd.DataFrame) -> Path:
    """Plot the scores against MOS, one colour per generator, with the logistic fit."""
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.add_subplot()
    generators = table["generator"].fillna("unknown") if "generator" in table else pd.Series("clips", table.index)
    colours = colormaps["tab10" if generators.nunique() <= 10 else "tab20"]
    for index, (name, rows) in enumerate(table.groupby(generators, sort=True)):
        axes.scatter(rows[score], rows["mos"], s=10, alpha=0.7, color=colours(index % colours.N), label=str(name))
    fit = result["fit"][score]
    if fit:
        x = np.linspace(table[score].min(), table[score].max(), 200)
        curve = logistic_curve(x, *(fit[name] for name in FIT_PARAMETERS))
        axes.plot(x, curve, color="black", label="four-parameter logistic")
    metrics = result["metrics"][score]
    axes.set_title(f"SROCC {figure_text(metrics['srocc'])}, PLCC {figure_text(metrics['plcc'])}", fontsize=9)
    axes.set_xlabel(score)
    axes.set_ylabel("MOS")
    axes.legend(fontsize=7)
    path = folder / ("scatter_" + re.sub(r"[^\w.-]+", "_", score) + ".png")
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=130)
    return path
