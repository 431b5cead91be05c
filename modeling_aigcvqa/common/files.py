"""Write files and folders atomically: under a hidden name first, and renamed when they are complete."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write a file to. The file replaces `path` when the block ends; after an error it is removed.

    The name is unique, so that several processes may write the same `path` at once; the last one to finish wins. It has
    the suffix of `path`, from which some writers take the format.
    """
    partial = _hidden_name(Path(path))
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill. It replaces `path` when the block ends; after an error it is removed.

    An existing folder is deleted: call `check_new_folder` first to prevent that.
    """
    partial = _hidden_name(Path(path))
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_folder(partial, Path(path))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def replace_folder(partial: Path, path: Path) -> None:
    """Rename a complete folder to `path`, which is deleted first if it exists."""
    if path.exists():
        shutil.rmtree(path)
    os.rename(partial, path)


def _hidden_name(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")


def check_new_folder(path: Path, option: str = "--output") -> None:
    """Refuse a folder whose content would be overwritten or mixed with new files.

    Raises:
        ValueError: if `path` is a file or a folder that is not empty; names `option`.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{option} '{path}' exists and is not an empty folder; name a new one.")


def apply_umask(folder: Path) -> None:
    """Give the files in a folder the permissions of new files: safetensors lets only their owner read its files."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~umask)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file atomically. Objects that JSON does not know, such as paths, are written as text."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if the file is missing or is not JSON; names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as JSON ({error}).") from error
