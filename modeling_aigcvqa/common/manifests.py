"""Manifests of clips (CSV or JSONL) and the same formats written: one reader, one writer."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = (".csv", ".jsonl")
FILE_COLUMNS = ("file", "file_name")  # the second is that of a VideoFolder's metadata


def file_column(row: dict) -> str | None:
    """The column that names the clip: `file`, or `file_name` as in a VideoFolder's metadata; None for neither."""
    return next((name for name in FILE_COLUMNS if isinstance(row.get(name), str) and row[name]), None)


def clip_of(row: dict, manifest: Path) -> str:
    """The clip of a manifest's row as it can be opened: an address, or a path relative to the manifest's folder."""
    file = row[file_column(row)]
    return file if file.startswith(("http://", "https://")) else str(manifest.parent / file)


def check_suffix(path: Path, option: str) -> None:
    """Raise ValueError, naming the option, for a file that is neither .csv nor .jsonl."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{option} '{path}': expected a name that ends in {' or '.join(SUFFIXES)}.")


def read_manifest(path: Path) -> list[dict]:
    """Rows of a CSV or JSONL file, each with a `file`; other columns are kept.

    Raises:
        ValueError: for another ending, no rows, a row without `file`, a CSV row with too many values, a line that is no
            JSON object; names the file and the row.
    """
    check_suffix(path, "--manifest")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(_checked(csv.DictReader(file) if path.suffix == ".csv" else _read_jsonl(file, path), path))
    if not rows:
        raise ValueError(f"the manifest '{path}' has no rows.")
    return rows


def _checked(rows: Iterable[dict], path: Path) -> Iterator[dict]:
    for number, row in enumerate(rows, 1):
        if file_column(row) is None:
            raise ValueError(f"'{path}', row {number}: no column 'file' (it has {sorted(map(str, row))}).")
        if None in row:
            raise ValueError(f"'{path}', row {number}: more values than columns; quote prompts that hold commas.")
        yield row


def _read_jsonl(lines: Iterable[str], path: Path) -> Iterator[dict]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"'{path}', line {number} is not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise ValueError(f"'{path}', line {number} is not a JSON object.")
        yield row


class RowWriter:
    """Writes rows to CSV or JSONL as they come, so that an interrupted run keeps what it has.

    Args:
        path: of the file; None writes nothing.
        columns: of a CSV, in this order; a row may lack some.
    """

    def __init__(self, path: Path | None, columns: Iterable[str]):
        self.path, self.columns = path, list(dict.fromkeys(columns))

    def __enter__(self) -> "RowWriter":
        self.file = self.path.open("w", newline="", encoding="utf-8") if self.path else None
        if self.file and self.path.suffix == ".csv":
            self.csv = csv.DictWriter(self.file, self.columns, restval="")
            self.csv.writeheader()
            self.file.flush()
        return self

    def __exit__(self, *_) -> None:
        if self.file:
            self.file.close()

    def write(self, row: dict) -> None:
        if not self.file:
            return
        if self.path.suffix == ".csv":
            self.csv.writerow(row)
        else:
            self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()
