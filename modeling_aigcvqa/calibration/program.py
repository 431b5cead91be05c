"""From clips to a model with a scale."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.files import check_new_folder, whole_folder
from ..common.manifests import file_column
from ..common.presets import save_model_folder
from ..conversion.assemble import REPORT
from ..loading import load_model, model_source
from ..loading.identity import digest_of_model
from ..names_aigcvqa import SCORES
from ..scale_aigcvqa import make_reference
from ..scoring.score_table import ScoreTable
from .curve import Curve, fit_curve


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` has found.

    Attributes:
        reference: as in the config.
        curve: to the MOS; None if the clips have none.
        about: what the percentiles and the MOS of the new model are of.
    """

    reference: dict
    curve: Curve | None
    about: str


def check_origin(table: ScoreTable, model: str, path: Path) -> None:
    """Refuse scores of another model, or scores whose model nobody knows.

    Raises:
        ValueError: names the file and the remedy.
    """
    remedy = "score the clips again with `aigcvqa score --manifest CLIPS --output FILE`, or pass the manifest itself."
    if "model_sha256" not in table.made_by:
        raise ValueError(f"'{path}' holds scores, and no record beside it says of which model; {remedy}")
    if table.made_by["model_sha256"] != digest_of_model(model_source(model)):
        raise ValueError(
            f"'{path}' holds scores of another model ('{table.made_by.get('model')}') than --model {model}; {remedy}"
        )
    if table.made_by.get("alignment_num_frames") is not None:
        raise ValueError(f"'{path}' was scored with --alignment_num_frames; without it scores differ; {remedy}")


def ratings_of(rows: Sequence[dict], column: str) -> list[float | None]:
    """The MOS of each row; None for a row without one.

    Raises:
        ValueError: for a value that is no finite number; names the clip.
    """
    ratings: list[float | None] = []
    for row in rows:
        value = row.get(column)
        try:
            ratings.append(None if value in (None, "") else float(value))
        except (TypeError, ValueError):
            ratings.append(math.nan)
        if ratings[-1] is not None and not math.isfinite(ratings[-1]):
            raise ValueError(f"'{row[file_column(row)]}': {column} is {value!r}; expected a number.")
    return ratings


def calibrate(model: str, rows: Sequence[dict], of: str, output: Path, column: str = "mos") -> Calibrated:
    """Write a model with a reference, and with a calibration if the clips have a MOS that the quality tells of.

    Args:
        model: that the scores are of.
        rows: of clips, with their scores; those with an `error` are left out.
        of: what the clips are, as the reader of a percentile needs to know it.
        output: new folder.
        column: of the MOS.

    Raises:
        ValueError: for too few clips, or a MOS that is no number.
    """
    check_new_folder(output)
    good = [row for row in rows if SCORES[0] in row]
    ratings = ratings_of(good, column)
    loaded, processor = load_model(model)
    config = loaded.config
    built = [name for name in SCORES if name == SCORES[0] or name.removesuffix("_score") in config.branches]
    lacking = next((name for name in built if any(name not in row for row in good)), None)
    if lacking:
        raise ValueError(f"some clips have no {lacking}, which the model gives; score them without --branches.")
    config.reference = make_reference(of, {name: [row[name] for row in good] for name in built}, config.branches)
    rated = [(row, mos) for row, mos in zip(good, ratings) if mos is not None]
    curve = None
    if rated:
        curve = fit_curve(
            [row[SCORES[0]] for row, _ in rated], [mos for _, mos in rated], [row.get("prompt") for row, _ in rated]
        )
        config.calibration = curve.to_config(of, config.branches) if curve.is_useful else None
    with whole_folder(output) as folder:
        save_model_folder(loaded, processor, folder)
        report = Path(model_source(model)) / REPORT
        if report.is_file():
            shutil.copyfile(report, folder / REPORT)
    return Calibrated(config.reference, curve, config.about_scale or "")
