"""`aigcvqa probe`: what a model notices, what fools it, and how steady its scores are."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..common.console import progress_bar
from ..common.manifests import clip_of, file_column, read_manifest
from .shared import add_model_arguments, named_branches

HELP = "ask of a model what it notices, what fools it and how steady it is, without a label"
DESCRIPTION = """Spoils clips, plays tricks on the model, swaps prompts and repeats itself. Writes a page with one
verdict per probe (index.html), probes.json and records.jsonl. The same command goes on with a run that was stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--manifest", type=Path, required=True, help="CSV or JSONL with the columns file and prompt")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="begin anew")
    parser.add_argument("--limit", type=int, metavar="N", help="probe the first N clips")
    parser.add_argument(
        "--ascent_steps", type=int, metavar="N", help="of the gradient ascent, 0 for none (default: 50)"
    )
    parser.add_argument("--branches", help="comma-separated branches to build (default: all)")
    add_model_arguments(parser)


def run(arguments: argparse.Namespace, errors: Console) -> int:
    """Probe, print the verdicts, and return 0 if all clips could be probed, else 1."""
    if arguments.output.is_file():
        raise ValueError(f"--output '{arguments.output}' is a file; name a folder.")
    for name, least in (("limit", 1), ("ascent_steps", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} {value}: expected at least {least}.")
    rows = read_manifest(arguments.manifest)[: arguments.limit]
    from ..clip_scorer import ScorerSettings
    from ..probes.measure import ProbedClip
    from ..probes.program import PAGE, probe
    from ..probes.tricks import ASCENT_STEPS

    settings = ScorerSettings(
        model=arguments.model,
        branches=named_branches(arguments.branches),
        device=arguments.device,
        dtype=arguments.dtype,
    )
    clips = [ProbedClip(row[file_column(row)], clip_of(row, arguments.manifest), row.get("prompt")) for row in rows]
    with progress_bar(errors) as progress:
        task = progress.add_task("clips", total=None)
        summary = probe(
            settings,
            clips,
            arguments.output,
            ASCENT_STEPS if arguments.ascent_steps is None else arguments.ascent_steps,
            arguments.overwrite,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    table = Table("probe", "verdict", caption=summary["note"])
    for row in summary["rows"]:
        table.add_row(row["title"], row["verdict"])
    Console().print(table)
    print(f"page: {arguments.output / PAGE}")
    for entry in summary["failed"]:
        errors.print(f"not probed: {entry['error']}", style="red")
    return 1 if summary["failed"] else 0
