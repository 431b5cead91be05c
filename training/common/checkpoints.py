"""Checkpoints of a training run. A run writes these files:

OUTPUT/arguments.json             the arguments, and under "decides" what a resumed run must agree in
OUTPUT/checkpoints/step-000500/   everything needed to resume (Accelerate's save_state, progress.json, manifest.json)
OUTPUT/best/                      the model of the best validation so far
OUTPUT/config.json, *.safetensors the finished model, for the next stage, `AutoModel` and `aigcvqa score`
OUTPUT/training.json, curves.png  arguments, commit, validation of every epoch, clips that could not be read
OUTPUT/tracker.json               id of the run for the trackers of --log_with
OUTPUT/.lock                      machine and process of the run that writes here
"""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import IO, Any

from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from modeling_aigcvqa.common.files import read_json, recover_folder, replace_folder, write_json

from .arguments import StageArguments
from .fingerprints import differences
from .integrity import damage, write_manifest
from .locks import LOCK, lock_run
from .main_process import on_main_process

ARGUMENTS = "arguments.json"
BEST = "best"  # folder of the best model so far
DAMAGED = ".damaged"  # suffix of a checkpoint that is set aside


@dataclasses.dataclass
class Progress:
    """The progress of a run, and its history."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    loss_sums: dict[str, float] = dataclasses.field(default_factory=dict)  # over the batches of the current epoch
    loss_counts: dict[str, int] = dataclasses.field(default_factory=dict)  # of these batches
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
            self.loss_counts[name] = self.loss_counts.get(name, 0) + 1

    def close_epoch(self, seconds: float, waited: float) -> dict:
        """End the epoch. Returns its row of the history: mean losses, time, and the share of it spent on waiting."""
        row = {"epoch": self.epoch + 1, "step": self.step}
        row |= {f"loss/{name}": value / self.loss_counts[name] for name, value in self.loss_sums.items()}
        row |= {"seconds": round(seconds, 1), "data_wait_share": round(waited / max(seconds, 1e-9), 4)}
        self.history.append(row)
        self.epoch, self.batch, self.loss_sums, self.loss_counts = self.epoch + 1, 0, {}, {}
        return row

    def summary(self, scores: list[str]) -> str:
        """The last epoch in one line."""
        row = self.history[-1]
        losses = ", ".join(f"{key[5:]} {value:.3f}" for key, value in row.items() if key.startswith("loss/"))
        names = [key.removesuffix("/main_score") for key in row if key.endswith("/main_score")]
        names = [name for name in names if name.split("@")[0] in scores]
        parts = [
            f"{title} {', '.join(found)}"
            for title, keys in (("SROCC/PLCC", ("srocc", "plcc")), ("accuracy", ("accuracy",)))
            if (found := [f"{name} {_figures(row, name, keys)}" for name in names if f"{name}/{keys[0]}" in row])
        ]
        return (
            f"epoch {row['epoch']}: loss {losses}; validation {', '.join(parts)}; waited {row['data_wait_share']:.0%}"
        )


def _figures(row: dict, name: str, keys: tuple[str, ...]) -> str:
    return "/".join(_figure(row[f"{name}/{key}"]) for key in keys)


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def take_output(output: Path) -> IO[str] | None:
    """Lock an output folder that is new or holds an interrupted run; returns the lock, see `lock_run`.

    Raises:
        ValueError: if another run writes there, or if the folder holds anything else or a finished run.
    """
    if (output / "training.json").exists():
        raise ValueError(f"--output '{output}' holds a finished run; name another folder.")
    known = {ARGUMENTS, LOCK}
    if output.exists() and any(output.iterdir()) and not any((output / name).exists() for name in known):
        raise ValueError(f"--output '{output}' is not empty and has no run to resume; name another folder.")
    lock = lock_run(output)
    recover_folder(output / BEST)
    return lock


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
    write_json(record, dataclasses.asdict(arguments) | {"decides": decides})


def keep_plain_names(accelerator: Accelerator) -> None:
    """Let checkpoints have the names of the model itself, whether it is compiled or distributed (DDP), or not."""

    def save(models: list[nn.Module], weights: list[dict[str, Tensor]], _: str) -> None:
        weights[:] = [plain(model).state_dict() for model, _ in zip(models, weights)]

    def load(models: list[nn.Module], _: str) -> None:
        models[:] = [plain(model) for model in models]

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def plain(model: nn.Module) -> nn.Module:
    """A model without the wrappers of torch.compile and DDP."""
    return extract_model_from_parallel(model, keep_torch_compile=False)


def save_checkpoint(accelerator: Accelerator, output: str, progress: Progress, kept: int) -> None:
    """Write a checkpoint under another name, rename it when it is complete, then delete the oldest ones."""
    folder = Path(output) / "checkpoints"
    final, partial = folder / f"step-{progress.step:06d}", folder / f"step-{progress.step:06d}.partial"
    if accelerator.is_main_process:
        for left in folder.glob("*.partial"):  # of a run that was killed
            shutil.rmtree(left)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(partial / "progress.json", dataclasses.asdict(progress))
        write_manifest(partial)
        replace_folder(partial, final)  # waits until the disk has all of it
        for old in find_checkpoints(output)[:-kept]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, output: str) -> Progress:
    """Load the newest checkpoint that is whole, if there is a checkpoint, and return its progress."""
    on_main_process(accelerator, lambda: set_damaged_aside(output))
    found = find_checkpoints(output)
    if not found:
        return Progress()
    accelerator.load_state(str(found[-1]))
    return Progress(**read_json(found[-1] / "progress.json"))


def set_damaged_aside(output: str) -> None:
    """Rename the damaged checkpoints that are newer than the newest whole one, and say so.

    Raises:
        ValueError: if all checkpoints are damaged.
    """
    damaged = []
    for folder in reversed(find_checkpoints(output)):
        problem = damage(folder)
        if problem is None:
            break
        print(f"the checkpoint '{folder}' is damaged: {problem}")
        damaged.append(folder)
    else:
        if damaged:
            raise ValueError(
                f"--output '{output}': no checkpoint is whole ({', '.join(path.name for path in damaged)}); restore "
                "one, or delete the folder 'checkpoints' to start from the beginning."
            )
    for folder in damaged:
        aside = folder.with_name(folder.name + DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
        print(f"set aside as '{aside.name}'; an older checkpoint takes its place")


def find_checkpoints(output: str) -> list[Path]:
    """The complete checkpoints, oldest first."""
    found = (Path(output) / "checkpoints").glob("step-*[0-9]")  # not those that end in .partial or .damaged
    return sorted(found, key=lambda folder: int(folder.name.removeprefix("step-")))
