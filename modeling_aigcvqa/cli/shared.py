"""Arguments and output that several commands share."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common.cells import encodable
from ..common.choices import DTYPES, SHIPPED
from ..common.console import counted
from ..common.manifests import file_column
from ..names_aigcvqa import BRANCHES, INTERVAL, PERCENTILE_OF, QUALITY_MOS, SCORES, shortened
from ..scale_aigcvqa import RANGES, range_of
from ..scoring.rows import rows_of_manifest
from ..scoring.score_table import ScoreTable, read_score_table

REAL_WEIGHTS = (
    "These are scores of the small model inside the package. For published weights pass --model free (downloaded and "
    "converted once; see `aigcvqa convert --help`)."
)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--model, --device and --dtype."""
    parser.add_argument(
        "--model",
        default=SHIPPED,
        help="small (inside the package, the default), free or dover (published weights, downloaded once), a folder or "
        "a Hub id",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype",
        choices=["auto", *DTYPES],
        help="dtype of the computation; auto takes the fastest one (default: the dtype of the weights)",
    )


def named_branches(text: str | None) -> list[str] | None:
    """The branches of --branches; None for all.

    Raises:
        ValueError: for an unknown one.
    """
    branches = text.split(",") if text else None
    unknown = [name for name in branches or () if name not in BRANCHES]
    if unknown:
        raise ValueError(f"--branches {text}: no branch {unknown[0]!r}; expected {list(BRANCHES)}.")
    return branches


def scored_table(
    arguments: argparse.Namespace,
    manifest: Path,
    errors: Console,
    output: Path | None = None,
    overwrite: bool = False,
) -> ScoreTable:
    """The rows of a manifest with their scores: those that stand in it, or else new ones.

    Args:
        arguments: with those of `add_model_arguments`, `batch_size` and `num_workers`.
        output: file for new scores, so that an interrupted command goes on; None for memory alone.
        overwrite: replace what the file holds.
    """
    there = read_score_table(manifest)
    if there is not None:
        return there
    from ..loading import load_pipeline
    from ..scoring.score_rows import check_prompts, opened_file, record_of, scored

    clips, rows = rows_of_manifest(manifest)
    pipeline = load_pipeline(arguments.model, None, arguments.device, arguments.dtype)
    check_prompts(pipeline, rows)
    made_by = record_of(pipeline, arguments.model, clips, rows)
    with opened_file(output, rows, made_by, overwrite) as file:
        results = [row | result for row, result in zip(rows, file.results if file else [])]
        with counted(errors, "scoring", len(rows), len(results)) as advance:
            options = {"batch_size": arguments.batch_size, "num_workers": arguments.num_workers}
            for row, result in scored(pipeline, clips, rows, len(results), **options):
                if file:
                    file.write(row, result)
                results.append(row | result)
                advance()
    return ScoreTable(results, made_by, is_new=True)


def printable(text: str) -> str:
    """A text from outside as a terminal can show it; long ones are shortened."""
    return encodable(shortened(text, 400))


def print_table(rows: list[dict], note: str | None) -> None:
    """Print the scores of clips and the note on the weights. The column of quality says if it is of some branches.

    A percentile stands as a bar below its score.
    """
    names = (*SCORES, "quality_score_std", *INTERVAL, QUALITY_MOS)
    columns = [name for name in names if any(name in row for row in rows)]
    table = Table(caption=f"Higher is better.{' ' + note if note else ''}", caption_style="yellow" if note else None)
    table.add_column("file", overflow="fold")
    parts = next((row["quality_of"] for row in rows if row.get("quality_of")), None)
    for name in columns:
        of = f" ({parts})" if parts and name == "quality_score" else ""
        table.add_column(name.replace("_score", "").replace("_", " ") + of, justify="right")
    for row in rows:
        cells = [_cell(row, name) for name in columns]
        table.add_row(Text(printable(row[file_column(row)])), *cells)  # Text: brackets in a name are no markup
    Console().print(table)


def _cell(row: dict, name: str) -> str:
    if name not in row:
        return "failed" if SCORES[0] not in row else ""
    percentile = row.get(PERCENTILE_OF.get(name))
    return f"{row[name]:.4f}" + ("" if percentile is None else f"\n{bar(percentile)}")


def bar(percentile: float) -> str:
    """A percentile as a bar of five blocks, one per range, a number and the word of its range."""
    word = range_of(percentile)
    blocks = RANGES.index(word) + 1
    return f"{'█' * blocks}{'░' * (len(RANGES) - blocks)} {percentile:.0f}\n{word}"
