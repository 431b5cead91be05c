"""The pipeline "video-quality-assessment": scores videos with their prompts."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline

from .clip_preparation_aigcvqa import TEXTS, VIEW, ClipPreparation
from .frames_aigcvqa import ReadLimits, VideoReadError
from .limits_aigcvqa import ClipLimits
from .names_aigcvqa import INTERVAL, ON_ERROR, SCORES, SPREADS
from .saved_files_aigcvqa import check_fit
from .uncertainty_aigcvqa import FRAGMENTS, RESIZED, spread
from .video_reading_aigcvqa import video_name
from .workers_aigcvqa import WorkerDied, results_in_order

DRAWS = (FRAGMENTS, RESIZED)


class AIGCVQAPipeline(Pipeline):
    """Scores of generated videos.

    Call it with one item `{"video": ..., "prompt": ...}` or with a list, generator or dataset of items; other keys are
    ignored. It returns one dict of floats per item, with `quality_score` and the scores of the branches that the model
    has: `technical_score`, `aesthetic_score`, `alignment_score`. Higher is better. Without all three branches,
    `quality_of` names those whose sum is the quality score ("technical + aesthetic"). With `on_damage="warn"`, the
    result of a damaged clip also has a `warning`.

    The options may be given to a call or to `pipeline(...)`.

    Args:
        batch_size, num_workers: as in every pipeline.
        on_error: "raise" (default), or "return" to return `{"error": message}` for an item that cannot be read or has
            a score that is not finite. The other items of the batch are scored.
        limits: fields of `ClipLimits`, for clips from strangers. Videos must then be bytes or addresses on listed
            hosts, paths are refused, and a clip above a limit is refused before it is decoded.
        uncertainty: number of draws; adds mean and standard deviation of each score over them (`quality_score_mean`,
            `quality_score_std`, ...), and, if the model knows how its scores err, `quality_score_low` and
            `quality_score_high`, between which the mean opinion lies with the probability in `config.interval`.
        scale: whether to add the percentile of each score among the reference of the model (`quality_percentile`, ...)
            and the mean opinion score that quality stands for by its calibration (`quality_mos`), if it has them; see
            `config.about_scale`.
        num_frames, fragment_sampling, seed, on_damage, max_length, ...: options of the processor.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_fit(self.model.config, self.processor, self.model.name_or_path)

    def _sanitize_parameters(
        self,
        on_error: str | None = None,
        limits: dict[str, Any] | None = None,
        scale: bool | None = None,
        **processor_options: Any,
    ):
        preprocess: dict[str, Any] = {}
        postprocess: dict[str, Any] = {}
        if on_error is not None:
            if on_error not in ON_ERROR:
                raise ValueError(f"on_error={on_error!r}: expected one of {list(ON_ERROR)}.")
            preprocess["on_error"] = postprocess["on_error"] = on_error
        if scale is not None:
            if not isinstance(scale, bool):
                raise ValueError(f"scale={scale!r}: expected True or False.")
            self.model.config.check_scale(scale)
            postprocess["scale"] = scale
        if limits is not None:
            preprocess["limits"] = ClipLimits(**limits)
        if processor_options:
            preprocess["processor_options"] = processor_options
        return preprocess, {}, postprocess

    def __call__(self, inputs: Any, num_workers: int | None = None, batch_size: int | None = None, **kwargs: Any):
        """Scores of one item (dict), of a list (list), or of any other iterable (iterator, lazily)."""
        of_call = self._sanitize_parameters(**kwargs)
        preprocess, postprocess = {**self._preprocess_params, **of_call[0]}, {**self._postprocess_params, **of_call[2]}
        num_workers = num_workers if num_workers is not None else self._num_workers or 0
        batch_size = batch_size if batch_size is not None else self._batch_size or 1
        if isinstance(inputs, str | bytes | Path):
            raise TypeError(f'expected {{"video": {inputs!r}, "prompt": ...}} or many of them (got {inputs!r} alone).')
        if isinstance(inputs, dict):
            return next(self._scores([inputs], 0, 1, preprocess, postprocess))
        if not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__"):
            raise TypeError(f'expected {{"video": ..., "prompt": ...}} or many of them (got {type(inputs).__name__}).')
        scores = self._scores(inputs, num_workers, batch_size, preprocess, postprocess)
        return list(scores) if isinstance(inputs, list | tuple) else scores

    def _scores(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess: dict, postprocess: dict
    ) -> Iterator[dict]:
        """The scores of many items. Items that can be counted are fetched by the workers, by their number."""
        counted = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")
        if "limits" in preprocess:
            preprocess["spent"] = ReadLimits()  # each worker counts for itself
        function = _Prepares(self.preprocess, preprocess, inputs if counted else None)
        tasks = range(len(inputs)) if counted else inputs
        prepared = results_in_order(function, tasks, num_workers, function.of_a_dead_worker)
        batches = _batches(prepared, batch_size)
        if self.device.type == "cuda":
            batches = map(_pinned, batches)
            batches = _one_ahead(batches) if num_workers else batches
        for batch in batches:
            yield from self.postprocess(self.forward(batch), **postprocess)

    def preprocess(self, item: dict, **options: Any) -> dict:
        """An item `{"video", "prompt"}` -> the model inputs of one clip, or `{"error"}`; see `ClipPreparation`."""
        return ClipPreparation(self.processor, self.model.config)(item, **options)

    def _ensure_tensor_on_device(self, inputs: Any, device: torch.device) -> Any:
        """As in the base class, but copies to a GPU are asynchronous, so that they overlap with its work."""
        if isinstance(inputs, torch.Tensor):
            return inputs.to(device, non_blocking=device.type == "cuda")  # asynchronous copies to the CPU are unsafe
        return super()._ensure_tensor_on_device(inputs, device)

    def scores_of(self, batch: list[dict]) -> list[dict]:
        """The scores of prepared clips by name, as tensors () on the model's device; gradients are kept."""
        return self._forward(self._ensure_tensor_on_device(batch, self.device))

    def _forward(self, batch: list[dict]) -> list[dict]:
        """Score the items that could be read, in one forward pass per shape."""
        results: list[dict] = [dict(item) if "error" in item else {} for item in batch]
        by_shape: dict[tuple, list[int]] = {}
        for index, item in enumerate(batch):
            if "error" not in item:
                shapes = tuple(tuple(item[name].shape) for name in sorted(item) if name.startswith(VIEW))
                by_shape.setdefault(shapes, []).append(index)
        for indices in by_shape.values():
            items = [{name: value for name, value in batch[i].items() if name not in DRAWS} for i in indices]
            outputs = self.model(**_collate(items))
            for row, index in enumerate(indices):
                scores = {name: outputs[name][row] for name in SCORES if outputs.get(name) is not None}
                results[index] = scores | {name: batch[index][name] for name in TEXTS if name in batch[index]}
                if any(name in batch[index] for name in DRAWS):
                    results[index] |= spread(self.model, batch[index])
        return results

    def postprocess(self, results: list[dict], on_error: str = "raise", scale: bool = False) -> list[dict]:
        """The scores as floats, and on request on their scale. A score that is not finite becomes its clip's error."""
        quality_of = self.model.config.quality_of
        finished = []
        for result in results:
            scores = {name: float(result[name]) for name in SCORES if name in result}
            try:
                check_scores(scores, result.get("name", ""))
            except ValueError as error:
                if on_error == "raise":
                    raise
                finished.append({"error": str(error)})
                continue
            if scores and quality_of:
                scores["quality_of"] = quality_of
            scores |= {name: float(result[name]) for name in SPREADS if name in result}
            interval = self.model.config.quality_interval
            if "quality_score_std" in scores and interval:
                half = interval["half_width"]
                scores |= dict(zip(INTERVAL, (scores["quality_score"] - half, scores["quality_score"] + half)))
            if scale:
                scores |= self.model.config.on_scale(scores)
            finished.append(scores | {name: result[name] for name in ("warning", "error") if name in result})
        return finished

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model, processor and code. The base class saves neither the processor nor code loaded from a folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


