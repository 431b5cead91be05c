"""Read manifests of clips: CSV or JSONL files with a column `file` (or `file_name`) and, mostly, `prompt`."""

import codecs
import csv
import io
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..names_aigcvqa import shortened
from .cells import without_quote

SUFFIXES = (".csv", ".jsonl")
FILE_COLUMNS = ("file", "file_name")  # the second name is used by VideoFolder of `datasets`
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SHOWN = 80  # characters of a text in messages


def file_column(row: dict) -> str | None:
    """The column that names the clip: `file`, or `file_name` as in the metadata of a VideoFolder; None if both lack."""
    return next((name for name in FILE_COLUMNS if isinstance(row.get(name), str) and row[name]), None)


def clip_of(row: dict, manifest: Path) -> str:
    """The clip of a row in a form that can be opened: a URL, or its path, which is relative to the manifest."""
    file = row[file_column(row)]
    return file if file.startswith(("http://", "https://")) else str(manifest.parent / file)


def check_suffix(path: Path, option: str, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Raise ValueError, which names the option, unless the file name ends in one of the suffixes."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} '{path}': expected a name that ends in {' or '.join(suffixes)}.")


def read_manifest(path: Path) -> list[dict]:
    """The rows of a CSV or JSONL file with a column `file` or `file_name`; other columns are kept.

    The text is UTF-8, or UTF-16 with a byte order mark. A number as prompt is its text.

    Raises:
        ValueError: for another file type, no rows, another encoding, an unclosed quote, a duplicated column, a row
            without a file or with too many values, or a line that is not a JSON object; names the file and the line.
    """
    check_suffix(path, "--manifest")
    with path.open("rb") as file:
        rows = list(manifest_rows(file, str(path)))
    if not rows:
        raise ValueError(f"the manifest '{path}' has no rows.")
    return rows


def manifest_rows(file: BinaryIO, name: str) -> Iterator[dict]:
    """The rows of an open CSV or JSONL file, one after the other; as of `read_manifest`, but without an error for none.

    Args:
        file: can seek.
        name: of the file, in messages; its suffix says which of the two it is.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    is_csv = name.lower().endswith(".csv")
    lines = _decoded_lines(file, name, newline="" if is_csv else "\n")
    for line, row in _csv_rows(lines, name, size) if is_csv else _jsonl_rows(lines, name):
        if file_column(row) is None:
            raise ValueError(f"'{name}', line {line}: {_missing_file(row)}")
        if isinstance(row.get("prompt"), int | float) and not isinstance(row["prompt"], bool):
            row["prompt"] = str(row["prompt"])
        yield row


def _missing_file(row: dict) -> str:
    named = next((name for name in FILE_COLUMNS if row.get(name) not in (None, "")), None)
    if named:
        return f"{named!r} is {_shown(row[named])}; expected the path or URL of a clip as text."
    if any(name in row for name in FILE_COLUMNS):
        return "'file' is empty; name the clip."
    columns = sorted(map(str, row))
    hint = " Separate columns with commas." if len(columns) == 1 and any(sign in columns[0] for sign in ";\t") else ""
    return f"no column 'file' (it has {_shown(columns)}).{hint}"


def _decoded_lines(file: BinaryIO, name: str, newline: str) -> Iterator[str]:
    """The lines of a text file, each with its end."""
    start = file.read(4)
    file.seek(0)
    encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    lines = io.TextIOWrapper(file, encoding, newline=newline)
    try:
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise ValueError(f"'{name}', line {number} holds a NUL character; save the file as UTF-8 text.")
            yield line
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{name}', line {_line_of_error(file, encoding)}: 0x{error.object[error.start]:02x} is not "
            f"{error.encoding}; save the file as UTF-8."
        ) from error
    finally:
        if not lines.closed:
            lines.detach()


def _line_of_error(file: BinaryIO, encoding: str) -> int:
    """The number of the first line that cannot be decoded."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    number = 1
    for number, line in enumerate(file, 1):  # noqa: B007 (the last number is the result)
        try:
            decoder.decode(line)
        except UnicodeDecodeError:
            break
    return number


def _csv_rows(text: Iterator[str], path: str, size: int) -> Iterator[tuple[int, dict]]:
    """The rows of a CSV with the number of their first line. Unnamed columns without values are left out."""
    first = next(text, "")
    csv.field_size_limit(max(csv.field_size_limit(), size + 1))  # a cell may be a long prompt
    header = first.strip("\r\n")
    lines = csv.reader(itertools.chain([first], text), strict=True, skipinitialspace=", " in header)
    columns: list[str] | None = None
    end = 0
    try:
        for cells in lines:
            start, end = end + 1, lines.line_num
            if not any(cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
                _check_columns(columns, path)
                continue
            yield start, _csv_row(columns, cells, f"'{path}', line {start}")
    except csv.Error as error:
        reason = "a quote is opened and not closed" if "end of data" in str(error) else str(error)
        raise ValueError(f"'{path}', line {end + 1} is not CSV ({reason}); correct the quotes.") from error


def _csv_row(columns: list[str], cells: list[str], place: str) -> dict:
    surplus = [cell for cell in cells[len(columns) :] if cell]
    unnamed = [cell for name, cell in zip(columns, cells) if not name and cell]
    if surplus or unnamed:
        raise ValueError(
            f"{place}: more values than columns ({_shown((surplus or unnamed)[0])}); quote prompts that hold commas."
        )
    return {name: without_quote(cell) for name, cell in zip(columns, cells) if name}


def _jsonl_rows(lines: Iterator[str], path: str) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\n")
        if not line.strip():
            continue
        place = f"'{path}', line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_object)
            json.dumps(row)  # what can be read can be nested too deeply to be written
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(f"{place} is not JSON that can be used ({reason}): {_shown(line)}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{place} is not a JSON object: {_shown(line)}")
        yield number, row


def _object(pairs: list[tuple[str, Any]]) -> dict:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return dict(pairs)


def _check_columns(columns: list[str], path: str) -> None:
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"'{path}' has the column {_shown(twice)} twice; rename one.")


def _shown(value: Any) -> str:
    return shortened(repr(value), SHOWN)
