"""What decides the result of a run: the content of data, split and initial model, and the arguments that matter.

A resumed run must agree in all of it. Paths and spellings do not count, and neither does anything that leaves the loss
as it is, such as the number of micro-batches.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAProcessor

from .arguments import SUM, StageArguments
from .pairs import Pairs
from .sources import Source

# Arguments that do not change the result, and those whose content counts instead of their spelling.
FREE_TO_CHANGE = {
    *("output", "config", "num_workers", "cache", "checkpoint_steps", "checkpoints_kept", "log_with", "log_steps"),
    *("max_failed_clips", "gradient_accumulation_steps", "gradient_checkpointing", "eval_batch_size", "caveat"),
    *(
        "data",
        "preferences",
        "split_file",
        "init_from",
        "branches",
        "labels",
        "mixed_precision",
        "negative_mos",
        "teacher",
    ),
}
ENDS = 2**16  # bytes that are read at the start and at the end of a video
NOT_OURS = ("transformers_version", "auto_map", "video_processor_type")  # differ between versions and copies


def decisive_arguments(arguments: StageArguments) -> dict[str, Any]:
    """The arguments that change the result by their own value."""
    return {name: value for name, value in dataclasses.asdict(arguments).items() if name not in FREE_TO_CHANGE}


def decisive_content(
    arguments: StageArguments,
    model: AIGCVQAModel,
    processor: AIGCVQAProcessor,
    branches: list[str],
    sources: list[Source],
) -> dict[str, Any]:
    """What decides the result by its content: branches, labels, initial model, and clips and pairs of both parts.

    Args:
        model: the initial model, before it is changed.
        branches: names of the branches that train.
    """
    built = [branch for branch in model.config.branches if branch in branches]
    found = {"branches": built} | model_fingerprint(model, processor)
    if arguments.prompt_negatives:
        found["negative_mos"] = arguments.negative_mos
    for number, source in enumerate(sources):
        place = f" of data set {number + 1}" if len(sources) > 1 else ""
        columns = {score: source.columns[score] for score in (SUM, *built)}
        found[f"labels{place}"] = columns
        for part, rows in source.clips.items():
            labels = ["mos", *columns.values()] if source.has_mos else []
            marks = clips_fingerprint(rows, labels, reads_prompts="alignment" in built)
            if not source.has_mos:
                marks["pairs"] = pairs_fingerprint(source.pairs[part], columns.values())
            found |= {f"{name} of the {part} part{place}": mark for name, mark in marks.items()}
    return found


def pairs_fingerprint(pairs: Pairs, columns: Iterable[str]) -> str:
    """Hash of the places of the clips of each pair and of the preferences."""
    preferences = [[name, pairs.preferences[name].tolist()] for name in sorted(set(columns))]
    return f"{len(pairs)} pairs, {digest([pairs.places.tolist(), preferences])}"


def clips_fingerprint(rows: Dataset, columns: Iterable[str], reads_prompts: bool) -> dict[str, str]:
    """Hashes of the ids in their order, the labels, the prompts if they are read, and the videos of some clips."""
    number = f"{len(rows)} clips"
    found = {"clips": f"{number}, {digest(rows['id'])}"}
    labels = {name: [None if label is None else float(label) for label in rows[name]] for name in sorted(set(columns))}
    found["labels"] = digest(labels.items())
    if reads_prompts:
        found["prompts"] = digest(rows["prompt"])
    found["videos"] = digest(video_mark(video) for video in rows["video"])
    return found


def video_mark(video: dict) -> str | None:
    """Size and hash of the ends of a video, which tell videos apart without reading them; None if it is missing."""
    if video["bytes"] is not None:
        size, ends = len(video["bytes"]), video["bytes"][:ENDS] + video["bytes"][-ENDS:]
    else:
        path = Path(video["path"])
        if path.is_dir():  # a folder of frames
            return digest([file.name, file.stat().st_size] for file in sorted(path.iterdir()))
        try:
            with path.open("rb") as file:
                size, ends = os.fstat(file.fileno()).st_size, file.read(ENDS)
                file.seek(max(0, size - ENDS))
                ends += file.read(ENDS)
        except OSError:
            return None  # reported when it is read for training
    return f"{size} {hashlib.blake2b(ends, digest_size=16).hexdigest()}"


def model_fingerprint(model: AIGCVQAModel, processor: AIGCVQAProcessor) -> dict[str, str]:
    """Hashes of the weights of a model, and of the settings of the model and of its processor."""
    weights = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    settings = [_settings(model.config), processor.video_processor.to_dict()]
    return {"initial weights": weights.hexdigest(), "initial settings": digest(_without(settings, NOT_OURS))}


def _settings(config: AIGCVQAConfig) -> dict[str, Any]:
    own = ("branches", "alignment_num_frames", "mos_mean", "mos_std")
    parts = {branch: part.to_dict() for branch, part in config.parts.items()}
    return {name: getattr(config, name) for name in own} | parts


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _without(entry, names) for name, entry in value.items() if name not in names}
    return [_without(entry, names) for entry in value] if isinstance(value, list) else value


def digest(values: Iterable[Any]) -> str:
    """A short hash of values that JSON can write."""
    hashed = hashlib.blake2b(digest_size=6)
    for value in values:
        hashed.update(json.dumps(value, sort_keys=True, default=str).encode() + b"\n")
    return hashed.hexdigest()


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Every value that differs, with both values. `found` was read from JSON."""
    wanted = json.loads(json.dumps(wanted))
    return [
        f"{name} was {found.get(name)!r} and is {wanted.get(name)!r}"
        for name in dict.fromkeys((*wanted, *found))
        if found.get(name) != wanted.get(name)
    ]
