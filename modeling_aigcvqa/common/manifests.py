"""Read manifests of clips (CSV or JSONL), and write tables in the same formats."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".csv", ".jsonl")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
FILE_COLUMNS = ("file", "file_name")  # the second name is used by VideoFolder of `datasets`


def file_column(row: dict) -> str | None:
    """The column that names the clip: `file`, or `file_name` as in the metadata of a VideoFolder; None if both lack."""
    return next((name for name in FILE_COLUMNS if isinstance(row.get(name), str) and row[name]), None)


def clip_of(row: dict, manifest: Path) -> str:
    """The clip of a row in a form that can be opened: a URL, or its path, which is relative to the manifest."""
    file = row[file_column(row)]
    return file if file.startswith(("http://", "https://")) else str(manifest.parent / file)


def check_suffix(path: Path, option: str) -> None:
    """Raise ValueError, which names the option, unless the file name ends in .csv or .jsonl."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{option} '{path}': expected a name that ends in {' or '.join(SUFFIXES)}.")


def read_manifest(path: Path) -> list[dict]:
    """The rows of a CSV or JSONL file with a column `file` or `file_name`; other columns are kept.

    Raises:
        ValueError: for another file type, no rows, a row without a file, a CSV row with too many values or a line that
            is not a JSON object; names the file and the row.
    """
    check_suffix(path, "--manifest")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(_checked(_read_csv(file) if path.suffix == ".csv" else _read_jsonl(file, path), path))
    if not rows:
        raise ValueError(f"the manifest '{path}' has no rows.")
    return rows


def as_text(value: Any) -> Any:
    """A cell that a spreadsheet takes for text and not for a formula: a quote goes before "=", "+", "-" and "@".

    `read_manifest` takes the quote away again. Numbers stay as they are.
    """
    return (
        f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) and not _is_number(value) else value
    )


def without_quote(value: Any) -> Any:
    """A cell as it was before `as_text`."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and as_text(value[1:]) == value else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_csv(lines: Iterable[str]) -> Iterator[dict]:
    for row in csv.DictReader(lines):
        yield {name: without_quote(value) for name, value in row.items()}


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
    """Writes rows to CSV or JSONL one by one, so that an interrupted run keeps the rows that it has.

    Args:
        path: the file to write; None to write nothing.
        columns: the columns of a CSV, in this order; rows may lack some of them.
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
            self.csv.writerow({name: as_text(value) for name, value in row.items()})
        else:
            self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()
