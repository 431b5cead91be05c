"""`aigcvqa merge`: build one model from branches of several models."""

import argparse
from pathlib import Path

from rich.console import Console

from ..common.files import check_new_folder
from ..names_aigcvqa import BRANCHES

HELP = "build one model from branches of several models"
DESCRIPTION = "Takes each branch from the model given for it. Provenance and licences of the weights are kept."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for branch in BRANCHES:
        parser.add_argument(
            f"--{branch}", metavar="MODEL", help=f"folder, Hub id or name of the model to take the {branch} branch from"
        )
    parser.add_argument("--output", type=Path, required=True, help="new folder")


def run(arguments: argparse.Namespace, errors: Console) -> int:
    names = {branch: getattr(arguments, branch) for branch in BRANCHES if getattr(arguments, branch)}
    if not names:
        raise ValueError("nothing to merge; pass --technical, --aesthetic or --alignment.")
    check_new_folder(arguments.output)
    from ..conversion import merge
    from ..loading import load_model

    loaded = {name: load_model(name) for name in dict.fromkeys(names.values())}
    model = merge({branch: loaded[name] for branch, name in names.items()}, arguments.output)
    if model.config.weights_note:
        print(model.config.weights_note)
    print(f"Wrote '{arguments.output}'.")
    return 0
