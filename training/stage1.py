"""Stage 1 (paper section 3.4): train the technical and the aesthetic branch, each with its own loss.

    accelerate launch training/stage1.py --config training/configs/stage1.yaml --data DIR --init_from DIR --output DIR

The data need no prompts. Run the same command again to resume an interrupted run.
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
    name="stage1",
    branches=("technical", "aesthetic"),
    unfixed_ratio=1.0,
    terms=lambda branches: branches,
)


def build_parser() -> argparse.ArgumentParser:
    return arguments.build_parser(__doc__)


def main(argv: list[str] | None = None) -> None:
    with unwinding():
        train(STAGE, arguments.parse_arguments(build_parser(), argv))


if __name__ == "__main__":
    sys.exit(exits_with_status(STAGE.name)(main)())
