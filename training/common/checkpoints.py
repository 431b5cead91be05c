"""What a run leaves on disk: checkpoints to resume from, the model to use, the record of how it was made.

OUTPUT/checkpoints/step-000500/   everything that the run needs to go on (Accelerate's save_state and progress.json)
OUTPUT/best/                      the model of the best validation so far
OUTPUT/config.json, *.safetensors the finished model, which the next stage, `AutoModel` and `aigcvqa score` read
OUTPUT/training.json, curves.png  arguments, commit, validation by epoch, clips that could not be read
"""

import dataclasses
import json
import shutil
from pathlib import Path

from accelerate import Accelerator

from modeling_aigcvqa.common.files import replace_folder, write_json

from .arguments import StageArguments

# Arguments that may change between an interruption and the resumption: they do not touch the result.
FREE_TO_CHANGE = (
    "output",
    "config",
    "num_workers",
    "cache",
    "checkpoint_steps",
    "checkpoints_kept",
    "log_with",
    "max_failed_clips",
)


@dataclasses.dataclass
class Progress:
    """Where a run stands, and what it has seen."""

    epoch: int = 0  # epochs that are done
    batch: int = 0  # batches of the next epoch that are done
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    loss_sums: dict[str, float] = dataclasses.field(default_factory=dict)  # over this epoch's batches
    history: list[dict] = dataclasses.field(default_factory=list)  # a row an epoch
    failed: list[str] = dataclasses.field(default_factory=list)  # clips that could not be read, with the reason

    def add_losses(self, losses: dict[str, float]) -> None:
        """Count a step."""
        self.step += 1
        self.batch += 1
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value

    def close_epoch(self, seconds: float, waited: float) -> dict:
        """Start the next epoch; returns this one's row of the history: mean losses, time, share of it spent waiting."""
        row = {"epoch": self.epoch + 1, "step": self.step}
        row |= {f"loss/{name}": value / self.batch for name, value in self.loss_sums.items()}
        row |= {"seconds": round(seconds, 1), "data_wait_share": round(waited / max(seconds, 1e-9), 4)}
        self.history.append(row)
        self.epoch, self.batch, self.loss_sums = self.epoch + 1, 0, {}
        return row

    def summary(self, scores: list[str]) -> str:
        """The last epoch in a line."""
        row = self.history[-1]
        losses = ", ".join(f"{key[5:]} {value:.3f}" for key, value in row.items() if key.startswith("loss/"))
        found = ", ".join(f"{name} {row[f'{name}/srocc']:.3f}/{row[f'{name}/plcc']:.3f}" for name in scores)
        return (
            f"epoch {row['epoch']}: loss {losses}; validation SROCC/PLCC {found}; waited {row['data_wait_share']:.0%}"
        )


def start(accelerator: Accelerator, stage: str, arguments: StageArguments) -> None:
    """Make the output folder, or find in it an interrupted run of the same stage and arguments.

    Raises:
        ValueError: where the folder holds something else, or the run in it has finished.
    """
    output, record = Path(arguments.output), Path(arguments.output) / "arguments.json"
    wanted = {"stage": stage} | dataclasses.asdict(arguments)
    if (output / "training.json").exists():
        raise ValueError(f"--output '{output}' holds a finished run; name another folder.")
    if record.exists():
        found = json.loads(record.read_text(encoding="utf-8"))
        changed = [n for n in wanted if n not in FREE_TO_CHANGE and wanted[n] != found.get(n)]
        if changed:
            was = ", ".join(f"{name} was {found.get(name)!r} and is {wanted[name]!r}" for name in changed)
            raise ValueError(f"--output '{output}' holds an interrupted run with other arguments: {was}.")
    elif output.exists() and any(output.iterdir()):
        raise ValueError(f"--output '{output}' is not empty and holds no run to resume; name another folder.")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        write_json(record, wanted)
    accelerator.wait_for_everyone()


def save_checkpoint(accelerator: Accelerator, output: str, progress: Progress, kept: int) -> None:
    """Write a checkpoint under another name, rename it when it is whole, then drop the oldest ones."""
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
    """Load the newest whole checkpoint, if there is one, and return where it stands."""
    found = find_checkpoints(output)
    if not found:
        return Progress()
    accelerator.load_state(str(found[-1]))
    return Progress(**json.loads((found[-1] / "progress.json").read_text(encoding="utf-8")))


def find_checkpoints(output: str) -> list[Path]:
    """Whole checkpoints, oldest first."""
    folders = sorted((Path(output) / "checkpoints").glob("step-*"))
    return [folder for folder in folders if folder.suffix != ".partial" and (folder / "progress.json").exists()]
