"""Trainings and evaluations of one output folder: each is a command, made once, in a folder of its own."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, load_model
from modeling_aigcvqa.common.files import read_json, whole_folder, write_json
from modeling_aigcvqa.common.presets import save_model_folder
from training.common.records import RECORD

from .tables import NO_ADAPTER, TRAININGS, Row

TRAINING = Path(__file__).resolve().parents[1]  # where the stages and their configs are


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
        if not (folder / RECORD).exists():
            config = self.arguments.configs / f"stage{training.stage}.yaml"
            command = [*shlex.split(self.arguments.launcher), str(TRAINING / f"stage{training.stage}.py")]
            command += ["--config", str(config), "--data", self.arguments.data, "--split_file", str(split)]
            command += ["--init_from", str(start), "--output", str(folder), *training.options]
            self.run([*command, *self.arguments.stage_options], folder / RECORD)
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
        path = os.pathsep.join(filter(None, (str(TRAINING.parent), os.environ.get("PYTHONPATH"))))
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
    with whole_folder(folder) as partial:
        save_model_folder(plain, processor, partial)


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
        found = read_json(path)
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
        write_json(path, settings)
