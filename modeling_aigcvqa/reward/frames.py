"""Frames in memory as clips: their layout and their range are checked, because neither can be seen later."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Range = tuple[float, float]
UNIT: Range = (0.0, 1.0)


def clips_of(frames: Tensor | np.ndarray | Sequence) -> list[Tensor]:
    """A batch as a list of clips (T, 3, H, W) or (T, H, W, 3).

    Args:
        frames: (B, T, 3, H, W) or (B, T, H, W, 3), or a sequence of clips, which may differ in length and size.

    Raises:
        ValueError: for an empty batch or another number of axes.
        TypeError: for what is no tensor or array.
    """
    if isinstance(frames, Tensor | np.ndarray):
        if frames.ndim != 5:
            raise ValueError(
                f"frames has the shape {tuple(frames.shape)}; pass a batch, (B, T, 3, H, W) or (B, T, H, W, 3); one "
                "clip is frames[None]."
            )
    elif not isinstance(frames, list | tuple):
        raise TypeError(f"frames is {type(frames).__name__}; pass a tensor or array of 5 axes, or a list of clips.")
    if len(frames) == 0:
        raise ValueError("frames is empty; pass at least one clip.")
    for index, clip in enumerate(frames):
        if not isinstance(clip, Tensor | np.ndarray):
            raise TypeError(f"frames[{index}] is {type(clip).__name__}; pass tensors or arrays (T, 3, H, W).")
    return [torch.as_tensor(clip) for clip in frames]


def unit_clip(clip: Tensor, name: str, value_range: Range) -> Tensor:
    """A clip as (T, H, W, 3), uint8 or floats in 0..1; gradients are kept.

    Args:
        clip: (T, 3, H, W) or (T, H, W, 3); uint8 in 0..255, or floats in `value_range`.
        name: of the clip in messages.

    Raises:
        ValueError: for another shape or dtype, and for values that are not finite or outside of the range.
    """
    axes = [axis for axis in (-1, 1) if clip.ndim == 4 and clip.shape[axis] == 3]
    if len(axes) != 1 or 0 in clip.shape:
        what = "has 3 colours on two axes" if len(axes) == 2 else "is not (T, 3, H, W) or (T, H, W, 3)"
        raise ValueError(f"{name} of shape {tuple(clip.shape)} {what}; pass RGB with at least one frame and pixel.")
    clip = clip.movedim(axes[0], -1)
    if clip.dtype == torch.uint8:
        return clip
    if not clip.is_floating_point():
        raise ValueError(f"{name} is {clip.dtype}; pass uint8 in 0..255, or floats and their value_range.")
    low, high = value_range
    least, most = (float(value) for value in clip.detach().aminmax())
    if not low <= least <= most <= high:  # NaN is in no range
        raise ValueError(
            f"{name} holds values from {least:.6g} to {most:.6g}, outside of value_range=({low:g}, {high:g}); state "
            "the range that the frames have, or clamp them to it."
        )
    return in_unit_range(clip, value_range)


def in_unit_range(values: Tensor, value_range: Range) -> Tensor:
    """Floats in `value_range` as float32 in 0..1, of the same shape."""
    low, high = value_range
    return values.float() if value_range == UNIT else ((values.float() - low) / (high - low)).clamp(0, 1)


def as_stored(clip: Tensor) -> Tensor:
    """Floats in 0..1 rounded to the 8 bits that a file would hold; uint8 unchanged."""
    return (clip * 255).round().to(torch.uint8) if clip.is_floating_point() else clip


def checked_range(value_range: Range) -> Range:
    """A range as two floats.

    Raises:
        ValueError: if it is none.
    """
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = 0.0
    if not -1e6 < low < high < 1e6:
        raise ValueError(f"value_range={value_range!r}: expected (lowest, highest), for instance (0, 1) or (-1, 1).")
    return low, high
