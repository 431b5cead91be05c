"""Frames in the body of a request or answer, as safetensors: data without code."""

import json
import struct
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..requests_aigcvqa import RequestLimits
from ..reward.frames import UNIT, Range, as_stored, checked_range, clips_of, in_unit_range

FRAMES, PROMPTS, VALUE_RANGE, SCALE = "frames", "prompts", "value_range", "scale"


def packed(frames: Tensor, prompts: list[str] | None, value_range: Range = UNIT, scale: bool = False) -> bytes:
    """A body for `unpacked`."""
    metadata = {VALUE_RANGE: json.dumps(list(value_range))} | ({SCALE: "true"} if scale else {})
    if prompts is not None:
        metadata[PROMPTS] = json.dumps(prompts)
    return safetensors.torch.save({FRAMES: frames.contiguous()}, metadata)


def unpacked(body: bytes) -> tuple[list[Tensor], list[str | None], Range, bool]:
    """The clips, prompts and range of float values in a body, and whether percentiles are wanted.

    Args:
        body: safetensors with the tensor `frames`, (B, T, 3, H, W) or (B, T, H, W, 3), uint8 or floats, and the
            metadata `prompts` (JSON, B texts), `value_range` (JSON, two numbers; [0, 1] if it is left out) and `scale`
            (JSON, true or false).

    Raises:
        ValueError: for a body of another form.
    """
    try:
        tensors = safetensors.torch.load(body)
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise ValueError(f"the body is not safetensors ({error}); send what safetensors.torch.save gives.") from error
    if list(tensors) != [FRAMES]:
        raise ValueError(f"the body has the tensors {sorted(tensors)}; send one, '{FRAMES}'.")
    (size,) = struct.unpack("<Q", body[:8])
    metadata = json.loads(body[8 : 8 + size]).get("__metadata__", {})
    clips = clips_of(tensors[FRAMES])
    prompts = _json_of(metadata, PROMPTS, [None] * len(clips))
    if not isinstance(prompts, list) or len(prompts) != len(clips):
        raise ValueError(f"the metadata '{PROMPTS}' is not a JSON list of {len(clips)} texts, one per clip.")
    if any(not isinstance(prompt, str | None) for prompt in prompts):
        raise ValueError(f"the metadata '{PROMPTS}' holds values that are no texts.")
    scale = _json_of(metadata, SCALE, False)
    if not isinstance(scale, bool):
        raise ValueError(f"the metadata '{SCALE}' is {scale!r}; send true or false.")
    return clips, prompts, checked_range(_json_of(metadata, VALUE_RANGE, UNIT)), scale


def _json_of(metadata: dict[str, str], name: str, default: Any) -> Any:
    if name not in metadata:
        return default
    try:
        return json.loads(metadata[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata '{name}' is not JSON ({error}).") from error


def check_tensors(clips: list[Tensor], limits: RequestLimits) -> None:
    """Refuse clips above the limits that hold for files.

    Raises:
        ValueError: names the clip and the limit.
    """
    total = 0
    for index, clip in enumerate(clips):
        if clip.ndim != 4:
            continue  # refused with a better message where it is read
        pixels = clip.shape[1:].numel() // 3
        if pixels > limits.max_pixels or len(clip) > limits.max_frames:
            raise ValueError(
                f"frames[{index}] has {len(clip)} frames of {pixels} pixels, above the {limits.max_frames} frames of "
                f"{limits.max_pixels} pixels allowed; shrink or cut it."
            )
        total += len(clip) * pixels
    if total > limits.max_total_pixels:
        raise ValueError(
            f"the clips have {total} pixels, above the {limits.max_total_pixels} allowed in all frames together; send "
            "fewer clips at once."
        )


def as_uint8(frames: Tensor, value_range: Range) -> Tensor:
    """Float frames as the 8 bits that they are scored with, a quarter of the bytes; uint8 unchanged."""
    return as_stored(in_unit_range(frames, checked_range(value_range))) if frames.is_floating_point() else frames
