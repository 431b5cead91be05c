"""Measure the speed of a training step and of the data loader: `python -m training.benchmarks.training_step`.

The step (forward, backward, clipping, AdamW) is repeated on one batch. The loader of the stages is timed alone, on
512 x 512 clips of 4 s. The share of a step spent on waiting for data follows from the two rates: 1 - loader / step if
the loader is slower, otherwise 0. On a CPU the step and the loader compete for the same cores: use the share that a
stage reports instead (`data_wait_share` in its training.json).
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset

from modeling_aigcvqa import AIGCVQAModel
from modeling_aigcvqa.common.choices import ARCHITECTURES
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import write_json
from modeling_aigcvqa.common.presets import default_processor, untrained_model
from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from modeling_aigcvqa.pipeline_aigcvqa import VIEW
from training.common.arguments import SUM, TERMS
from training.common.batches import ClipDataset, FrameCache, make_loader
from training.common.losses import DualLoss
from training.common.mixtures import MixedBatchSampler, Mixture, Share
from training.common.models import initial_model, select_branches
from training.common.parameters import parameter_groups, train_mode, unfix
from training.common.steps import inputs_of, score, to_device, training_step

from .timing import count_gflop, environment, make_clip, peak_memory_mib, print_table, seconds_and_peak, speed

LABELS = dict.fromkeys(TERMS, "mos")


def made_clips(folder: Path, number: int, prompt: str) -> Dataset:
    """A data set of `number` labelled clips, all with the same video file."""
    path = str(make_clip(folder))
    rows = [{"bytes": None, "path": path}] * number
    mos = torch.linspace(0, 100, number).tolist()
    return Dataset.from_dict({"id": list(range(number)), "video": rows, "prompt": [prompt] * number, "mos": mos})


def measure_loader(dataset: ClipDataset, arguments: argparse.Namespace) -> tuple[dict, dict[str, Any]]:
    """The row of the loader, timed after the workers have started, and one batch."""
    sampler = MixedBatchSampler([Share(len(dataset))], arguments.batch_size, 0, 0, 1)
    batches = iter(make_loader(Mixture([dataset]), sampler, arguments.num_workers))
    for _ in range(arguments.num_workers or 1):  # do not time the start of the workers
        batch = next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["index"])
    rate = count / (time.perf_counter() - start)
    workers = max(arguments.num_workers, 1)
    row = {"part": f"loader, {arguments.num_workers} workers", "clips_per_second": rate}
    return row | {"seconds": arguments.batch_size / rate, "clips_per_second_and_worker": rate / workers}, batch


def work_of_clip(model: torch.nn.Module, batch: dict[str, Any], terms: list[str]) -> float:
    """GFLOP of one clip, forward and backward; the backward pass skips frozen parameters."""
    one = {name: value[:1] for name, value in inputs_of(batch).items()}

    def call() -> None:
        with torch.enable_grad():
            torch.stack(list(score(model, one, terms).values())).sum().backward()

    gflop = count_gflop(call)
    model.zero_grad()
    return gflop


def measure_step(
    model: AIGCVQAModel, batch: dict[str, Any], arguments: argparse.Namespace, accelerator: Accelerator
) -> dict:
    """The row of one training step, the median of `--repeats`."""
    branches = arguments.branches
    terms = [SUM, *branches] if len(branches) > 1 else [SUM]
    trained = select_branches(model, branches)
    unfix(trained, arguments.unfixed_ratio)
    if arguments.gradient_checkpointing:
        trained.gradient_checkpointing_enable()
    train_mode(trained)
    trained.to(accelerator.device)
    for name in (name for name in batch if name.startswith(VIEW)):
        # All samples show the same clip. The noise makes their scores differ, because equal scores have no PLCC.
        batch[name] = batch[name] + 0.1 * torch.randn_like(batch[name])
    batch = to_device(batch, accelerator.device)
    gflop = arguments.batch_size * work_of_clip(trained, batch, terms)
    optimizer = torch.optim.AdamW(parameter_groups(trained, 0.05), lr=1e-6)
    trained, optimizer = accelerator.prepare(trained, optimizer)
    loss = DualLoss(1.0, 1.0, 16.0)

    def step() -> None:
        training_step(accelerator, trained, batch, terms, loss, arguments.gradient_accumulation_steps)
        accelerator.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
    times, peak = seconds_and_peak({"step": step}, accelerator.device, dtype, arguments.repeats)
    return {
        "part": f"step, {', '.join(branches)}",
        "dtype": accelerator.mixed_precision,
        "batch_size": arguments.batch_size,
        **speed(times["step"], gflop, peak),
        "memory_mib": peak_memory_mib(accelerator.device, step),
        "clips_per_second": arguments.batch_size / times["step"],
    }


def run(arguments: argparse.Namespace) -> dict:
    accelerator = Accelerator(mixed_precision=arguments.mixed_precision, cpu=arguments.cpu)
    if arguments.model in ARCHITECTURES:
        model = untrained_model(arguments.model)
        processor = default_processor(model.config)
    else:
        model, processor = initial_model(arguments.model)
    number = arguments.batch_size * (arguments.batches + max(arguments.num_workers, 1))
    with tempfile.TemporaryDirectory() as folder:
        clips = made_clips(Path(folder), number, arguments.prompt)
        cache = FrameCache(Path(folder) / "cache", processor) if arguments.cache else None
        inputs = select_branches(model, arguments.branches).config.inputs
        loader, batch = measure_loader(ClipDataset(clips, processor, LABELS, inputs, seed=0, cache=cache), arguments)
    step = measure_step(model, batch, arguments, accelerator)
    step["data_wait_share"] = max(0.0, 1 - loader["clips_per_second"] / step["clips_per_second"])
    return {"environment": environment(accelerator.device), "model": arguments.model, "rows": [loader, step]}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.training_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="full", help="full or small (random weights), or a model folder")
    parser.add_argument("--branches", nargs="+", choices=list(BRANCHES), default=list(BRANCHES))
    parser.add_argument(
        "--unfixed_ratio",
        type=float,
        default=0.3,
        help="share of every encoder that trains (default: 0.3, as in stage 3)",
    )
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--mixed_precision", choices=["no", "bf16", "fp16"], default="bf16")
    parser.add_argument("--num_workers", type=int, default=8)
    parser.add_argument("--batches", type=int, default=20, help="number of batches on which the loader is timed")
    parser.add_argument("--cache", action="store_true", help="the loader reads decoded frames (FrameCache)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    parser.add_argument("--prompt", default="a corgi walking in the park at sunrise, oil painting style")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser


@exits_with_status("training_step")
def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 2:
        parser.error(f"--batch_size {arguments.batch_size}: the losses compare clips and need at least 2.")
    result = run(arguments)
    print_table(result)
    share = result["rows"][1]["data_wait_share"]
    print(f"waiting for data: {share:.1%} of a step, if the step does not slow the loader down")
    if arguments.output:
        write_json(arguments.output, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
