"""`aigcvqa compare`: which generator is better, and can it be told."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common.cells import encodable
from ..common.choices import SHIPPED
from ..names_aigcvqa import SCORES
from ..scoring.score_table import ScoreTable
from .shared import add_model_arguments, printable, scored_table

HELP = "compare generators: leaderboard, tests, and how many prompts more it would take"
DESCRIPTION = """Compares generators by the scores of their clips of the same prompts. Takes manifests, whose clips are
then scored, or what `aigcvqa score --output` wrote (a file, or the folder of a run)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest",
        type=Path,
        nargs="+",
        required=True,
        help="CSV or JSONL with the columns file, prompt and generator, or one manifest per generator; or scores that "
        "were written before",
    )
    parser.add_argument("--output", type=Path, help="folder for the page (comparison.html), JSON and CSV files")
    parser.add_argument("--overwrite", action="store_true", help="score the clips again, whatever --output holds")
    parser.add_argument("--by", metavar="COLUMN", default="generator", help="that names the generator (%(default)s)")
    parser.add_argument(
        "--category", metavar="COLUMN", default="category", help="of a prompt, to compare within (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_model_arguments(parser)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=0, help="worker processes that decode videos")


def run(arguments: argparse.Namespace, errors: Console) -> int:
    """Returns 0 if every clip could be scored, else 1."""
    if arguments.output and arguments.output.is_file():
        raise ValueError(f"--output '{arguments.output}' is a file; name a folder.")
    if arguments.overwrite and not arguments.output:
        raise ValueError("--overwrite goes with --output FOLDER.")
    try:
        from ..comparison.answers import check_same_model, distinct_names, gathered
        from ..comparison.compare import compare
        from ..comparison.program import PAGE, write_comparison
    except ImportError as error:
        raise ValueError(str(error)) from error
    from ..comparison.files import to_json

    names = distinct_names(arguments.manifest)
    tables = [
        (path, scored_table(arguments, path, errors, _scores_file(arguments, name), arguments.overwrite))
        for path, name in zip(arguments.manifest, names)
    ]
    check_same_model(tables)
    model, note = scored_by([table for _, table in tables])
    comparison = compare(gathered(tables, arguments.by, arguments.category))
    if arguments.output:
        content = write_comparison(comparison, arguments.output, model, note)
    else:
        content = to_json(comparison, model, note)
    if arguments.json:
        print(encodable(json.dumps(content, ensure_ascii=False, indent=2)))
    else:
        print_comparison(comparison, note)
        for entry in content["failed"]:
            errors.print(f"failed: {printable(entry['error'])}", style="red")
        if arguments.output:
            print(f"page: {arguments.output / PAGE}")
    return 1 if content["failed"] else 0


def _scores_file(arguments: argparse.Namespace, name: str) -> Path | None:
    """The file for the scores of the manifest with this name, so that an interrupted command goes on."""
    if arguments.output is None:
        return None
    arguments.output.mkdir(parents=True, exist_ok=True)
    return arguments.output / f"{name.replace('/', '_')}.scores.jsonl"


def scored_by(tables: list[ScoreTable]) -> tuple[str | None, str | None]:
    """The model that the records name, and the note on its weights if it is here."""
    made_by = next((table.made_by for table in tables if "model_sha256" in table.made_by), None)
    if made_by is None:
        return None, None
    from ..loading import load_processor, model_source
    from ..loading.identity import digest_of_model

    model = str(made_by.get("model"))
    is_here = model == SHIPPED or Path(model).is_dir()
    if not is_here or digest_of_model(model_source(model)) != made_by["model_sha256"]:
        return model, None
    return model, load_processor(model)[0].weights_note


def print_comparison(comparison: Any, note: str | None) -> None:
    """The leaderboard, the neighbours on it and the warnings."""
    from ..comparison.words import difference, neighbours, rank, told_apart, turned, verdict

    names, boards, console = comparison.answers.generators, comparison.boards, Console(highlight=False)
    quality = boards[SCORES[0]]
    means = {name: {place.generator: place.mean for place in board.places} for name, board in boards.items()}
    table = Table(
        "rank", "generator", caption=f"Quality with its 95 % interval; higher is better.{' ' + note if note else ''}"
    )
    for name in ("quality", "group", *(name.removesuffix("_score") for name in list(boards)[1:])):
        table.add_column(name, justify="right", no_wrap=True)
    for place in quality.places:
        spread = f" ± {place.interval[1] - place.mean:.2f}" if place.interval else ""
        parts = [f"{means[name][place.generator]:.2f}" for name in list(boards)[1:]]
        name = Text(printable(names[place.generator]))
        table.add_row(rank(place), name, f"{place.mean:.2f}{spread}", place.groups, *parts)
    console.print(table)
    console.print(verdict(quality, names), markup=False)
    table = Table("neighbours", "difference", "p (Holm)", "told apart?")
    for found in neighbours(quality):
        pair = turned(*found)
        who = Text(printable(f"{names[pair.first]} - {names[pair.second]}"))
        table.add_row(who, difference(pair), f"{pair.p_holm:.2g}", told_apart(pair))
    console.print(table)
    for warning in comparison.warnings:
        console.print(f"Note: {warning}", markup=False, style="yellow")
