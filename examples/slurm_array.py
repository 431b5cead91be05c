"""Split a manifest for a Slurm array, and join the results: many machines without Ray.

    python examples/slurm_array.py split manifest.jsonl parts/ --parts 64
    sbatch --array=0-63 examples/slurm_array.sbatch parts/ scored/
    python examples/slurm_array.py join scored/ --parts 64

Each job scores its part into scored/NUMBER. A job that was ended goes on when it is submitted again; one that was
complete does nothing. `join` says what is missing, and that no clip stands twice; the scores of all parts are read as
one data set from scored/*/scores.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from modeling_aigcvqa.common.cells import json_text
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import check_new_folder, whole_folder
from modeling_aigcvqa.common.manifests import file_column, manifest_rows
from modeling_aigcvqa.common.places import is_address


def split(manifest: Path, output: Path, parts: int) -> int:
    """Write the rows to `parts` manifests in turn, with absolute names of the clips; returns the number of rows."""
    check_new_folder(output, "PARTS")
    count = 0
    with whole_folder(output) as folder, manifest.open("rb") as source, ExitStack() as files:
        opened = [files.enter_context((folder / f"{n:05d}.jsonl").open("w", encoding="utf-8")) for n in range(parts)]
        for row in manifest_rows(source, str(manifest)):
            name = file_column(row)
            if not is_address(row[name]):
                row[name] = str(manifest.parent.absolute() / row[name])
            opened[count % parts].write(json_text(row) + "\n")
            count += 1
        if count < parts:
            raise ValueError(f"--parts {parts}: the manifest '{manifest}' has {count} rows only.")
    return count


def join(output: Path, parts: int) -> dict:
    """The accounts of all parts, and the numbers of those that are not complete."""
    total = dict.fromkeys(("in", "scored", "failed", "repeated"), 0)
    missing = []
    for number in range(parts):
        file = output / f"{number:05d}" / "summary.json"
        summary = json.loads(file.read_text()) if file.exists() else {"complete": False}
        if not summary["complete"]:
            missing.append(number)
        for name in total:
            total[name] += summary.get(name, 0)
    return total | {"missing": missing}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    splits = commands.add_parser("split")
    splits.add_argument("manifest", type=Path)
    splits.add_argument("output", type=Path, metavar="PARTS")
    joins = commands.add_parser("join")
    joins.add_argument("output", type=Path, metavar="SCORED")
    for command in (splits, joins):
        command.add_argument("--parts", type=int, required=True)
    return parser


@exits_with_status("slurm_array")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.parts < 1:
        raise ValueError(f"--parts {arguments.parts}: expected at least 1.")
    if arguments.command == "split":
        print(f"{split(arguments.manifest, arguments.output, arguments.parts)} rows in {arguments.parts} parts")
        return 0
    accounts = join(arguments.output, arguments.parts)
    print(json.dumps(accounts, indent=2))
    return 1 if accounts["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
