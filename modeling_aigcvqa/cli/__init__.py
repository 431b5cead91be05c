"""The command line `aigcvqa`, with one file per command."""

import argparse

from .. import __version__
from ..common.console import error_console, exits_with_status
from . import calibrate, compare, convert, explain, init, merge, probe, score, serve

COMMANDS = {
    "score": score,
    "explain": explain,
    "compare": compare,
    "calibrate": calibrate,
    "serve": serve,
    "probe": probe,
    "convert": convert,
    "merge": merge,
    "init": init,
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aigcvqa", description="Score AI-generated videos against their prompts.")
    parser.add_argument("--version", action="version", version=f"aigcvqa {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


@exits_with_status("aigcvqa")
def main(argv: list[str] | None = None) -> int:
    """Run a command. The exit status is 0 for success, 1 if a video failed and 2 for a wrong call."""
    arguments = build_parser().parse_args(argv)
    return arguments.run(arguments, error_console())
