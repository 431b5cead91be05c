"""Read a video in any of the forms that users have it in. Only the frames that are used are decoded.

decord (distribution decord2) reads videos, and PyAV those that decord cannot open. Pillow reads images and animated
images (GIF, WebP, APNG). All decoders give the same pixels. Readers are opened where they are used and never before a
fork, because decord deadlocks in a forked process.
"""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor
from transformers.video_utils import VideoMetadata

from .downloads_aigcvqa import download

try:
    import decord
except ImportError:  # no wheel for this platform: PyAV reads all videos, about 1.7 times slower
    decord = None
try:
    import av
except ImportError:
    av = None

DECODER_ERRORS = (
    *((RuntimeError, decord.DECORDError) if decord is not None else ()),
    *((av.FFmpegError,) if av is not None else ()),
)

# Gives the indices (T,) of the frames to take from a clip of `total` frames. An index may occur more than once.
ChooseFrames = Callable[[int], Sequence[int]]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
IMAGE_SIGNATURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
MAX_URL_BYTES = 2 * 1024**3


class VideoReadError(ValueError):
    """A video that cannot be read. The message names the video, the reason and the remedy."""


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
        return repr(str(video["path"]))
    if isinstance(video, str | Path):
        return repr(str(video))
    if isinstance(video, bytes | bytearray | memoryview):
        return f"<{len(video)} bytes>"
    if _is_array(video):
        return f"<{type(video).__name__} of shape {tuple(video.shape)}>"
    if isinstance(video, list | tuple):
        return f"<list of {len(video)} frames>"
    return f"<{type(video).__name__}>"


