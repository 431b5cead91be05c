"""Console behaviour that all programs share: one-line errors, progress, exit statuses."""

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .signals import unwinding

INTERRUPTED = 130  # exit statuses of a shell: 128 + SIGINT
CLOSED_PIPE = 141  # 128 + SIGPIPE
FIRST_LINE_S, LONGEST_S = 5.0, 60.0  # time between lines of progress; it doubles from line to line


def error_console() -> Console:
    """A console for standard error without markup, because file names and prompts may look like markup."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def exits_with_status(name: str) -> Callable:
    """Decorator for the `main` of the program `name`. It makes `main` return an exit status (None counts as 0).

    ValueError and OSError are errors of the user: they are printed in one line and the exit status is 2. Ctrl-C gives
    130. When the reader of the output has gone (`| head`), the program ends quietly with 141.
    """

    def decorate(main: Callable[..., int | None]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(argv: list[str] | None = None) -> int:
            try:
                with unwinding():
                    status = main(argv) or 0
                sys.stdout.flush()  # a closed pipe is noticed here and not at exit
                return status
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return CLOSED_PIPE
            except (ValueError, OSError) as error:
                error_console().print(f"{name}: {error}", style="red")
                return 2
            except KeyboardInterrupt:
                error_console().print(f"{name}: interrupted.", style="red")
                return INTERRUPTED

        return run

    return decorate


def progress_bar(console: Console) -> Progress:
    """A progress bar with count and remaining time; nothing is shown if the console is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def counted(console: Console, description: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Shows how many of `total` things are done: a bar on a terminal, otherwise a line now and then.

    Yields:
        A function to call after each thing.
    """
    if not console.is_terminal:
        yield _Lines(console, description, total, done).advance
        return
    with progress_bar(console) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda: bar.advance(task)


class _Lines:
    """Lines of progress for logs: the first after some seconds, the following ones at growing intervals."""

    def __init__(self, console: Console, description: str, total: int, done: int):
        self.console, self.description, self.total = console, description, total
        self.before = self.done = done
        self.start = self.last = time.monotonic()
        self.interval = FIRST_LINE_S

    def advance(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.last < self.interval:
            return
        self.last, self.interval = now, min(2 * self.interval, LONGEST_S)
        rate = (self.done - self.before) / (now - self.start)
        left = (self.total - self.done) / rate
        self.console.print(
            f"{self.description}: {self.done} of {self.total}, {rate:.2g} per second, {left / 60:.0f} min left"
        )
