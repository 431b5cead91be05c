"""Prediction files of any metric: CSV, JSONL or parquet with a column `id` and one column per score."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

NO_SCORES = {"id", "split", "error"}


@dataclass(frozen=True)
class Prediction:
    """One score from one file.

    Args:
        name: name of the score in the tables of figures.
        file: file that holds the score.
        scores: values indexed by clip id, higher is better.
    """

    name: str
    file: Path
    scores: pd.Series

    def of(self, ids: pd.Series, allow_missing: bool) -> np.ndarray:
        """Scores (N,) of the clips with these ids (N,), NaN for a missing score if `allow_missing`.

        Raises:
            ValueError: if a score is missing and `allow_missing` is false.
        """
        found = self.scores.reindex(ids).to_numpy(float)
        missing = ids[np.isnan(found)]
        if len(missing) and not allow_missing:
            raise ValueError(
                f"'{self.file}' has no score {self.name!r} for {len(missing)} of {len(ids)} clips, for example "
                f"{missing.iloc[0]!r}; complete the file, or pass --allow_missing to leave these clips out."
            )
        return found


def read_predictions(
    specs: list[str], columns: list[str] | None, lower_is_better: list[str], labels: list[str]
) -> list[Prediction]:
    """All scores from prediction files.

    Args:
        specs: FILE or NAME=FILE. The default name is the stem of the file, or the name of its folder if the stem is
            "predictions". A file with several scores gives the names "NAME COLUMN".
        columns: columns with scores; None for all numeric columns except `labels`.
        lower_is_better: names of files, columns or scores whose sign is inverted.
        labels: columns of the data set, which are not scores even if a file has them.

    Raises:
        ValueError: if a file cannot be read, lacks the columns or repeats an id, or if a name in `lower_is_better` does
            not exist.
    """
    predictions, inverted = [], set()
    for spec in specs:
        label, path = _name_and_path(spec)
        frame = _read(path)
        chosen = _score_columns(frame, path, columns, labels)
        for column in chosen:
            name = label if len(chosen) == 1 else f"{label} {column}"
            scores = pd.to_numeric(frame[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
            matches = {label, column, name} & set(lower_is_better)
            inverted |= matches
            predictions.append(Prediction(name, path, -scores if matches else scores))
    unknown = set(lower_is_better) - inverted
    if unknown:
        known = [prediction.name for prediction in predictions]
        raise ValueError(f"--lower_is_better {sorted(unknown)}: no such score; choose from {known}.")
    return predictions


def _name_and_path(spec: str) -> tuple[str, Path]:
    name, separator, path = spec.partition("=")
    if separator and name and not Path(spec).exists():
        return name, Path(path)
    path = Path(spec)
    return (path.resolve().parent.name if path.stem == "predictions" else path.stem), path


def _read(path: Path) -> pd.DataFrame:
    """The table in a file, indexed by the ids as strings."""
    readers = {
        ".csv": lambda path: pd.read_csv(path, dtype={"id": str}, encoding="utf-8-sig"),
        ".jsonl": _read_jsonl,
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise ValueError(f"--predictions '{path}': expected a file name that ends in {', '.join(readers)}.")
    try:
        frame = readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise ValueError(f"--predictions '{path}' cannot be read ({error}).") from error
    if "id" not in frame:
        raise ValueError(f"--predictions '{path}' has no id among its columns {list(frame.columns)}; add the clip ids.")
    frame.index = frame["id"].astype(str)
    repeated = frame.index[frame.index.duplicated()]
    if len(repeated):
        raise ValueError(f"--predictions '{path}' has {repeated[0]!r} more than once; keep one row per clip.")
    return frame


def _read_jsonl(path: Path) -> pd.DataFrame:
    # pandas.read_json would turn ids such as "007" into numbers.
    with path.open(encoding="utf-8-sig") as lines:
        return pd.DataFrame([json.loads(line) for line in lines if line.strip()])


def _score_columns(frame: pd.DataFrame, path: Path, columns: list[str] | None, labels: list[str]) -> list[str]:
    if columns:
        chosen = [column for column in columns if column in frame]
    else:
        numbers = frame.select_dtypes("number").columns
        chosen = [column for column in numbers if column not in NO_SCORES and column not in labels]
    if not chosen:
        wanted = f"none of the columns {columns}" if columns else "no column of numbers besides the labels"
        raise ValueError(
            f"--predictions '{path}' has {wanted}, only {list(frame.columns)}; name columns of scores with --columns."
        )
    return chosen
