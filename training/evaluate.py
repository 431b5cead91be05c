"""`python -m training.evaluate`: see `training.evaluation`, which is the program.

This file has the name of the package `evaluate`. A script that is run by its path (`python training/stage1.py`) has
this folder first on `sys.path`, so that its `import evaluate` finds this file: then it gives way to the package.
"""

import importlib
import sys
from pathlib import Path


def _give_way() -> None:
    """Put the package `evaluate` in the place of this module, which the import system then hands out."""
    folder = Path(__file__).resolve().parent
    kept, sys.path[:] = list(sys.path), [path for path in sys.path if Path(path or ".").resolve() != folder]
    del sys.modules["evaluate"]
    try:
        importlib.import_module("evaluate")
    finally:
        sys.path[:] = kept


if __name__ == "evaluate":
    _give_way()
else:
    from training.evaluation import main

    __all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
