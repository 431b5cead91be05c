"""The paper's ablations on several splits, its tables beside ours.

    python -m training.reproduce --table 6 --data data/t2vqa_db --init_from models/dover --output runs/paper
    python -m training.reproduce --table 2 4 5 6 --data DIR --init_from DIR --output DIR --num_splits 1 -- --epochs 2

Every training and every evaluation has a folder below OUTPUT/SPLIT and is made once, whichever tables need it; the same
command goes on after an interruption. What follows `--` goes to every stage (`--epochs 2`, `--num_workers 8`, ...).

The figures are those of the test part, of the one checkpoint that each stage chose on the validation part. Trainings
start from each other as in the paper: stage 2 from stage 1, stage 3 from stage 2. "1+2" is stage 2's folder: there the
branches were trained apart, and each stage puts its sum on the scale of the MOS.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.loading import load_model
from modeling_aigcvqa.presets import save_model_folder
from training.evaluation_report import markdown_table

FOLDER = Path(__file__).resolve().parent
LAUNCHER = f"{shlex.quote(sys.executable)} -m accelerate.commands.launch"  # `accelerate launch`, also off the PATH
METRICS = {"srocc": "SROCC", "plcc": "PLCC", "krocc": "KROCC", "rmse": "RMSE", "main_score": "main score"}
TECHNICAL, AESTHETIC, ALIGNMENT = "technical", "aesthetic", "alignment"
ALL = (TECHNICAL, AESTHETIC, ALIGNMENT)
# What a run's place in a table fixes.
RESERVED = ("--config", "--data", "--split_file", "--init_from", "--output", "--branches", "--unfixed_ratio")
NO_ADAPTER = "no_adapter"  # the initial model without its adapter


@dataclass(frozen=True)
class Training:
    """One run of a stage.

    Args:
        stage: 1, 2 or 3.
        after: the training that it starts from, `NO_ADAPTER`, or None for the initial model.
        options: of the stage, beside those of its YAML file.
    """

    stage: int
    after: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row of a table: branches of what a training left, and the paper's figures for them."""

    label: str
    training: str
    branches: tuple[str, ...]
    paper: dict[str, float]

    @property
    def evaluation(self) -> str:
        """Its folder: rows of the same training and branches share it."""
        return f"{self.training}-{'-'.join(self.branches)}"


@dataclass(frozen=True)
class Table:
    """A table of the paper: what it varies, the metrics that it prints."""

    title: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = ("srocc", "plcc")


def _paper(srocc: float, plcc: float) -> dict[str, float]:
    return {"srocc": srocc, "plcc": plcc}


TRAININGS = {
    "stage1": Training(1),
    "stage1_technical": Training(1, options=("--branches", TECHNICAL)),
    "stage1_aesthetic": Training(1, options=("--branches", AESTHETIC)),
    "stage2": Training(2, "stage1"),
    **{
        f"stage2_unfixed_{percent}": Training(2, "stage1", ("--unfixed_ratio", str(percent / 100)))
        for percent in (80, 60, 50, 40)  # 70 is stage 2's own
    },
    "stage2_no_adapter": Training(2, NO_ADAPTER),
    "stage3": Training(3, "stage2"),
    "stage3_technical_alignment": Training(3, "stage2", ("--branches", TECHNICAL, ALIGNMENT)),
}
TABLES = {
    "2": Table(
        "Table 2, branches",
        (
            Row("technical", "stage1_technical", (TECHNICAL,), _paper(0.7465, 0.7614)),
            Row("aesthetic", "stage1_aesthetic", (AESTHETIC,), _paper(0.7322, 0.7488)),
            Row("alignment", "stage2", (ALIGNMENT,), _paper(0.8096, 0.8203)),
            Row("technical + aesthetic", "stage1", (TECHNICAL, AESTHETIC), _paper(0.7623, 0.7733)),
            Row(
                "technical + alignment",
                "stage3_technical_alignment",
                (TECHNICAL, ALIGNMENT),
                _paper(0.8166, 0.8298),
            ),
            Row("all", "stage3", ALL, _paper(0.8241, 0.8352)),
        ),
    ),
    "4": Table(
        "Table 4, unfixed share of the encoders in stage 2",
        tuple(
            Row(
                f"{percent} %",
                "stage2" if percent == 70 else f"stage2_unfixed_{percent}",
                (ALIGNMENT,),
                {"main_score": main_score},
            )
            for percent, main_score in ((80, 0.8105), (70, 0.8140), (60, 0.8161), (50, 0.8145), (40, 0.8154))
        ),
        ("main_score",),
    ),
    "5": Table(
        "Table 5, adapter",
        (
            Row("none", "stage2_no_adapter", (ALIGNMENT,), _paper(0.7910, 0.8089)),
            Row("ST-Adapter", "stage2", (ALIGNMENT,), _paper(0.8096, 0.8203)),
        ),
    ),
    "6": Table(
        "Table 6, stages",
        (
            Row("1", "stage1", (TECHNICAL, AESTHETIC), _paper(0.7623, 0.7733)),
            Row("2", "stage2", (ALIGNMENT,), _paper(0.8096, 0.8203)),
            Row("1+2", "stage2", ALL, _paper(0.8102, 0.8244)),
            Row("1+2+3", "stage3", ALL, _paper(0.8241, 0.8352)),
        ),
    ),
}


