"""Fine-tune a model on opinions of your own: a CSV with the columns file, prompt and mos (and generator, if known).

    python examples/fine_tune.py --csv ratings/mos.csv --init_from DIR --output tuned -- --epochs 10 --batch_size 4

Files are relative to the CSV. Checks the clips and copies or links them into OUTPUT/data (`dataset_scripts`), splits
them 70/10/20, by prompt where prompts repeat, trains stage 3 from DIR (a folder of `training.convert_checkpoints` or of
an earlier training) and measures both models on the test part. Everything after `--` goes to the training stage, see
`python training/stage3.py --help`. The same command goes on where it was interrupted. The model is OUTPUT/model:

    aigcvqa score clip.mp4 --prompt "a corgi" --model tuned/model
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from dataset_scripts import folder, make_splits
from dataset_scripts.labels import STRING, Clip, DatasetSpec, Labels, MediaIndex, clip_id, to_score
from dataset_scripts.labels import read_rows as read_label_rows

REPOSITORY = Path(__file__).resolve().parents[1]
SPEC = DatasetSpec(
    name="Own ratings",
    license="other",
    description="Clips rated by people, one mean opinion score each.",
    homepage="prepared by examples/fine_tune.py",
    columns={"generator": STRING},
)
COLUMNS = ("file", "prompt", "mos")


class StepFailed(RuntimeError):
    """A step ended with an error, which it has printed itself."""


def read_labels(csv_file: Path, index: MediaIndex) -> Labels:
    """The rows of the CSV; a file that is not there is found by the checks."""
    labels = Labels()
    for row in read_label_rows(csv_file):
        missing = [column for column in COLUMNS if row.get(column) is None]
        if missing:
            raise ValueError(f"'{csv_file}' has no column {missing} (it has {list(row)}).")
        values = {"generator": row.get("generator") or None}
        file = index.find(row["file"], anywhere=False)
        labels.clips.append(Clip("train", clip_id(row["file"]), file, row["prompt"], to_score(row["mos"]), values))
    return labels


def prepare(csv_file: Path, data: Path) -> None:
    """OUTPUT/data, which `datasets` reads: checked clips, their labels, a report of what was found."""
    arguments = folder.argument_parser(None).parse_args(["--source", str(csv_file.parent), "--output", str(data)])
    status = folder.run_preparer(SPEC, lambda _, index: read_labels(csv_file, index), arguments)
    if status:
        raise StepFailed("the data could not be prepared")


def split(data: Path, splits: Path, seed: int) -> Path:
    """A split file: no prompt on two sides where prompts repeat, by clip where every clip has its own."""
    if not splits.exists():
        arguments = ["--data", str(data), "--output", str(splits), "--num_splits", "1", "--seed", str(seed)]
        if make_splits.main(arguments):
            raise StepFailed("the data could not be split")
    by_prompt = splits / "prompt_disjoint_00.csv"
    return by_prompt if by_prompt.exists() else splits / "random_00.csv"


def run(*command: str) -> int:
    """A step as a process of its own, in the repository; its exit status."""
    print("+", *command, flush=True)
    return subprocess.run(command, cwd=REPOSITORY).returncode


def train(data: Path, split_file: Path, init_from: str, model: Path, options: list[str]) -> None:
    """Stage 3 of the training; an interrupted one goes on, a finished one is left."""
    if (model / "training.json").exists():
        print(f"'{model}' is trained already.")
        return
    status = run(
        sys.executable, "-m", "accelerate.commands.launch", "training/stage3.py",
        "--config", "training/configs/stage3.yaml", "--data", str(data), "--split_file", str(split_file),
        "--init_from", init_from, "--output", str(model), *options,
    )  # fmt: skip
    if status:
        raise StepFailed("the training failed; the same command goes on from its last checkpoint")


def measure(model: str, data: Path, split_file: Path, output: Path) -> dict:
    """The figures of `training.evaluate` on the test part, by score."""
    if not (output / "metrics.json").exists():
        status = run(
            sys.executable, "-m", "training.evaluate", "--model", model, "--data", str(data),
            "--split_file", str(split_file), "--output", str(output),
        )  # fmt: skip
        if status not in (0, 1):  # 1: some clips could not be scored, which its report says
            raise StepFailed(f"the evaluation of '{model}' failed")
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def print_change(before: dict, after: dict) -> None:
    for score in after:
        values = [metrics[score]["srocc"]["value"] for metrics in (before, after) if score in metrics]
        print(f"{score}: SROCC on the test part", " -> ".join("-" if v is None else f"{v:.4f}" for v in values))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="file,prompt,mos and, if known, generator")
    parser.add_argument("--init_from", required=True, help="folder or Hub id of the model to start from")
    parser.add_argument("--output", type=Path, required=True, help="folder, outside of the CSV's")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--no_evaluation", action="store_true", help="do not measure the models on the test part")
    parser.add_argument("options", nargs="*", help="after --: arguments of the training stage")
    return parser


def main(argv: list[str] | None = None) -> int:
    """0 if all steps succeeded, 2 if one failed."""
    arguments = build_parser().parse_args(argv)
    output, init_from = arguments.output.resolve(), arguments.init_from
    if Path(init_from).exists():
        init_from = str(Path(init_from).resolve())
    data = output / "data"
    try:
        if not arguments.csv.is_file():
            raise ValueError(f"--csv '{arguments.csv}' is no file.")
        if not data.exists():
            prepare(arguments.csv, data)
        split_file = split(data, data / "splits", arguments.seed)
        train(data, split_file, init_from, output / "model", arguments.options)
        if not arguments.no_evaluation:
            before = measure(init_from, data, split_file, output / "evaluation_before")
            print_change(before, measure(str(output / "model"), data, split_file, output / "evaluation"))
    except (ValueError, OSError, StepFailed) as error:
        print(f"fine_tune: {error}", file=sys.stderr)
        return 2
    print(f"The model is '{output / 'model'}'.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
