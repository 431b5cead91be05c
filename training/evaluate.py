"""Entry point `python -m training.evaluate`, see `training.evaluation.program`."""

import sys

from training.evaluation.program import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
