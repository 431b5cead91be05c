"""What every program does on the console: errors in one line, progress bars, exit statuses."""

import functools
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def error_console() -> Console:
    """Standard error, with text taken as it is: file names and prompts may hold what looks like markup."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def exits_with_status(name: str) -> Callable:
    """Makes a program's `main` return an exit status: its own (None counts as 0), or 2 for an error of the user's.

    ValueError and OSError are such errors: they are printed in one line after the program's name.
    """

    def decorate(main: Callable[..., int | None]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(argv: list[str] | None = None) -> int:
            try:
                return main(argv) or 0
            except (ValueError, OSError) as error:
                error_console().print(f"{name}: {error}", style="red")
                return 2

        return run

    return decorate


def progress_bar(console: Console) -> Progress:
    """A bar with count and remaining time; nothing where the console is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
