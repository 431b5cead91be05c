"""Stage 2 (paper section 3.4): train the alignment branch: adapter, head and the last 70 % of both encoders.

    accelerate launch training/stage2.py --config training/configs/stage2.yaml --data DIR --init_from DIR --output DIR

Run the same command again to resume an interrupted run.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # the folder of a script comes first on sys.path, where evaluate.py would hide `evaluate`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.signals import unwinding
from training.common import arguments
from training.common.loop import train
from training.common.stage import Stage

STAGE = Stage(
    name="stage2",
    branches=("alignment",),
    unfixed_ratio=0.7,
    terms=lambda branches: branches,
)


def build_parser() -> argparse.ArgumentParser:
    return arguments.build_parser(__doc__)


def main(argv: list[str] | None = None) -> None:
    with unwinding():
        train(STAGE, arguments.parse_arguments(build_parser(), argv))


if __name__ == "__main__":
    sys.exit(exits_with_status(STAGE.name)(main)())
