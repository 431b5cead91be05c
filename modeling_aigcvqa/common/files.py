"""Write a file or a folder whole or not at all: under another name beside it, renamed when it is complete."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to. The file takes the place of `path` when the block ends; after an error it is removed.

    The name is unique, so several processes may write the same `path` at once: the last one to finish stays. It keeps
    the ending of `path`, which some writers take the format from.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())  # mkstemp makes it readable by its owner alone
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill. It takes the place of `path` when the block ends; after an error it is removed.

    A folder that `path` names already is replaced: call `check_new_folder` first where that would be a loss.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        replace_folder(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def replace_folder(partial: Path, path: Path) -> None:
    """Rename a complete folder to `path`; what stood there goes."""
    if path.exists():
        shutil.rmtree(path)
    os.rename(partial, path)


def check_new_folder(path: Path, option: str = "--output") -> None:
    """Refuse a folder that would be overwritten or mixed with something.

    Raises:
        ValueError: where `path` is a file or a folder that is not empty; names `option`.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{option} '{path}' exists and is not an empty folder; name a new one.")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file whole or not at all. What JSON does not know (a path, say) is written as its text."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: for a file that is missing or is not JSON; names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as JSON ({error}).") from error


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
