"""Read scores that were written before: a file of scores, or the folder of a run."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.files import read_json
from ..common.manifests import read_manifest
from ..names_aigcvqa import SCORES

RUN_RECORD = "run.json"  # of a folder; that of a file is NAME.run.json


@dataclass
class ScoreTable:
    """Rows with their scores.

    Attributes:
        rows: the columns of a manifest, with scores as floats, or with `error`.
        made_by: what made the scores, of the record beside them; empty if nothing says it.
        missing: rows that the record promises and the file does not have, because the scoring was interrupted.
        is_new: whether the model that was asked for has just scored them; they were then read from no file.
    """

    rows: list[dict]
    made_by: dict[str, Any] = field(default_factory=dict)
    missing: int = 0
    is_new: bool = False


def read_score_table(path: Path) -> ScoreTable | None:
    """The scores in a CSV, JSONL or Parquet file or in the folder of a run; None for a manifest without scores.

    A row without a score has an `error`.

    Raises:
        ValueError: for a file of another kind, or a score that is no finite number; names file and row.
    """
    if path.is_dir():
        rows, record = _rows_of_folder(path), path / RUN_RECORD
    elif path.suffix.lower() == ".parquet":
        rows, record = _rows_of_parquet([path]), path.with_name(f"{path.name}.{RUN_RECORD}")
    else:
        rows, record = read_manifest(path), path.with_name(f"{path.name}.{RUN_RECORD}")
    if not any(name in row for row in rows for name in SCORES):
        return None
    rows = [_row(row, f"'{path}', row {number}") for number, row in enumerate(rows, 1)]
    made_by = read_json(record) if record.exists() else {}
    made_by = made_by.get("made_by", made_by)  # that of a folder holds more
    promised = made_by.get("rows")
    return ScoreTable(rows, made_by, max(0, promised - len(rows)) if isinstance(promised, int) else 0)


def _rows_of_folder(folder: Path) -> list[dict]:
    shards = sorted((folder / "scores").glob("*.parquet"))
    if not shards:
        raise ValueError(f"the folder '{folder}' is no run of `aigcvqa score`: it has no scores/*.parquet.")
    failed = _rows_of_parquet(sorted((folder / "failures").glob("*.parquet")))
    others = [{**json.loads(row.pop("columns") or "{}"), **row, "error": row.pop("reason")} for row in failed]
    return [*_rows_of_parquet(shards), *others]


def _rows_of_parquet(paths: list[Path]) -> list[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{paths[0]}' cannot be read as parquet ({error}).") from error
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _row(row: dict, place: str) -> dict:
    row = {name: value for name, value in row.items() if value not in (None, "")}
    for name in SCORES:
        if name not in row:
            continue
        try:
            row[name] = float(row[name])
        except (TypeError, ValueError):
            row[name] = math.nan
        if not math.isfinite(row[name]):
            raise ValueError(f"{place}: {name} is no finite number; score the clip again, or leave the row out.")
    return row if SCORES[0] in row or "error" in row else row | {"error": f"{place} has no {SCORES[0]}."}
