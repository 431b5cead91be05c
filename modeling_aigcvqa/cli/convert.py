"""`aigcvqa convert`: build a model folder from published checkpoints."""

import argparse
from pathlib import Path

from rich.console import Console

from ..common.choices import WEIGHT_SETS
from ..common.files import check_new_folder
from ..names_aigcvqa import BRANCHES

HELP = "build a model folder from published checkpoints"
DESCRIPTION = (
    "Each of --technical, --aesthetic and --alignment takes a checkpoint: a file, hub:owner/name[@revision]/file or an "
    "https address. The format is recognised by its content: DOVER, DOVER++, FAST-VQA, Video-Swin-T, ConvNeXt-T of "
    "timm, BLIP ViT-L, ImageReward. Branches without a checkpoint are left out. The folder holds weights, processor, "
    "code, a model card and conversion.json, which accounts for every key of every checkpoint. Licences and sizes are "
    "printed before anything is downloaded."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for branch in BRANCHES:
        parser.add_argument(f"--{branch}", metavar="FILE", help=f"checkpoint of the {branch} branch")
    parser.add_argument(
        "--preset",
        choices=list(WEIGHT_SETS),
        help="checkpoints of the other branches; free: may be used for any purpose, dover: non-commercial use only",
    )
    parser.add_argument("--output", "--out", type=Path, required=True, help="new folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters that no checkpoint holds")


def run(arguments: argparse.Namespace, errors: Console) -> int:
    addresses = dict(WEIGHT_SETS.get(arguments.preset, {}))
    addresses |= {branch: getattr(arguments, branch) for branch in BRANCHES if getattr(arguments, branch)}
    if not addresses:
        raise ValueError("nothing to convert; pass --technical, --aesthetic, --alignment or --preset.")
    check_new_folder(arguments.output)
    from ..conversion import convert
    from ..conversion.weight_sets import LICENSES

    model = convert(addresses, arguments.output, arguments.seed, LICENSES, say=print)
    if model.config.weights_note:
        print(model.config.weights_note)
    print(f"Wrote '{arguments.output}'.")
    return 0
