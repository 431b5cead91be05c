"""Cells of tables that spreadsheets open, and texts that files can hold."""

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def as_text(value: Any) -> Any:
    """A cell that a spreadsheet takes for text and not for a formula: a quote goes before "=", "+", "-" and "@".

    `without_quote` takes the quote away again. Numbers stay as they are.
    """
    return (
        f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) and not _is_number(value) else value
    )


def without_quote(value: Any) -> Any:
    """A cell as it was before `as_text`."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and as_text(value[1:]) == value else value


def csv_line(cells: Iterable[Any]) -> str:
    """A row of a CSV with its line end. Lists and objects are written as JSON, None as nothing."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow(map(_cell, cells))
    return text.getvalue()


def json_text(value: Any) -> str:
    """JSON in one line that UTF-8 can hold."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text == encodable(text) else json.dumps(value, default=str)  # lone surrogates stay as escapes


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        value = json_text(value)
    return encodable(as_text(value)) if isinstance(value, str) else value


def encodable(text: str) -> str:
    """The text with what a text file cannot hold, lone surrogates and NUL, as escapes such as "\\ud800"."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
