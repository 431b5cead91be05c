"""Convert published checkpoints, as `aigcvqa convert` does: `python -m training.convert_checkpoints --help`."""

import argparse
import sys

from modeling_aigcvqa.cli import convert
from modeling_aigcvqa.common.console import error_console, exits_with_status


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.convert_checkpoints", description=convert.DESCRIPTION)
    convert.add_arguments(parser)
    return parser


@exits_with_status("convert_checkpoints")
def main(argv: list[str] | None = None) -> int:
    return convert.run(build_parser().parse_args(argv), error_console())


if __name__ == "__main__":
    sys.exit(main())
