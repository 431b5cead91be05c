"""Console behaviour that all programs share: one-line errors, progress bars, exit statuses."""

import functools
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def error_console() -> Console:
    """A console for standard error without markup, because file names and prompts may look like markup."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def exits_with_status(name: str) -> Callable:
    """Decorator for the `main` of the program `name`. It makes `main` return an exit status (None counts as 0).

    ValueError and OSError are errors of the user: they are printed in one line and the exit status is 2.
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
    """A progress bar with count and remaining time; nothing is shown if the console is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
