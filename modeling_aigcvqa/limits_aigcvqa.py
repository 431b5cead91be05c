"""Limits on clips from strangers, for public services. They are checked before a clip is decoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .downloads_aigcvqa import download
from .frames_aigcvqa import check_time, opened_file
from .image_decoding_aigcvqa import is_image
from .video_integrity_aigcvqa import opened_video
from .video_reading_aigcvqa import first_bytes, video_name

try:
    import av
except ImportError:
    av = None

IMAGE_FORMATS = ("GIF", "PNG", "JPEG", "WEBP")
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
MATROSKA_SIGNATURE = b"\x1a\x45\xdf\xa3"
MAX_URL = 2048  # characters


@dataclass(frozen=True)
class ClipLimits:
    """The largest clip that is accepted.

    Args:
        max_bytes: size of the file.
        max_pixels: height times width of a frame.
        max_frames, max_seconds: length of the clip.
        max_total_pixels: height times width times number of frames, which decides how long decoding takes.
        max_request_pixels: the same for all clips of a call of the pipeline together; None for any number.
        url_hosts: hosts that clips may be fetched from; by default none.
        deadline: value of `time.monotonic()` at which reading the clip ends with an error; None for no end.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 4096 * 2304
    max_frames: int = 3600
    max_seconds: float = 60
    max_total_pixels: int = 2**31  # on two cores 8 s of decoding for H.264, half a minute for a GIF
    max_request_pixels: int | None = None
    url_hosts: tuple[str, ...] = ()
    deadline: float | None = None


def checked_clip(video: Any, limits: ClipLimits) -> bytes:
    """The bytes of a clip that a client sent, checked against the limits. Paths are never opened.

    Args:
        video: bytes, or an https address on one of `limits.url_hosts`.

    Raises:
        ValueError: if `video` is anything else, not a video file or above a limit; names the limit or the remedy.
    """
    if isinstance(video, str) and "://" in video[:16]:
        video = download(video[:MAX_URL], limits.max_bytes, limits.url_hosts)
    if not isinstance(video, bytes | bytearray):
        raise ValueError(f"the video is {type(video).__name__}; send base64 text or bytes. Paths are not opened.")
    check_clip(bytes(video), limits)
    return bytes(video)


def check_clip(clip: bytes | Path, limits: ClipLimits) -> None:
    """Refuse a clip (its bytes, or the path of its file) that is above a limit or is not a video file.

    Only files with the signature of a video container or an image pass. Playlists, which make a decoder open other
    files and addresses, have no such signature.

    Raises:
        ValueError: if the clip is refused; names the clip, the limit and the remedy.
    """
    name = video_name(clip)
    size = len(clip) if isinstance(clip, bytes) else clip.stat().st_size
    if size > limits.max_bytes:
        raise ValueError(f"{name} has {size} bytes, above the {limits.max_bytes} allowed; shorten or compress it.")
    head = first_bytes(clip)
    if is_image(head):
        _check_image(clip, name, limits)
    elif (
        (head[:1] == b"\0" and head[4:8] in MP4_BOXES)
        or head.startswith(MATROSKA_SIGNATURE)
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    ):
        _check_stream(clip, name, limits)
    else:
        raise ValueError(
            f"{name} holds no video (it begins with {head[:8]!r}); send mp4, mov, mkv, webm, avi, gif, webp, png, jpeg."
        )


def _check_image(clip: bytes | Path, name: str, limits: ClipLimits) -> None:
    try:
        with opened_file(clip) as file, Image.open(file, formats=IMAGE_FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            seconds = frames * image.info.get("duration", 0) / 1000
            _check_values(name, image.size, frames, seconds, limits)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as an image ({error}).") from error


def _check_stream(clip: bytes | Path, name: str, limits: ClipLimits) -> None:
    """Check a video by its packets. PyAV decodes one frame to open a file, so a wrong size in the header is seen.

    It is opened as the reader opens it, so that the stream that is checked is the one that is decoded.
    """
    if av is None:
        raise ImportError("limits on videos need av: pip install av")
    try:
        with opened_video(clip, name) as (container, stream):
            _check_values(name, (stream.width, stream.height), 0, 0, limits)
            first, last, frames = None, 0.0, 0
            for packet in container.demux(stream):
                check_time(name)
                if not packet.size:
                    continue
                if packet.pts is None:
                    frames += 1
                    _check_values(name, (stream.width, stream.height), frames, 0, limits)
                    continue
                start, end = (float(t * packet.time_base) for t in (packet.pts, packet.pts + (packet.duration or 0)))
                first, last, frames = start if first is None else min(first, start), max(last, end), frames + 1
                _check_values(name, (stream.width, stream.height), frames, last - first, limits)
    except av.FFmpegError as error:
        raise ValueError(f"{name} cannot be read as a video ({error.strerror}); it may be damaged.") from error


def _check_values(name: str, size: tuple[int, int], frames: int, seconds: float, limits: ClipLimits) -> None:
    if not all(size):
        raise ValueError(f"{name} is damaged: it does not say how large its frames are.")
    if size[0] * size[1] > limits.max_pixels:
        raise ValueError(
            f"{name} has frames of {size[0]} x {size[1]}, above the {limits.max_pixels} pixels allowed; shrink it."
        )
    if frames > limits.max_frames:
        raise ValueError(f"{name} has more than the {limits.max_frames} frames allowed; cut it.")
    if frames * size[0] * size[1] > limits.max_total_pixels:
        raise ValueError(
            f"{name} has more than the {limits.max_total_pixels} pixels that are allowed in all frames together; "
            "shrink or cut it."
        )
    if seconds > limits.max_seconds:
        raise ValueError(f"{name} is longer than the {limits.max_seconds:g} s allowed; cut it.")
