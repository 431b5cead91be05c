"""Evaluate the scores of a model, of a baseline or of any other metric against MOS.

    python -m training.evaluate --model DIR --data DIR --split_file FILE --output DIR
    python -m training.evaluate --baseline dover --model DIR --data DIR --split_file FILE --output DIR
    accelerate launch -m training.evaluate --model DIR --data DIR --output DIR
    python -m training.evaluate --predictions a/predictions.csv other=b.csv --data DIR --split_file FILE --output DIR

With `accelerate launch` or torchrun, the processes share the clips.

The program writes predictions.csv, predictions.parquet, metrics.json, report.md and one scatter plot per score. Scores
are saved to scores.jsonl during the run, so the same command continues a run that was stopped. Clips that cannot be
scored are listed in the report and left out of all figures.

A data set of preferences without MOS (or --preferences) gives pairwise accuracies instead.
"""

import argparse
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from datasets import Dataset
from rich.console import Console

from modeling_aigcvqa import __version__
from modeling_aigcvqa.clip_scorer import ScorerSettings
from modeling_aigcvqa.common.console import error_console, exits_with_status, progress_bar
from modeling_aigcvqa.common.files import whole_file, write_json
from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from modeling_aigcvqa.loading import DTYPES
from modeling_aigcvqa.probes.measure import ProbedClip
from modeling_aigcvqa.probes.program import FEWEST_CLIPS, probe
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from training.common.clips import PARTS, load_clips, load_splits
from training.common.pairs import has_pairs
from training.common.text import METRIC_TITLES, markdown_table

from .baselines import BASELINES, baseline_scorer
from .baselines.clips import EXTENDED
from .figures import Bootstrap, all_figures, prompt_groups, repeat
from .predictions import read_predictions
from .preferences import HEADER, accuracy_rows, evaluate_preferences
from .report import metric_rows, write_report
from .scoring import Scorer, model_scorer, processes, score_clips
from .synthetic import latent_matrix, other_prompts, prompt_swap_figures

ALL_PARTS = "all"
PROBED_CLIPS = 50


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="prepared folder or Hub id of a data set")
    parser.add_argument("--split_file", type=Path, help="CSV file id,split written by dataset_scripts.make_splits")
    parser.add_argument("--part", choices=[*PARTS, ALL_PARTS], default="test", help="part of the data (default: test)")
    parser.add_argument("--output", type=Path, required=True, help="folder for all files that are written")

    parser.add_argument(
        "--preferences",
        action="store_true",
        help="evaluate against the preferences between two clips (default: if the data set has them and no MOS)",
    )
    scores = parser.add_argument_group("scores to evaluate")
    scores.add_argument("--model", help="small, free, dover, a folder or a Hub id; the weights if --baseline is given")
    scores.add_argument("--baseline", choices=BASELINES, help="published metric, with its weights given by --weights")
    scores.add_argument("--weights", help="of the baseline: a folder, a file or a Hub id; --model means the same")
    scores.add_argument(
        "--branches", help=f"comma-separated subset of {','.join(BRANCHES)} (default: all branches of the model)"
    )
    scores.add_argument(
        "--alignment_num_frames",
        type=int,
        metavar="N",
        help="number of frames for the alignment branch (default: as in the model's configuration)",
    )
    scores.add_argument(
        "--predictions",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="scores of other metrics: CSV, JSONL or parquet files with a column id and one column per score",
    )
    scores.add_argument(
        "--columns", nargs="+", metavar="COLUMN", help="columns of the prediction files (default: all scores)"
    )
    scores.add_argument(
        "--lower_is_better", nargs="+", default=[], metavar="NAME", help="scores whose sign is inverted"
    )
    scores.add_argument(
        "--allow_missing", action="store_true", help="leave out clips without a score in one of the prediction files"
    )
    scores.add_argument(
        "--prompt_swap", action="store_true", help="also score each clip with another prompt of its category"
    )

    scores.add_argument(
        "--probes",
        type=int,
        nargs="?",
        const=PROBED_CLIPS,
        metavar="N",
        help=f"also probe the model with N clips, spread over the part (default: {PROBED_CLIPS}); see `aigcvqa probe`",
    )

    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if there is one)")
    scoring.add_argument("--dtype", choices=list(DTYPES), help="default: the dtype of the weights")
    scoring.add_argument("--batch_size", type=int, default=1, help="clips per batch (default: 1)")
    scoring.add_argument("--num_workers", type=int, default=0, help="number of processes that decode (default: 0)")
    scoring.add_argument("--overwrite", action="store_true", help="discard the scores that --output already holds")

    intervals = parser.add_argument_group("intervals")
    intervals.add_argument(
        "--num_bootstrap", type=int, default=1000, help="number of resamples; 0 for no intervals (default: 1000)"
    )
    intervals.add_argument("--confidence_level", type=float, default=0.95, help="default: 0.95")
    intervals.add_argument("--seed", type=int, default=0, help="seed of the resampling and of the prompt swap")
    return parser