class CommandFailed(RuntimeError):
    """A training or an evaluation ended with an error; the message names the command."""


@dataclass
class Reproduction:
    """The trainings and evaluations of one output folder.

    Args:
        arguments: of the command line.
        done: folders that were seen to be finished, or made, in this process.
    """

    arguments: argparse.Namespace
    done: set[Path] = field(default_factory=set)

    def splits(self) -> list[Path]:
        """The split files, the first `num_splits` of their kind.

        Raises:
            ValueError: where there are fewer.
        """
        folder, kind, wanted = self.arguments.split_folder, self.arguments.kind, self.arguments.num_splits
        files = sorted(folder.glob(f"{kind}_*.csv"))
        if len(files) < wanted or wanted < 1:
            raise ValueError(
                f"--num_splits {wanted}: '{folder}' holds {len(files)} files {kind}_*.csv; make them with "
                "dataset_scripts.make_splits, or name their folder as --split_folder."
            )
        return files[:wanted]

    def train(self, name: str, split: Path) -> Path:
        """The folder of a finished training; what it starts from comes first."""
        training, folder = TRAININGS[name], self.arguments.output / split.stem / name
        if folder in self.done:
            return folder
        if training.after == NO_ADAPTER:
            start = self.without_adapter()
        elif training.after:
            start = self.train(training.after, split)
        else:
            start = self.arguments.init_from
        if not (folder / "training.json").exists():
            config = self.arguments.configs / f"stage{training.stage}.yaml"
            command = [*shlex.split(self.arguments.launcher), str(FOLDER / f"stage{training.stage}.py")]
            command += ["--config", str(config), "--data", self.arguments.data, "--split_file", str(split)]
            command += ["--init_from", str(start), "--output", str(folder), *training.options]
            self.run([*command, *self.arguments.stage_options], folder / "training.json")
            shutil.rmtree(
                folder / "checkpoints", ignore_errors=True
            )  # several times the model's size, no longer needed
        self.done.add(folder)
        return folder

    def without_adapter(self) -> Path:
        """The initial model without its adapter, made once."""
        folder = self.arguments.output / NO_ADAPTER
        if not (folder / "config.json").exists() and not self.arguments.dry_run:
            write_without_adapter(self.arguments.init_from, folder)
        return folder

    def evaluate(self, row: Row, split: Path) -> Path:
        """metrics.json of a row on the test part of a split."""
        model, folder = self.train(row.training, split), self.arguments.output / split.stem / "test" / row.evaluation
        if folder not in self.done and not (folder / "metrics.json").exists():
            command = [sys.executable, "-m", "training.evaluate", "--model", str(model), "--data", self.arguments.data]
            command += ["--split_file", str(split), "--branches", ",".join(row.branches), "--output", str(folder)]
            command += ["--num_bootstrap", "0", "--batch_size", str(self.arguments.batch_size)]
            command += ["--num_workers", str(self.arguments.num_workers)]
            self.run(command, folder / "metrics.json")
        self.done.add(folder)
        return folder / "metrics.json"

    def run(self, command: list[str], result: Path) -> None:
        """Run a command that leaves the file `result` when it is finished; with --dry_run print it.

        An evaluation whose exit code says that some clips could not be scored has a result, which tells of them.
        """
        print(shlex.join(command), flush=True)
        if self.arguments.dry_run:
            return
        path = os.pathsep.join(filter(None, (str(FOLDER.parent), os.environ.get("PYTHONPATH"))))
        code = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False).returncode
        if not result.exists():
            raise CommandFailed(
                f"there is no '{result}', the command ended with {code}: {shlex.join(command)}. The same call of "
                "reproduce goes on from here."
            )


def write_without_adapter(source: str, folder: Path) -> None:
    """A copy of a model without its adapter (paper Table 5, "N/A"); whole or not at all."""
    model, processor = load_model(source)
    config = AIGCVQAConfig.from_dict(model.config.to_dict())
    config.alignment_config.adapter = None
    plain = AIGCVQAModel(config)
    state = {name: value for name, value in model.state_dict().items() if ".adapter." not in name}
    plain.load_state_dict(state)
    _save_whole(plain, processor, folder)


