"""Stage 3: all branches together, late fusion (paper section 3.4): the loss of the sum and of every branch.

    accelerate launch training/stage3.py --config training/configs/stage3.yaml --data DIR --init_from DIR --output DIR

Heads, adapter and the last 30 % of every encoder train. The same command goes on after an interruption.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # a script's own folder comes first on the path, where evaluate.py would hide `evaluate`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.common import loop
from training.common.arguments import SUM
from training.common.arguments import build_parser as stage_parser

STAGE = loop.Stage(
    name="stage3",
    branches=("technical", "aesthetic", "alignment"),
    unfixed_ratio=0.3,
    terms=lambda branches: [SUM, *branches] if len(branches) > 1 else [SUM],
)


def build_parser() -> argparse.ArgumentParser:
    return stage_parser(__doc__)


def main(argv: list[str] | None = None) -> None:
    loop.main(STAGE, __doc__, argv)


if __name__ == "__main__":
    main()
