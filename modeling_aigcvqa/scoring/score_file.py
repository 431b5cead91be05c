"""A file of scores that is written row by row, so that an interrupted run goes on where it stopped."""

import contextlib
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.cells import csv_line, encodable, json_text, without_quote
from ..common.files import read_json, whole_file, write_json
from ..common.manifests import file_column
from ..names_aigcvqa import NUMBERS, RESULTS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SUFFIXES = (".csv", ".jsonl", ".parquet")


class ScoreFile:
    """The scores of rows, in a CSV, JSONL or Parquet file, in the order of the rows.

    `NAME.run.json` beside the file says what made the scores. Opening the file again with the same content of it goes
    on after the rows that are complete: `results` has their results. A Parquet file cannot be written row by row: the
    rows are kept in a hidden JSONL file until all are there.

    Args:
        path: the file.
        rows: the rows to score, without results.
        made_by: what decides about the scores: model, options, inputs, ...; JSON values.
        overwrite: start anew, whatever is there.
        results: the columns of results.

    Raises:
        ValueError: if the file has other rows or was made by something else, or another process writes it; names the
            difference and the remedy.
        OSError: if the disk is full; the complete rows stay, and the same command goes on after them.
    """

    def __init__(
        self,
        path: Path,
        rows: list[dict],
        made_by: dict[str, Any],
        overwrite: bool = False,
        results: tuple[str, ...] = RESULTS,
    ):
        self.path, self.rows, self.made_by, self.result_names = path, rows, made_by, results
        self.record = path.with_name(f"{path.name}.run.json")
        self.in_place = path.suffix.lower() != ".parquet"
        self.journal = path if self.in_place else path.with_name(f".{path.name}.rows.jsonl")
        self.is_csv = self.journal.suffix.lower() == ".csv"
        self.columns = list(dict.fromkeys([name for row in rows for name in row] + list(results)))
        self.results: list[dict] = []
        self.overwrite = overwrite

    def __enter__(self) -> "ScoreFile":
        if self.overwrite:
            self._remove_old()
        self._check_record()
        self.complete_without_journal = not self.in_place and self.path.exists() and not self.journal.exists()
        if self.complete_without_journal:
            self.results = _parquet_results(self.path, self.result_names)
            return self
        self.file = self.journal.open("a+b", buffering=0)
        lock(self.file, self.path)
        self._go_on()
        return self

    def __exit__(self, *_) -> None:
        if not self.complete_without_journal:
            self.file.close()

    def write(self, row: dict, result: dict) -> None:
        """Append a row with its result."""
        self._append(self._encoded(row | result))
        self.results.append(result)
        if not self.in_place and len(self.results) == len(self.rows):
            self._write_parquet()

    def _remove_old(self) -> None:
        """Remove what is there, unless another process writes it."""
        with self.journal.open("rb") if self.journal.exists() else contextlib.nullcontext() as file:
            if file is not None:
                lock(file, self.path)
            for old in (self.record, self.journal, self.path):
                old.unlink(missing_ok=True)

    def _check_record(self) -> None:
        """Refuse a file that other arguments, or another program, made."""
        kept = next((file for file in (self.path, self.journal) if file.exists() and file.stat().st_size), None)
        remedy = "pass --overwrite to replace it, or name another file."
        if kept and not self.record.exists():
            raise ValueError(f"--output '{self.path}' exists, and no '{self.record.name}' says what made it; {remedy}")
        if kept:
            before = read_json(self.record)
            before = before if isinstance(before, dict) else {}
            now = json.loads(json.dumps(self.made_by))
            changed = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
            if changed:
                differences = "; ".join(f"{name}: {before.get(name)} there, {now.get(name)} now" for name in changed)
                raise ValueError(f"--output '{self.path}' holds the scores of another run ({differences}); {remedy}")
        else:
            write_json(self.record, self.made_by)

    def _go_on(self) -> None:
        """Read the complete rows, and cut off a last row that was written in part."""
        self.file.seek(0)
        content = self.file.readall()
        records = list(_complete_records(content, self.is_csv))
        self.size = sum(map(len, records))
        if self.size < len(content):
            self.file.truncate(self.size)
        if self.is_csv:
            if not records:
                self._append(csv_line(self.columns).encode())
            records = records[1:]
        for number, record in enumerate(records, 1):
            self.results.append(self._result(record, number))
        if not self.in_place and len(self.results) == len(self.rows):
            self._write_parquet()

    def _result(self, record: bytes, number: int) -> dict:
        """The result in a record, which must be of the row with this number, counted from 1."""
        try:
            row = self._decoded(record)
            expected = self.rows[number - 1]
            name = file_column(expected)
            if row[name] != (encodable(expected[name]) if self.is_csv else expected[name]):
                raise ValueError(f"expected the clip '{expected[name]}'")
            return {name: row[name] for name in self.result_names if row.get(name) not in (None, "")}
        except (ValueError, LookupError, csv.Error) as error:
            raise ValueError(
                f"--output '{self.path}', row {number} is not a row of this run ({error}); pass --overwrite to score "
                "all clips again."
            ) from error

    def _decoded(self, record: bytes) -> dict:
        text = record.decode("utf-8")
        if not self.is_csv:
            return json.loads(text)
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        cells = next(csv.reader(io.StringIO(text, newline="")))
        row = {name: without_quote(cell) for name, cell in zip(self.columns, cells, strict=True)}
        return row | {name: float(row[name]) for name in NUMBERS if row.get(name)}

    def _encoded(self, row: dict) -> bytes:
        if self.is_csv:
            return csv_line(row.get(name) for name in self.columns).encode()
        return f"{json_text(row)}\n".encode()

    def _append(self, record: bytes) -> None:
        try:
            written = 0
            while written < len(record):
                written += self.file.write(record[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self.file.truncate(self.size)
            raise OSError(
                f"--output '{self.path}' cannot be written ({error.strerror or error}); {len(self.results)} of "
                f"{len(self.rows)} rows are there, and the same command goes on after them."
            ) from error
        self.size += len(record)

    def _write_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.file.seek(0)
        rows = [json.loads(line) for line in io.BytesIO(self.file.readall())]
        columns = {name: _column([row.get(name) for row in rows]) for name in self.columns}
        with whole_file(self.path) as partial:
            pq.write_table(pa.table(columns), partial)
        self.journal.unlink()


def _complete_records(content: bytes, is_csv: bool) -> Iterator[bytes]:
    """The records of a CSV or JSONL file; a last one without its end is left out."""
    record, quotes = b"", 0
    for line in io.BytesIO(content):
        record += line
        quotes += line.count(b'"')
        if line.endswith(b"\n") and (not is_csv or quotes % 2 == 0):  # not inside a quoted cell
            yield record
            record, quotes = b"", 0


def _column(values: list) -> Any:
    """A column of one type: values of several types, and objects, become text."""
    import pyarrow as pa

    values = [encodable(value) if isinstance(value, str) else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and not kinds & {dict, list}):
        with contextlib.suppress(pa.ArrowInvalid, OverflowError):
            return pa.array(values)
    return pa.array([value if isinstance(value, str | None) else json_text(value) for value in values], pa.string())


def _parquet_results(path: Path, names: tuple[str, ...]) -> list[dict]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(names))
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]


def lock(file: Any, path: Path) -> None:
    """Refuse a file that another process writes. Windows has no such locks."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"--output '{path}' is being written by another process; name another file.") from error
    except OSError:  # a file system without locks
        return
