"""Fine-tune a model on your own ratings: a CSV with the columns file, prompt and mos (and generator, if known).

    python examples/fine_tune.py --csv ratings/mos.csv --init_from DIR --output tuned -- --epochs 10 --batch_size 4

The files in the CSV are relative to the CSV's folder, or absolute. The program checks the clips, links or copies them
into OUTPUT/data, splits them 70/10/20 (by prompt if there are enough prompts, otherwise by clip), trains stage 3 from
DIR, and measures both models on the test part. Some 60 clips are the least that a fine-tune makes sense with. DIR is
`small`, a folder made by `training.convert_checkpoints` or by an earlier training.
Arguments after `--` go to the training stage, see `python training/stage3.py --help`. If the program is interrupted,
the same command continues it. The trained model is OUTPUT/model:

    aigcvqa score clip.mp4 --prompt "a corgi" --model tuned/model
"""

import argparse
import csv
import json
import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataset_scripts import folder, make_splits
from dataset_scripts.labels import STRING, Clip, DatasetSpec, Labels, MediaIndex, clip_id, read_rows, to_score
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.signals import run_child
from training import stage3
from training.common.arguments import parse_arguments
from training.common.sources import MIN_VALIDATED

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = "training/configs/stage3.yaml"
SPEC = DatasetSpec(
    name="Own ratings",
    license="other",
    description="Clips rated by people, one mean opinion score each.",
    homepage="prepared by examples/fine_tune.py",
    columns={"generator": STRING},
)


class StepFailed(ValueError):
    """A step ended with an error, which the step has already printed."""


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The rows of the CSV. Missing files are left to the checks."""
    labels = Labels()
    for row in read_rows(files[0]):
        values = {"generator": row.get("generator") or None}
        file = index.find(row["file"], anywhere=False)
        labels.clips.append(Clip("train", clip_id(row["file"]), file, row["prompt"], to_score(row["mos"]), values))
    return labels


def read_ratings(csv_file: Path, batch_size: int) -> list[dict]:
    """The rows of the CSV, each with the `path` of its clip. What single rows lack is left to the checks.

    Raises:
        ValueError: for a CSV of another kind, or too few clips for a training; says what is missing.
    """
    if csv_file.suffix.lower() != ".csv":
        raise ValueError(f"--csv '{csv_file}': expected a name that ends in .csv.")
    rows = list(read_rows(csv_file))
    missing = [name for name in ("file", "prompt", "mos") if name not in (rows[0] if rows else ())]
    if missing:
        raise ValueError(f"'{csv_file}' has no column {missing} (it has {list(rows[0]) if rows else 'no rows'}).")
    rows = [row | {"path": clip_path(csv_file.parent, str(row["file"] or ""))} for row in rows]
    absent = [row["file"] for row in rows if not row["path"].is_file()]
    if len(absent) == len(rows):
        raise ValueError(
            f"none of the {len(rows)} files of '{csv_file}' exists; the first is '{rows[0]['path']}'. Files are "
            "relative to the folder of the CSV, or absolute."
        )
    usable = [row for row in rows if row["path"].is_file() and math.isfinite(to_score(row["mos"]))]
    least = batch_size + 2 * MIN_VALIDATED
    if len(usable) < least:
        raise ValueError(
            f"'{csv_file}' has {len(usable)} clips with a file and a MOS that is a number ({len(absent)} files are "
            f"missing). A training needs at least {least} (a batch of {batch_size}, {MIN_VALIDATED} to validate and "
            f"{MIN_VALIDATED} to test), and some 60 to make sense; add ratings, or lower the batch with "
            "`-- --batch_size N`."
        )
    return rows


def clip_path(folder: Path, file: str) -> Path:
    """The path of a clip; its name may lack the ending."""
    path = folder.absolute() / file.strip()
    found = (path.with_name(path.name + ending) for ending in ("", *SPEC.suffixes) if file.strip())
    return next((candidate for candidate in found if candidate.is_file()), path)


@contextmanager
def gathered(rows: list[dict], csv_file: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """A folder in OUTPUT with links to the clips alone, and a CSV beside them; gone after the block.

    So clips may lie anywhere, and OUTPUT may be beside them.
    """
    output.mkdir(parents=True, exist_ok=True)
    home = csv_file.parent.absolute()
    is_inside = all(row["path"].is_relative_to(home) for row in rows)
    root = home if is_inside else Path(os.path.commonpath([row["path"].parent for row in rows]))
    with tempfile.TemporaryDirectory(prefix=".clips-", dir=output) as name:
        folder = Path(name)
        for row in rows:
            place = folder / row["path"].relative_to(root)
            row["file"] = place.relative_to(folder).as_posix()
            if row["path"].is_file() and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(row["path"].resolve(), place)
                except OSError:  # another file system
                    shutil.copyfile(row["path"], place)
        table = folder / "ratings.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [column for column in rows[0] if column != "path"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        yield folder, table


def prepare(rows: list[dict], csv_file: Path, data: Path) -> None:
    """Write OUTPUT/data, which `datasets` reads: the checked clips, their labels and a report of the problems."""
    with gathered(rows, csv_file, data.parent) as (source, table):
        arguments = ["--source", str(source), "--labels", str(table), "--output", str(data)]
        if folder.run_preparer(SPEC, read_labels, folder.argument_parser(None).parse_args(arguments)):
            raise StepFailed("the data could not be prepared")


def split(data: Path, splits: Path, seed: int, batch_size: int) -> Path:
    """The split file: by prompt, so that no prompt is on two sides, if each part gets enough clips; otherwise by clip.

    Raises:
        StepFailed: if no split gives each part enough clips.
    """
    if not splits.exists():
        arguments = ["--data", str(data), "--output", str(splits), "--num_splits", "1", "--seed", str(seed)]
        if make_splits.main(arguments):
            raise StepFailed("the data could not be split")
    needed = {"train": batch_size, "validation": MIN_VALIDATED, "test": MIN_VALIDATED}
    for name in ("prompt_disjoint_00.csv", "random_00.csv"):
        if not (splits / name).exists():
            continue
        with (splits / name).open(newline="", encoding="utf-8") as file:
            found = Counter(row["split"] for row in csv.DictReader(file))
        counts = ", ".join(f"{found[part]} in {part} (at least {number})" for part, number in needed.items())
        if all(found[part] >= number for part, number in needed.items()):
            return splits / name
        print(f"'{name}' is not used: {counts}.")
    raise StepFailed(f"too few clips for a split: {counts}; add ratings, or lower the batch with `-- --batch_size N`")


def run(*command: str) -> int:
    """Run a step as a separate process in the repository's folder; returns its exit status."""
    print("+", *command, flush=True)
    return run_child(command, cwd=REPOSITORY)


