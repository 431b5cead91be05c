"""The frames that are read from a clip, and the error for a clip that cannot be read."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

# Gives the indices (T,) of the frames to take from a clip of `total` frames. An index may occur more than once. It is
# called again if decoding finds another number of frames.
ChooseFrames = Callable[[int], Sequence[int]]
BACKGROUND = 1.0  # of 0..1: transparent pixels lie on white, as on a web page


class VideoReadError(ValueError):
    """A video that cannot be read. The message names the video, the reason and the remedy."""


_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def time_limit(deadline: float | None) -> Iterator[None]:
    """Within the block, reading a clip ends with a VideoReadError at `deadline`, a value of `time.monotonic()`."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float | None:
    """The seconds until the deadline, at least 0; None if there is none."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def check_time(name: str) -> None:
    """Raise VideoReadError, which names the video, if the deadline is over. Called for every frame and packet."""
    if seconds_left() == 0:
        raise VideoReadError(f"{name} takes longer to read than is allowed here; shorten, shrink or convert it.")


@dataclass
class ClipMetadata(VideoMetadata):
    """Metadata of a clip.

    Attributes:
        warning: what was found damaged in the clip, or None.
    """

    warning: str | None = None


class FrameStore:
    """Room for the chosen frames of a clip, filled in the order of their indices while a decoder runs.

    Args:
        indices: the chosen indices (T,), in any order and with repetitions.
        name: the name of the video in messages.
    """

    def __init__(self, indices: Sequence[int], name: str):
        self.indices, self.name = [int(index) for index in indices], name
        self.positions = {index: position for position, index in enumerate(sorted(set(self.indices)))}
        self.frames: np.ndarray | None = None
        self.missing = set(self.positions)

    def __contains__(self, index: int) -> bool:
        return index in self.positions

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Copy the pixels (H, W, 3) of a frame.

        Raises:
            VideoReadError: if another frame has another size.
        """
        if self.frames is None:
            self.frames = np.empty((len(self.positions), *pixels.shape), pixels.dtype)
        if pixels.shape != self.frames.shape[1:]:
            raise VideoReadError(
                f"{self.name} has frames of different sizes ({self.frames.shape[1:]} and, at frame {index}, "
                f"{pixels.shape}); resize or crop them to one size."
            )
        self.frames[self.positions[index]] = pixels
        self.missing.discard(index)

    def tensor(self) -> Tensor:
        """(T, H, W, 3), in the order of the chosen indices.

        Raises:
            VideoReadError: if a chosen frame was never added.
        """
        if self.frames is None or self.missing:
            raise VideoReadError(
                f"{self.name} is cut: frame {min(self.missing, default=0)} is missing. Write or download it again."
            )
        frames = torch.from_numpy(self.frames)
        if list(self.positions) == self.indices:
            return frames
        return frames[[self.positions[index] for index in self.indices]]


def clip_metadata(
    total: int,
    indices: Sequence[int],
    fps: float | None,
    frames: Tensor,
    backend: str,
    warning: str | None = None,
) -> ClipMetadata:
    """Metadata of the frames (T, H, W, 3) taken from a clip of `total` frames."""
    fps = float(fps) if fps and np.isfinite(float(fps)) else None
    return ClipMetadata(
        total_num_frames=total,
        fps=fps,
        height=frames.shape[1],
        width=frames.shape[2],
        duration=total / fps if fps else None,
        video_backend=backend,
        frames_indices=[int(index) for index in indices],
        warning=warning,
    )


def opened_file(source: bytes | Path) -> BinaryIO:
    """A file, or its content, opened for reading. Reads after the deadline raise VideoReadError."""
    if seconds_left() is None:
        return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    return _TimedFile(io.BytesIO(source) if isinstance(source, bytes) else source.open("rb", buffering=0))


class _TimedFile(io.BufferedReader):
    """A file that ends what reads it at the deadline, even where no frame has been read yet."""

    def read(self, size: int | None = -1, /) -> bytes:
        check_time("the clip")
        return super().read(size)


def on_background(pixels: Tensor) -> Tensor:
    """RGBA pixels (..., 4), laid on the background: (..., 3) of the same dtype, uint8 or floats in 0..1."""
    unit = 1.0 if pixels.is_floating_point() else 255.0
    alpha = pixels[..., 3:].float() / unit
    mixed = pixels[..., :3].float() * alpha + BACKGROUND * unit * (1 - alpha)
    return mixed if pixels.is_floating_point() else mixed.round().to(torch.uint8)
