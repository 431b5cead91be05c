"""Score a clip as a whole and in windows, and measure the effect of every word of the prompt."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.choices import WINDOW_WEIGHTS
from ..configuration_aigcvqa import BRANCH_INPUTS
from ..modeling_aigcvqa import AIGCVQAModel, AIGCVQAOutput
from ..pipeline_aigcvqa import SCORES, AIGCVQAPipeline, check_scores
from ..protocols_aigcvqa import sample_frame_indices
from ..video_reading_aigcvqa import fetched, read_video, video_name
from .explanation import Explanation
from .windows import Windows, average_windows, read_groups
from .words import check_word_method, word_scores

MAPS = ("technical_map", "aesthetic_map")


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
    """Score a clip as a whole and in windows that slide over it, and measure the effect of every word of the prompt.

    Every branch scores T frames per window, spread evenly over it as by `protocol="aigcvqa"`; T is `num_frames` of the
    processor. A clip is decoded window by window, so that a long clip is never completely in memory.

    Args:
        pipeline: a pipeline from `load_pipeline`.
        video: any form that the pipeline accepts.
        prompt: the prompt; required if the model has the alignment branch.
        window: length of a window in frames of the clip; by default T, or more if there would be over 64 windows.
        stride: number of frames from the start of a window to the start of the next, by default half a window. The last
            window ends with the clip.
        weighting: weights of overlapping windows: "triangular" (a window counts most in its middle) or "uniform".
        word_method: "leave_out" removes each word in turn, "mask" replaces it by [MASK].
        progress: called with the number of scored windows and the number of windows.

    Raises:
        VideoReadError: if the video cannot be read.
        ValueError: for scores that are not finite, a missing prompt, a window or stride below 1, a stride above the
            window or an unknown option.
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
    scores = {score: float(values[0]) for score, values in _joined([output], SCORES).items()}
    check_scores(scores, name)
    outputs = [output]
    if len(windows.starts) > 1:
        outputs = []
        for frames in read_groups(video, windows.indices, clip[0].nbytes):
            outputs.append(model(**_inputs(pipeline, frames, prompt)))
            if progress:
                progress(len(outputs), len(windows.starts))
    maps = {name.removesuffix("_map"): values for name, values in _joined(outputs, MAPS).items()}
    window_scores = _joined(outputs, SCORES)
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
        scores=scores,
        fps=metadata.fps,
        frame_size=(metadata.height, metadata.width),
        clip_indices=np.asarray(metadata.frames_indices),
        windows=windows,
        weighting=weighting,
        window_scores=window_scores,
        maps=maps,
        frame_maps=frame_maps,
        timeline=timeline,
        reference_changes=reference_changes,
        words=words,
        percentiles=model.config.on_scale(scores),
        about_scale=model.config.about_scale,
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
    if weighting not in WINDOW_WEIGHTS:
        raise ValueError(f"weighting={weighting!r}: expected one of {list(WINDOW_WEIGHTS)}.")
    check_word_method(word_method)


def _inputs(pipeline: AIGCVQAPipeline, frames: Tensor, prompt: str | None) -> dict[str, Tensor]:
    """Frames (T, H, W, 3) and the prompt -> the inputs of the model, on its device."""
    features = pipeline.processor(videos=[frames], text=prompt, num_frames=len(frames), protocol="aigcvqa")
    return {name: value.to(pipeline.device) for name, value in features.items()}


def _joined(outputs: list[AIGCVQAOutput], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Name -> the scores (W,) or maps (W, T', 7, 7) of W windows, for the names that the model gives."""
    given = [name for name in names if outputs[0].get(name) is not None]
    return {name: torch.cat([output[name] for output in outputs]).cpu().numpy() for name in given}


def _reference_change(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor], output: AIGCVQAOutput) -> float:
    """The larger change of the branch's score when its whole view is blurred to 8 x 8 blocks or made very noisy."""
    view = inputs[BRANCH_INPUTS[branch][0]]
    frames = view.flatten(0, 1)
    blurred = F.interpolate(F.avg_pool2d(frames, 8), size=frames.shape[-2:]).reshape(view.shape)
    generator = torch.Generator().manual_seed(0)
    noisy = view + torch.randn(view.shape, generator=generator).to(view.device)  # noise of one standard deviation
    score = output[f"{branch}_score"]
    return max((model.score_map(branch, damaged).mean() - score).abs().item() for damaged in (blurred, noisy))
