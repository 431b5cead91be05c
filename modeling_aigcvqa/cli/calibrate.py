"""`aigcvqa calibrate`: give a model a scale that a person can read."""

import argparse
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..common.files import check_new_folder
from ..names_aigcvqa import SCORES
from ..scale_aigcvqa import precision_of
from .shared import add_model_arguments, scored_table

HELP = "give a model a scale: percentiles among your clips, and your own MOS"
DESCRIPTION = """Scores clips and writes a copy of the model that knows how their scores are spread, so that `--scale`
can say where the score of a new clip lies among them. With a column of mean opinion scores (MOS) it also fits a
monotone curve from quality to MOS, and measures how wrong it is. The raw scores stay as they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest",
        type=Path,
        required=True,
        help="CSV or JSONL with the columns file and prompt, and mos if people rated the clips; or what `aigcvqa score "
        "--output` wrote from such a manifest with the same model",
    )
    parser.add_argument("--output", type=Path, required=True, help="new folder for the model")
    parser.add_argument("--of", metavar="TEXT", help="what the clips are, shown with percentiles (default: a name)")
    parser.add_argument("--mos", metavar="COLUMN", default="mos", help="the column of the MOS (default: %(default)s)")
    add_model_arguments(parser)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=0, help="worker processes that decode videos")


def run(arguments: argparse.Namespace, errors: Console) -> int:
    """Returns 0 if all clips could be scored, else 1; and 1 if the MOS could not be fitted."""
    check_new_folder(arguments.output)
    try:
        from ..calibration.program import calibrate, check_origin
    except ImportError as error:
        raise ValueError(str(error)) from error
    table = scored_table(arguments, arguments.manifest, errors)
    if not table.is_new:
        check_origin(table, arguments.model, arguments.manifest)
    if arguments.mos != "mos" and not any(arguments.mos in row for row in table.rows):
        raise ValueError(f"--mos {arguments.mos}: '{arguments.manifest}' has no such column.")
    of = arguments.of or f"the clips of {arguments.manifest.name}"
    found = calibrate(arguments.model, table.rows, of, arguments.output, arguments.mos)
    _print_reference(found.reference)
    is_fitted = True
    if found.curve is None:
        errors.print(f"no column {arguments.mos}: percentiles only.")
    else:
        is_fitted = _report_curve(found.curve, errors)
    print(f"Wrote '{arguments.output}'. {found.about}")
    failed = [row for row in table.rows if "error" in row]
    for row in failed:
        errors.print(f"left out: {row['error']}", style="red")
    return 0 if is_fitted and not failed else 1


def _print_reference(reference: dict) -> None:
    table = Table("score", title=f"Scores of {reference['of']}, {reference['clips']} clips", title_justify="left")
    for percent in (0, 20, 40, 60, 80, 100):
        table.add_column(f"{percent} %", justify="right")
    for name in SCORES:
        if name in reference["quantiles"]:
            values = reference["quantiles"][name]
            table.add_row(name.removesuffix("_score"), *(f"{values[p]:.3f}" for p in (0, 20, 40, 60, 80, 100)))
    Console().print(table)
    print(f"Percentiles among them are right within {math.ceil(precision_of(reference['clips']))} points.")


def _report_curve(curve, errors: Console) -> bool:
    print(
        f"MOS of {curve.clips} clips: SROCC with quality {curve.srocc:.3f}. On {curve.folds_by}s that the curve had "
        f"not seen it was wrong by {curve.error:.3g} on average (their mean MOS: {curve.error_of_mean:.3g})."
    )
    if not curve.is_useful:
        errors.print(
            "The quality says no more about this MOS than its mean does, so no curve is stored: percentiles only.",
            style="red",
        )
    return curve.is_useful
