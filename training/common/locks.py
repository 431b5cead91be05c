"""A lock on the folder of a run: two runs in one folder would overwrite each other's checkpoints."""

import os
import socket
import weakref
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, which has no such locks
    fcntl = None

LOCK = ".lock"
_held: "weakref.WeakSet[IO[str]]" = weakref.WeakSet()


def lock_run(output: str | Path) -> IO[str] | None:
    """Hold the folder of a run for as long as the result is open and this process lives.

    Raises:
        ValueError: if another run holds it; names its process and machine.
    """
    if fcntl is None:
        return None
    Path(output).mkdir(parents=True, exist_ok=True)
    file = (Path(output) / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise ValueError(f"--output '{output}' is used by {owner}; wait for it, or name another folder.") from error
    except OSError:  # a file system without locks
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    _held.add(file)
    return file


def _close_in_child() -> None:
    """Otherwise the workers of a loader would hold the lock of their killed parent for some seconds."""
    for file in list(_held):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
