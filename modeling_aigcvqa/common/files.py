"""Write files and folders whole or not at all: under a hidden name first, and renamed when they are complete.

An error or a termination removes what was begun. What a killed process left is removed by the next one that writes the
same file or folder: a writer holds a lock on what it writes, and the lock ends with the process. (Windows has no such
locks: there, such files stay.)
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_TEXTS = re.compile(  # of libraries with own error types
    "No space left on device|Disk quota exceeded|File too large"  # safetensors
    r"|\d+ requested and \d+ written"  # numpy
    r"|inline_container.*unexpected pos|PytorchStreamWriter failed writing"  # torch
)
HEX_DIGITS = 12
MAX_STEM = 200  # bytes of a name in hidden names, which have at most 255
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
    if not _is_missing_or(stat.S_ISREG, path):
        raise FileExistsError(f"'{path}' cannot be written: it is a folder or a device; name a file.")
    if durable:
        _sweep(path)
    partial = _hidden_name(path)
    with _explained(path, partial), _locked(partial, folder=False):
        try:
            yield partial
            if durable:
                _flush([partial])
            _keep_mode(path, partial)
            os.replace(partial, path)
            if durable:
                _flush_folder(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill. It replaces `path` when the block ends; after an error it is removed.

    An existing folder is deleted: call `check_new_folder` first to prevent that. Only a mount point stays, as does what
    is in it: it cannot be renamed, so the new files move into it, each as a whole.

    Raises:
        OSError: if the disk is full or the folder cannot be written; names `path`.
    """
    path = Path(os.path.realpath(path))
    if not _is_missing_or(stat.S_ISDIR, path):
        raise FileExistsError(f"'{path}' cannot be written: it is a file; name a folder.")
    if os.path.ismount(path):
        with whole_files(path) as partial:
            yield partial
        return
    partial = _hidden_name(path)
    with _explained(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    recover_folder(path)
    with _explained(path, partial), _locked(partial, folder=True):
        try:
            yield partial
            replace_folder(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def whole_files(folder: str | Path) -> Iterator[Path]:
    """A folder to fill with files, which move into `folder` when the block ends; other files there stay.

    Each file is replaced as a whole. A kill while they move leaves some of them old; all are new after the next run.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.exists():
        with whole_folder(folder) as partial:
            yield partial
        return
    partial = _hidden_name(folder / "files")
    with _explained(folder, partial):
        _sweep(folder / "files")
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


def _is_missing_or(kind: Callable[[int], bool], path: Path) -> bool:
    """Whether there is nothing at `path`, or something of this kind. One look: others may rename it at any time."""
    try:
        return kind(path.stat().st_mode)
    except FileNotFoundError:
        return True


def replace_folder(partial: Path, path: Path) -> None:
    """Put a complete folder in the place of `path`.

    A folder that stands there is set aside first and deleted last: whenever the process is killed, one of the two is
    complete, and `recover_folder` puts it back.
    """
    files = [file for file in partial.rglob("*") if file.is_file()]
    _flush(files)
    for folder in {file.parent for file in files} | {partial}:
        _flush_folder(folder)
    _keep_mode(path, partial)
    asides: list[Path] = []
    with contextlib.ExitStack() as locks:
        while True:
            with contextlib.suppress(FileNotFoundError):  # there is none, or another process was faster
                locks.callback(os.close, _opened_and_locked(path))  # so that `recover_folder` leaves it alone
                aside = path.with_name(f".{_short(path.name)}.{uuid.uuid4().hex[:HEX_DIGITS]}.{ASIDE}")
                os.rename(path, aside)
                asides.append(aside)
            try:
                os.rename(partial, path)
                break
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another process put its folder there: the last one wins
                if asides:
                    os.rename(asides[-1], path)
                raise
        _flush_folder(path.parent)
        for aside in asides:
            shutil.rmtree(aside, ignore_errors=True)


def recover_folder(path: str | Path) -> None:
    """Undo what a process that was killed in `replace_folder` left: the old folder goes back, or goes away."""
    path = Path(path)
    pattern = f".{glob.escape(_short(path.name))}.{'[0-9a-f]' * HEX_DIGITS}.{ASIDE}"
    for aside in path.parent.glob(pattern) if path.parent.is_dir() else ():
        with contextlib.suppress(OSError), _abandoned(aside):  # another process was faster, or lives
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                os.rename(aside, path)


def _short(name: str) -> str:
    """The name, or for a long name its beginning and a digest of it."""
    encoded = os.fsencode(name)
    if len(encoded) <= MAX_STEM:
        return name
    return f"{os.fsdecode(encoded[: MAX_STEM - 20])}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def _hidden_name(path: Path) -> Path:
    """A hidden name beside `path`, with its suffix unless that is very long."""
    return path.with_name(f"{_hidden_stem(path)}{uuid.uuid4().hex[:HEX_DIGITS]}{_short_suffix(path)}")


def _hidden_stem(path: Path) -> str:
    return f".{_short(path.name.removesuffix(_short_suffix(path)))}."


def _short_suffix(path: Path) -> str:
    return path.suffix if len(os.fsencode(path.suffix)) < 32 else ""


def _sweep(path: Path) -> None:
    """Remove what killed processes left of `path`."""
    digits = "[0-9a-f]" * HEX_DIGITS
    _sweep_pattern(path.parent, f"{glob.escape(_hidden_stem(path))}{digits}{glob.escape(_short_suffix(path))}")


def sweep_folder(folder: Path) -> None:
    """Remove what killed processes left of any file of a folder."""
    _sweep_pattern(folder, f".*.{'[0-9a-f]' * HEX_DIGITS}*")


def _sweep_pattern(folder: Path, pattern: str) -> None:
    if fcntl is None or not folder.is_dir():
        return
    for left in folder.glob(pattern):
        if left.suffix == f".{ASIDE}":
            continue
        with contextlib.suppress(OSError), _abandoned(left):  # it was removed meanwhile, or is being written
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@contextmanager
def _abandoned(path: Path) -> Iterator[None]:
    """Raises BlockingIOError if a living process holds the lock on a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _opened_and_locked(path: Path) -> int:
    """The descriptor of a file or folder, locked as soon as those who sweep or recover let go of it."""
    descriptor = os.open(path, os.O_RDONLY)
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


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
        try:
            descriptor = _opened_and_locked(partial)
        except FileNotFoundError:
            continue
        if partial.exists():
            break
        os.close(descriptor)  # swept between its creation and the lock
    try:
        yield
    finally:
        os.close(descriptor)


def _keep_mode(path: Path, partial: Path) -> None:
    """Give a file or folder the permissions of the one that it replaces, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        partial.chmod(stat.S_IMODE(path.stat().st_mode))


def _flush(files: list[Path]) -> None:
    """Have the content of files on the disk before their names."""
    apply_umask(files)
    for file in files:
        descriptor = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes its own alone
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
def _explained(path: Path, partial: Path) -> Iterator[None]:
    """Errors of a full disk, from any library, and of creating `partial`, as one OSError that names `path`."""
    try:
        yield
    except Exception as error:
        is_full = getattr(error, "errno", None) in FULL or FULL_TEXTS.search(str(error))
        if not is_full and isinstance(error, OSError) and error.filename in (str(partial), str(path.parent)):
            raise type(error)(
                error.errno, f"'{path}' cannot be written ({error.strerror}); name another place"
            ) from error
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
