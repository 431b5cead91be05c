"""Around the loop of a stage: the accelerator, the schedule, the banner, the curves, the finished folder."""

import dataclasses
import importlib.util
import math
import os
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_cosine_schedule_with_warmup

from modeling_aigcvqa.common.files import write_json

from .arguments import StageArguments
from .models import BEST
from .parameters import trainable_counts
from .records import RECORD, commit_of_this_code, describe_run
from .stage import TrainingRun


def make_accelerator(arguments: StageArguments) -> Accelerator:
    """The processes of this run, checked against what the arguments ask for."""
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision, log_with=arguments.log_with, project_dir=arguments.output
    )
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"accelerate is set to gradient_accumulation_steps={accelerator.gradient_accumulation_steps}, which would "
            "divide a loss that is no mean; pass --gradient_accumulation_steps to the stage instead."
        )
    if arguments.batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size={arguments.batch_size} is shared by {accelerator.num_processes} processes; take a multiple."
        )
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if sharded and arguments.ema_decay:
        raise ValueError(
            f"ema_decay={arguments.ema_decay} needs whole weights on each process; leave it out or use DDP."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        if arguments.gradient_accumulation_steps > 1:
            raise ValueError("DeepSpeed takes a step at every backward pass; set --gradient_accumulation_steps 1.")
        settings = accelerator.state.deepspeed_plugin.deepspeed_config  # it asks for these before it sees a batch
        settings["train_micro_batch_size_per_gpu"] = arguments.batch_size // accelerator.num_processes
        settings["gradient_clipping"] = arguments.max_grad_norm
    set_seed(arguments.seed, device_specific=True)
    return accelerator


def check_parts(clips: dict[str, Dataset], batch_size: int) -> None:
    """Refuse parts that are too small to train or to choose by."""
    if len(clips["train"]) < batch_size:
        raise ValueError(
            f"the train part has {len(clips['train'])} clips, fewer than batch_size={batch_size}; lower it (2 or more)."
        )
    if len(clips["validation"]) < 3:
        raise ValueError(
            f"the validation part has {len(clips['validation'])} clips; a correlation needs at least 3 to choose by."
        )


def make_schedule(optimizer: Optimizer, arguments: StageArguments, batches_per_epoch: int) -> LambdaLR:
    """Linear warm-up, then a cosine to zero at the last step. Accelerate would step it once a process: not prepared."""
    steps = arguments.total_steps(batches_per_epoch)
    warmup = min(round(arguments.warmup_epochs * batches_per_epoch), steps // 2)
    return get_cosine_schedule_with_warmup(optimizer, warmup, steps)


def make_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of the weights, where asked for."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def print_banner(run: TrainingRun) -> None:
    """What is about to happen, once."""
    accelerator, arguments, progress = run.accelerator, run.arguments, run.progress
    if not accelerator.is_main_process:
        return
    table = Table(title=f"AIGC-VQA {run.stage.name}", show_header=False, title_justify="left")
    per_process = arguments.batch_size // accelerator.num_processes
    micro = math.ceil(per_process / arguments.gradient_accumulation_steps)
    rows = {
        "start from": arguments.init_from or "an untrained full-size model",
        "clips": f"{len(run.clips['train'])} train, {len(run.clips['validation'])} validation",
        "batch": f"{arguments.batch_size} = {accelerator.num_processes} processes x {per_process}, {micro} per pass",
        "steps": f"{run.last_step}, {run.sampler.batches_per_epoch} per epoch",
        "precision": accelerator.mixed_precision,
        "device": f"{accelerator.device} ({accelerator.distributed_type.value})",
    }
    for branch, (trained, total) in trainable_counts(run.selected).items():
        rows[f"{branch} trains"] = f"{trained / 1e6:.2f} of {total / 1e6:.2f} M parameters"
    if progress.step:
        rows["resumes"] = f"after step {progress.step} (epoch {progress.epoch + 1}, batch {progress.batch})"
    for name, value in rows.items():
        table.add_row(name, str(value))
    Console(stderr=True).print(table)


def finish(run: TrainingRun) -> None:
    """Move the best model to the output folder itself and write how it was made; that file marks the run finished."""
    accelerator, progress, output = run.accelerator, run.progress, Path(run.arguments.output)
    if accelerator.is_main_process:
        best = output / BEST
        if best.exists():
            for file in best.iterdir():
                os.replace(file, output / file.name)
            best.rmdir()
        draw_curves(progress.history, output / "curves.png")
        seconds = sum(row["seconds"] for row in progress.history)
        describe_run(output, epochs=progress.epoch, best_epoch=progress.best_epoch, seconds=seconds)
        record = {"stage": run.stage.name, "commit": commit_of_this_code(), "arguments": vars(run.arguments)}
        write_json(output / RECORD, record | {"seconds": seconds} | dataclasses.asdict(progress))
    accelerator.wait_for_everyone()
    if run.arguments.log_with:
        accelerator.end_training()


def draw_curves(history: list[dict], path: Path) -> None:
    """Loss and validation SROCC by epoch."""
    if not history or importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, correlations = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for key in history[-1]:
        axis = losses if key.startswith("loss/") else correlations if key.endswith("/srocc") else None
        if axis is not None:
            name = key.removeprefix("loss/").removesuffix("/srocc")
            axis.plot(epochs, [row.get(key) for row in history], marker=".", label=name)
    for axis, title in ((losses, "training loss"), (correlations, "validation SROCC")):
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
