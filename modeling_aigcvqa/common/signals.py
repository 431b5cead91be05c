"""Ends of a program: termination unwinds it, so that nothing half-written is left, and its children end with it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# For the programs that a program starts: a launcher between them may not hand the signal on.
END_WITH_PARENT = "AIGCVQA_END_WITH_PARENT"
PATIENCE_S = 30.0  # for a child to clean up
PR_SET_PDEATHSIG = 1  # of prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


@contextmanager
def unwinding() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise SystemExit with the status of a shell, 128 plus the signal's number.

    Where the environment says `END_WITH_PARENT`, the process also ends when its parent dies.

    A signal that is ignored, as SIGHUP under nohup, stays ignored. Python only handles signals in the main thread.
    """
    if os.environ.get(END_WITH_PARENT):
        end_with_parent()
    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _exit)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _exit(number: int, _) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one does not interrupt the cleaning up
    sys.exit(128 + number)


def run_child(command: Sequence[str], **options: Any) -> int:
    """Run a command to its end and return its exit status. It and its processes end when this process ends.

    It has a session of its own, so that all of its processes can be ended at once. Those that do not end within
    PATIENCE_S are killed.

    Args:
        options: of `subprocess.Popen`, such as `env` and `cwd`.
    """
    has_groups = hasattr(os, "killpg")
    process = subprocess.Popen(
        command,
        **{**options, "env": {**(options.get("env") or os.environ), END_WITH_PARENT: "1"}},
        start_new_session=has_groups,
        preexec_fn=end_with_parent if os.name == "posix" else None,
    )
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            end = os.killpg if has_groups else os.kill
            end(process.pid, signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                end(process.pid, signal.SIGKILL if has_groups else signal.SIGTERM)
                process.wait()


def end_with_parent() -> None:
    """Have this process end with its parent, however that dies: for the start of a child. Linux only.

    Elsewhere a child ends with its parent only if the parent ends it.
    """
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
