"""`aigcvqa score`: score videos given as arguments or in a manifest."""

import argparse
import json
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import __version__
from ..common.cells import encodable
from ..common.choices import SHIPPED
from ..common.console import INTERRUPTED, counted
from ..common.manifests import check_suffix, file_column
from ..names_aigcvqa import BRANCHES, ON_DAMAGE, RESULTS, UNCERTAINTY
from ..scoring.rows import Items, digest_of_rows, rows_of_manifest, rows_of_videos
from ..scoring.score_file import SUFFIXES, ScoreFile
from . import score_folder
from .shared import REAL_WEIGHTS, add_model_arguments, named_branches, print_table, printable

HELP = "score videos"
DESCRIPTION = (
    "Prints four scores per video; higher is better. The exit status is 1 if a video could not be scored. A run with "
    "--output that was interrupted goes on when the same command is given again."
)
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
    if pipeline.processor.requires_prompt and not any(row.get("prompt") for row in rows):
        raise ValueError(
            "the alignment branch needs the prompts, and there is none: pass --prompt TEXT or a manifest with a column "
            "prompt, or leave the branch out with --branches technical,aesthetic."
        )
    summary = Summary(keep_all=arguments.json)
    with score_file(arguments, clips, rows, pipeline) as output:
        there = output.results if output else []
        for row, result in zip(rows, there):
            summary.add(row | result)
        if there:
            errors.print(f"'{arguments.output}' has {len(there)} of {len(rows)} rows; the run goes on after them.")
        options = {name: getattr(arguments, name) for name in ("batch_size", "num_workers", "on_damage", "uncertainty")}
        try:
            with counted(errors, "scoring", len(rows), len(there)) as advance:
                for row, result in scored(pipeline, clips, rows, len(there), options):
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
    report(summary, arguments, pipeline.model.config.weights_note, errors)
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


def score_file(arguments: argparse.Namespace, clips: list[str], rows: list[dict], pipeline: Any) -> Any:
    """The file of --output with what decides about its scores, or a context manager that gives None."""
    if not arguments.output:
        return nullcontext()
    from ..loading import model_source
    from ..loading.identity import digest_of_model

    made_by = {
        "aigcvqa": __version__,
        "model": arguments.model,
        "model_sha256": digest_of_model(model_source(arguments.model)),
        "branches": pipeline.model.config.branches,
        "dtype": str(pipeline.model.dtype).removeprefix("torch."),
        "alignment_num_frames": arguments.alignment_num_frames,
        "on_damage": arguments.on_damage,
        **({} if arguments.uncertainty is None else {"uncertainty": arguments.uncertainty}),
        "rows": len(rows),
        "rows_sha256": digest_of_rows(clips, rows),
    }
    results = RESULTS if arguments.uncertainty is None else (*RESULTS, *UNCERTAINTY)
    return ScoreFile(arguments.output, rows, made_by, arguments.overwrite, results)


def scored(
    pipeline: Any, clips: list[str], rows: list[dict], start: int, options: dict[str, Any]
) -> Iterator[tuple[dict, dict]]:
    """The rows from number `start` on, each with its result, as they are scored."""
    items = Items(clips[start:], rows[start:])
    results: Iterable[dict] = pipeline(items, on_error="return", **options) if items.rows else ()
    yield from zip(items.rows, results)


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


def report(summary: Summary, arguments: argparse.Namespace, note: str | None, errors: Console) -> None:
    if arguments.json:
        results = {"model": arguments.model, "note": note, "results": summary.shown}
        print(encodable(json.dumps(results, ensure_ascii=False, indent=2)))
    else:
        print_table(summary.shown, note)
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