def read_video(video: Any, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """Read the chosen frames of one video, and its metadata.

    Args:
        video: path (str or Path) of a file or of a folder of frames, http(s) URL, bytes, array or tensor (T, H, W, 3)
            or (T, 3, H, W) of uint8 or of floats in 0..1, list of frames, or {"bytes", "path"} as `datasets` gives it.
        choose_frames: gives the indices (T,) for the number of frames of the clip.

    Returns:
        Frames (T, H, W, 3): uint8 in 0..255, or float32 in 0..1 if `video` holds floats (gradients are kept).

    Raises:
        VideoReadError: if the video cannot be read; the message names it.
        TypeError: for any other type.
    """
    name = video_name(video)
    if isinstance(video, dict):
        if video.get("bytes") is None and not video.get("path"):
            raise VideoReadError(f'a video given as a dict needs "bytes" or "path" (got the keys {sorted(video)}).')
        video = video["path"] if video.get("bytes") is None else video["bytes"]
    video = fetched(video)
    if isinstance(video, str | Path):
        path = Path(video)
        if not path.exists():
            raise VideoReadError(f"'{path}' does not exist; check the path (relative ones start at {Path.cwd()}).")
        return _read_folder(path, choose_frames) if path.is_dir() else _read_encoded(path, name, choose_frames)
    if isinstance(video, bytes | bytearray | memoryview):
        return _read_encoded(bytes(video), name, choose_frames)
    if isinstance(video, Image.Image):
        video = [video]
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
    if isinstance(clip, bytes):
        return clip[:12]
    with clip.open("rb") as file:
        return file.read(12)


def opened(clip: bytes | Path) -> io.BytesIO | str:
    """A file, or its content, in the form that the decoders open."""
    return io.BytesIO(clip) if isinstance(clip, bytes) else str(clip)


def is_image(head: bytes) -> bool:
    """Whether a file with these first 12 bytes is an image or an animated image."""
    return head.startswith(IMAGE_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or (_is_array(value) and value.ndim == 3)


def _read_folder(path: Path, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """Frames in the natural order of their names: frame2 comes before frame10."""
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise VideoReadError(f"the folder '{path}' holds no frames ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    files.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)])
    indices = choose_frames(len(files))
    frames = {}
    for index in set(indices):
        try:
            with Image.open(files[index]) as image:
                frames[index] = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoReadError(f"frame '{files[index]}' cannot be read ({error}); replace the file.") from error
    return _gather(frames, indices, f"'{path}'", len(files), None, "pillow")


def _read_encoded(source: bytes | Path, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """A file or its content: a video or an image, according to the first bytes."""
    try:
        head = first_bytes(source)
    except OSError as error:
        raise VideoReadError(f"{name} cannot be opened ({error.strerror or error}).") from error
    if not head:
        raise VideoReadError(f"{name} is empty (0 bytes); write or download the clip again.")
    if is_image(head):
        return _read_pillow(source, name, choose_frames)
    reasons = []
    for decoder, read in (("decord", _read_decord), ("PyAV", _read_av)):
        try:
            return read(source, name, choose_frames)
        except DECODER_ERRORS as error:
            reasons.append(f"{decoder}: {_first_line(error)}")
        except ImportError:
            continue
    if not reasons:
        raise ImportError("reading videos needs decord2 or av: pip install decord2 av")
    raise VideoReadError(
        f"{name} cannot be decoded as a video ({'; '.join(reasons)}); it may be truncated, damaged, without a video "
        "stream or not a video at all. Write or download it again, or convert it to H.264 mp4."
    )


def _first_line(error: Exception) -> str:
    """The first line of a decoder's message, without memory addresses and source positions."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", text)[:200]


def _read_decord(source: bytes | Path, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    if decord is None:
        raise ImportError("decord2 is not installed.")
    reader = decord.VideoReader(opened(source))
    total = _check_total(len(reader), name)
    indices = choose_frames(total)
    wanted = sorted(set(indices))
    # get_batch fails on truncated files and on widths of 16, 24, 32, 48, 96, 144.
    batch = reader.get_batch(wanted)
    # Its memory is reused without a copy. The batch is a tensor already where the caller has set decord's torch bridge.
    frames = torch.from_dlpack(batch.to_dlpack() if hasattr(batch, "to_dlpack") else batch)
    return _gather(dict(zip(wanted, frames)), indices, name, total, reader.get_avg_fps(), "decord", stacked=frames)


def _read_av(source: bytes | Path, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """Decode once to count the frames, because containers may give a wrong number, and once to take the chosen ones."""
    if av is None:
        raise ImportError("av is not installed.")
    with av.open(opened(source)) as container:
        if not container.streams.video:
            raise VideoReadError(f"{name} cannot be decoded as a video: it has no video stream. Pass another file.")
        stream = container.streams.video[0]
        declared, fps = stream.frames, stream.average_rate
        total = _check_total(sum(1 for _ in container.decode(stream)), name)
    if total < declared:
        raise VideoReadError(
            f"{name} is truncated: {total} of {declared} frames are there. Write or download it again."
        )
    indices = choose_frames(total)
    wanted, frames = set(indices), {}
    with av.open(opened(source)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                frames[index] = np.rot90(frame.to_ndarray(format="rgb24"), k=frame.rotation // 90).copy()
            if index == max(wanted):
                break
    return _gather(frames, indices, name, total, fps, "pyav")


def _check_total(total: int, name: str) -> int:
    if total == 0:
        raise VideoReadError(f"{name} has no frames; pass a clip with at least one.")
    return total


def _read_pillow(source: bytes | Path, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    try:
        with Image.open(opened(source)) as image:
            total = getattr(image, "n_frames", 1)
            indices = choose_frames(total)
            wanted, frames, duration_ms = set(indices), {}, 0.0
            for index, frame in enumerate(ImageSequence.Iterator(image)):
                duration_ms += frame.info.get("duration", 0)
                if index in wanted:
                    frames[index] = np.asarray(frame.convert("RGB"))
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoReadError(
            f"{name} cannot be read as an image or GIF ({error}); write or download it again."
        ) from error
    fps = 1000 * total / duration_ms if duration_ms and total > 1 else None  # GIFs may carry no durations
    return _gather(frames, indices, name, total, fps, "pillow")


def _read_frames(frames: Sequence, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """A list of PIL images, or of (H, W, 3) or (3, H, W) arrays."""
    indices = choose_frames(len(frames))
    images = [isinstance(frame, Image.Image) for frame in frames]
    if all(images):
        chosen = {index: np.asarray(frames[index].convert("RGB")) for index in set(indices)}
        return _gather(chosen, indices, name, len(frames), None, "pillow")
    if any(images):
        raise VideoReadError(f"{name} mixes PIL images and arrays; pass one kind.")
    _check_sizes(dict(enumerate(frames)), name)
    chosen, metadata = _read_array(torch.stack([torch.as_tensor(frames[index]) for index in indices]), name, range)
    metadata.total_num_frames, metadata.frames_indices = len(frames), list(indices)
    return chosen, metadata


def _gather(
    frames: dict[int, np.ndarray] | dict[int, Tensor],
    indices: Sequence[int],
    name: str,
    total: int,
    fps: float | None,
    backend: str,
    stacked: Tensor | None = None,
) -> tuple[Tensor, VideoMetadata]:
    """Decoded frames by index -> (T, H, W, 3), where repeated indices repeat a frame.

    `stacked` holds the same frames in the order of their indices, where the decoder gives them as one tensor.
    """
    missing = sorted(set(indices) - set(frames))
    if missing:
        raise VideoReadError(f"{name} declares {total} frames but frame {missing[0]} is missing; it is truncated.")
    _check_sizes(frames, name)
    order = {index: position for position, index in enumerate(sorted(frames))}
    if stacked is None:
        stacked = torch.from_numpy(np.stack([frames[index] for index in order]))
    if list(order) != list(indices):
        stacked = stacked[[order[index] for index in indices]]
    return stacked, _metadata(total, indices, fps, stacked, backend)


def _check_sizes(frames: dict[int, np.ndarray] | dict[int, Tensor], name: str) -> None:
    shapes = {index: tuple(frames[index].shape) for index in sorted(frames)}
    first, shape = next(iter(shapes.items()))
    for index, other in shapes.items():
        if other != shape:
            raise VideoReadError(
                f"{name} has frames of different sizes (frame {first}: {shape}, frame {index}: {other}); resize or "
                "crop them to one size."
            )


def _metadata(total: int, indices: Sequence[int], fps: float | None, frames: Tensor, backend: str) -> VideoMetadata:
    fps = float(fps) if fps and np.isfinite(float(fps)) else None
    return VideoMetadata(
        total_num_frames=total,
        fps=fps,
        height=frames.shape[1],
        width=frames.shape[2],
        duration=total / fps if fps else None,
        video_backend=backend,
        frames_indices=[int(index) for index in indices],
    )


def _read_array(video: np.ndarray | Tensor, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    video = torch.as_tensor(video)
    if video.ndim != 4 or 0 in video.shape:
        raise VideoReadError(f"{name} must be (T, H, W, 3) or (T, 3, H, W) with at least one frame and pixel.")
    if 3 not in (video.shape[1], video.shape[-1]):
        raise VideoReadError(f"{name} has no axis of 3 colours; pass RGB as (T, H, W, 3) or (T, 3, H, W).")
    if video.shape[-1] != 3:
        video = video.permute(0, 2, 3, 1)
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
    return chosen, _metadata(video.shape[0], indices, None, chosen, "array")
