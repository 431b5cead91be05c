"""`python -m training.export_hub`: publish a model; see `training.publishing.program`."""

import sys

from training.publishing.program import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
