"""Arguments and output that several commands share."""

import argparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common.cells import encodable
from ..common.choices import DTYPES, SHIPPED
from ..common.manifests import file_column
from ..names_aigcvqa import BRANCHES, INTERVAL, SCORES, shortened

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


def printable(text: str) -> str:
    """A text from outside as a terminal can show it; long ones are shortened."""
    return encodable(shortened(text, 400))


def print_table(rows: list[dict], note: str | None) -> None:
    """Print the scores of clips and the note on the weights. The column of quality says if it is of some branches."""
    columns = [name for name in (*SCORES, "quality_score_std", *INTERVAL) if any(name in row for row in rows)]
    table = Table(caption=f"Higher is better.{' ' + note if note else ''}", caption_style="yellow" if note else None)
    table.add_column("file", overflow="fold")
    parts = next((row["quality_of"] for row in rows if row.get("quality_of")), None)
    for name in columns:
        of = f" ({parts})" if parts and name == "quality_score" else ""
        table.add_column(name.replace("_score", "").replace("_", " ") + of, justify="right")
    for row in rows:
        cells = [f"{row[name]:.4f}" if name in row else "failed" for name in columns]
        table.add_row(Text(printable(row[file_column(row)])), *cells)  # Text: brackets in a name are no markup
    Console().print(table)
