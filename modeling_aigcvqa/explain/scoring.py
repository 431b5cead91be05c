"""Score a clip as a whole and in windows, and find its weakest words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..configuration_aigcvqa import BRANCH_INPUTS
from ..modeling_aigcvqa import AIGCVQAModel, AIGCVQAOutput
from ..pipeline_aigcvqa import SCORES, AIGCVQAPipeline
from ..protocols_aigcvqa import sample_frame_indices
from ..video_reading_aigcvqa import fetched, read_video, video_name
from .explanation import Explanation
from .windows import WEIGHTS, Windows, average_windows, read_groups
from .words import check_word_method, word_scores

MAP_BRANCHES = ("technical", "aesthetic")


@torch.no_grad()
def explain(
    pipeline: AIGCVQAPipeline,
    video: Any,
    prompt: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    weighting: str = "triangular",
    word_method: str = "leave_out",
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Score a clip as a whole and in windows that slide over it, and find the prompt's weakest words.

    Windows are scored by every branch, each from the processor's T frames spread evenly over it, placed as by
    `protocol="aigcvqa"`. A clip is decoded window by window: a long one is never held in memory whole.

    Args:
        pipeline: as `load_pipeline` gives it.
        video: any form that the pipeline takes.
        prompt: needed by the alignment branch.
        window: frames of the clip that a window spans. By default T, or as many more as keep a long clip at 64 windows.
        stride: frames from one window's start to the next, by default half a window; the last ends with the clip.
        weighting: of windows that overlap: "triangular" (a window counts most in its middle) or "uniform".
        word_method: "leave_out" removes each word in turn, "mask" replaces it by [MASK].
        progress: called with the windows scored and their number.

    Raises:
        VideoReadError: for a video that cannot be read.
        ValueError: for a missing prompt, a window or stride below 1, a stride above the window, an unknown weighting.
    """
    model = pipeline.model
    _check_options(model, prompt, window, stride, weighting, word_method)
    name = video_name(video)
    video = fetched(video)
    sampled = pipeline.processor.video_processor.num_frames
    clip, metadata = read_video(video, lambda total: sample_frame_indices(total, sampled))
    windows = Windows.over(metadata.total_num_frames, sampled, window, stride)
    inputs = _inputs(pipeline, clip, prompt)
    output = model(**inputs)
    outputs = [output]
    if len(windows.starts) > 1:
        outputs = _score_windows(pipeline, video, windows, prompt, clip[0].nbytes, progress)
    maps = _maps(outputs)
    window_scores = _scores(outputs)
    frame_maps, timeline = average_windows(maps, window_scores, windows, weighting)
    reference_changes = {branch: _reference_change(model, branch, inputs, output) for branch in maps}
    words = []
    if "alignment" in model.config.branches:
        words, effect = word_scores(pipeline, inputs["pixel_values_resized"], prompt, word_method)
        reference_changes["alignment"] = abs(effect)
    return Explanation(
        video=name,
        prompt=prompt,
        note=model.config.weights_note,
        scores={score: float(values[0]) for score, values in _scores([output]).items()},
        fps=metadata.fps,
        frame_size=(metadata.height, metadata.width),
        clip_indices=np.asarray(sample_frame_indices(windows.total, sampled)),
        windows=windows,
        weighting=weighting,
        window_scores=window_scores,
        maps=maps,
        frame_maps=frame_maps,
        timeline=timeline,
        reference_changes=reference_changes,
        words=words,
    )


def _check_options(
    model: AIGCVQAModel,
    prompt: str | None,
    window: int | None,
    stride: int | None,
    weighting: str,
    word_method: str,
) -> None:
    if "alignment" in model.config.branches and not (prompt or "").strip():
        raise ValueError(f"prompt={prompt!r}: the alignment branch scores a clip against its prompt; pass the prompt.")
    for option, value in (("window", window), ("stride", stride)):
        if value is not None and value < 1:
            raise ValueError(f"{option}={value}: expected at least 1 frame.")
    if weighting not in WEIGHTS:
        raise ValueError(f"weighting={weighting!r}: expected one of {list(WEIGHTS)}.")
    check_word_method(word_method)


def _inputs(pipeline: AIGCVQAPipeline, frames: Tensor, prompt: str | None) -> dict[str, Tensor]:
    """Frames (T, H, W, 3) and the prompt as the model takes them, on its device."""
    features = pipeline.processor(videos=[frames], text=prompt, num_frames=len(frames), protocol="aigcvqa")
    return {name: value.to(pipeline.device) for name, value in features.items()}


def _to_numpy(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _score_windows(
    pipeline: AIGCVQAPipeline,
    video: Any,
    windows: Windows,
    prompt: str | None,
    frame_bytes: int,
    progress: Callable[[int, int], None] | None,
) -> list[AIGCVQAOutput]:
    outputs = []
    for frames in read_groups(video, windows.indices, frame_bytes):
        outputs.append(pipeline.model(**_inputs(pipeline, frames, prompt)))
        if progress:
            progress(len(outputs), len(windows.starts))
    return outputs


def _maps(outputs: list[AIGCVQAOutput]) -> dict[str, np.ndarray]:
    """Branch -> (W, T', 7, 7) of the outputs of W windows."""
    branches = [branch for branch in MAP_BRANCHES if outputs[0].get(f"{branch}_map") is not None]
    return {branch: np.concatenate([_to_numpy(output[f"{branch}_map"]) for output in outputs]) for branch in branches}


def _scores(outputs: list[AIGCVQAOutput]) -> dict[str, np.ndarray]:
    """Score name -> (W,) of the outputs of W windows."""
    names = [name for name in SCORES if outputs[0].get(name) is not None]
    return {name: np.concatenate([_to_numpy(output[name]) for output in outputs]) for name in names}


def _reference_change(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor], output: AIGCVQAOutput) -> float:
    """The most that the branch's score moves where its whole view is blurred to 8 x 8 blocks or made very noisy."""
    view = inputs[BRANCH_INPUTS[branch][0]]
    frames = view.flatten(0, 1)
    blurred = F.interpolate(F.avg_pool2d(frames, 8), size=frames.shape[-2:]).reshape(view.shape)
    generator = torch.Generator().manual_seed(0)
    noisy = view + torch.randn(view.shape, generator=generator).to(view.device)  # one deviation of ImageNet's pixels
    score = output[f"{branch}_score"]
    changes = [(model.score_map(branch, damaged).mean() - score).abs().item() for damaged in (blurred, noisy)]
    return max(changes)
