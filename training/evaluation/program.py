"""One honest evaluation: scores of a model, of a baseline or of any other metric against MOS, on the same terms.

    python -m training.evaluate --model DIR --data DIR --split_file FILE --output DIR
    python -m training.evaluate --baseline dover --model DIR --data DIR --split_file FILE --output DIR
    python -m training.evaluate --predictions a/predictions.csv other=b.csv --data DIR --split_file FILE --output DIR

writes predictions.csv and predictions.parquet, metrics.json, report.md and a scatter plot a score. Scores are kept as
they are made (scores.jsonl): a run that was stopped goes on where it was. A clip that cannot be scored is named in the
report and counts in no figure.
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
from modeling_aigcvqa.common.console import error_console, exits_with_status
from modeling_aigcvqa.common.files import write_json
from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from modeling_aigcvqa.loading import DTYPES
from training.common.clips import PARTS, load_clips
from training.common.text import METRIC_TITLES, markdown_table

from .baselines import BASELINES, baseline_scorer
from .figures import Bootstrap, all_figures, prompt_groups
from .predictions import read_predictions
from .report import metric_rows, write_report
from .scoring import Scorer, model_scorer, score_clips
from .synthetic import latent_matrix, other_prompts, prompt_swap_figures

ALL_PARTS = "all"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="prepared folder or Hub id of a data set")
    parser.add_argument("--split_file", type=Path, help="CSV id,split of dataset_scripts.make_splits")
    parser.add_argument("--part", choices=[*PARTS, ALL_PARTS], default="test")
    parser.add_argument("--output", type=Path, required=True, help="folder for everything that is written")

    scores = parser.add_argument_group("what is evaluated")
    scores.add_argument("--model", help="small, free, dover, a folder or a Hub id; of a baseline: its weights")
    scores.add_argument("--baseline", choices=BASELINES, help="score with a published metric, its weights from --model")
    scores.add_argument("--branches", help=f"comma-separated subset of {','.join(BRANCHES)} (default: the model's)")
    scores.add_argument(
        "--alignment_num_frames", type=int, metavar="N", help="frames of the alignment branch (default: the model's)"
    )
    scores.add_argument(
        "--predictions",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="scores of other metrics: CSV, JSONL or parquet with the column id and a column a score",
    )
    scores.add_argument("--columns", nargs="+", metavar="COLUMN", help="of the prediction files (default: all scores)")
    scores.add_argument("--lower_is_better", nargs="+", default=[], metavar="NAME", help="scores to turn over")
    scores.add_argument("--allow_missing", action="store_true", help="evaluate the clips that every file has scores of")
    scores.add_argument(
        "--prompt_swap", action="store_true", help="also score the clips with another prompt of their category"
    )

    running = parser.add_argument_group("how it is scored")
    running.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU where there is one)")
    running.add_argument("--dtype", choices=list(DTYPES), help="default: that of the weights")
    running.add_argument("--batch_size", type=int, default=1)
    running.add_argument("--num_workers", type=int, default=0, help="processes that decode ahead")
    running.add_argument("--overwrite", action="store_true", help="discard scores of another model in --output")

    intervals = parser.add_argument_group("intervals")
    intervals.add_argument("--num_bootstrap", type=int, default=1000, help="resamples; 0 for no intervals")
    intervals.add_argument("--confidence_level", type=float, default=0.95)
    intervals.add_argument("--seed", type=int, default=0, help="of the resampling and of the other prompts")
    return parser


@exits_with_status("evaluate")
def main(argv: list[str] | None = None) -> int:
    """0 if every clip was scored, 1 if some were not, 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    console = error_console()
    check_arguments(arguments)
    command = shlex.join(["python", "-m", "training.evaluate", *(sys.argv[1:] if argv is None else argv)])
    result = evaluate_scores(arguments, command, console)
    print(markdown_table(["score", *METRIC_TITLES.values()], metric_rows(result["metrics"], METRIC_TITLES)))
    print(f"{result['num_clips']} clips; report: {arguments.output / 'report.md'}")
    for row in result["failed"]:
        console.print(f"failed: {row['id']}: {row['error']}", style="red")
    return 1 if result["num_failed"] else 0


def check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.baseline and not arguments.model:
        raise ValueError(f"--baseline {arguments.baseline} needs its weights; pass them as --model DIR.")
    if not arguments.model and not arguments.predictions:
        raise ValueError("nothing to evaluate; pass --model, --predictions or both.")
    if arguments.branches and (arguments.baseline or not arguments.model):
        raise ValueError("--branches goes with --model alone; a baseline has its own.")
    if arguments.alignment_num_frames is not None and (arguments.baseline or not arguments.model):
        raise ValueError("--alignment_num_frames goes with --model alone.")
    if arguments.prompt_swap and not arguments.model:
        raise ValueError("--prompt_swap scores clips with other prompts; pass --model.")
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size {arguments.batch_size}: expected at least 1.")
    if arguments.num_bootstrap < 0 or not 0 < arguments.confidence_level < 1:
        raise ValueError(
            f"--num_bootstrap {arguments.num_bootstrap} --confidence_level {arguments.confidence_level}: expected 0 or "
            "more, and a share between 0 and 1."
        )
    if arguments.output.exists() and not arguments.output.is_dir():
        raise ValueError(f"--output '{arguments.output}' is a file; name a folder.")


