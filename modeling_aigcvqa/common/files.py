"""Write files and folders whole or not at all: under a hidden name first, and renamed when they are complete.

An error or a termination removes what was begun. What a killed process left is removed by the next one that writes the
same file or folder: a writer holds a lock on what it writes, and the lock ends with the process. (Windows has no such
locks: there, such files stay.)
"""

import contextlib
import errno
import glob
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")  # of libraries with own error types
HEX_DIGITS = 12
ASIDE = "aside"  # mark of a folder that is being replaced


@contextmanager
def whole_file(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """A path to write a file to. The file replaces `path` when the block ends; after an error it is removed.

    The name is unique, so that several processes may write the same `path` at once; the last one to finish wins. It has
    the suffix of `path`, from which some writers take the format.

    Args:
        durable: False for files that can be made again, such as those of a cache: the block does not wait for the disk,
            and what killed processes left is not searched for; see `sweep_folder`.

    Raises:
        OSError: if the folder is missing or the disk is full; names it.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if not path.parent.is_dir():
        raise FileNotFoundError(f"'{path}' cannot be written: the folder '{path.parent}' does not exist.")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"'{path}' cannot be written: it is a folder or a device; name a file.")
    if durable:
        _sweep(path)
    partial = _hidden_name(path)
    with _explained(path), _locked(partial, folder=False):
        try:
            yield partial
            if durable:
                _flush([partial])
            os.replace(partial, path)
            if durable:
                _flush_folder(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill. It replaces `path` when the block ends; after an error it is removed.

    An existing folder is deleted: call `check_new_folder` first to prevent that.

    Raises:
        OSError: if the disk is full; names `path`.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"'{path}' cannot be written: it is a file; name a folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    recover_folder(path)
    partial = _hidden_name(path)
    with _explained(path), _locked(partial, folder=True):
        try:
            yield partial
            replace_folder(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def whole_files(folder: str | Path) -> Iterator[Path]:
    """A folder to fill with files, which move into `folder` together when the block ends; other files there stay."""
    folder = Path(os.path.realpath(folder))
    if not folder.exists():
        with whole_folder(folder) as partial:
            yield partial
        return
    with _explained(folder):
        _sweep(folder / "files")
        partial = _hidden_name(folder / "files")
        with _locked(partial, folder=True):
            try:
                yield partial
                files = [file for file in partial.rglob("*") if file.is_file()]
                _flush(files)
                for file in files:
                    target = folder / file.relative_to(partial)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, target)
                _flush_folder(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def replace_folder(partial: Path, path: Path) -> None:
    """Put a complete folder in the place of `path`.

    A folder that stands there is set aside first and deleted last: whenever the process is killed, one of the two is
    complete, and `recover_folder` puts it back.
    """
    files = [file for file in partial.rglob("*") if file.is_file()]
    _flush(files)
    for folder in {file.parent for file in files} | {partial}:
        _flush_folder(folder)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:HEX_DIGITS]}.{ASIDE}")
    if path.exists():
        os.rename(path, aside)
    try:
        os.rename(partial, path)
    except OSError:
        recover_folder(path)
        raise
    _flush_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Undo what a process that was killed in `replace_folder` left: the old folder goes back, or goes away."""
    path = Path(path)
    pattern = f".{glob.escape(path.name)}.{'[0-9a-f]' * HEX_DIGITS}.{ASIDE}"
    for aside in path.parent.glob(pattern) if path.parent.is_dir() else ():
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # another process was faster
                os.rename(aside, path)


def _hidden_name(path: Path) -> Path:
    """A hidden name beside `path`, with its suffix; names have at most 255 bytes."""
    stem = os.fsdecode(os.fsencode(path.stem)[: 200 - len(os.fsencode(path.suffix))])
    return path.with_name(f".{stem}.{uuid.uuid4().hex[:HEX_DIGITS]}{path.suffix}")


def _sweep(path: Path) -> None:
    """Remove what killed processes left of `path`."""
    stem = _hidden_name(path).name[1 : -HEX_DIGITS - len(path.suffix) - 1]
    _sweep_pattern(path.parent, f".{glob.escape(stem)}.{'[0-9a-f]' * HEX_DIGITS}{glob.escape(path.suffix)}")


def sweep_folder(folder: Path) -> None:
    """Remove what killed processes left of any file of a folder."""
    _sweep_pattern(folder, f".*.{'[0-9a-f]' * HEX_DIGITS}*")


def _sweep_pattern(folder: Path, pattern: str) -> None:
    if fcntl is None or not folder.is_dir():
        return
    for left in folder.glob(pattern):
        if left.suffix == f".{ASIDE}":
            continue
        with contextlib.suppress(OSError):  # it was removed meanwhile, or is being written
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


@contextmanager
def _locked(partial: Path, folder: bool) -> Iterator[None]:
    """Create a file or folder and hold a lock on it, which tells other processes that it is being written."""
    while True:
        if folder:
            partial.mkdir()
        else:
            partial.touch()
        if fcntl is None:
            yield
            return
        descriptor = os.open(partial, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if partial.exists():
            break
        os.close(descriptor)  # swept between its creation and the lock
    try:
        yield
    finally:
        os.close(descriptor)


def _flush(files: list[Path]) -> None:
    """Have the content of files on the disk before their names."""
    apply_umask(files)
    for file in files:
        with file.open("rb") as content:
            os.fsync(content.fileno())


def apply_umask(files: Iterable[Path]) -> None:
    """Let others read files as far as the umask allows: safetensors lets only their owner read its files.

    Files with further names (hard links), such as the clips of a prepared folder, belong to someone else and stay.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in files:
        status = file.stat()
        mode = stat.S_IMODE(status.st_mode)
        if status.st_nlink == 1 and mode | (0o666 & ~mask) != mode:
            file.chmod(mode | (0o666 & ~mask))


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows, and some network file systems, cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of a full disk, from any library, as one OSError that names `path`."""
    try:
        yield
    except Exception as error:
        is_full = getattr(error, "errno", None) in FULL or any(text in str(error) for text in FULL_TEXTS)
        if not is_full or getattr(error, "explained", False):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        number = getattr(error, "errno", None) or errno.ENOSPC
        explained = OSError(
            f"'{path}' cannot be written ({reason}); make room, or name another place. Nothing is left."
        )
        explained.errno, explained.explained = number, True
        raise explained from error


def check_new_folder(path: Path, option: str = "--output") -> None:
    """Refuse a folder whose content would be overwritten or mixed with new files.

    Raises:
        ValueError: if `path` is a file or a folder that is not empty; names `option`.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{option} '{path}' exists and is not an empty folder; name a new one.")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


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
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' cannot be read as JSON ({error}).") from error
