"""Stage 1: the technical and the aesthetic branch (paper section 3.4), each with a loss of its own.

    accelerate launch training/stage1.py --config training/configs/stage1.yaml --data DIR --init_from DIR --output DIR

It needs no prompts. The same command goes on after an interruption.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # a script's own folder comes first on the path, where evaluate.py would hide `evaluate`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.common import loop
from training.common.arguments import build_parser as stage_parser

STAGE = loop.Stage(
    name="stage1",
    branches=("technical", "aesthetic"),
    unfixed_ratio=1.0,
    terms=lambda branches: branches,
)


def build_parser() -> argparse.ArgumentParser:
    return stage_parser(__doc__)


def main(argv: list[str] | None = None) -> None:
    loop.main(STAGE, __doc__, argv)


if __name__ == "__main__":
    main()
