"""How far a run is: on a terminal a line that is renewed, in logs a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

FIRST_LINE_S, LONGEST_S = 5.0, 60.0  # time between lines; it doubles from line to line


class RunProgress:
    """Counts clips and tells how far the run is.

    Args:
        total: clips of the run as far as it is known, None if it is not.
        done, failed: clips that were done by earlier runs.
        lines: take a line of text now and then.
        shown: takes the current state, for a terminal.
    """

    def __init__(
        self,
        total: int | None,
        done: int,
        failed: int,
        lines: Callable[[str], None],
        shown: Callable[["RunProgress"], None],
    ):
        self.total, self.done, self.failed = total, done, failed
        self.lines, self.shown = lines, shown
        self.before = done
        self.start = self.last = time.monotonic()
        self.interval = FIRST_LINE_S
        self.first: float | None = None  # when the first clip of this run was done

    def add(self, done: int, failed: int) -> None:
        """Count clips, of which some failed."""
        self.done += done
        self.failed += failed
        now = time.monotonic()
        self.first = self.first or now
        self.shown(self)
        if now - self.last >= self.interval:
            self.last, self.interval = now, min(2 * self.interval, LONGEST_S)
            self.lines(str(self))

    @property
    def rate(self) -> float:
        """Clips per second of this run."""
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None if the total is unknown."""
        if self.total is None or self.done == self.before:
            return None
        return max(0, self.total - self.done) / self.rate

    def __str__(self) -> str:
        of = f" of {self.total}" if self.total is not None else ""
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return f"{self.done}{of} clips, {self.rate:.3g} per second{left}, {self.failed} failed"


@contextmanager
def reported(console: Console, log: Path | None, total: int | None, done: int, failed: int) -> Iterator[RunProgress]:
    """Progress on the console, and as lines in a log file where there is one."""

    def line(text: str) -> None:
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
        if not console.is_terminal:
            console.print(text)

    columns = (TextColumn("scoring"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=done)
        shown = lambda progress: bar.update(task, completed=progress.done, description=str(progress))  # noqa: E731
        progress = RunProgress(total, done, failed, line, shown)
        line(f"starts with {done} clips done")
        yield progress
        line(str(progress))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
