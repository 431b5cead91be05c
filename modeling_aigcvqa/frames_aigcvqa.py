"""The frames that are read from a clip, and the error for a clip that cannot be read."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

# Gives the indices (T,) of the frames to take from a clip of `total` frames. An index may occur more than once. It is
# called again if decoding finds another number of frames.
ChooseFrames = Callable[[int], Sequence[int]]
MAX_PIXELS = 16384 * 8192  # of a frame
BACKGROUND = 1.0  # of 0..1: transparent pixels lie on white, as on a web page


class VideoReadError(ValueError):
    """A video that cannot be read. The message names the video, the reason and the remedy."""


@dataclass
class ReadLimits:
    """What reading may cost.

    Attributes:
        deadline: value of `time.monotonic()` at which reading ends; None for no end.
        max_pixels: height times width of a decoded frame; None for any size.
        max_total_pixels: height times width of all decoded frames together; None for any number.
        decoded_pixels: of the frames that were decoded so far.
    """

    deadline: float | None = None
    max_pixels: int | None = None
    max_total_pixels: int | None = None
    decoded_pixels: int = 0


_limits: ContextVar[ReadLimits] = ContextVar("limits", default=ReadLimits())  # noqa: B039 (it has no limits to count for)


@contextmanager
def reading_within(limits: ReadLimits) -> Iterator[None]:
    """Within the block, reading a clip ends with a VideoReadError where it exceeds the limits."""
    token = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(token)


def seconds_left() -> float | None:
    """The seconds until the deadline, at least 0; None if there is none."""
    deadline = _limits.get().deadline
    return None if deadline is None else max(0.0, deadline - monotonic())


def max_frame_pixels() -> int:
    """Height times width of the largest frame that may be decoded."""
    allowed = _limits.get().max_pixels
    return MAX_PIXELS if allowed is None else min(allowed, MAX_PIXELS)


def check_time(name: str) -> None:
    """Raise VideoReadError, which names the video, if the deadline is over. Called for every frame and packet."""
    if seconds_left() == 0:
        raise VideoReadError(f"{name} takes longer to read than is allowed here; shorten, shrink or convert it.")


def check_frame(name: str, width: int, height: int) -> None:
    """Count a frame that is decoded. Headers may say anything, so that limits hold for the frames themselves too.

    Raises:
        VideoReadError: if the frame is too large, or the frames together are, or the deadline is over; names the video.
    """
    check_time(name)
    if width * height > max_frame_pixels():
        raise VideoReadError(
            f"{name} has frames of {width} x {height} pixels, above the {max_frame_pixels()} allowed; shrink it."
        )
    limits = _limits.get()
    if limits.max_total_pixels is None:
        return
    limits.decoded_pixels += width * height
    if limits.decoded_pixels > limits.max_total_pixels:
        raise VideoReadError(
            f"{name} has more than the {limits.max_total_pixels} pixels that are left for all frames together; shrink "
            "or cut it, or send fewer clips at once."
        )


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
