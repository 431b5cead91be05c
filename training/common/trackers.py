"""Start the experiment trackers (`--log_with`): they get the arguments, and a resumed run goes on under its own id."""

import dataclasses
import uuid
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from modeling_aigcvqa.common.files import read_json, write_json

from .arguments import StageArguments

TRACKED = "tracker.json"  # holds the id of the run for trackers that keep runs by id


def start_trackers(accelerator: Accelerator, stage: str, arguments: StageArguments, step: int) -> None:
    """Start the trackers of a run, which is new or goes on after `step`.

    Raises:
        ValueError: for a tracker that is not known or not installed.
    """
    output = Path(arguments.output)
    run = run_id(output) if accelerator.is_main_process else ""
    name = f"{output.resolve().name}-{run}"
    accelerator.init_trackers(
        f"aigcvqa-{stage}",
        config=flat(arguments),
        init_kwargs={
            "tensorboard": {"purge_step": step + 1} if step else {},  # what came after the checkpoint comes again
            "wandb": {"id": run, "name": name, "resume": "allow", "dir": str(output)},
            "trackio": {"name": name, "resume": "allow"},
        },
    )


def run_id(output: Path) -> str:
    """The id of the run in an output folder; the first call makes it."""
    record = output / TRACKED
    if not record.exists():
        write_json(record, {"run": uuid.uuid4().hex[:8]})
    return read_json(record)["run"]


def flat(arguments: StageArguments) -> dict[str, Any]:
    """The arguments as the types that every tracker takes: numbers, bool and str."""
    values = dataclasses.asdict(arguments)
    return {name: value if isinstance(value, int | float | str) else _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
