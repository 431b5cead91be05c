"""Read manifests of clips: CSV or JSONL files with a column `file` (or `file_name`) and, mostly, `prompt`."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    text = _decoded(path.read_bytes(), path)
    rows = []
    for line, row in (_csv_rows if path.suffix.lower() == ".csv" else _jsonl_rows)(text, path):
        if file_column(row) is None:
            raise ValueError(f"'{path}', line {line}: {_missing_file(row)}")
        if isinstance(row.get("prompt"), int | float) and not isinstance(row["prompt"], bool):
            row["prompt"] = str(row["prompt"])
        rows.append(row)
    if not rows:
        raise ValueError(f"the manifest '{path}' has no rows.")
    return rows


def _missing_file(row: dict) -> str:
    named = next((name for name in FILE_COLUMNS if row.get(name) not in (None, "")), None)
    if named:
        return f"{named!r} is {_shown(row[named])}; expected the path or URL of a clip as text."
    if any(name in row for name in FILE_COLUMNS):
        return "'file' is empty; name the clip."
    columns = sorted(map(str, row))
    hint = " Separate columns with commas." if len(columns) == 1 and any(sign in columns[0] for sign in ";\t") else ""
    return f"no column 'file' (it has {_shown(columns)}).{hint}"


def _decoded(content: bytes, path: Path) -> str:
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"'{path}', line {line}: 0x{content[error.start]:02x} is not {error.encoding}; save the file as UTF-8."
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"'{path}', line {line} holds a NUL character; save the file as UTF-8 text.")
    return text


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict]]:
    """The rows of a CSV with the number of their first line. Unnamed columns without values are left out."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # a cell may be a long prompt
    header, _, _ = text.partition("\n")
    lines = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=", " in header)
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


def _jsonl_rows(text: str, path: Path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(text.split("\n"), 1):
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


def _check_columns(columns: list[str], path: Path) -> None:
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"'{path}' has the column {_shown(twice)} twice; rename one.")


def _shown(value: Any) -> str:
    return shortened(repr(value), SHOWN)