def train(data: Path, split_file: Path, init_from: str, model: Path, options: list[str]) -> None:
    """Run or continue stage 3 of the training, unless the model is already trained."""
    if (model / "training.json").exists():
        print(f"'{model}' is already trained.")
        return
    status = run(
        sys.executable, "-m", "accelerate.commands.launch", "training/stage3.py",
        "--config", CONFIG, "--data", str(data), "--split_file", str(split_file),
        "--init_from", init_from, "--output", str(model), *options,
    )  # fmt: skip
    if status:
        raise StepFailed("the training failed; the same command continues from its last checkpoint")


def measure(model: str, data: Path, split_file: Path, output: Path) -> dict:
    """The metrics of each score on the test part, measured by `training.evaluate`."""
    if not (output / "metrics.json").exists():
        status = run(
            sys.executable, "-m", "training.evaluate", "--model", model, "--data", str(data),
            "--split_file", str(split_file), "--output", str(output),
        )  # fmt: skip
        if status not in (0, 1):  # status 1: some clips could not be scored; the evaluation's report names them
            raise StepFailed(f"the evaluation of '{model}' failed")
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def print_change(before: dict, after: dict) -> None:
    for score in after:
        values = [metrics[score]["srocc"]["value"] for metrics in (before, after) if score in metrics]
        print(f"{score}: SROCC on the test part", " -> ".join("-" if v is None else f"{v:.4f}" for v in values))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="CSV with file, prompt, mos and, if known, generator")
    parser.add_argument("--init_from", required=True, help="folder, Hub id or name of the initial model")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    parser.add_argument("--no_evaluation", action="store_true", help="do not measure the models on the test part")
    parser.add_argument("options", nargs="*", help="arguments of the training stage, after --")
    return parser


@exits_with_status("fine_tune")
def main(argv: list[str] | None = None) -> int:
    """Returns 0 if all steps succeeded, 2 if a step failed."""
    arguments = build_parser().parse_args(argv)
    output, init_from = arguments.output.resolve(), arguments.init_from
    if Path(init_from).exists():
        init_from = str(Path(init_from).resolve())
    data = output / "data"
    if not arguments.csv.is_file():
        raise ValueError(f"--csv '{arguments.csv}' is not a file.")
    if output.is_file():
        raise ValueError(f"--output '{output}' is a file; name a folder.")
    options = ["--config", str(REPOSITORY / CONFIG), "--data", "-", "--output", "-", *arguments.options]
    batch_size = parse_arguments(stage3.build_parser(), options).batch_size  # also finds wrong options at once
    if not data.exists():
        prepare(read_ratings(arguments.csv, batch_size), arguments.csv, data)
    split_file = split(data, data / "splits", arguments.seed, batch_size)
    train(data, split_file, init_from, output / "model", arguments.options)
    if not arguments.no_evaluation:
        before = measure(init_from, data, split_file, output / "evaluation_before")
        print_change(before, measure(str(output / "model"), data, split_file, output / "evaluation"))
    print(f"The model is '{output / 'model'}'.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
