"""Windows that slide over a clip: their places, reading their frames, averaging their maps where they overlap."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pipeline_aigcvqa import SCORES
from ..protocols_aigcvqa import sample_frame_indices
from ..video_reading_aigcvqa import read_video

MAX_WINDOWS = 64  # per clip, unless `window` or `stride` ask for more
READ_BYTES = 512 * 2**20  # decoded frames that are read at once; a clip with more is decoded several times


@dataclass(frozen=True)
class Windows:
    """Windows that slide over a clip.

    Args:
        total: number of frames of the clip, F.
        length: length of a window in frames, at most F.
        stride: number of frames from the start of a window to the start of the next.
        starts: first frame of every window (W,); the last window ends with the clip.
        offsets: the frames of a window that are scored, counted from its start (T,).
    """

    total: int
    length: int
    stride: int
    starts: np.ndarray
    offsets: np.ndarray

    @classmethod
    def over(cls, total: int, sampled: int, length: int | None = None, stride: int | None = None) -> "Windows":
        """Windows over `total` frames, of which `sampled` frames each are scored; by default at most MAX_WINDOWS.

        Raises:
            ValueError: if the stride exceeds the length.
        """
        if length is None:
            length = max(sampled, 2 * -(-total // (MAX_WINDOWS + 1)))
        if stride is None:
            stride = max(length // 2, 1)
        if stride > length:
            raise ValueError(
                f"stride={stride} exceeds window={length}: frames between windows would be skipped. Lower the stride."
            )
        length = min(length, total)
        starts = np.append(np.arange(0, total - length, stride), total - length)
        return cls(total, length, stride, starts, np.asarray(sample_frame_indices(length, sampled)))

    @property
    def indices(self) -> np.ndarray:
        """The frames that are scored in every window (W, T)."""
        return self.starts[:, None] + self.offsets


def read_groups(video: Any, indices: np.ndarray, frame_bytes: int) -> Iterator[Tensor]:
    """The frames (T, H, W, 3) of every row of `indices` (W, T). As many rows as READ_BYTES allow are read at once."""
    for group in _groups(indices, max(READ_BYTES // frame_bytes, 1)):
        wanted, places = np.unique(group, return_inverse=True)
        frames, _ = read_video(video, lambda total: wanted.tolist())  # noqa: B023 (called at once)
        for row in places.reshape(group.shape):
            yield frames[torch.from_numpy(row)]


def _groups(indices: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Groups of consecutive rows with at most `most` different frames; a row with more frames is a group by itself."""
    start = 0
    for end in range(1, len(indices) + 1):
        if end == len(indices) or len(np.unique(indices[start : end + 1])) > most:
            yield indices[start:end]
            start = end


def average_windows(
    maps: dict[str, np.ndarray], scores: dict[str, np.ndarray], windows: Windows, weighting: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Maps (W, T', 7, 7) by branch and scores (W,) by name -> `frame_maps` (F, 7, 7) and `timeline` (F,)."""
    frame_maps, timeline = {}, {}
    for branch, values in maps.items():
        of_frames = np.einsum("lt,wtij->wlij", slices_of_frames(windows, values.shape[1]), values)
        frame_maps[branch] = overlap_add(of_frames, windows, weighting)
        timeline[f"{branch}_score"] = frame_maps[branch].mean((1, 2))
    if "alignment_score" in scores:
        constant = np.repeat(scores["alignment_score"][:, None], windows.length, axis=1)
        timeline["alignment_score"] = overlap_add(constant, windows, weighting)
    timeline["quality_score"] = np.sum(list(timeline.values()), axis=0)
    return frame_maps, {name: timeline[name] for name in SCORES if name in timeline}


def slices_of_frames(windows: Windows, slices: int) -> np.ndarray:
    """Weights of the T' time steps of a map for each frame of a window, (L, T'); the weights of a frame sum to 1.

    A frame takes the time steps of the nearest sampled frames, with equal weights if there are several.
    """
    sampled = len(windows.offsets)
    distance = np.abs(np.arange(windows.length)[:, None] - windows.offsets)
    nearest = distance == distance.min(1, keepdims=True)
    of_samples = np.eye(slices)[np.arange(sampled) * slices // sampled]  # (T, T')
    weights = nearest @ of_samples
    return weights / weights.sum(1, keepdims=True)


def overlap_add(values: np.ndarray, windows: Windows, weighting: str) -> np.ndarray:
    """Values for every frame of every window (W, L, ...) -> their weighted mean for every frame (F, ...), float32."""
    ramp, rest = np.arange(1, windows.length + 1), values.shape[2:]
    weights = np.minimum(ramp, ramp[::-1]) if weighting == "triangular" else np.ones(windows.length)
    weights = weights.reshape(-1, *[1] * len(rest))
    summed, weight = np.zeros((windows.total, *rest)), np.zeros((windows.total, *weights.shape[1:]))
    for start, of_window in zip(windows.starts, values):
        summed[start : start + windows.length] += weights * of_window
        weight[start : start + windows.length] += weights
    return (summed / weight).astype(np.float32)
