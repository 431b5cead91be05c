"""From clips to scores on disk: whatever scores them, appended as they are made and taken up again after a stop."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedModel

from modeling_aigcvqa import __version__
from modeling_aigcvqa.common.console import progress_bar
from modeling_aigcvqa.common.files import write_text
from modeling_aigcvqa.loading import load_pipeline
from modeling_aigcvqa.pipeline_aigcvqa import SCORES


@dataclass(frozen=True)
class Scorer:
    """Something that scores clips.

    Args:
        score: rows of `load_clips` -> a dict of scores for each, in order and lazily, or `{"error": message}`.
        score_names: the scores that it gives.
        identity: changes with anything that changes the scores: weights, configuration, options.
        note: a caveat about the weights, shown beside the figures.
        prompt_score: the score that depends on the prompt; None where none does.
    """

    score: Callable[[Dataset], Iterator[dict]]
    score_names: tuple[str, ...]
    identity: str
    note: str | None = None
    prompt_score: str | None = None


def model_scorer(
    model: str,
    branches: list[str] | None = None,
    device: str = "auto",
    dtype: str | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    alignment_num_frames: int | None = None,
) -> Scorer:
    """A scorer with a model of ours, a folder or Hub id; arguments as of `load_pipeline` and of the pipeline."""
    pipeline = load_pipeline(model, branches, device, dtype, alignment_num_frames)
    built = pipeline.model.config.branches
    return Scorer(
        score=lambda clips: pipeline(clips, batch_size=batch_size, num_workers=num_workers, on_error="return"),
        score_names=tuple(name for name in SCORES if name == SCORES[0] or name.removesuffix("_score") in built),
        identity=identity_of(pipeline.model, pipeline.processor.to_json_string()),
        note=pipeline.model.config.weights_note,
        prompt_score="alignment_score" if "alignment" in built else None,
    )


def identity_of(model: PreTrainedModel, *options: object) -> str:
    """A hash of a model's weights and configuration, and of the options that its scores depend on."""
    digest = hashlib.blake2b(digest_size=16)
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    digest.update(json.dumps([__version__, config, *options], sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def clip_key(row: dict) -> str:
    """A hash of what a clip's scores depend on: its id, its prompt and its file, the latter by its size."""
    video = row["video"] or {}
    try:
        size = len(video["bytes"]) if video.get("bytes") is not None else os.stat(video["path"]).st_size
    except (OSError, KeyError, TypeError):
        size = None  # scoring will say what is wrong with it
    return hashlib.blake2b(json.dumps([str(row["id"]), row["prompt"], size]).encode(), digest_size=16).hexdigest()


def score_clips(scorer: Scorer, clips: Dataset, path: Path, overwrite: bool, console: Console) -> list[dict]:
    """A dict of scores, or `{"error": message}`, for each clip, in order.

    Every result is a line of `path` as soon as it is there. Those that the file holds already are taken over, if they
    were made by the same scorer; clips that failed are tried again, clips that changed are scored anew.

    Raises:
        ValueError: where the file holds another scorer's results and `overwrite` is false.
    """
    keys = [clip_key(row) for row in clips.select_columns(["id", "prompt", "video"])]
    results = {} if overwrite else _read_results(path, scorer.identity)
    results = {key: results[key] for key in dict.fromkeys(keys) if key in results}
    _write_results(path, scorer.identity, results)
    todo = [index for index, key in enumerate(keys) if key not in results]
    if results:
        console.print(f"{len(keys) - len(todo)} of {len(keys)} clips were scored before ('{path}').")
    with path.open("a", encoding="utf-8") as file, progress_bar(console) as progress:
        task = progress.add_task("scoring", total=len(todo))
        for index, result in zip(todo, scorer.score(clips.select(todo)) if todo else ()):
            results[keys[index]] = _checked(result)
            file.write(json.dumps({"key": keys[index], **results[keys[index]]}) + "\n")
            file.flush()
            progress.advance(task)
    return [results[key] for key in keys]


def _checked(result: dict) -> dict:
    """A result, or an error in the place of scores that are no numbers."""
    bad = {name: value for name, value in result.items() if name != "error" and not math.isfinite(value)}
    return {"error": f"the model gives {bad}; check its weights and dtype."} if bad else result


def _read_results(path: Path, identity: str) -> dict[str, dict]:
    """Key of a clip -> scores, of a file that `identity` wrote; a last line that was cut off is left out."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(_parse, lines) if row is not None]
    if rows and rows[0].get("identity") != identity:
        raise ValueError(
            f"'{path}' holds scores of another model or of other options; name another --output, or pass --overwrite."
        )
    return {row.pop("key"): row for row in rows[1:] if "error" not in row}


def _parse(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _write_results(path: Path, identity: str, results: dict[str, dict]) -> None:
    """The file anew: the scorer's identity, then the results."""
    rows = [{"identity": identity}, *({"key": key, **result} for key, result in results.items())]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
