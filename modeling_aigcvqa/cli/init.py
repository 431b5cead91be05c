"""`aigcvqa init`: write a model with random weights."""

import argparse
from pathlib import Path

from rich.console import Console

from ..common.choices import ARCHITECTURES
from ..common.files import check_new_folder, whole_folder

HELP = "write an untrained model to a folder, as a start for training"
DESCRIPTION = "Writes a model with random weights. `aigcvqa convert` writes one with published weights."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=ARCHITECTURES, default="full", help="size of the networks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="new folder")


def run(arguments: argparse.Namespace, errors: Console) -> int:
    check_new_folder(arguments.output)
    from ..common.presets import default_processor, save_model_folder, untrained_model

    model = untrained_model(arguments.preset, arguments.seed)
    with whole_folder(arguments.output) as folder:
        save_model_folder(model, default_processor(model.config), folder)
    errors.print(f"Wrote an untrained '{arguments.preset}' model to '{arguments.output}'.")
    return 0
