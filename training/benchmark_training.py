"""Speed of a training step and of the loader that feeds it: `python -m training.benchmark_training`.

The step of a stage on one batch again and again (forward, backward, clipping, AdamW), and the stages' own loader alone
on 512 x 512 clips of 4 s, in the same run. From the two rates follows the share of a step that is spent waiting for
data: 1 - loader / step where the loader is slower, else nothing. On a CPU both want the same cores: there the share
that a stage reports (`data_wait_share` in its training.json) is the one to look at.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from datasets import Dataset
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modeling_aigcvqa import AIGCVQAModel
from modeling_aigcvqa.presets import PRESETS, default_processor, untrained_model

from .benchmark import environment, make_clip, peak_memory_mib, print_table, seconds_and_peak
from .data import ClipDataset, FrameCache, GlobalBatchSampler, make_loader
from .losses import DualLoss
from .models import initial_model, select_branches
from .parameters import parameter_groups, unfix
from .steps import INPUTS, score, to_device, training_step

BRANCHES_OF = {1: ["technical", "aesthetic"], 2: ["alignment"], 3: ["technical", "aesthetic", "alignment"]}
CONFIGS = Path(__file__).parent / "configs"
LABELS = {"quality": "mos", "technical": "mos", "aesthetic": "mos", "alignment": "mos"}


def made_clips(folder: Path, number: int, prompt: str) -> Dataset:
    """`number` labelled rows that share one file."""
    path = str(make_clip(folder))
    rows = [{"bytes": None, "path": path}] * number
    mos = torch.linspace(0, 100, number).tolist()
    return Dataset.from_dict({"id": list(range(number)), "video": rows, "prompt": [prompt] * number, "mos": mos})


def measure_loader(dataset: ClipDataset, arguments: argparse.Namespace) -> tuple[dict, dict[str, Any]]:
    """Clips a second once the workers are at work, and one batch."""
    sampler = GlobalBatchSampler(len(dataset), arguments.batch_size, 0, 0, 1)
    batches = iter(make_loader(dataset, sampler, arguments.num_workers))
    for _ in range(arguments.num_workers or 1):  # start of the processes, first batches of each
        batch = next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["index"])
    rate = count / (time.perf_counter() - start)
    workers = max(arguments.num_workers, 1)
    row = {"part": f"loader, {arguments.num_workers} workers", "clips_per_second": rate}
    return row | {"seconds": arguments.batch_size / rate, "clips_per_second_and_worker": rate / workers}, batch


def count_gflop(model: torch.nn.Module, batch: dict[str, Any], terms: list[str]) -> float:
    """Work of one clip, forward and backward, with what is fixed left out of the latter."""
    one = {name: batch[name][:1] for name in INPUTS}
    plain = torch.backends.mkldnn.flags(enabled=False)
    with plain, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.stack(list(score(model, one, terms).values())).sum().backward()
    model.zero_grad()
    return counter.get_total_flops() / 1e9


def measure_step(
    model: AIGCVQAModel, batch: dict[str, Any], arguments: argparse.Namespace, accelerator: Accelerator
) -> dict:
    """One step of the stage, median of `--repeats`."""
    branches = BRANCHES_OF[arguments.stage]
    terms = ["quality", *branches] if arguments.stage == 3 else branches
    ratio = arguments.unfixed_ratio
    if ratio is None:
        ratio = yaml.safe_load((CONFIGS / f"stage{arguments.stage}.yaml").read_text(encoding="utf-8"))["unfixed_ratio"]
    trained = select_branches(model, branches)
    unfix(trained, ratio)
    if arguments.gradient_checkpointing:
        trained.gradient_checkpointing_enable()
    trained.train().to(accelerator.device)
    for name in ("pixel_values_fragments", "pixel_values_resized"):
        # All are of one clip, and equal scores have no PLCC.
        batch[name] = batch[name] + 0.1 * torch.randn_like(batch[name])
    batch = to_device(batch, accelerator.device)
    gflop = arguments.batch_size * count_gflop(trained, batch, terms)
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
    taken = times["step"]
    return {
        "part": f"step of stage {arguments.stage}",
        "dtype": accelerator.mixed_precision,
        "batch_size": arguments.batch_size,
        "seconds": taken,
        "gflop": gflop,
        "gflop_per_second": gflop / taken,
        "share_of_peak": gflop / taken / peak,
        "peak_gflop_per_second": peak,
        "memory_mib": peak_memory_mib(accelerator.device, step),
        "clips_per_second": arguments.batch_size / taken,
    }


def run(arguments: argparse.Namespace) -> dict:
    accelerator = Accelerator(mixed_precision=arguments.mixed_precision, cpu=arguments.cpu)
    if arguments.model in PRESETS:
        model = untrained_model(arguments.model)
        processor = default_processor(model.config)
    else:
        model, processor = initial_model(arguments.model)
    number = arguments.batch_size * (arguments.batches + max(arguments.num_workers, 1))
    with tempfile.TemporaryDirectory() as folder:
        clips = made_clips(Path(folder), number, arguments.prompt)
        cache = FrameCache(Path(folder) / "cache", processor) if arguments.cache else None
        loader, batch = measure_loader(ClipDataset(clips, processor, LABELS, seed=0, cache=cache), arguments)
    step = measure_step(model, batch, arguments, accelerator)
    step["data_wait_share"] = max(0.0, 1 - loader["clips_per_second"] / step["clips_per_second"])
    return {"environment": environment(accelerator.device), "model": arguments.model, "rows": [loader, step]}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmark_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="full", help="full or small (random weights), or a model folder")
    parser.add_argument("--stage", type=int, choices=list(BRANCHES_OF), default=3)
    parser.add_argument("--unfixed_ratio", type=float, help="default: the stage's")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--mixed_precision", choices=["no", "bf16", "fp16"], default="bf16")
    parser.add_argument("--num_workers", type=int, default=8)
    parser.add_argument("--batches", type=int, default=20, help="that the loader is timed on")
    parser.add_argument("--cache", action="store_true", help="the loader reads decoded frames (FrameCache)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="also where there is a GPU")
    parser.add_argument("--prompt", default="a corgi walking in the park at sunrise, oil painting style")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 2:
        parser.error(f"--batch_size {arguments.batch_size}: the losses compare clips and need at least 2.")
    result = run(arguments)
    print_table(result)
    share = result["rows"][1]["data_wait_share"]
    print(f"waiting for data: {share:.1%} of a step, if the loader runs beside it at the rate that it has alone")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