@exits_with_status("evaluate")
def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if every clip was scored, 1 if some clips failed, 2 after a wrong call."""
    arguments = build_parser().parse_args(argv)
    console = error_console()
    check_arguments(arguments)
    command = shlex.join(["python", "-m", "training.evaluate", *(sys.argv[1:] if argv is None else argv)])
    if arguments.preferences or only_preferences(arguments):
        part = None if arguments.part == ALL_PARTS else arguments.part
        arguments.output.mkdir(parents=True, exist_ok=True)
        scorer = build_scorer(arguments) if arguments.model else None
        result = evaluate_preferences(arguments, scorer, command, part, console)
        if result is None:
            return 0
        print(markdown_table(HEADER, accuracy_rows(result)))
        print(f"{result['num_pairs']} pairs; report: {arguments.output / 'report.md'}")
    else:
        result = evaluate_scores(arguments, command, console)
        if result is None:
            return 0
        print(markdown_table(["score", *METRIC_TITLES.values()], metric_rows(result["metrics"], METRIC_TITLES)))
        print(f"{result['num_clips']} clips; report: {arguments.output / 'report.md'}")
    for row in result["failed"]:
        console.print(f"failed: {row['id']}: {row['error']}", style="red")
    return 1 if result["num_failed"] else 0


def only_preferences(arguments: argparse.Namespace) -> bool:
    """Whether the data set has preferences and no MOS."""
    if not has_pairs(arguments.data):
        return False
    return all(mos is None for split in load_splits(arguments.data).values() for mos in split["mos"])


def check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.weights is not None:
        if not arguments.baseline or arguments.model:
            raise ValueError(f"--weights {arguments.weights} goes with --baseline, and not with --model.")
        arguments.model = arguments.weights
    if arguments.baseline and not arguments.model:
        raise ValueError(f"--baseline {arguments.baseline} needs weights; pass them as --weights FILE or --model DIR.")
    if not arguments.model and not arguments.predictions:
        raise ValueError("nothing to evaluate; pass --model, --predictions or both.")
    for option in ("branches", "alignment_num_frames"):
        value = getattr(arguments, option)
        if value is not None and (arguments.baseline or not arguments.model):
            raise ValueError(f"--{option} {value} needs --model without --baseline; leave --{option} out.")
    if arguments.prompt_swap and not arguments.model:
        raise ValueError("--prompt_swap scores clips with other prompts; pass --model.")
    if arguments.probes is not None and (arguments.probes < FEWEST_CLIPS or arguments.baseline or not arguments.model):
        raise ValueError(
            f"--probes {arguments.probes} needs --model without --baseline, and at least {FEWEST_CLIPS} clips."
        )
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size {arguments.batch_size}: expected at least 1.")
    if arguments.num_bootstrap < 0:
        raise ValueError(f"--num_bootstrap {arguments.num_bootstrap}: expected at least 0.")
    if not 0 < arguments.confidence_level < 1:
        raise ValueError(f"--confidence_level {arguments.confidence_level}: expected a number between 0 and 1.")
    if arguments.output.exists() and not arguments.output.is_dir():
        raise ValueError(f"--output '{arguments.output}' is a file; pass a folder.")


def evaluate_scores(arguments: argparse.Namespace, command: str, console: Console) -> dict[str, Any] | None:
    """Score the clips, compute the figures and write all files.

    Returns the content of metrics.json on the main process, None on the others, which only score.
    """
    clips = load_clips(arguments.data, arguments.split_file, None if arguments.part == ALL_PARTS else arguments.part)
    table = clips.remove_columns("video").to_pandas()
    table["id"], table["prompt"] = table["id"].astype(str), table["prompt"].fillna("")
    if arguments.prompt_swap:
        check_other_prompts(arguments, table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    sources, scorer = add_scores(arguments, clips, table, console)
    scored = table.dropna(subset=list(sources))
    swapped = score_other_prompts(arguments, clips, scored, console) if arguments.prompt_swap else None
    if not processes().is_main_process:
        return None
    for file, write in (("predictions.csv", table.to_csv), ("predictions.parquet", table.to_parquet)):
        with whole_file(arguments.output / file) as partial:
            write(partial, index=False)
    if len(scored) < 2:
        reason = f" First error: {table['error'].dropna().iloc[0]}" if scorer and table["error"].notna().any() else ""
        raise ValueError(f"{len(scored)} of {len(table)} clips have every score; at least 2 are needed.{reason}")
    bootstrap = Bootstrap(arguments.num_bootstrap, arguments.confidence_level, arguments.seed)
    result = describe(arguments, command, table, sources)
    result |= {"model_note": scorer.note if scorer else None} | all_figures(scored, list(sources), bootstrap)
    result["interval"] = measured_interval(scorer.interval, scored) if scorer and scorer.interval else None
    result["latents"] = latent_matrix(scored, bootstrap)
    result["probes"] = probes_of(arguments, clips, console) if arguments.probes else None
    result["prompt_swap"] = swap_result(arguments, *swapped, scored, bootstrap) if swapped else None
    write_report(arguments.output, result, scored)
    # metrics.json is written last, so an evaluation with this file is complete.
    write_json(arguments.output / "metrics.json", result)
    return result


def check_other_prompts(arguments: argparse.Namespace, table: pd.DataFrame) -> None:
    """Raise ValueError if no clip has another prompt to be scored with."""
    if other_prompts(table, arguments.seed).empty:
        num_prompts = len(set(prompt_groups(table)))
        raise ValueError(
            f"--prompt_swap: part {arguments.part!r} of '{arguments.data}' has {len(table)} clips and {num_prompts} "
            "different prompts, but no clip can be scored with another prompt of its category; leave --prompt_swap "
            "out, or pass data with at least two prompts per category."
        )


def add_scores(
    arguments: argparse.Namespace, clips: Dataset, table: pd.DataFrame, console: Console
) -> tuple[dict[str, str | None], Scorer | None]:
    """Add one column per score to the table of clips, with NaN for clips without the score.

    Returns:
        The prediction file of each score, None for a score of the model or baseline; and the scorer, if there is one.
    """
    # Scoring takes hours, so the files are read and all names are checked before it starts.
    labels = list(table.columns)
    predictions = read_predictions(arguments.predictions, arguments.columns, arguments.lower_is_better, labels)
    scorer = build_scorer(arguments) if arguments.model else None
    if arguments.prompt_swap and scorer.prompt_score is None:
        raise ValueError("--prompt_swap: no score of this model depends on the prompt; leave --prompt_swap out.")
    sources, predicted = dict.fromkeys(scorer.score_names if scorer else ()), {}
    for prediction in predictions:
        if prediction.name in sources:
            raise ValueError(f"two scores have the name {prediction.name!r}; pass --predictions NAME=FILE.")
        sources[prediction.name] = str(prediction.file)
        predicted[prediction.name] = prediction.of(table["id"], arguments.allow_missing)
    if scorer:
        results = score_clips(scorer, clips, arguments.output / "scores.jsonl", arguments.overwrite, console)
        for name in scorer.score_names:
            table[name] = [result.get(name, float("nan")) for result in results]
        table["error"] = [result.get("error") for result in results]
        if any(EXTENDED in result for result in results):
            table[EXTENDED] = [bool(result.get(EXTENDED)) for result in results]
    for name, values in predicted.items():
        table[name] = values
    return sources, scorer


def build_scorer(arguments: argparse.Namespace, branches: list[str] | None = None) -> Scorer:
    """Scorer of the baseline or the model. `branches` replaces the branches of `arguments` for a model."""
    options = {name: getattr(arguments, name) for name in ("device", "dtype", "batch_size", "num_workers")}
    if options["device"] == "auto" and processes().num_processes > 1:
        options["device"] = str(processes().device)  # each process has its own
    if arguments.baseline:
        return baseline_scorer(arguments.baseline, arguments.model, **options)
    branches = branches or (arguments.branches.split(",") if arguments.branches else None)
    return model_scorer(arguments.model, branches, alignment_num_frames=arguments.alignment_num_frames, **options)


def describe(
    arguments: argparse.Namespace, command: str, table: pd.DataFrame, sources: dict[str, str | None]
) -> dict[str, Any]:
    """Everything in metrics.json except the figures. `num_clips` is the number of clips behind every figure."""
    scored = table.dropna(subset=list(sources))
    failed = table.dropna(subset=["error"]) if "error" in table else table[:0]
    groups = prompt_groups(scored)
    return {
        "model": arguments.model,
        "baseline": arguments.baseline,
        "predictions": {name: file for name, file in sources.items() if file},
        "lower_is_better": arguments.lower_is_better,
        "data": arguments.data,
        "split_file": str(arguments.split_file) if arguments.split_file else None,
        "part": arguments.part,
        "num_clips": len(scored),
        "num_in_part": len(table),
        "num_failed": len(failed),
        "num_extended": int(table[EXTENDED].sum()) if EXTENDED in table else 0,
        "num_prompts": len(set(groups)),
        "failed": failed.get(["id", "error"], failed).to_dict("records"),
        "missing": {name: int(table[name].isna().sum()) for name, file in sources.items() if file},
        "command": command,
        "dtype": arguments.dtype,
        "versions": {
            "aigcvqa": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "rmse": "after matching mean and deviation to the MOS",
        "bootstrap": {
            "num_resamples": arguments.num_bootstrap,
            "confidence_level": arguments.confidence_level,
            "seed": arguments.seed,
            "resampled": "prompts" if repeat(groups) else "clips",
        },
    }


def measured_interval(interval: dict[str, Any], scored: pd.DataFrame) -> dict[str, Any]:
    """The interval of opinions that the model states, and the share of clips whose MOS lies in it."""
    inside = (scored["mos"] - scored["quality_score"]).abs() <= interval["half_width"]
    return interval | {"measured_coverage": float(inside.mean()), "measured_clips": len(scored)}


def probes_of(arguments: argparse.Namespace, clips: Dataset, console: Console) -> dict[str, Any]:
    """The summary of the probes of the model, whose page is written to the folder `probes`."""
    chosen = clips.select(sample_frame_indices(len(clips), min(arguments.probes, len(clips))))
    probed = [ProbedClip(str(row["id"]), row["video"], row["prompt"]) for row in chosen]
    settings = ScorerSettings(
        model=arguments.model,
        branches=arguments.branches.split(",") if arguments.branches else None,
        device=arguments.device,
        dtype=arguments.dtype,
        alignment_num_frames=arguments.alignment_num_frames,
    )
    with progress_bar(console) as progress:
        task = progress.add_task("probes", total=None)
        return probe(
            settings,
            probed,
            arguments.output / "probes",
            overwrite=arguments.overwrite,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )


def score_other_prompts(
    arguments: argparse.Namespace, clips: Dataset, scored: pd.DataFrame, console: Console
) -> tuple[pd.DataFrame, str]:
    """The clips with another prompt of their category (`other_prompt`) and the score with it (`other_score`).

    Also returns the name of the score that depends on the prompt.
    """
    scorer = build_scorer(arguments, ["alignment"])
    swapped = scored.assign(other_prompt=scored["id"].map(other_prompts(scored, arguments.seed)))
    swapped = swapped[swapped["other_prompt"].notna()].copy()
    others = clips.select(swapped.index).remove_columns("prompt")
    others = others.add_column("prompt", swapped["other_prompt"].tolist())
    results = score_clips(scorer, others, arguments.output / "scores_swapped.jsonl", arguments.overwrite, console)
    swapped["other_score"] = [result.get(scorer.prompt_score, float("nan")) for result in results]
    return swapped, scorer.prompt_score


def swap_result(
    arguments: argparse.Namespace, swapped: pd.DataFrame, name: str, scored: pd.DataFrame, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Compare the scores with both prompts. Writes the prompts and both scores to prompt_swap.csv."""
    columns = ["id", "prompt", name, "other_prompt", "other_score"]
    with whole_file(arguments.output / "prompt_swap.csv") as partial:
        swapped[columns].to_csv(partial, index=False)
    both = swapped.dropna(subset=["other_score"])
    figures = prompt_swap_figures(both[name], both["other_score"], prompt_groups(both), bootstrap)
    return figures | {
        "score": name,
        "clips": "clips that show what their prompt asks for" if "failures" in scored else "clips",
        "num_failed": len(swapped) - len(both),
        "seed": arguments.seed,
    }
