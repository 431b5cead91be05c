"""Scores that other programs wrote: any metric's, in a file with a column `id` and a column a score."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

NO_SCORES = {"id", "split", "error"}


@dataclass(frozen=True)
class Prediction:
    """One score of one file.

    Args:
        name: of the row in every table.
        file: where it is from.
        scores: indexed by the clip's id, higher is better.
    """

    name: str
    file: Path
    scores: pd.Series

    def of(self, ids: pd.Series, allow_missing: bool) -> np.ndarray:
        """The scores of the clips (N,), NaN where the file has none.

        Raises:
            ValueError: where one is missing, unless `allow_missing`.
        """
        found = self.scores.reindex(ids).to_numpy(float)
        missing = ids[np.isnan(found)]
        if len(missing) and not allow_missing:
            raise ValueError(
                f"'{self.file}' has no score {self.name!r} for {len(missing)} of {len(ids)} clips, such as "
                f"{missing.iloc[0]!r}; complete it, or pass --allow_missing to leave those clips out of every figure."
            )
        return found


def read_predictions(
    specs: list[str], columns: list[str] | None, lower_is_better: list[str], labels: list[str]
) -> list[Prediction]:
    """The scores of all files.

    Args:
        specs: FILE or NAME=FILE. Without a name the file's stem, or its folder's name for a "predictions" file. A file
            with several scores gives "NAME COLUMN" for each.
        columns: to take; None for all columns of numbers but `labels`.
        lower_is_better: names of files, columns or scores whose sign is turned.
        labels: columns of the data set, which are no scores also where a file repeats them.

    Raises:
        ValueError: for a file that cannot be read, a missing column, an id that comes twice, a name that fits nothing.
    """
    predictions, turned = [], set()
    for spec in specs:
        label, path = _name_and_path(spec)
        frame = _read(path)
        chosen = _score_columns(frame, path, columns, labels)
        for column in chosen:
            name = label if len(chosen) == 1 else f"{label} {column}"
            scores = pd.to_numeric(frame[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
            matches = {label, column, name} & set(lower_is_better)
            turned |= matches
            predictions.append(Prediction(name, path, -scores if matches else scores))
    unknown = set(lower_is_better) - turned
    if unknown:
        known = [prediction.name for prediction in predictions]
        raise ValueError(f"--lower_is_better {sorted(unknown)}: no such score; there are {known}.")
    return predictions


def _name_and_path(spec: str) -> tuple[str, Path]:
    name, separator, path = spec.partition("=")
    if separator and name and not Path(spec).exists():
        return name, Path(path)
    path = Path(spec)
    return (path.resolve().parent.name if path.stem == "predictions" else path.stem), path


def _read(path: Path) -> pd.DataFrame:
    """A table indexed by the ids, as strings."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"--predictions '{path}': expected a name that ends in {', '.join(readers)}.")
    try:
        frame = readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise ValueError(f"--predictions '{path}' cannot be read ({error}).") from error
    if "id" not in frame:
        raise ValueError(f"--predictions '{path}' has the columns {list(frame.columns)} but no id; add the clips' ids.")
    frame.index = frame["id"].astype(str)
    repeated = frame.index[frame.index.duplicated()]
    if len(repeated):
        raise ValueError(f"--predictions '{path}' has {repeated[0]!r} more than once; keep one row a clip.")
    return frame


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str}, encoding="utf-8-sig")


def _read_jsonl(path: Path) -> pd.DataFrame:
    """By the json module: pandas would make numbers of ids such as "007"."""
    with path.open(encoding="utf-8-sig") as lines:
        return pd.DataFrame([json.loads(line) for line in lines if line.strip()])


def _score_columns(frame: pd.DataFrame, path: Path, columns: list[str] | None, labels: list[str]) -> list[str]:
    if columns:
        chosen = [column for column in columns if column in frame]
    else:
        numbers = frame.select_dtypes("number").columns
        chosen = [column for column in numbers if column not in NO_SCORES and column not in labels]
    if not chosen:
        wanted = f"of the columns {columns}" if columns else "column of numbers that is no label of the data"
        raise ValueError(f"--predictions '{path}' has no {wanted}; it has {list(frame.columns)}. See --columns.")
    return chosen
