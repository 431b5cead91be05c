"""What an evaluation leaves: a Markdown report, and a scatter plot a score."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from modeling_aigcvqa.common.files import write_text
from training.common.text import METRIC_TITLES, figure_text, markdown_table
from training.vqa_correlation.logistic import logistic_curve

from .figures import FIT_PARAMETERS

FITTED = {"plcc_logistic": "PLCC after the fit", "rmse_logistic": "RMSE after the fit"}
MAX_LISTED = 20


def write_report(folder: Path, result: dict[str, Any], table: pd.DataFrame) -> Path:
    """report.md with its plots in `folder`; `result` as in metrics.json, `table` the predictions of all clips."""
    plots = {score: _scatter(folder, score, result, table) for score in result["metrics"]}
    parts = [
        "# Evaluation",
        _facts(result),
        "## All clips",
        markdown_table(["score", *METRIC_TITLES.values()], metric_rows(result["metrics"], METRIC_TITLES)),
        _protocol(result),
        markdown_table(["score", *FITTED.values()], metric_rows(result["metrics"], FITTED)),
        _latents(result.get("latents")),
        _prompt_swap(result.get("prompt_swap")),
        _groups("generator", result),
        _generator_means(result["generator_means"]),
        _groups("category", result),
        "## Scores against MOS",
        "\n".join(f"![{score}]({plot.name})" for score, plot in plots.items()),
        _failed(result["failed"]),
        _missing(result["missing"]),
    ]
    path = folder / "report.md"
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def metric_rows(metrics: dict[str, dict], names: dict[str, str]) -> list[list[str]]:
    """A row a score of the named metrics."""
    return [[score, *(figure_text(figures.get(name)) for name in names)] for score, figures in metrics.items()]


def _facts(result: dict) -> str:
    """What was evaluated on what."""
    facts = {
        "model": result["model"],
        "baseline": result["baseline"],
        "weights": result["model_note"],
        "data": result["data"],
        "split file": result["split_file"],
        "part": result["part"],
        "clips": f"{result['num_clips']} of {result['num_in_part']}; {result['num_failed']} could not be scored",
        "prompts": result["num_prompts"],
        "command": f"`{result['command']}`",
    }
    facts |= {f"scores of {name}": source for name, source in (result["predictions"] or {}).items()}
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _protocol(result: dict) -> str:
    bootstrap, level = result["bootstrap"], f"{result['bootstrap']['confidence_level']:.0%}"
    text = "RMSE is taken after the scores are given the mean and deviation of the MOS. "
    if not bootstrap["num_resamples"]:
        return text + "No intervals were asked for."
    text += f"Brackets: {level} percentile intervals of {bootstrap['num_resamples']} resamples "
    if bootstrap["resampled"] == "prompts":
        return text + (
            "of prompts, each with all of its clips, where there are 5 prompts or more (metrics.json also has those of "
            "resampled clips, which are too narrow where prompts repeat); after the four-parameter logistic fit and "
            "of generators' means, of clips."
        )
    return text + "of clips."


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
    rows.append(["own score follows it best", *best])
    return "## Each branch against each noiseless latent\n\nSROCC; each should be highest with its own (bold).\n\n" + (
        markdown_table(["", *names, "own latent is best"], rows)
    )


def _prompt_swap(swap: dict | None) -> str:
    if not swap:
        return ""
    share, clips = swap["share"], f"{swap['num_clips']} {swap['clips']}"
    interval = "" if share["low"] is None else f" [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
    return (
        "## The right prompt against another\n\n"
        f"The right prompt beats a random other prompt of the same category on {swap['score']} in "
        f"{100 * share['value']:.1f} %{interval} of {clips} (chance: 50 %; seed {swap['seed']})."
    )


def _groups(kind: str, result: dict) -> str:
    groups = result[f"by_{kind}"]
    if not groups:
        return ""
    parts = [f"## By {kind}"]
    for score in result["metrics"]:
        rows = [
            [
                name,
                str(group["num_clips"]),
                *(figure_text(group["metrics"][score].get(metric)) for metric in METRIC_TITLES),
            ]
            for name, group in groups.items()
        ]
        parts.append(f"{score}:\n\n" + markdown_table([kind, "clips", *METRIC_TITLES.values()], rows))
    return "\n\n".join(parts)


def _generator_means(means: dict | None) -> str:
    """Are the generators ranked as people rank them?"""
    if not means or all(entry["srocc"]["value"] is None for entry in means.values()):
        return ""
    rows = [
        [score, str(entry["num_groups"]), figure_text(entry["srocc"]), figure_text(entry["plcc"])]
        for score, entry in means.items()
    ]
    return "Between the generators' mean scores and mean MOS:\n\n" + markdown_table(
        ["score", "generators", "SROCC", "PLCC"], rows
    )


def _failed(failed: list[dict]) -> str:
    if not failed:
        return ""
    lines = [f"- `{row['id']}`: {row['error']}" for row in failed[:MAX_LISTED]]
    if len(failed) > MAX_LISTED:
        lines.append(f"- and {len(failed) - MAX_LISTED} more (predictions.csv)")
    return "## Clips that could not be scored\n\nThey are in no figure above.\n\n" + "\n".join(lines)


def _missing(missing: dict[str, int]) -> str:
    lines = [f"- {name}: {count} clips without a score" for name, count in missing.items() if count]
    if not lines:
        return ""
    return "## Scores that are missing\n\nOnly clips with every score are in the figures above.\n\n" + "\n".join(lines)


def file_name(score: str) -> str:
    """A score's name as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", score)


def _scatter(folder: Path, score: str, result: dict, table: pd.DataFrame) -> Path:
    """Scores against MOS, coloured by generator, with the four-parameter fit."""
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
    path = folder / f"scatter_{file_name(score)}.png"
    figure.savefig(path, dpi=130)
    return path
