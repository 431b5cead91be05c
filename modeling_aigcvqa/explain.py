"""Where, when and by which word a clip's scores break: maps in windows over the clip, a timeline, word scores.

    from modeling_aigcvqa.explain import explain
    from modeling_aigcvqa.loading import load_pipeline

    explanation = explain(load_pipeline(), "clip.mp4", "a corgi walking in the park")

`explain_report` draws it. Not shipped by `save_pretrained`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .explain_words import WordScore, check_word_method, word_scores
from .modeling_aigcvqa import AIGCVQAModel, AIGCVQAOutput
from .pipeline_aigcvqa import SCORES, AIGCVQAPipeline
from .protocols_aigcvqa import sample_frame_indices
from .video_reading_aigcvqa import _download, read_video, video_name

MAP_BRANCHES = ("technical", "aesthetic")
WEIGHTS = ("triangular", "uniform")
MAX_WINDOWS = 64  # of a clip by default; more only where `window` or `stride` ask for it
READ_BYTES = 64 * 2**20  # of decoded frames asked for at once; decord takes several times as much for a moment
# Shown colours reach their full strength at a deviation that is at least this share of what heavy damage changes.
UNREMARKABLE = 0.25


@dataclass(frozen=True)
class Windows:
    """Windows that slide over a clip.

    Args:
        total: F, frames of the clip.
        length: frames that a window spans, at most F.
        stride: frames from one window's start to the next.
        starts: first frame of every window (W,); the last window ends with the clip.
        offsets: frames of a window that are scored, from its start (T,).
    """

    total: int
    length: int
    stride: int
    starts: np.ndarray
    offsets: np.ndarray

    @classmethod
    def over(cls, total: int, sampled: int, length: int | None = None, stride: int | None = None) -> "Windows":
        """Windows over `total` frames, `sampled` frames of each scored; by default no more than MAX_WINDOWS of them.

        Raises:
            ValueError: for a stride above the length.
        """
        if length is None:
            length = max(sampled, 2 * -(-total // (MAX_WINDOWS + 1)))
        if stride is None:
            stride = max(length // 2, 1)
        if stride > length:
            raise ValueError(
                f"stride={stride} exceeds window={length}: frames between windows would not be seen. Lower the stride."
            )
        length = min(length, total)
        starts = np.append(np.arange(0, total - length, stride), total - length)
        return cls(total, length, stride, starts, np.asarray(sample_frame_indices(length, sampled)))

    @property
    def indices(self) -> np.ndarray:
        """Frames that every window was scored on (W, T)."""
        return self.starts[:, None] + self.offsets


@dataclass(frozen=True)
class Explanation:
    """What `explain` finds; F frames of the clip, W windows of T sampled frames, T' = T/2 places in time of a map.

    Args:
        video, prompt: what was scored; `video` is its name in messages.
        note: the caveat on the model's weights, or None.
        scores: the clip's scores, those of the pipeline: T frames spread evenly over the whole clip.
        fps: frames a second, or None where the file does not say.
        frame_size: height and width in pixels.
        clip_indices: frames that `scores` rest on (T,).
        windows: where the windows lie and which frames they were scored on; a single window is the whole clip.
        weighting: how overlapping windows are averaged, "triangular" or "uniform".
        window_scores: score name -> (W,).
        maps: branch -> (W, T', 7, 7); a window's score is the mean of its map.
        frame_maps: branch -> (F, 7, 7); the windows' maps averaged where they overlap.
        timeline: score name -> (F,); technical and aesthetic are the means of `frame_maps`, alignment the average of
            the windows' scores, quality their sum.
        reference_changes: the yardstick of the colours. Of technical and aesthetic: the most that heavy blur or noise
            over the whole clip moves the score; of alignment: what an empty prompt does.
        words: the prompt's words in its order; none without the alignment branch.
    """

    video: str
    prompt: str | None
    note: str | None
    scores: dict[str, float]
    fps: float | None
    frame_size: tuple[int, int]
    clip_indices: np.ndarray
    windows: Windows
    weighting: str
    window_scores: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    frame_maps: dict[str, np.ndarray]
    timeline: dict[str, np.ndarray]
    reference_changes: dict[str, float]
    words: list[WordScore]

    @property
    def num_frames(self) -> int:
        """F."""
        return self.windows.total

    @cached_property
    def map_means(self) -> dict[str, float]:
        """Branch -> mean of its map over the clip, the neutral colour."""
        return {branch: float(values.mean()) for branch, values in self.frame_maps.items()}

    @cached_property
    def color_limits(self) -> dict[str, float]:
        """Branch -> deviation from the mean that is shown in full colour.

        The 98th percentile of the deviations, but no less than a quarter of what heavy blur or noise changes: so a bad
        place shows, and a clip that is the same everywhere stays pale.
        """
        limits = {}
        for branch, values in self.frame_maps.items():
            spread = float(np.quantile(np.abs(values - self.map_means[branch]), 0.98))
            limits[branch] = max(spread, self.unremarkable(branch))
        return limits

    @property
    def word_limit(self) -> float:
        """Effect of a word, up or down, that is shown in full colour."""
        return max([abs(word.effect) for word in self.words] + [self.unremarkable("alignment")])

    def unremarkable(self, branch: str) -> float:
        """Deviations of the branch below this are not worth a look: a quarter of its reference change."""
        return max(UNREMARKABLE * self.reference_changes.get(branch, 0.0), 1e-6)

    def seconds(self, frame: int) -> float | None:
        """When a frame is shown, or None where the frame rate is not known."""
        return frame / self.fps if self.fps else None

    def weakest_words(self, count: int = 3) -> list[WordScore]:
        """The content words that add least, weakest first."""
        return sorted((word for word in self.words if word.is_content), key=lambda word: word.effect)[:count]


@dataclass(frozen=True)
class Place:
    """A cell of a frame: row and column of the 7 x 7, the map's value there and its deviation from the clip's mean."""

    frame: int
    row: int
    column: int
    value: float
    deviation: float


def weakest_places(explanation: Explanation, branch: str, count: int = 3) -> list[Place]:
    """The cells that fall furthest below the clip's mean, each at its worst frame, weakest first.

    Only cells that stand out: below the mean by a quarter of what heavy blur or noise changes, or more.
    """
    values = explanation.frame_maps[branch]
    mean, worst = explanation.map_means[branch], values.min(0)
    places = []
    for cell in np.argsort(worst, axis=None)[:count]:
        row, column = map(int, np.unravel_index(cell, worst.shape))
        deviation = float(worst[row, column] - mean)
        if -deviation >= explanation.unremarkable(branch):
            frame = int(values[:, row, column].argmin())
            places.append(Place(frame, row, column, float(worst[row, column]), deviation))
    return places


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
        word_method: "leave_out" removes each word in turn, "mask" replaces it by [MASK]; see `training.word_benchmark`.
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
    frame_maps, timeline = _average_windows(maps, window_scores, windows, weighting)
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


def fetched(video: Any) -> Any:
    """The bytes of a URL, so that it is not downloaded again for every window; anything else as it is."""
    is_url = isinstance(video, str) and re.match(r"https?://", video, re.IGNORECASE)
    return _download(video) if is_url else video


def read_groups(video: Any, indices: np.ndarray, frame_bytes: int) -> Iterator[Tensor]:
    """The frames (T, H, W, 3) of every row of `indices` (W, T), decoding as many rows at once as READ_BYTES allow."""
    for group in _groups(indices, max(READ_BYTES // frame_bytes, 1)):
        wanted, places = np.unique(group, return_inverse=True)
        frames, _ = read_video(video, lambda total: wanted.tolist())  # noqa: B023 (called at once)
        for row in places.reshape(group.shape):
            yield frames[torch.from_numpy(row)]


def _groups(indices: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Consecutive rows that together name at most `most` frames (a row that names more stands alone)."""
    start = 0
    for end in range(1, len(indices) + 1):
        if end == len(indices) or len(np.unique(indices[start : end + 1])) > most:
            yield indices[start:end]
            start = end


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


def _average_windows(
    maps: dict[str, np.ndarray], scores: dict[str, np.ndarray], windows: Windows, weighting: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Maps (W, T', 7, 7) and scores (W,) of windows -> `frame_maps` (F, 7, 7) and `timeline` (F,)."""
    frame_maps, timeline = {}, {}
    for branch, values in maps.items():
        of_frames = np.einsum("lt,wtij->wlij", _slices_of_frames(windows, values.shape[1]), values)
        frame_maps[branch] = _overlap_add(of_frames, windows, weighting)
        timeline[f"{branch}_score"] = frame_maps[branch].mean((1, 2))
    if "alignment_score" in scores:
        constant = np.repeat(scores["alignment_score"][:, None], windows.length, axis=1)
        timeline["alignment_score"] = _overlap_add(constant, windows, weighting)
    timeline["quality_score"] = np.sum(list(timeline.values()), axis=0)
    return frame_maps, {name: timeline[name] for name in SCORES if name in timeline}


def _slices_of_frames(windows: Windows, slices: int) -> np.ndarray:
    """Which of a map's T' places in time each frame of a window belongs to: weights (L, T') that sum to 1.

    A frame takes the places of the sampled frames nearest to it; where it was sampled repeatedly, all of them.
    """
    sampled = len(windows.offsets)
    distance = np.abs(np.arange(windows.length)[:, None] - windows.offsets)
    nearest = distance == distance.min(1, keepdims=True)
    of_samples = np.eye(slices)[np.arange(sampled) * slices // sampled]  # (T, T')
    weights = nearest @ of_samples
    return weights / weights.sum(1, keepdims=True)


def _overlap_add(values: np.ndarray, windows: Windows, weighting: str) -> np.ndarray:
    """Values of every frame of every window (W, L, ...) -> their weighted mean at every frame (F, ...), float32."""
    ramp, rest = np.arange(1, windows.length + 1), values.shape[2:]
    weights = np.minimum(ramp, ramp[::-1]) if weighting == "triangular" else np.ones(windows.length)
    weights = weights.reshape(-1, *[1] * len(rest))
    summed, weight = np.zeros((windows.total, *rest)), np.zeros((windows.total, *weights.shape[1:]))
    for start, of_window in zip(windows.starts, values):
        summed[start : start + windows.length] += weights * of_window
        weight[start : start + windows.length] += weights
    return (summed / weight).astype(np.float32)


def _reference_change(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor], output: AIGCVQAOutput) -> float:
    """The most that the branch's score moves where its whole view is blurred to 8 x 8 blocks or made very noisy."""
    view = inputs[{"technical": "pixel_values_fragments", "aesthetic": "pixel_values_resized"}[branch]]
    frames = view.flatten(0, 1)
    blurred = F.interpolate(F.avg_pool2d(frames, 8), size=frames.shape[-2:]).reshape(view.shape)
    generator = torch.Generator().manual_seed(0)
    noisy = view + torch.randn(view.shape, generator=generator).to(view.device)  # one deviation of ImageNet's pixels
    score = output[f"{branch}_score"]
    changes = [(model._score_map(branch, damaged).mean() - score).abs().item() for damaged in (blurred, noisy)]
    return max(changes)
