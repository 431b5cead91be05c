"""The file in which a run of probes keeps what it has measured, clip by clip, so that the same command goes on."""

import json
from pathlib import Path
from typing import Any

from ..common.files import write_text


def opened(path: Path, header: dict[str, Any], overwrite: bool) -> list[dict[str, Any]]:
    """The records that are there; begins the file if there is none.

    A line that was cut by a kill is dropped.

    Raises:
        ValueError: if the file holds the records of another run.
    """
    header = json.loads(json.dumps(header))
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() and not overwrite else []
    entries = [entry for entry in map(_entry, lines) if entry is not None]
    if entries and entries[0] != header:
        changed = [name for name in header if entries[0].get(name) != header[name]]
        raise ValueError(
            f"'{path}' holds the records of other probes ({', '.join(changed)} differ); pass --overwrite to replace "
            "them, or name another folder."
        )
    records = entries[1:]
    write_text(path, "".join(f"{json.dumps(entry)}\n" for entry in [header, *records]))
    return records


def append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(record)}\n")


def _entry(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
