"""Fine-tune a model on your own ratings: a CSV with the columns file, prompt and mos (and generator, if known).

    python examples/fine_tune.py --csv ratings/mos.csv --init_from DIR --output tuned -- --epochs 10 --batch_size 4

The files in the CSV are relative to the CSV's folder. The program checks the clips, links or copies them into
OUTPUT/data, splits them 70/10/20 (by prompt if prompts repeat, otherwise by clip), trains stage 3 from DIR, and
measures both models on the test part. DIR is a folder made by `training.convert_checkpoints` or by an earlier training.
Arguments after `--` go to the training stage, see `python training/stage3.py --help`. If the program is interrupted,
the same command continues it. The trained model is OUTPUT/model:

    aigcvqa score clip.mp4 --prompt "a corgi" --model tuned/model
"""

import argparse
import json
import sys
from pathlib import Path

from dataset_scripts import folder, make_splits
from dataset_scripts.labels import STRING, Clip, DatasetSpec, Labels, MediaIndex, clip_id, read_rows, to_score
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.signals import run_child

REPOSITORY = Path(__file__).resolve().parents[1]
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
        missing = [column for column in ("file", "prompt", "mos") if row.get(column) is None]
        if missing:
            raise ValueError(f"'{files[0]}' has no column {missing} (it has {list(row)}).")
        values = {"generator": row.get("generator") or None}
        file = index.find(row["file"], anywhere=False)
        labels.clips.append(Clip("train", clip_id(row["file"]), file, row["prompt"], to_score(row["mos"]), values))
    return labels


def prepare(csv_file: Path, data: Path) -> None:
    """Write OUTPUT/data, which `datasets` reads: the checked clips, their labels and a report of the problems."""
    arguments = ["--source", str(csv_file.parent), "--labels", str(csv_file), "--output", str(data)]
    if folder.run_preparer(SPEC, read_labels, folder.argument_parser(None).parse_args(arguments)):
        raise StepFailed("the data could not be prepared")


def split(data: Path, splits: Path, seed: int) -> Path:
    """The split file: split by prompt if prompts repeat, so that no prompt is on two sides, otherwise by clip."""
    if not splits.exists():
        arguments = ["--data", str(data), "--output", str(splits), "--num_splits", "1", "--seed", str(seed)]
        if make_splits.main(arguments):
            raise StepFailed("the data could not be split")
    by_prompt = splits / "prompt_disjoint_00.csv"
    return by_prompt if by_prompt.exists() else splits / "random_00.csv"


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
        "--config", "training/configs/stage3.yaml", "--data", str(data), "--split_file", str(split_file),
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
    parser.add_argument("--init_from", required=True, help="folder or Hub id of the initial model")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, outside the folder of the CSV")
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
    if not data.exists():
        prepare(arguments.csv, data)
    split_file = split(data, data / "splits", arguments.seed)
    train(data, split_file, init_from, output / "model", arguments.options)
    if not arguments.no_evaluation:
        before = measure(init_from, data, split_file, output / "evaluation_before")
        print_change(before, measure(str(output / "model"), data, split_file, output / "evaluation"))
    print(f"The model is '{output / 'model'}'.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
