"""Read a video in any of the forms that users have it in, decoding only the frames that are used.

Videos go through decord (the decord2 distribution), what decord cannot open through PyAV, images and animated images
(GIF, WebP, APNG) through Pillow: the same pixels whichever decord is installed. Readers are opened where they are used,
never before a fork (decord deadlocks then).
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
except ImportError:  # no wheel for this platform: PyAV reads everything, some 1.7 times slower
    decord = None
try:
    import av
except ImportError:
    av = None

DECODER_ERRORS = (
    *((RuntimeError, decord.DECORDError) if decord is not None else ()),
    *((av.FFmpegError,) if av is not None else ()),
)

# Frame indices (T,) to take from a clip of `total` frames; an index may occur more than once.
ChooseFrames = Callable[[int], Sequence[int]]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
IMAGE_SIGNATURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
MAX_URL_BYTES = 2 * 1024**3


class VideoReadError(ValueError):
    """A video that cannot be read; the message names it, the reason and the remedy."""


def split_batch(videos: Any) -> list[Any]:
    """A batch as a list of single videos; one video, in any form, is a batch of one.

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
    """What to call a video in a message."""
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
    """The chosen frames of one video and what is known of it.

    Args:
        video: path (str or Path) of a file or of a folder of frames, http(s) URL, bytes, array or tensor (T, H, W, 3)
            or (T, 3, H, W) of uint8 or of floats in 0..1, list of frames, or {"bytes", "path"} as `datasets` gives it.
        choose_frames: gives the indices (T,) for the clip's number of frames.

    Returns:
        Frames (T, H, W, 3), uint8 in 0..255, or float32 in 0..1 where floats came in (with their gradient).

    Raises:
        VideoReadError: naming the video.
        TypeError: for a type that is none of the above.
    """
    name = video_name(video)
    if isinstance(video, dict):
        return _read_dict(video, choose_frames)
    video = fetched(video)
    if isinstance(video, str | Path):
        return _read_path(Path(video), choose_frames)
    if isinstance(video, bytes | bytearray | memoryview):
        return _read_encoded(io.BytesIO(video), name, choose_frames)
    if isinstance(video, Image.Image):
        return _read_frames([video], name, choose_frames)
    if _is_array(video):
        return _read_array(video, name, choose_frames)
    if isinstance(video, list | tuple) and video and all(_is_frame(frame) for frame in video):
        return _read_frames(video, name, choose_frames)
    raise TypeError(
        f"{name} is not a video: expected a path, URL, bytes, array or tensor (T, H, W, 3), list of frames, folder of "
        'frames or {"bytes", "path"}.'
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or (_is_array(value) and value.ndim == 3)


def _metadata(
    total: int, indices: Sequence[int], fps: float | None, size: tuple[int, int], backend: str
) -> VideoMetadata:
    fps = float(fps) if fps and np.isfinite(float(fps)) else None
    return VideoMetadata(
        total_num_frames=total,
        fps=fps,
        height=size[0],
        width=size[1],
        duration=total / fps if fps else None,
        video_backend=backend,
        frames_indices=[int(index) for index in indices],
    )


def _read_dict(video: dict, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    if video.get("bytes") is not None:
        return _read_encoded(io.BytesIO(video["bytes"]), video_name(video), choose_frames)
    if video.get("path"):
        return read_video(video["path"], choose_frames)
    raise VideoReadError(f'a video given as a dict needs "bytes" or "path" (got the keys {sorted(video)}).')


def fetched(video: Any) -> Any:
    """The bytes of an http(s) address, so that it is fetched once; anything else as it is.

    Raises:
        VideoReadError: naming the address.
    """
    if not (isinstance(video, str) and re.match(r"https?://", video, re.IGNORECASE)):
        return video
    try:
        return download(video, MAX_URL_BYTES)
    except ValueError as error:
        raise VideoReadError(str(error)) from error


def _read_path(path: Path, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    if path.is_dir():
        return _read_folder(path, choose_frames)
    if not path.exists():
        raise VideoReadError(f"'{path}' does not exist; check the path (relative ones start at {Path.cwd()}).")
    return _read_encoded(path, repr(str(path)), choose_frames)


def _read_folder(path: Path, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """Frames in natural order of their names: frame2 comes before frame10."""
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise VideoReadError(f"the folder '{path}' holds no frames ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    files.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)])
    indices = choose_frames(len(files))
    frames = {}
    for index in sorted(set(indices)):
        try:
            with Image.open(files[index]) as image:
                frames[index] = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoReadError(f"frame '{files[index]}' cannot be read ({error}); replace the file.") from error
    return _gather(frames, indices, f"'{path}'", len(files), None, "pillow")


def _read_encoded(source: Path | io.BytesIO, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """A file, or its bytes, as a video or an animated image, told apart by the first bytes."""
    try:
        head = source.getbuffer()[:12].tobytes() if isinstance(source, io.BytesIO) else _head(source)
    except OSError as error:
        raise VideoReadError(f"{name} cannot be opened ({error.strerror or error}).") from error
    if not head:
        raise VideoReadError(f"{name} is empty (0 bytes); write or download the clip again.")
    if is_image(head):
        return _read_pillow(source, name, choose_frames)
    reasons = []
    for decoder, read in (("decord", _read_decord), ("PyAV", _read_av)):
        try:
            return read(_rewound(source), name, choose_frames)
        except DECODER_ERRORS as error:
            reasons.append(f"{decoder}: {_first_line(error)}")
        except ImportError:
            continue
    if not reasons:
        raise ImportError("reading videos needs decord2 or av: pip install decord2 av")
    raise VideoReadError(
        f"{name} cannot be decoded as a video ({'; '.join(reasons)}); it may be truncated, damaged, without a video "
        "stream or no video at all. Write or download it again, or convert it to H.264 mp4."
    )


def is_image(head: bytes) -> bool:
    """Whether a file that begins with these 12 bytes is an image or an animated image."""
    return head.startswith(IMAGE_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _rewound(source: Path | str | io.BytesIO) -> str | io.BytesIO:
    if isinstance(source, io.BytesIO):
        source.seek(0)
        return source
    return str(source)


def _first_line(error: Exception) -> str:
    """The part of a decoder's message that says something, without addresses and stack traces."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", text)[:200]


def _read_decord(source: str | io.BytesIO, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    if decord is None:
        raise ImportError("decord2 is not installed.")
    reader = decord.VideoReader(source)
    total = _check_total(len(reader), name)
    indices = choose_frames(total)
    wanted = sorted(set(indices))
    # get_batch fails on truncated files and on widths of 16, 24, 32, 48, 96, 144. Its memory is taken over, not copied.
    batch = reader.get_batch(wanted)
    frames = torch.from_dlpack(batch.to_dlpack() if hasattr(batch, "to_dlpack") else batch)  # else: decord.set_bridge
    return _gather(dict(zip(wanted, frames)), indices, name, total, reader.get_avg_fps(), "decord", whole=frames)


def _read_av(source: str | io.BytesIO, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    """Decode once to count, for containers may be wrong about that, and once up to the last chosen frame."""
    if av is None:
        raise ImportError("av is not installed.")
    with av.open(source) as container:
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
    with av.open(_rewound(source)) as container:
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


def _read_pillow(source: Path | io.BytesIO, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    try:
        with Image.open(source) as image:
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
    """A list of PIL images or of (H, W, 3) arrays."""
    indices = choose_frames(len(frames))
    if all(isinstance(frame, Image.Image) for frame in frames):
        chosen = {index: np.asarray(frames[index].convert("RGB")) for index in set(indices)}
        return _gather(chosen, indices, name, len(frames), None, "pillow")
    if any(isinstance(frame, Image.Image) for frame in frames):
        raise VideoReadError(f"{name} mixes PIL images and arrays; pass one kind.")
    if len({tuple(frame.shape) for frame in frames}) > 1:
        _refuse_sizes(name, {index: frame.shape for index, frame in enumerate(frames)})
    indices = choose_frames(len(frames))
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
    whole: Tensor | None = None,
) -> tuple[Tensor, VideoMetadata]:
    """Decoded frames by index -> (T, H, W, 3), repeated where an index repeats; `whole`: they, stacked already."""
    missing = sorted(set(indices) - set(frames))
    if missing:
        raise VideoReadError(
            f"{name} says that it has {total} frames but frame {missing[0]} is not there; it is truncated."
        )
    if len({frame.shape for frame in frames.values()}) > 1:
        _refuse_sizes(name, {index: frame.shape for index, frame in frames.items()})
    order = {index: position for position, index in enumerate(sorted(frames))}
    stacked = torch.from_numpy(np.stack([frames[index] for index in order])) if whole is None else whole
    if list(order) != list(indices):
        stacked = stacked[[order[index] for index in indices]]
    return stacked, _metadata(total, indices, fps, tuple(stacked.shape[1:3]), backend)


def _refuse_sizes(name: str, shapes: dict[int, Sequence[int]]) -> None:
    first = min(shapes)
    other = next(index for index in sorted(shapes) if shapes[index] != shapes[first])
    raise VideoReadError(
        f"{name} has frames of different sizes (frame {first}: {tuple(shapes[first])}, frame {other}: "
        f"{tuple(shapes[other])}); resize or crop them to one size."
    )


def _read_array(video: np.ndarray | Tensor, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, VideoMetadata]:
    video = torch.as_tensor(video)
    if video.ndim != 4 or 0 in video.shape:
        raise VideoReadError(f"{name} must be (T, H, W, 3) or (T, 3, H, W) with at least one frame and pixel.")
    if video.shape[-1] != 3:
        if video.shape[1] != 3:
            raise VideoReadError(f"{name} has no axis of 3 colours; pass RGB as (T, H, W, 3) or (T, 3, H, W).")
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
    return chosen, _metadata(video.shape[0], indices, None, tuple(video.shape[1:3]), "array")
