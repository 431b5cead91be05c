"""Reproduce the paper's ablation tables on several splits.

    python -m training.reproduce --table 6 --data data/t2vqa_db --init_from models/dover --output runs/paper
    python -m training.reproduce --table 2 4 5 6 --data DIR --init_from DIR --output DIR --num_splits 1 -- --epochs 2

Every training and every evaluation has a folder in OUTPUT/SPLIT and runs once, even if several tables need it. Run the
same command again to resume after an interruption. Options after `--` go to every stage, such as `--num_workers 8`.

The weights of a split are deleted when all its rows are evaluated, so that the disk holds one split at a time (eleven
models for all tables); --keep_models keeps them. What was measured stays, and a table that needs a deleted model later
trains it again.

Calls with other --splits may run at the same time, also on other machines that share the folder; a call without them
then finds the runs finished and writes the report on all splits.

Each stage chooses one checkpoint on the validation part, and the figures are measured with it on the test part. As in
the paper, stage 2 starts from stage 1, and stage 3 from stage 2. The row "1+2" of Table 6 is the model of stage 2,
whose branches were trained separately. Every stage puts the sum of the branches on the scale of the MOS.
"""

import argparse
import shlex
import sys
from pathlib import Path

from modeling_aigcvqa.common.console import error_console, exits_with_status
from training.reproduction.figures import write_report
from training.reproduction.runs import TRAINING, CommandFailed, Reproduction, check_settings
from training.reproduction.tables import TABLES

LAUNCHER = f"{shlex.quote(sys.executable)} -m accelerate.commands.launch"  # works without `accelerate` on the PATH
# Options of the stages that `reproduce` sets itself.
RESERVED = ("--config", "--data", "--split_file", "--init_from", "--output", "--branches", "--unfixed_ratio")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", nargs="+", choices=list(TABLES), required=True)
    parser.add_argument("--data", required=True, help="prepared folder")
    parser.add_argument("--init_from", required=True, help="folder or Hub id of the model that stage 1 starts from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split_folder", type=Path, help="folder of the split files (default: DATA/splits)")
    parser.add_argument("--kind", choices=("random", "prompt_disjoint"), default="random", help="kind of splits")
    parser.add_argument("--num_splits", type=int, default=10)
    parser.add_argument(
        "--splits", type=int, nargs="+", metavar="N", help="numbers of single splits, in place of --num_splits"
    )
    parser.add_argument(
        "--configs", type=Path, default=TRAINING / "configs", help="folder of stage1.yaml to stage3.yaml"
    )
    parser.add_argument("--launcher", default=LAUNCHER, help="command that starts a stage (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="batch size of the evaluation")
    parser.add_argument("--num_workers", type=int, default=2, help="worker processes of the evaluation")
    parser.add_argument("--keep_models", action="store_true", help="keep the weights of splits that are complete")
    parser.add_argument("--dry_run", action="store_true", help="print the commands without running them")
    return parser


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments; those after `--` become `stage_options`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    arguments = build_parser().parse_args(argv[:cut])
    arguments.stage_options = argv[cut + 1 :]
    arguments.split_folder = arguments.split_folder or Path(arguments.data) / "splits"
    taken = sorted(set(RESERVED) & {option.partition("=")[0] for option in arguments.stage_options})
    if taken:
        raise ValueError(f"the options {taken} after -- are set by reproduce; leave them out.")
    return arguments


@exits_with_status("reproduce")
def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if every table is complete, 1 if a run failed, 2 for invalid arguments."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    reproduction = Reproduction(arguments)
    splits = reproduction.splits()
    check_settings(arguments)
    failed = None
    try:
        for split in splits:
            for row in (row for number in arguments.table for row in TABLES[number].rows):
                reproduction.evaluate(row, split)
            if not (arguments.keep_models or arguments.dry_run):
                reproduction.delete_weights(split)
    except CommandFailed as error:
        failed = error
        error_console().print(f"reproduce: {error}", style="red")
    if not arguments.dry_run:
        print(write_report(arguments, splits))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
