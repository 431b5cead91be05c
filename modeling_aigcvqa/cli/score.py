"""`aigcvqa score`: score videos given as arguments or in a manifest."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from torch.utils.data import Dataset

from ..common.console import progress_bar
from ..common.manifests import RowWriter, check_suffix, clip_of, file_column, read_manifest
from ..configuration_aigcvqa import BRANCHES
from ..loading import SHIPPED, load_pipeline
from ..pipeline_aigcvqa import SCORES
from ..video_reading_aigcvqa import ON_DAMAGE
from .shared import REAL_WEIGHTS, add_model_arguments, print_table

HELP = "score videos"
DESCRIPTION = "Prints four scores per video; higher is better. The exit status is 1 if a video could not be scored."
RESULTS = (*SCORES, "warning", "error")
TABLE_ROWS = 1000  # most rows that are kept and printed; --output has no limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="files, folders of frames or URLs")
    parser.add_argument("--prompt", help="the prompt that the videos were generated from")
    parser.add_argument(
        "--manifest", type=Path, help="CSV or JSONL with the columns file and prompt; paths are relative to it"
    )
    parser.add_argument("--output", type=Path, help="CSV or JSONL to write; rows are written as they are scored")
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
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace, errors: Console) -> int:
    clips, rows = read_clips(arguments)
    if arguments.output:
        check_output(arguments.output, arguments.manifest)
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size {arguments.batch_size}: expected at least 1.")
    branches = arguments.branches.split(",") if arguments.branches else None
    pipeline = load_pipeline(
        arguments.model, branches, arguments.device, arguments.dtype, arguments.alignment_num_frames
    )
    note = pipeline.model.config.weights_note
    items = Items(clips, rows)
    options = {name: getattr(arguments, name) for name in ("batch_size", "num_workers", "on_damage")}
    shown, failed, damaged = [], [], []  # not every row: a manifest may have a million
    with (
        RowWriter(arguments.output, [*rows[0], *RESULTS]) as writer,
        progress_bar(errors) as progress,
    ):
        task = progress.add_task("scoring", total=len(rows))
        for row, result in zip(rows, pipeline(items, on_error="return", **options)):
            row = row | result
            writer.write(row)
            if arguments.json or len(shown) < TABLE_ROWS:
                shown.append(row)
            if "error" in row:
                failed.append(row)
            if "warning" in row:
                damaged.append(row)
            progress.advance(task)
    if arguments.json:
        print(json.dumps({"model": arguments.model, "note": note, "results": shown}, ensure_ascii=False, indent=2))
    else:
        print_table(shown, note)
    if len(shown) < len(rows):
        errors.print(f"Only the first {len(shown)} of {len(rows)} rows are shown; --output FILE writes all.")
    if arguments.model == SHIPPED:
        errors.print(REAL_WEIGHTS)
    for row in damaged:
        errors.print(f"damaged: {row[file_column(row)]}: {row['warning']}", style="yellow")
    for row in failed:
        errors.print(f"failed: {row[file_column(row)]}: {row['error']}", style="red")
    if failed:
        errors.print(f"{len(failed)} of {len(rows)} videos could not be scored.", style="red")
    return 1 if failed else 0


def read_clips(arguments: argparse.Namespace) -> tuple[list[str], list[dict]]:
    """The clip to open and the row of each video: the columns of the manifest, or `file` and `prompt`."""
    if arguments.manifest and arguments.videos:
        raise ValueError("pass VIDEO... or --manifest, not both.")
    if not arguments.manifest and not arguments.videos:
        raise ValueError("nothing to score; pass VIDEO... or --manifest FILE.")
    if arguments.videos:
        prompt = {} if arguments.prompt is None else {"prompt": arguments.prompt}
        return arguments.videos, [{"file": video, **prompt} for video in arguments.videos]
    if arguments.prompt is not None:
        raise ValueError("--prompt goes with VIDEO...; a manifest has its own column prompt.")
    # A manifest may be the output of an earlier run; its results do not stand beside new ones.
    rows = [
        {name: value for name, value in row.items() if name not in RESULTS} for row in read_manifest(arguments.manifest)
    ]
    return [clip_of(row, arguments.manifest) for row in rows], rows


def check_output(output: Path, manifest: Path | None) -> None:
    check_suffix(output, "--output")
    if not output.parent.is_dir():
        raise ValueError(f"--output '{output}': the folder '{output.parent}' does not exist.")
    if manifest and output.exists() and output.samefile(manifest):
        raise ValueError(f"--output '{output}' is the manifest itself; name another file.")


class Items(Dataset):
    """Clips and prompts as a dataset, which the pipeline scores lazily; it would score a list completely first."""

    def __init__(self, clips: list[str], rows: list[dict]):
        self.clips, self.rows = clips, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return {"video": self.clips[index], "prompt": self.rows[index].get("prompt")}
