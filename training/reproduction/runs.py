"""Run the trainings and evaluations of a reproduction. Each is one command with its own folder, run only once."""

import argparse
import os
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, load_model
from modeling_aigcvqa.common.files import read_json, whole_folder, write_json
from modeling_aigcvqa.common.presets import save_model_folder
from modeling_aigcvqa.common.signals import run_child
from training.common.records import RECORD

from .tables import NO_ADAPTER, TRAININGS, Row

TRAINING = Path(__file__).resolve().parents[1]  # folder of the stages and their configs


class CommandFailed(RuntimeError):
    """A training or an evaluation failed; the message names the command."""


@dataclass
class Reproduction:
    """The trainings and evaluations of one output folder.

    Args:
        arguments: arguments of the command line.
        done: finished folders that this process has already found or made.
    """

    arguments: argparse.Namespace
    done: set[Path] = field(default_factory=set)

    def splits(self) -> list[Path]:
        """The split files of the chosen kind: those with the numbers `splits`, or the first `num_splits`.

        Raises:
            ValueError: if one is missing, or there are fewer.
        """
        folder, kind, wanted = self.arguments.split_folder, self.arguments.kind, self.arguments.num_splits
        files = sorted(folder.glob(f"{kind}_*.csv"))
        if self.arguments.splits is not None:
            numbered = {int(file.stem.rpartition("_")[2]): file for file in files}
            missing = [number for number in self.arguments.splits if number not in numbered]
            if missing:
                raise ValueError(f"--splits {missing[0]}: '{folder}' has no {kind}_{missing[0]:02d}.csv.")
            return [numbered[number] for number in sorted(set(self.arguments.splits))]
        if len(files) < wanted or wanted < 1:
            raise ValueError(
                f"--num_splits {wanted}: '{folder}' holds {len(files)} files {kind}_*.csv; create them with "
                "dataset_scripts.make_splits, or name their folder with --split_folder."
            )
        return files[:wanted]

    def train(self, name: str, split: Path) -> Path:
        """Run a training, after the training that it starts from, unless it is finished; returns its folder."""
        training, folder = TRAININGS[name], self.arguments.output / split.stem / name
        if folder in self.done:
            return folder
        if training.after == NO_ADAPTER:
            start = self.without_adapter()
        elif training.after:
            start = self.train(training.after, split)
        else:
            start = self.arguments.init_from
        if (folder / RECORD).exists() and not any(folder.glob("*.safetensors")) and not self.arguments.dry_run:
            shutil.rmtree(folder)  # its weights were deleted when its split was complete, and are needed again
        if not (folder / RECORD).exists():
            config = self.arguments.configs / f"stage{training.stage}.yaml"
            command = [*shlex.split(self.arguments.launcher), str(TRAINING / f"stage{training.stage}.py")]
            command += ["--config", str(config), "--data", self.arguments.data, "--split_file", str(split)]
            command += ["--init_from", str(start), "--output", str(folder), *training.options]
            self.run([*command, *self.arguments.stage_options], folder / RECORD)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # large, and no longer needed
        self.done.add(folder)
        return folder

    def without_adapter(self) -> Path:
        """The folder of the initial model without its adapter, written once."""
        folder = self.arguments.output / NO_ADAPTER
        if not (folder / "config.json").exists() and not self.arguments.dry_run:
            write_without_adapter(self.arguments.init_from, folder)
        return folder

    def evaluate(self, row: Row, split: Path) -> Path:
        """Evaluate a row on the test part of a split, unless that is finished; returns the path of metrics.json."""
        folder = self.arguments.output / split.stem / "test" / row.evaluation
        if folder not in self.done and not (folder / "metrics.json").exists():
            model = self.train(row.training, split)
            command = [sys.executable, "-m", "training.evaluate", "--model", str(model), "--data", self.arguments.data]
            command += ["--split_file", str(split), "--branches", ",".join(row.branches), "--output", str(folder)]
            command += ["--num_bootstrap", "0", "--batch_size", str(self.arguments.batch_size)]
            command += ["--num_workers", str(self.arguments.num_workers)]
            self.run(command, folder / "metrics.json")
        self.done.add(folder)
        return folder / "metrics.json"

    def delete_weights(self, split: Path) -> None:
        """Delete the weights of the trainings of a split, whose rows are all evaluated. Everything else stays."""
        for training in TRAININGS:
            for file in (self.arguments.output / split.stem / training).glob("*.safetensors"):
                file.unlink()

    def run(self, command: list[str], result: Path) -> None:
        """Print a command and, without --dry_run, run it.

        Success is judged by the file `result`, not by the exit status: an evaluation in which some clips could not be
        scored exits with 1, but has a result.
        """
        print(shlex.join(command), flush=True)
        if self.arguments.dry_run:
            return
        path = os.pathsep.join(filter(None, (str(TRAINING.parent), os.environ.get("PYTHONPATH"))))
        code = run_child(command, env=os.environ | {"PYTHONPATH": path})
        if not result.exists():
            raise CommandFailed(
                f"the command exited with {code} and did not write '{result}': {shlex.join(command)}. Run "
                "reproduce with the same arguments to continue from here."
            )


def write_without_adapter(source: str, folder: Path) -> None:
    """Write a copy of a model without its adapter (paper Table 5, "N/A"), atomically."""
    model, processor = load_model(source)
    config = AIGCVQAConfig.from_dict(model.config.to_dict())
    config.alignment_config.adapter = None
    plain = AIGCVQAModel(config)
    state = {name: value for name, value in model.state_dict().items() if ".adapter." not in name}
    plain.load_state_dict(state)
    with whole_folder(folder) as partial:
        save_model_folder(plain, processor, partial)


def check_settings(arguments: argparse.Namespace) -> None:
    """Record the settings of the runs in settings.json, or compare them to the recorded ones.

    Raises:
        ValueError: if the folder holds runs of other data, another initial model or other options.
    """
    names = ("data", "split_folder", "kind", "init_from", "configs", "stage_options")
    settings = {name: getattr(arguments, name) for name in names}
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    path = arguments.output / "settings.json"
    if path.exists():
        found = read_json(path)
        changed = [name for name in names if found.get(name) != settings[name]]
        if changed:
            details = "; ".join(f"{name} was {found.get(name)!r}, is {settings[name]!r}" for name in changed)
            raise ValueError(f"--output '{arguments.output}' holds other runs ({details}); name another folder.")
    elif not arguments.dry_run:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
