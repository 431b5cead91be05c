"""`aigcvqa score`: score videos given as arguments or in a manifest."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from ..common.cells import encodable
from ..common.choices import SHIPPED
from ..common.console import INTERRUPTED, counted
from ..common.manifests import check_suffix, file_column
from ..names_aigcvqa import BRANCHES, ON_DAMAGE
from ..scoring.rows import rows_of_manifest, rows_of_videos
from ..scoring.score_file import SUFFIXES
from ..scoring.score_rows import check_prompts, opened_file, record_of, scored
from . import score_folder
from .shared import REAL_WEIGHTS, add_model_arguments, named_branches, print_table, printable

HELP = "score videos"
DESCRIPTION = (
    "Prints four scores per video; higher is better. The exit status is 1 if a video could not be scored. A run with "
    "--output that was interrupted goes on when the same command is given again."
)
OPTIONS = ("batch_size", "num_workers", "on_damage", "uncertainty", "scale")  # that the pipeline takes as they are
DECISIVE = ("alignment_num_frames", "on_damage", "uncertainty", "scale")  # about the scores, and kept beside them
TABLE_ROWS = 1000  # most rows that are kept and printed; --output has no limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="files, folders of clips, folders of frames or URLs")
    parser.add_argument("--prompt", help="the prompt that the videos were generated from")
    parser.add_argument(
        "--manifest",
        help="CSV or JSONL with the columns file and prompt; paths are relative to it. For an --output that is a "
        "folder also parquet, WebDataset tars, a folder of such files, their fsspec addresses, or a data set's Hub id",
    )
    parser.add_argument(
        "--output",
        help="CSV, JSONL or Parquet to write, row by row; or a folder, DIR/, for parquet shards, a ledger of failures "
        "and a summary",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the --output of another run")
    add_model_arguments(parser)
    parser.add_argument("--branches", help=f"comma-separated subset of {','.join(BRANCHES)} (default: all)")
    parser.add_argument(
        "--alignment_num_frames",
        type=int,
        metavar="N",
        help="number of frames for the alignment branch; fewer are faster (default: the number in the config)",
    )
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=0, help="worker processes that decode videos")
    parser.add_argument(
        "--on_damage",
        choices=ON_DAMAGE,
        default="raise",
        help="damaged videos: an error (raise, the default), or scores of the frames that are there with a warning",
    )
    parser.add_argument(
        "--uncertainty",
        type=int,
        metavar="K",
        help="also mean and deviation of each score over K draws of fragments and frames, and an interval of opinions",
    )
    parser.add_argument(
        "--scale",
        action="store_true",
        help="also the percentile of each score among the reference of the model, and the MOS it is calibrated to",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    score_folder.add_arguments(parser)


def run(arguments: argparse.Namespace, errors: Console) -> int:
    if score_folder.is_meant(arguments):
        return score_folder.run(arguments, errors)
    for name in ("manifest", "output"):
        value = getattr(arguments, name)
        setattr(arguments, name, Path(value) if value is not None else None)
    branches = check_arguments(arguments)
    clips, rows = read_rows(arguments)
    from ..loading import load_pipeline

    pipeline = load_pipeline(
        arguments.model, branches, arguments.device, arguments.dtype, arguments.alignment_num_frames
    )
    check_prompts(pipeline, rows)
    pipeline.model.config.check_scale(arguments.scale)
    summary = Summary(keep_all=arguments.json)
    decisive = {name: getattr(arguments, name) for name in DECISIVE}
    made_by = record_of(pipeline, arguments.model, clips, rows, **decisive) if arguments.output else {}
    with opened_file(arguments.output, rows, made_by, arguments.overwrite) as output:
        there = output.results if output else []
        for row, result in zip(rows, there):
            summary.add(row | result)
        if there:
            errors.print(f"'{arguments.output}' has {len(there)} of {len(rows)} rows; the run goes on after them.")
        options = {name: getattr(arguments, name) for name in OPTIONS}
        try:
            with counted(errors, "scoring", len(rows), len(there)) as advance:
                for row, result in scored(pipeline, clips, rows, len(there), **options):
                    if output:
                        output.write(row, result)
                    summary.add(row | result)
                    advance()
        except KeyboardInterrupt:
            kept = (
                f"they are in '{arguments.output}', and the same command goes on after them."
                if output
                else "--output FILE would have kept them."
            )
            errors.print(f"interrupted: {summary.count} of {len(rows)} videos are scored; {kept}", style="red")
            return INTERRUPTED
    report(summary, arguments, pipeline.model.config, errors)
    if arguments.uncertainty is not None:
        errors.print(about_interval(pipeline.model.config.quality_interval))
    return 1 if summary.failed else 0


def check_arguments(arguments: argparse.Namespace) -> list[str] | None:
    """The branches to build. Raises ValueError for what is wrong, before anything is loaded."""
    for name, least in (("batch_size", 1), ("num_workers", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} {getattr(arguments, name)}: expected at least {least}.")
    if arguments.uncertainty is not None and arguments.uncertainty < 2:
        raise ValueError(f"--uncertainty {arguments.uncertainty}: expected at least 2 draws.")
    if arguments.output:
        check_output(arguments.output, arguments.manifest)
    elif arguments.overwrite:
        raise ValueError("--overwrite goes with --output FILE.")
    return named_branches(arguments.branches)


def check_output(output: Path, manifest: Path | None) -> None:
    check_suffix(output, "--output", SUFFIXES)
    if not output.parent.is_dir():
        raise ValueError(f"--output '{output}': the folder '{output.parent}' does not exist.")
    if manifest and output.exists() and output.samefile(manifest):
        raise ValueError(f"--output '{output}' is the manifest itself; name another file.")


def read_rows(arguments: argparse.Namespace) -> tuple[list[str], list[dict]]:
    """The clip to open and the row of each video: the columns of the manifest, or `file` and `prompt`."""
    if arguments.manifest and arguments.videos:
        raise ValueError("pass VIDEO... or --manifest, not both.")
    if not arguments.manifest and not arguments.videos:
        raise ValueError("nothing to score; pass VIDEO... or --manifest FILE.")
    if arguments.videos:
        return rows_of_videos(arguments.videos, arguments.prompt)
    if arguments.prompt is not None:
        raise ValueError("--prompt goes with VIDEO...; a manifest has its own column prompt.")
    return rows_of_manifest(arguments.manifest)


def about_interval(interval: dict | None) -> str:
    """What the columns of uncertainty say."""
    if interval is None:
        return (
            "mean and std are over draws of fragments and frames. There is no interval of people's opinion: this model "
            "does not know how its scores err, because it was not calibrated on clips with a MOS."
        )
    return (
        f"mean and std are over draws of fragments and frames. The mean opinion lies between low and high for "
        f"{interval['coverage']:.0%} of clips like the {interval['clips']} of its validation."
    )


class Summary:
    """What is printed after a run: the first rows, and the damaged and failed ones."""

    def __init__(self, keep_all: bool):
        self.most = None if keep_all else TABLE_ROWS
        self.count = 0
        self.shown: list[dict] = []  # not every row: a manifest may have a million
        self.failed: list[dict] = []
        self.damaged: list[dict] = []

    def add(self, row: dict) -> None:
        self.count += 1
        if self.most is None or len(self.shown) < self.most:
            self.shown.append(row)
        for name, rows in (("error", self.failed), ("warning", self.damaged)):
            if name in row:
                rows.append(row)


def report(summary: Summary, arguments: argparse.Namespace, config: Any, errors: Console) -> None:
    if arguments.json:
        about = {"note": config.weights_note} | ({"scale": config.about_scale} if arguments.scale else {})
        results = {"model": arguments.model, **about, "results": summary.shown}
        print(encodable(json.dumps(results, ensure_ascii=False, indent=2)))
    else:
        print_table(summary.shown, config.weights_note)
    if arguments.scale:
        errors.print(config.about_scale)
    elif config.about_scale and not arguments.json:
        errors.print("How high is that? --scale says it in percentiles.")
    if len(summary.shown) < summary.count:
        shown = f"Only the first {len(summary.shown)} of {summary.count} rows are shown"
        errors.print(f"{shown}; --output FILE writes all." if not arguments.output else f"{shown}.")
    if arguments.model == SHIPPED:
        errors.print(REAL_WEIGHTS)
    for row in summary.damaged:
        errors.print(f"damaged: {printable(row[file_column(row)])}: {printable(row['warning'])}", style="yellow")
    for row in summary.failed:
        errors.print(f"failed: {printable(row[file_column(row)])}: {printable(row['error'])}", style="red")
    if summary.failed:
        errors.print(f"{len(summary.failed)} of {summary.count} videos could not be scored.", style="red")
