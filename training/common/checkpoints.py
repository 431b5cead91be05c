"""Checkpoints of a training run. A run writes these files:

OUTPUT/arguments.json             the arguments, and under "decides" what a resumed run must agree in
OUTPUT/checkpoints/step-000500/   everything needed to resume (Accelerate's save_state and progress.json)
OUTPUT/best/                      the model of the best validation so far
OUTPUT/config.json, *.safetensors the finished model, for the next stage, `AutoModel` and `aigcvqa score`
OUTPUT/training.json, curves.png  arguments, commit, validation of every epoch, clips that could not be read
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from modeling_aigcvqa.common.files import read_json, replace_folder, write_json

from .arguments import StageArguments
from .fingerprints import differences

ARGUMENTS = "arguments.json"


@dataclasses.dataclass
class Progress:
    """The progress of a run, and its history."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    loss_sums: dict[str, float] = dataclasses.field(default_factory=dict)  # over the batches of the current epoch
    history: list[dict] = dataclasses.field(default_factory=list)  # one row per epoch
    failed: list[str] = dataclasses.field(default_factory=list)  # clips that could not be read, with the reason

    def advance(self) -> None:
        """Count one step."""
        self.step += 1
        self.batch += 1

    def add_losses(self, losses: dict[str, float]) -> None:
        """Add the losses of one step."""
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value

    def close_epoch(self, seconds: float, waited: float) -> dict:
        """End the epoch. Returns its row of the history: mean losses, time, and the share of it spent on waiting."""
        row = {"epoch": self.epoch + 1, "step": self.step}
        row |= {f"loss/{name}": value / self.batch for name, value in self.loss_sums.items()}
        row |= {"seconds": round(seconds, 1), "data_wait_share": round(waited / max(seconds, 1e-9), 4)}
        self.history.append(row)
        self.epoch, self.batch, self.loss_sums = self.epoch + 1, 0, {}
        return row

    def summary(self, scores: list[str]) -> str:
        """The last epoch in one line."""
        row = self.history[-1]
        losses = ", ".join(f"{key[5:]} {value:.3f}" for key, value in row.items() if key.startswith("loss/"))
        figures = {name: "/".join(_figure(row[f"{name}/{key}"]) for key in ("srocc", "plcc")) for name in scores}
        found = ", ".join(f"{name} {figure}" for name, figure in figures.items())
        return (
            f"epoch {row['epoch']}: loss {losses}; validation SROCC/PLCC {found}; waited {row['data_wait_share']:.0%}"
        )


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def check_output(output: Path) -> None:
    """Check that an output folder is new or holds an interrupted run.

    Raises:
        ValueError: if the folder holds anything else, or a finished run.
    """
    if (output / "training.json").exists():
        raise ValueError(f"--output '{output}' holds a finished run; name another folder.")
    if output.exists() and any(output.iterdir()) and not (output / ARGUMENTS).exists():
        raise ValueError(f"--output '{output}' is not empty and has no run to resume; name another folder.")


def check_same_run(output: Path, arguments: StageArguments, decides: dict[str, Any]) -> None:
    """Write the arguments of a new run, or check that those of an interrupted one lead to the same result.

    Args:
        decides: everything that decides the result, by name.

    Raises:
        ValueError: if something differs; names each difference with both values.
    """
    record = output / ARGUMENTS
    if record.exists():
        changed = differences(read_json(record).get("decides", {}), decides)
        if changed:
            raise ValueError(
                f"--output '{output}' holds an interrupted run that leads to another result: {'; '.join(changed)}. "
                "Start with what it had, or name another folder for a new run."
            )
    output.mkdir(parents=True, exist_ok=True)
    write_json(record, dataclasses.asdict(arguments) | {"decides": decides})


def save_checkpoint(accelerator: Accelerator, output: str, progress: Progress, kept: int) -> None:
    """Write a checkpoint under another name, rename it when it is complete, then delete the oldest ones."""
    folder = Path(output) / "checkpoints"
    final, partial = folder / f"step-{progress.step:06d}", folder / f"step-{progress.step:06d}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(partial / "progress.json", dataclasses.asdict(progress))
        replace_folder(partial, final)
        for old in find_checkpoints(output)[:-kept]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, output: str) -> Progress:
    """Load the newest complete checkpoint, if there is one, and return its progress."""
    found = find_checkpoints(output)
    if not found:
        return Progress()
    accelerator.load_state(str(found[-1]))
    return Progress(**json.loads((found[-1] / "progress.json").read_text(encoding="utf-8")))


def find_checkpoints(output: str) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted((Path(output) / "checkpoints").glob("step-*[0-9]"))  # not those that end in .partial