def evaluate_scores(arguments: argparse.Namespace, command: str, console: Console) -> dict[str, Any]:
    """Score, measure, write; returns what metrics.json holds."""
    clips = load_clips(arguments.data, arguments.split_file, None if arguments.part == ALL_PARTS else arguments.part)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table, sources, scorer = collect_scores(arguments, clips, console)
    table.to_csv(arguments.output / "predictions.csv", index=False)
    table.to_parquet(arguments.output / "predictions.parquet", index=False)
    scored = table.dropna(subset=list(sources))
    if len(scored) < 2:
        reason = f" First error: {table['error'].dropna().iloc[0]}" if scorer and table["error"].notna().any() else ""
        raise ValueError(f"{len(scored)} of {len(table)} clips have every score; at least 2 are needed.{reason}")
    bootstrap = Bootstrap(arguments.num_bootstrap, arguments.confidence_level, arguments.seed)
    result = describe(arguments, command, table, sources)
    result |= {"model_note": scorer.note if scorer else None} | all_figures(scored, list(sources), bootstrap)
    result["latents"] = latent_matrix(scored, bootstrap)
    result["prompt_swap"] = (
        swap_prompts(arguments, clips, scored, bootstrap, console) if arguments.prompt_swap else None
    )
    write_report(arguments.output, result, scored)
    write_json(arguments.output / "metrics.json", result)  # last: where it is, the evaluation is finished
    return result


def collect_scores(
    arguments: argparse.Namespace, clips: Dataset, console: Console
) -> tuple[pd.DataFrame, dict[str, str | None], Scorer | None]:
    """A row a clip with its labels and scores (NaN where there is none); each score's file; the scorer."""
    table = clips.remove_columns("video").to_pandas()
    table["id"], table["prompt"] = table["id"].astype(str), table["prompt"].fillna("")
    labels, sources, scorer = list(table.columns), {}, None
    if arguments.model:
        scorer = build_scorer(arguments)
        if arguments.prompt_swap and scorer.prompt_score is None:
            raise ValueError("--prompt_swap: no score of this model depends on the prompt; leave it out.")
        results = score_clips(scorer, clips, arguments.output / "scores.jsonl", arguments.overwrite, console)
        sources |= dict.fromkeys(scorer.score_names)
        for name in scorer.score_names:
            table[name] = [result.get(name, float("nan")) for result in results]
        table["error"] = [result.get("error") for result in results]
    for prediction in read_predictions(arguments.predictions, arguments.columns, arguments.lower_is_better, labels):
        if prediction.name in sources:
            raise ValueError(f"two scores are called {prediction.name!r}; pass --predictions NAME=FILE.")
        table[prediction.name] = prediction.of(table["id"], arguments.allow_missing)
        sources[prediction.name] = str(prediction.file)
    return table, sources, scorer


def build_scorer(arguments: argparse.Namespace, branches: list[str] | None = None) -> Scorer:
    """The model's or the baseline's scorer; `branches` to build only those of a model."""
    options = {name: getattr(arguments, name) for name in ("device", "dtype", "batch_size", "num_workers")}
    if arguments.baseline:
        return baseline_scorer(arguments.baseline, arguments.model, **options)
    chosen = arguments.branches.split(",") if arguments.branches else None
    return model_scorer(
        arguments.model, branches or chosen, alignment_num_frames=arguments.alignment_num_frames, **options
    )


def describe(
    arguments: argparse.Namespace, command: str, table: pd.DataFrame, sources: dict[str, str | None]
) -> dict[str, Any]:
    """What metrics.json says beside the figures. `num_clips` is the number that every figure rests on."""
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
            "resampled": "prompts" if len(set(groups)) < len(groups) else "clips",
        },
    }


def swap_prompts(
    arguments: argparse.Namespace, clips: Dataset, scored: pd.DataFrame, bootstrap: Bootstrap, console: Console
) -> dict[str, Any]:
    """Score the clips with another prompt and compare; the prompts and both scores go to prompt_swap.csv."""
    scorer = build_scorer(arguments, ["alignment"])
    swapped = scored.merge(other_prompts(scored, arguments.seed).rename("other_prompt"), left_on="id", right_index=True)
    place = {str(clip_id): index for index, clip_id in enumerate(clips["id"])}
    others = clips.select([place[clip_id] for clip_id in swapped["id"]]).remove_columns("prompt")
    others = others.add_column("prompt", swapped["other_prompt"].tolist())
    results = score_clips(scorer, others, arguments.output / "scores_swapped.jsonl", arguments.overwrite, console)
    swapped["other_score"] = [result.get(scorer.prompt_score, float("nan")) for result in results]
    columns = ["id", "prompt", scorer.prompt_score, "other_prompt", "other_score"]
    swapped[columns].to_csv(arguments.output / "prompt_swap.csv", index=False)
    both = swapped.dropna(subset=["other_score"])
    figures = prompt_swap_figures(both[scorer.prompt_score], both["other_score"], prompt_groups(both), bootstrap)
    return figures | {
        "score": scorer.prompt_score,
        "clips": "clips that show what their prompt asks for" if "failures" in scored else "clips",
        "num_failed": len(swapped) - len(both),
        "seed": arguments.seed,
    }
