"""Read a video in any of the forms that users have it in.

PyAV decodes videos and Pillow decodes images. Files are opened where they are used and never before a fork.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .downloads_aigcvqa import download
from .frames_aigcvqa import (
    ChooseFrames,
    ClipMetadata,
    FrameStore,
    VideoReadError,
    clip_metadata,
    on_background,
    opened_file,
)
from .image_decoding_aigcvqa import is_image, read_folder, read_image, rgb_pixels
from .names_aigcvqa import ON_DAMAGE, shortened
from .video_decoding_aigcvqa import DECODERS, decode_video

MAX_URL_BYTES = 2 * 1024**3


def split_batch(videos: Any) -> list[Any]:
    """A batch as a list of videos. A single video, in any form, is a batch of one.

    A list of frames (PIL images or (H, W, C) arrays) is one video; a list of anything else is a batch.
    """
    if _is_array(videos):
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, list | tuple):
        return [videos]
    if not videos:
        raise ValueError("videos is empty; pass at least one video.")
    return [videos] if _is_frame(videos[0]) else list(videos)


def video_name(video: Any) -> str:
    """The name of a video in messages."""
    if isinstance(video, dict) and video.get("path"):
        return repr(shortened(str(video["path"])))
    if isinstance(video, str | Path):
        return repr(shortened(str(video)))
    if isinstance(video, bytes | bytearray | memoryview):
        return f"<{len(video)} bytes>"
    if _is_array(video):
        return f"<{type(video).__name__} of shape {tuple(video.shape)}>"
    if isinstance(video, list | tuple):
        return f"<list of {len(video)} frames>"
    return f"<{type(video).__name__}>"


def read_video(
    video: Any, choose_frames: ChooseFrames, on_damage: str = "raise", decoder: str = "pyav"
) -> tuple[Tensor, ClipMetadata]:
    """Read the chosen frames of one video, and its metadata.

    Transparent pixels are laid on white.

    Args:
        video: path (str or Path) of a file or of a folder of frames, http(s) URL, bytes, array or tensor (T, H, W, C)
            or (T, C, H, W) of uint8 or of floats in 0..1 with C 3 (RGB) or 4 (RGBA), list of frames, or {"bytes",
            "path"} as `datasets` gives it. A batch of one, as diffusers gives it, is one video too.
        choose_frames: gives the indices (T,) for the number of frames of the clip.
        on_damage: "raise", or "warn" to take the frames that a damaged file still has; the metadata then have a
            `warning`.
        decoder: "pyav", or "decord" for the files that it is known to read rightly; the frames are the same.

    Returns:
        Frames (T, H, W, 3): uint8 in 0..255, or float32 in 0..1 if `video` holds floats (gradients are kept).

    Raises:
        VideoReadError: if the video cannot be read or is damaged; the message names it.
        TypeError: for any other type.
    """
    for option, value, known in (("on_damage", on_damage, ON_DAMAGE), ("decoder", decoder, DECODERS)):
        if value not in known:
            raise ValueError(f"{option}={value!r}: expected one of {list(known)}.")
    name = video_name(video)
    if isinstance(video, dict):
        if video.get("bytes") is None and not video.get("path"):
            raise VideoReadError(f'a video given as a dict needs "bytes" or "path" (got the keys {sorted(video)}).')
        video = video["path"] if video.get("bytes") is None else video["bytes"]
    video = fetched(video)
    if isinstance(video, str | Path):
        path = Path(video)
        try:
            exists = path.exists()
        except (OSError, ValueError) as error:
            raise VideoReadError(f"{name} cannot be opened ({getattr(error, 'strerror', error)}).") from error
        if not exists:
            raise VideoReadError(f"{name} does not exist; check the path (relative ones start at {Path.cwd()}).")
        if path.is_dir():
            return read_folder(path, choose_frames)
        if not path.is_file():  # to open a pipe or a device may wait for ever
            raise VideoReadError(f"{name} is neither a file nor a folder; write the clip to a file.")
        return _read(path, name, choose_frames, on_damage, decoder)
    if isinstance(video, bytes | bytearray | memoryview):
        return _read(bytes(video), name, choose_frames, on_damage, decoder)
    if isinstance(video, Image.Image):
        video = [video]
    while _is_batch_of_one(video):
        video = video[0]
    if _is_array(video):
        return _read_array(video, name, choose_frames)
    if isinstance(video, list | tuple) and video and all(_is_frame(frame) for frame in video):
        return _read_frames(video, name, choose_frames)
    raise TypeError(
        f"{name} is not a video: expected a path, URL, bytes, array or tensor (T, H, W, 3), list of frames, folder of "
        'frames or {"bytes", "path"}.'
    )


def fetched(video: Any) -> Any:
    """The bytes behind an http(s) address, so that it is fetched only once; any other video unchanged.

    Raises:
        VideoReadError: if the address cannot be fetched; the message names it.
    """
    if not (isinstance(video, str) and re.match(r"https?://", video, re.IGNORECASE)):
        return video
    try:
        return download(video, MAX_URL_BYTES)
    except ValueError as error:
        raise VideoReadError(str(error)) from error


def first_bytes(clip: bytes | Path) -> bytes:
    """The first 12 bytes of a file, or of its content: enough to recognise its format."""
    with opened_file(clip) as file:
        return file.read(12)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or (_is_array(value) and value.ndim == 3)


def _is_batch_of_one(value: Any) -> bool:
    if _is_array(value):
        return value.ndim == 5 and len(value) == 1
    return isinstance(value, list | tuple) and len(value) == 1 and (_is_array(value[0]) or _is_list_of_frames(value[0]))


def _is_list_of_frames(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and _is_frame(value[0])


def _read(
    source: bytes | Path, name: str, choose_frames: ChooseFrames, on_damage: str, decoder: str
) -> tuple[Tensor, ClipMetadata]:
    """A file or its content: a video or an image, according to the first bytes."""
    try:
        head = first_bytes(source)
    except OSError as error:
        raise VideoReadError(f"{name} cannot be opened ({error.strerror or error}).") from error
    if not head:
        raise VideoReadError(f"{name} is empty (0 bytes); write or download the clip again.")
    if is_image(head):
        return read_image(source, name, choose_frames)
    return decode_video(source, name, choose_frames, on_damage, decoder)


def _read_frames(frames: Sequence, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, ClipMetadata]:
    """A list of PIL images, or of (H, W, C) or (C, H, W) arrays."""
    images = [isinstance(frame, Image.Image) for frame in frames]
    indices = [int(index) for index in choose_frames(len(frames))]
    if all(images):
        store = FrameStore(indices, name)
        for index in store.positions:
            store.add(index, rgb_pixels(frames[index]))
        chosen = store.tensor()
        return chosen, clip_metadata(len(frames), indices, None, chosen, "pillow")
    if any(images):
        raise VideoReadError(f"{name} mixes PIL images and arrays; pass one kind.")
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) > 1:
        raise VideoReadError(
            f"{name} has frames of different sizes ({sorted(shapes)}); resize or crop them to one size."
        )
    chosen, metadata = _read_array(torch.stack([torch.as_tensor(frames[index]) for index in indices]), name, range)
    metadata.total_num_frames, metadata.frames_indices = len(frames), indices
    return chosen, metadata


def _read_array(video: np.ndarray | Tensor, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, ClipMetadata]:
    video = torch.as_tensor(video)
    if video.ndim != 4 or 0 in video.shape:
        raise VideoReadError(f"{name} must be (T, H, W, C) or (T, C, H, W) with at least one frame and pixel.")
    axis = next((axis for channels in (3, 4) for axis in (-1, 1) if video.shape[axis] == channels), None)
    if axis is None:
        raise VideoReadError(f"{name} has no axis of 3 colours; pass RGB as (T, H, W, 3) or (T, 3, H, W).")
    video = video.movedim(axis, -1)
    indices = choose_frames(video.shape[0])
    chosen = video[torch.as_tensor(np.asarray(indices), device=video.device)]
    if video.is_floating_point():
        chosen = chosen.float()
        low, high = chosen.detach().aminmax()
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise VideoReadError(f"{name} holds NaN or infinite values; pass floats in 0..1.")
        if low < 0 or high > 1:
            raise VideoReadError(
                f"{name} holds floats from {low:.4g} to {high:.4g}; pass floats in 0..1 or uint8 in 0..255."
            )
    elif video.dtype != torch.uint8:
        raise VideoReadError(f"{name} is {video.dtype}; pass uint8 in 0..255 or floats in 0..1.")
    if chosen.shape[-1] == 4:
        chosen = on_background(chosen)
    return chosen, clip_metadata(video.shape[0], indices, None, chosen, "array")
