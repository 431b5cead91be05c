"""Stage 3 (paper section 3.4): train all branches together, with a loss on the sum and on every branch.

    accelerate launch training/stage3.py --config training/configs/stage3.yaml --data DIR --init_from DIR --output DIR

Heads, adapter and the last 30 % of every encoder train. Run the same command again to resume an interrupted run.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # the folder of a script comes first on sys.path, where evaluate.py would hide `evaluate`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.signals import unwinding
from training.common import arguments
from training.common.arguments import SUM
from training.common.loop import train
from training.common.stage import Stage

STAGE = Stage(
    name="stage3",
    branches=("technical", "aesthetic", "alignment"),
    unfixed_ratio=0.3,
    terms=lambda branches: [SUM, *branches] if len(branches) > 1 else [SUM],
)


def build_parser() -> argparse.ArgumentParser:
    return arguments.build_parser(__doc__)


def main(argv: list[str] | None = None) -> None:
    with unwinding():
        train(STAGE, arguments.parse_arguments(build_parser(), argv))


if __name__ == "__main__":
    sys.exit(exits_with_status(STAGE.name)(main)())
