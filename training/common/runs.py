"""What the training loop needs before, between and after its epochs: accelerator, clips, schedule, banner, files."""

import copy
import dataclasses
import importlib.util
import math
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, set_seed
from rich.console import Console
from rich.table import Table
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup

from modeling_aigcvqa.common.files import whole_file, whole_folder, write_json
from modeling_aigcvqa.common.presets import save_model_folder

from .arguments import SUM, StageArguments
from .checkpoints import BEST, Progress
from .locks import LOCK
from .lora import merged
from .models import set_interval, set_level, set_reference
from .parameters import encoder_counts, trainable_counts
from .records import RECORD, commit_of_this_code, describe_run
from .stage import TrainingRun
from .validation import Scored, undefined


def make_accelerator(arguments: StageArguments) -> Accelerator:
    """Set up the processes, the precision and the random seed of a run.

    Raises:
        ValueError: if the settings of accelerate do not fit the arguments.
    """
    check_bfloat16(arguments.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION"))
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision,
        log_with=arguments.log_with,
        project_dir=arguments.output,
        # Gradients lie in the buffers that DDP sends, instead of being copied there.
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"accelerate is set to gradient_accumulation_steps={accelerator.gradient_accumulation_steps}, which would "
            "divide a loss that is not a mean; pass --gradient_accumulation_steps to the stage instead."
        )
    if arguments.batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size={arguments.batch_size} is shared by {accelerator.num_processes} processes; choose a multiple."
        )
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if sharded and arguments.ema_decay:
        raise ValueError(
            f"ema_decay={arguments.ema_decay} needs the complete weights on each process; leave it out or use DDP."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        if arguments.gradient_accumulation_steps > 1:
            raise ValueError("DeepSpeed takes a step after every backward pass; set --gradient_accumulation_steps 1.")
        settings = accelerator.state.deepspeed_plugin.deepspeed_config  # DeepSpeed needs these before the first batch
        settings["train_micro_batch_size_per_gpu"] = arguments.batch_size // accelerator.num_processes
        settings["gradient_clipping"] = arguments.max_grad_norm
    set_seed(arguments.seed, device_specific=True)
    return accelerator


def check_bfloat16(mixed_precision: str | None) -> None:
    """Refuse bfloat16 on a card that only emulates it.

    Raises:
        ValueError: names the card and what it has.
    """
    uses_cuda = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true"
    if mixed_precision == "bf16" and uses_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        major, minor = torch.cuda.get_device_capability()
        raise ValueError(
            f"mixed_precision=bf16: {torch.cuda.get_device_name()} has compute capability {major}.{minor}, and "
            "bfloat16 needs 8.0; choose fp16 or no."
        )


def tf32_text(device: torch.device) -> str:
    """Whether float32 products and convolutions are rounded to TF32, for the banner."""
    if device.type != "cuda":
        return "no TF32"
    products = "off" if torch.get_float32_matmul_precision() == "highest" else "on"
    return f"TF32 {products} for products, {'on' if torch.backends.cudnn.allow_tf32 else 'off'} for convolutions"


def make_schedule(optimizer: Optimizer, arguments: StageArguments, batches_per_epoch: int) -> LambdaLR:
    """Linear warm-up, then a cosine to zero at the last step.

    Do not pass the schedule to `accelerator.prepare`, which would step it once per process.
    """
    steps = arguments.total_steps(batches_per_epoch)
    warmup = min(round(arguments.warmup_epochs * batches_per_epoch), steps // 2)
    return get_cosine_schedule_with_warmup(optimizer, warmup, steps)


def print_banner(run: TrainingRun) -> None:
    """Print the settings of the run, on the main process."""
    accelerator, arguments, progress = run.accelerator, run.arguments, run.progress
    if not accelerator.is_main_process:
        return
    table = Table(title=f"AIGC-VQA {run.stage.name}", show_header=False, title_justify="left")
    per_process = arguments.batch_size // accelerator.num_processes
    micro = math.ceil(per_process / arguments.gradient_accumulation_steps)
    rows = {
        "start from": arguments.init_from or "an untrained full-size model",
        **{f"data, {source.name}": source.description for source in run.sources},
        "batch": f"{arguments.batch_size} = {accelerator.num_processes} processes x {per_process}, {micro} per pass",
        "steps": f"{run.last_step}, {run.sampler.batches_per_epoch} per epoch",
        "precision": f"{accelerator.mixed_precision}, {tf32_text(accelerator.device)}",
        "device": f"{accelerator.device} ({accelerator.distributed_type.value})",
    }
    for branch, (trained, total) in trainable_counts(run.selected).items():
        rows[f"{branch} trains"] = f"{trained / 1e6:.2f} of {total / 1e6:.2f} M parameters"
    for encoder, (trained, total) in encoder_counts(run.selected).items():
        adapted = encoder in arguments.adapted_encoders
        wanted = f"LoRA of rank {arguments.lora_rank}" if adapted else f"{arguments.unfixed_ratio:.0%} asked for"
        rows[f"{encoder} encoder"] = f"{trained / total:.1%} trains, {wanted}"
    for source in run.sources:
        for score, number in source.unlabelled.items():
            what = "clips" if source.has_mos else "pairs"
            rows[f"{score} labels, {source.name}"] = f"none on {number} of {source.num_train} {what}"
    if progress.step:
        rows["resumes"] = f"after step {progress.step} (epoch {progress.epoch + 1}, batch {progress.batch})"
    for name, value in rows.items():
        table.add_row(name, str(value))
    Console(stderr=True).print(table)


def save_best(run: TrainingRun, scored: list[Scored]) -> None:
    """Write the model, with all its branches, to OUTPUT/best atomically.

    The moving average of the weights is saved if there is one. LoRA adapters are merged into the weights. The scores
    get the level of the labels of the first data set with a MOS, see `set_level`.

    Args:
        scored: scores and labels of the validation clips of each source.
    """
    average, model = run.average, run.model
    # torch.compile would put its own name before the names of the parameters.
    uncompiled = getattr(run.trained, "_orig_mod", run.trained)
    state = average.module.state_dict() if average else run.accelerator.get_state_dict(uncompiled)
    if run.accelerator.is_main_process:
        state = model.state_dict() | {name: value.detach().cpu() for name, value in state.items()}
        state = merged(state, run.arguments.lora_factor)
        config, model.config = model.config, copy.deepcopy(model.config)
        source, scores, trained = run.sources[0], scored[0].scores, run.selected.config.branches
        if source.has_mos:
            labels = scored[0].labels[SUM]
            scores, note = set_level(model.config, scores, labels)
            if source.teacher is None:  # a teacher's scores are no opinions
                set_interval(model.config, scores[SUM], labels, trained)
            if note:
                run.accelerator.print(note)
        set_reference(model.config, scores, trained, f"the validation clips of {source.name}")
        with whole_folder(Path(run.arguments.output) / BEST) as folder:
            save_model_folder(model, run.processor, folder, state_dict=state)
        model.config = config
    run.accelerator.wait_for_everyone()


def check_best(output: Path, progress: Progress) -> None:
    """Check that the model of the best epoch is there, if there was a validation.

    Raises:
        ValueError: if it is lost.
    """
    if progress.best_score is not None and not (output / BEST).exists() and not (output / "config.json").exists():
        raise ValueError(
            f"--output '{output}' has lost the folder '{BEST}' with the model of epoch {progress.best_epoch}; restore "
            "it, or start anew in another folder."
        )


def finish(run: TrainingRun) -> None:
    """Move the best model into the output folder and write training.json, which marks the run as finished."""
    accelerator, progress, output = run.accelerator, run.progress, Path(run.arguments.output)
    if accelerator.is_main_process:
        best = output / BEST
        check_best(output, progress)
        if best.exists():
            for file in best.iterdir():
                os.replace(file, output / file.name)
            best.rmdir()
        draw_curves(progress.history, output / "curves.png")
        seconds = sum(row["seconds"] for row in progress.history)
        describe_run(output, epochs=progress.epoch, best_epoch=progress.best_epoch, seconds=seconds)
        record = {"stage": run.stage.name, "commit": commit_of_this_code(), "arguments": vars(run.arguments)}
        (output / LOCK).unlink(missing_ok=True)
        write_json(output / RECORD, record | {"seconds": seconds} | dataclasses.asdict(progress))
        accelerator.print(summary(run))
    accelerator.wait_for_everyone()
    if run.arguments.log_with:
        accelerator.end_training()


def summary(run: TrainingRun) -> str:
    """The finished run in one line."""
    progress = run.progress
    row = next(row for row in progress.history if row["epoch"] == progress.best_epoch)
    if set(undefined(row)) & set(run.figures):
        return (
            f"finished: '{run.arguments.output}' holds epoch {progress.best_epoch}, chosen without a validation figure "
            f"of {', '.join(undefined(row))} (undefined)"
        )
    figure = "(SROCC + PLCC)/2" if len(run.sources) == 1 and run.sources[0].has_mos else "a mean main score"
    return (
        f"finished: '{run.arguments.output}' holds epoch {progress.best_epoch}, the best of {progress.epoch} with "
        f"{figure} = {progress.best_score:.4f} on validation"
    )


def draw_curves(history: list[dict], path: Path) -> None:
    """Plot the losses and the validation figures of every epoch, if matplotlib is installed."""
    if not history or importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, figures = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for key in dict.fromkeys(key for row in history for key in row):
        axis = losses if key.startswith("loss/") else figures if key.endswith(("/srocc", "/accuracy")) else None
        if axis is not None:
            name = key.removeprefix("loss/").removesuffix("/srocc").replace("/", " ")
            axis.plot(epochs, [row.get(key) for row in history], marker=".", label=name)
    for axis, title in ((losses, "training loss"), (figures, "validation: SROCC, or accuracy on pairs")):
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.legend()
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120)
