"""Functions of all pre-training programs: arguments, data, the training loop and the output folder.

A pre-training program trains one branch of a model that starts from random weights, on the CPU, in one process.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.common.files import check_new_folder, whole_folder, write_json
from modeling_aigcvqa.common.presets import save_model_folder
from training.common.arguments import parse_with_config
from training.common.clips import load_clips
from training.common.parameters import parameter_groups
from training.common.records import RECORD, add_run, commit_of_this_code


def base_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser with the arguments of every pre-training program; its description is the docstring's first line."""
    parser = argparse.ArgumentParser(description=docstring.split("\n")[0])
    parser.add_argument("--config", type=Path, help="YAML file with any of these arguments")
    parser.add_argument("--data", required=True, help="prepared folder or Hub id")
    parser.add_argument("--split_file", help="CSV file with the columns id and split")
    parser.add_argument("--init_from", required=True, help="model folder, for example of `aigcvqa init --preset small`")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--weight_decay", type=float, default=0.05)
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision")
    parser.add_argument("--report_steps", type=int, default=200, help="steps between printed figures")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line and --config; refuse an --output folder that is not empty."""
    arguments = parse_with_config(parser, argv)
    check_new_folder(arguments.output)
    return arguments


def load_parts(arguments: argparse.Namespace, columns: set[str]) -> dict[str, Dataset]:
    """The clips of the parts "train" and "validation".

    Raises:
        ValueError: a part lacks one of the columns.
    """
    parts = {part: load_clips(arguments.data, arguments.split_file, part) for part in ("train", "validation")}
    for clips in parts.values():
        missing = sorted(columns - set(clips.column_names))
        if missing:
            raise ValueError(f"--data '{arguments.data}' has no column {missing} (it has {clips.column_names}).")
    return parts


def optimise(
    branch: nn.Module,
    batches: Collection[Any],
    losses_of: Callable[[Any], dict[str, Tensor]],
    weights: dict[str, float],
    validate: Callable[[], str],
    arguments: argparse.Namespace,
    warmup: int = 20,
) -> None:
    """Train `branch` in place with AdamW and a cosine schedule; print figures every `report_steps` steps.

    Args:
        batches: the batches of all epochs, in order.
        losses_of: computes the losses of a batch, scalars by name.
        weights: the weight of each loss in the sum.
        validate: computes figures of the validation clips, as text.
        warmup: one of this many steps belongs to the warm-up of the learning rate.
    """
    optimizer = torch.optim.AdamW(parameter_groups(branch, arguments.weight_decay), lr=arguments.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(batches) // warmup, len(batches))
    precision = torch.autocast("cpu", torch.bfloat16) if arguments.bfloat16 else nullcontext()
    branch.train()
    sums: Counter = Counter()
    for step, batch in enumerate(tqdm(batches, desc="pre-training", disable=None), 1):
        with precision:
            losses = losses_of(batch)
        torch.stack([weights[name] * value for name, value in losses.items()]).sum().backward()
        nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        sums.update({"steps": 1, **{name: value.item() for name, value in losses.items()}})
        if step % arguments.report_steps == 0 or step == len(batches):
            means = ", ".join(f"{name} {sums[name] / sums['steps']:.3f}" for name in weights)
            branch.eval()
            with torch.no_grad():
                print(f"step {step}/{len(batches)}: {means}; validation {validate()}", flush=True)
            branch.train()
            sums = Counter()


def write_folder(
    model: AIGCVQAModel,
    processor: AIGCVQAProcessor,
    branch: str,
    kind: str,
    labels: dict[str, str],
    num_clips: int,
    started: float,
    arguments: argparse.Namespace,
) -> None:
    """Write the pre-trained model with the record of its run.

    Args:
        branch: the branch that was trained.
        kind: the kind of pre-training; part of the run's name.
        labels: the column of the labels, by score.
        started: `time.perf_counter()` at the start of training.
    """
    seconds = time.perf_counter() - started
    stage = f"pre-training, {kind}"
    details = {"labels": labels, "epochs": arguments.epochs, "num_clips": num_clips, "seconds": round(seconds, 1)}
    add_run(model.config, stage, [branch], [arguments.data], **details)
    record = {"stage": stage, "commit": commit_of_this_code(), "arguments": vars(arguments), "seconds": seconds}
    with whole_folder(arguments.output) as folder:
        save_model_folder(model.eval(), processor, folder)
        write_json(folder / RECORD, record)
