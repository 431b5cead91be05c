"""Scoring of clips into a file of results, from which an interrupted run continues."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel

from modeling_aigcvqa import __version__
from modeling_aigcvqa.common.console import progress_bar
from modeling_aigcvqa.common.files import write_text
from modeling_aigcvqa.loading import load_pipeline
from modeling_aigcvqa.pipeline_aigcvqa import SCORES

LONGEST = timedelta(days=30)  # that a process may wait for the others


@dataclass(frozen=True)
class Scorer:
    """A model or baseline that scores clips.

    Args:
        score: takes rows of `load_clips` and yields a dict of scores, or `{"error": message}`, for each row in order.
        score_names: names of the scores.
        identity: hash of everything that the scores depend on: weights, configuration, options.
        note: caveat about the weights, shown with the figures.
        prompt_score: name of the score that depends on the prompt; None if no score does.
        interval: how far opinions are from the quality score, of the model's config.
    """

    score: Callable[[Dataset], Iterator[dict]]
    score_names: tuple[str, ...]
    identity: str
    note: str | None = None
    prompt_score: str | None = None
    interval: dict | None = None


def model_scorer(
    model: str,
    branches: list[str] | None = None,
    device: str = "auto",
    dtype: str | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    alignment_num_frames: int | None = None,
) -> Scorer:
    """Scorer with an AIGC-VQA model. The arguments are those of `load_pipeline` and of a call of the pipeline."""
    pipeline = load_pipeline(model, branches, device, dtype, alignment_num_frames)
    built = pipeline.model.config.branches
    return Scorer(
        score=lambda clips: pipeline(clips, batch_size=batch_size, num_workers=num_workers, on_error="return"),
        score_names=tuple(name for name in SCORES if name == SCORES[0] or name.removesuffix("_score") in built),
        identity=identity_of(pipeline.model, pipeline.processor.to_json_string()),
        note=pipeline.model.config.weights_note,
        prompt_score="alignment_score" if "alignment" in built else None,
        interval=pipeline.model.config.quality_interval,
    )


def identity_of(model: nn.Module, *options: object) -> str:
    """Hash of the weights and the configuration of a model, if it has one, and of what else its scores depend on."""
    digest = hashlib.blake2b(digest_size=16)
    config = model.config.to_dict() if isinstance(model, PreTrainedModel) else {}
    config = {name: value for name, value in config.items() if name != "_name_or_path"}
    digest.update(json.dumps([__version__, config, *options], sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def clip_key(row: dict) -> str:
    """Hash of the id, the prompt and the file size of a clip."""
    video = row["video"] or {}
    try:
        size = len(video["bytes"]) if video.get("bytes") is not None else os.stat(video["path"]).st_size
    except (OSError, KeyError, TypeError):
        size = None  # the video cannot be read, which scoring reports
    return hashlib.blake2b(json.dumps([str(row["id"]), row["prompt"], size]).encode(), digest_size=16).hexdigest()


def processes() -> PartialState:
    """The processes that `accelerate launch` or torchrun started; one process otherwise.

    They wait for each other at the end of the scoring only, however long that takes.
    """
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST)


def score_clips(scorer: Scorer, clips: Dataset, path: Path, overwrite: bool, console: Console) -> list[dict]:
    """A dict of scores, or `{"error": message}`, for each clip in order, on every process.

    The processes share the clips. Every result is written to a file at once: to `path`, or to a file beside it by each
    further process. Scores that the files already hold are kept, whatever the number of processes was. Clips that
    failed before and clips that changed are scored again.

    Raises:
        ValueError: if the file holds results of another scorer and `overwrite` is false.
    """
    state = processes()
    keys = [clip_key(row) for row in clips.select_columns(["id", "prompt", "video"])]
    if state.is_main_process:
        _merge(path, keys, scorer.identity, overwrite)
    state.wait_for_everyone()
    results = _read_results(path, scorer.identity)
    todo = [index for index, key in enumerate(keys) if key not in results]
    if results and state.is_main_process:
        console.print(f"'{path}' already has the scores of {len(keys) - len(todo)} of {len(keys)} clips.")
    state.wait_for_everyone()  # the file is read before its process appends to it
    share = todo[state.process_index :: state.num_processes]
    with _file_of(path, state.process_index).open("a", encoding="utf-8") as file, progress_bar(console) as progress:
        task = progress.add_task("scoring", total=len(share), visible=state.is_main_process)
        if not state.is_main_process:
            file.write(json.dumps({"identity": scorer.identity}) + "\n")
        for index, result in zip(share, scorer.score(clips.select(share)) if share else ()):
            results[keys[index]] = _checked(result)
            file.write(json.dumps({"key": keys[index], **results[keys[index]]}) + "\n")
            file.flush()
            progress.advance(task)
    state.wait_for_everyone()
    if state.num_processes > 1:
        for file in _files(path):
            results |= _read_results(file, scorer.identity, failed=True)
    return [results[key] for key in keys]


def _merge(path: Path, keys: list[str], identity: str, overwrite: bool) -> None:
    """Write the scores of an interrupted run, from the files of all its processes, to `path`."""
    results: dict[str, dict] = {}
    for file in () if overwrite else _files(path):
        results |= _read_results(file, identity)
    rows = [{"identity": identity}, *({"key": key, **results[key]} for key in dict.fromkeys(keys) if key in results)]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    for file in _files(path)[1:]:
        file.unlink()


def _file_of(path: Path, process: int) -> Path:
    return path.with_name(f"{path.stem}.process{process}{path.suffix}") if process else path


def _files(path: Path) -> list[Path]:
    """`path` and the files of the further processes of the last run."""
    return [path, *sorted(path.parent.glob(f"{path.stem}.process*{path.suffix}"))]


def _checked(result: dict) -> dict:
    """The result, or an error if one of the scores is not finite. The note of a scorer says what quality lacks."""
    result = {name: value for name, value in result.items() if name != "quality_of"}
    bad = {name: value for name, value in result.items() if name != "error" and not math.isfinite(value)}
    return {"error": f"the model gives {bad}; check its weights, or choose another --dtype."} if bad else result


def _read_results(path: Path, identity: str, failed: bool = False) -> dict[str, dict]:
    """The scores in a file by the key of their clip; clips that failed only if `failed` is true."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):  # the last line is incomplete if the run was stopped while writing
            rows.append(json.loads(line))
    if rows and rows[0].get("identity") != identity:
        raise ValueError(
            f"'{path}' holds scores of another model or of other options; pass another --output, or --overwrite."
        )
    return {row.pop("key"): row for row in rows[1:] if failed or "error" not in row}