class _Prepares:
    """Prepares an item, or the item with a number, for the model."""

    def __init__(self, preprocess: Callable, options: dict, items: Any):
        self.preprocess, self.options, self.items = preprocess, options, items

    def __call__(self, task: Any) -> dict:
        return self.preprocess(task if self.items is None else self.items[task], **self.options)

    def of_a_dead_worker(self, task: Any, error: WorkerDied) -> dict:
        item = task if self.items is None else self.items[task]
        video = item.get("video") if isinstance(item, dict) else item
        message = f"{video_name(video)} cannot be read: {error}."
        if self.options.get("on_error") != "return":
            raise VideoReadError(message) from error
        return {"error": message}


def check_scores(scores: dict[str, float], clip: str) -> None:
    """Raise ValueError, which names the clip, if a score is NaN or infinite."""
    bad = {name: value for name, value in scores.items() if not math.isfinite(value)}
    if bad:
        raise ValueError(f"{clip}: the model gives {bad}; check its weights, or choose another dtype.")


def _batches(items: Iterator[dict], size: int) -> Iterator[list[dict]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _pinned(batch: list[dict]) -> list[dict]:
    """The batch in memory from which copies to a GPU are asynchronous."""
    return [
        {name: value.pin_memory() if isinstance(value, torch.Tensor) else value for name, value in item.items()}
        for item in batch
    ]


def _one_ahead(batches: Iterator[list[dict]]) -> Iterator[list[dict]]:
    """Takes the next batch in a thread while the model computes this one."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


def _collate(items: list[dict]) -> dict[str, torch.Tensor]:
    """Join clips of one shape to a batch. Prompts are padded with 0, which the attention mask hides."""
    batch = {}
    for name in items[0]:
        if name in TEXTS:
            continue
        values = [item[name][0] for item in items]
        if name in ("input_ids", "attention_mask"):
            batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
        else:
            batch[name] = torch.stack(values)
    return batch