def _save_whole(model: AIGCVQAModel, processor: AIGCVQAProcessor, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model_folder(model, processor, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_figures(table: Table, splits: list[Path], output: Path) -> dict[str, list[dict[str, float]]]:
    """The figures of the quality score of each row on each split that is there: label -> metrics a split."""
    figures: dict[str, list[dict[str, float]]] = {}
    for row in table.rows:
        files = (output / split.stem / "test" / row.evaluation / "metrics.json" for split in splits)
        results = (json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists())
        figures[row.label] = [
            {name: figure["value"] for name, figure in result["metrics"]["quality_score"].items()} for result in results
        ]
    return figures


def format_table(table: Table, figures: dict[str, list[dict[str, float]]]) -> str:
    """The paper's figures beside ours, mean and standard deviation over the splits."""
    others = [name for name in METRICS if name not in table.metrics]
    header = ["", *(f"{METRICS[name]} {who}" for name in table.metrics for who in ("paper", "ours"))]
    rows = []
    for row in table.rows:
        found = figures[row.label]
        cells = [cell for name in table.metrics for cell in (f"{row.paper[name]:.4f}", mean_text(found, name))]
        rows.append([row.label, *cells, *(mean_text(found, name) for name in others), str(len(found))])
    return f"## {table.title}\n\n" + markdown_table([*header, *(METRICS[name] for name in others), "splits"], rows)


def mean_text(figures: list[dict[str, float]], name: str) -> str:
    """Mean and, of two values or more, their standard deviation; a dash where a figure is undefined or missing."""
    values = [figure[name] for figure in figures]
    if not values or None in values:
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


def check_settings(arguments: argparse.Namespace) -> None:
    """Write down what the folder's runs are made with, or refuse to mix them with others.

    Raises:
        ValueError: where the folder holds runs of other data, another start or other options.
    """
    names = ("data", "split_folder", "kind", "init_from", "configs", "stage_options")
    settings = {name: getattr(arguments, name) for name in names}
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    path = arguments.output / "settings.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{name} was {found.get(name)!r}, is {settings[name]!r}"
            for name in names
            if found.get(name) != settings[name]
        ]
        if changed:
            raise ValueError(
                f"--output '{arguments.output}' holds other runs ({'; '.join(changed)}); name another folder."
            )
    elif not arguments.dry_run:
        arguments.output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def write_report(arguments: argparse.Namespace, splits: list[Path]) -> str:
    """report.md with the tables as far as they are; returns its text."""
    options = f" Options of the stages: `{shlex.join(arguments.stage_options)}`." if arguments.stage_options else ""
    parts = [
        f"Paper: T2VQA-DB, mean of 10 splits. Ours: '{arguments.data}', {len(splits)} {arguments.kind} splits asked "
        f"for, from '{arguments.init_from}'; test part, mean ± standard deviation over the splits.{options}"
    ]
    for number in arguments.table:
        parts.append(format_table(TABLES[number], read_figures(TABLES[number], splits, arguments.output)))
    text = "\n\n".join(parts) + "\n"
    (arguments.output / "report.md").write_text(text, encoding="utf-8")
    return text


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", nargs="+", choices=list(TABLES), required=True)
    parser.add_argument("--data", required=True, help="prepared folder")
    parser.add_argument("--init_from", required=True, help="folder or Hub id of the model that stage 1 starts from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split_folder", type=Path, help="of dataset_scripts.make_splits (default: DATA/splits)")
    parser.add_argument("--kind", choices=("random", "prompt_disjoint"), default="random", help="of splits")
    parser.add_argument("--num_splits", type=int, default=10)
    parser.add_argument("--configs", type=Path, default=FOLDER / "configs", help="folder of stage1.yaml to stage3.yaml")
    parser.add_argument("--launcher", default=LAUNCHER, help="what starts a stage, with its options (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="of the evaluation")
    parser.add_argument("--num_workers", type=int, default=2, help="of the evaluation")
    parser.add_argument("--dry_run", action="store_true", help="print the commands alone")
    return parser


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments; those after `--` as `stage_options`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    arguments = build_parser().parse_args(argv[:cut])
    arguments.stage_options = argv[cut + 1 :]
    arguments.split_folder = arguments.split_folder or Path(arguments.data) / "splits"
    taken = sorted(set(RESERVED) & {option.partition("=")[0] for option in arguments.stage_options})
    if taken:
        raise ValueError(f"the options {taken} after -- are reproduce's own; leave them out.")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """0 if every table is complete, 1 if a run failed, 2 for a wrong call."""
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        reproduction = Reproduction(arguments)
        splits = reproduction.splits()
        check_settings(arguments)
        for split in splits:
            for row in (row for number in arguments.table for row in TABLES[number].rows):
                reproduction.evaluate(row, split)
    except (ValueError, OSError) as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    except CommandFailed as error:
        print(f"reproduce: {error}", file=sys.stderr)
        print(write_report(arguments, splits))
        return 1
    if not arguments.dry_run:
        print(write_report(arguments, splits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
