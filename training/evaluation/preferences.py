"""Evaluate scores against human preferences between two clips: pairwise accuracy with and without ties."""

import argparse
import platform
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from rich.console import Console

from modeling_aigcvqa import __version__
from modeling_aigcvqa.common.files import whole_file, write_json, write_text
from training.common.pairs import Pairs, load_pairs
from training.common.text import figure_text, markdown_table
from training.vqa_correlation.pairs import pairwise_accuracy

from .figures import MIN_PROMPTS, Bootstrap, prompt_groups, repeat
from .predictions import read_predictions
from .scoring import Scorer, processes, score_clips

TITLES = {"accuracy_without_ties": "accuracy without ties", "accuracy_with_ties": "accuracy with ties"}


def evaluate_preferences(
    arguments: argparse.Namespace, scorer: Scorer | None, command: str, part: str | None, console: Console
) -> dict[str, Any] | None:
    """Score the clips of the pairs, compute the accuracies and write all files.

    Returns the content of metrics.json on the main process, None on the others, which only score.

    Writes scores.jsonl (from which an interrupted run continues), predictions.csv with one row per clip, pairs.csv with
    one row per pair, report.md and metrics.json.

    Raises:
        ValueError: if no pair has both scores, or a score of --predictions is missing; names the remedy.
    """
    pairs = load_pairs(arguments.data, arguments.split_file, part)
    clips = pairs.clips.remove_columns("video").to_pandas()
    clips["id"] = clips["id"].astype(str)
    names = add_scores(arguments, scorer, pairs, clips, console)
    if not processes().is_main_process:
        return None
    table = pair_table(pairs, clips, names)
    kept = table.dropna(subset=[f"{name}_{side}" for name in names for side in "ab"])
    if len(kept) < 2:
        reason = f" First error: {clips['error'].dropna().iloc[0]}" if clips["error"].notna().any() else ""
        raise ValueError(f"{len(kept)} of {len(table)} pairs have both scores; at least 2 are needed.{reason}")
    bootstrap = Bootstrap(arguments.num_bootstrap, arguments.confidence_level, arguments.seed)
    failed = clips.dropna(subset=["error"])[["id", "error"]].to_dict("records")
    result = {
        "model": arguments.model,
        "baseline": arguments.baseline,
        "model_note": scorer.note if scorer else None,
        "data": arguments.data,
        "split_file": str(arguments.split_file) if arguments.split_file else None,
        "part": arguments.part,
        "num_clips": len(clips),
        "num_pairs": len(kept),
        "num_pairs_in_part": len(table),
        "num_prompts": len(set(prompt_groups(kept))),
        "num_failed": len(failed),
        "failed": failed,
        "command": command,
        "versions": {
            "aigcvqa": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "bootstrap": {
            "num_resamples": bootstrap.num_bootstrap,
            "confidence_level": bootstrap.confidence_level,
            "seed": bootstrap.seed,
            "resampled": "prompts" if repeat(prompt_groups(kept)) else "pairs",
        },
        "preferences": {
            column: {name: accuracy(kept, name, column, bootstrap) for name in names} for column in pairs.preferences
        },
    }
    for name, rows in (("predictions", clips), ("pairs", table)):
        with whole_file(arguments.output / f"{name}.csv") as partial:
            rows.to_csv(partial, index=False)
    write_text(arguments.output / "report.md", report(result))
    write_json(arguments.output / "metrics.json", result)
    return result


def add_scores(
    arguments: argparse.Namespace, scorer: Scorer | None, pairs: Pairs, clips: pd.DataFrame, console: Console
) -> list[str]:
    """Add a column per score to the table of clips, and the column `error`; returns the names of the scores."""
    predictions = read_predictions(
        arguments.predictions, arguments.columns, arguments.lower_is_better, list(clips.columns)
    )
    values = {prediction.name: prediction.of(clips["id"], arguments.allow_missing) for prediction in predictions}
    clips["error"] = None
    if scorer:
        results = score_clips(scorer, pairs.clips, arguments.output / "scores.jsonl", arguments.overwrite, console)
        clips["error"] = [result.get("error") for result in results]
        for name in scorer.score_names:
            clips[name] = [result.get(name, float("nan")) for result in results]
    for name, column in values.items():
        if name in clips:
            raise ValueError(f"two scores have the name {name!r}; pass --predictions NAME=FILE.")
        clips[name] = column
    return [*(scorer.score_names if scorer else ()), *values]


def pair_table(pairs: Pairs, clips: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """One row per pair: ids, prompt, preferences (1 for A, -1 for B, 0 for a tie) and both scores."""
    first, second = (clips.iloc[pairs.places[:, side]].reset_index(drop=True) for side in (0, 1))
    table = pd.DataFrame({"id_a": first["id"], "id_b": second["id"], "prompt": first["prompt"].fillna("")})
    if "prompt_id" in clips:
        table["prompt_id"] = first["prompt_id"]
    scores = {f"{name}_{side}": rows[name] for name in names for side, rows in (("a", first), ("b", second))}
    return table.assign(**pairs.preferences, **scores)


def accuracy(table: pd.DataFrame, score: str, column: str, bootstrap: Bootstrap) -> dict[str, Any] | None:
    """Accuracies of a score against a preference column, with intervals by prompt where prompts repeat.

    None if fewer than 2 pairs have the preference, or if all scores are equal.
    """
    rows = table.dropna(subset=[column])
    values = rows[[f"{score}_a", f"{score}_b"]].to_numpy(float)
    if len(rows) < 2 or np.ptp(values) == 0:
        return None
    prompts = prompt_groups(rows)
    clusters = prompts if repeat(prompts) and len(set(prompts)) >= MIN_PROMPTS else None
    settings = vars(bootstrap)
    found = pairwise_accuracy(*values.T, rows[column].to_numpy(int), clusters=clusters, **settings)
    limits = found.pop("intervals")
    if repeat(prompts) and clusters is None:
        limits = {}  # too few prompts for an interval; one by pair would be too narrow
    figures = {
        name: dict(zip(("value", "low", "high"), (found[name], *(limits.get(name) or (None, None))))) for name in TITLES
    }
    return found | figures


def accuracy_rows(result: dict[str, Any]) -> list[list[str]]:
    """One table row per preference and score."""
    rows = []
    for column, scores in result["preferences"].items():
        for score, figures in scores.items():
            cells = [figure_text((figures or {}).get(name)) for name in TITLES]
            counts = [figures["num_pairs"], figures["num_human_ties"]] if figures else ["-", "-"]
            rows.append([column, score, *cells, *counts])
    return rows


HEADER = ["preference", "score", *TITLES.values(), "pairs", "ties"]


def report(result: dict[str, Any]) -> str:
    """The Markdown report."""
    bootstrap = result["bootstrap"]
    facts = {
        "model": result["model"],
        "baseline": result["baseline"],
        "weights": result["model_note"],
        "data": result["data"],
        "split file": result["split_file"],
        "part": result["part"],
        "pairs": f"{result['num_pairs']} of {result['num_pairs_in_part']}",
        "clips": f"{result['num_clips']}; {result['num_failed']} could not be scored",
        "prompts": result["num_prompts"],
        "command": f"`{result['command']}`",
    }
    intervals = (
        f"Brackets show {bootstrap['confidence_level']:.0%} percentile intervals from {bootstrap['num_resamples']} "
        f"resamples of {bootstrap['resampled']}."
        if bootstrap["num_resamples"]
        else "Intervals are left out (`--num_bootstrap 0`)."
    )
    parts = [
        "# Evaluation against preferences",
        "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None),
        markdown_table(HEADER, accuracy_rows(result)),
        "Without ties: the share of the pairs with a preferred clip in which the score prefers it too. With ties: "
        "three classes, where the scores tie below the threshold that fits these pairs best (Deutsch et al., 2023), "
        f"which makes the figure optimistic. {intervals}",
    ]
    if result["failed"]:
        lines = [f"- `{row['id']}`: {row['error']}" for row in result["failed"][:20]]
        parts.append("## Clips that could not be scored\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"
