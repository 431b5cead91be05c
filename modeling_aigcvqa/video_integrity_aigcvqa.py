"""What the packets and the headers of a video file say about it, without decoding: number of frames, rate, damage."""

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .frames_aigcvqa import VideoReadError, check_time, max_frame_pixels, opened_file

try:
    import av
except ImportError:
    av = None

# The formats that are read. FFmpeg also takes playlists, session descriptions and texts, which open other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,nut,ivf,yuv4mpegpipe,h264,hevc,obu,m4v,"
    "mpegvideo,dv,rm,wtv"
)
# Their duration is not a header's: FFmpeg estimates it from the time stamps.
ESTIMATED_DURATION = {"mpeg", "mpegts", "ogg"}
MIN_TOLERANCE_S = 0.05  # of the duration in a header, beside the longest time between two frames


@dataclass
class Inspection:
    """What the packets and the headers of a video say.

    Attributes:
        shown: number of frames that a player shows.
        hidden: number of frames that only serve to decode others, such as those before the start of an edit list.
        fps: mean frame rate in frames per second, or None if it is not known.
        times_s: times (packets,) in seconds at which the shown frames are shown, as far as they are known.
        steady: whether all frames have the same distance in time.
        transparent: whether a WebM has an alpha channel, which FFmpeg's own decoders leave out.
        kind: names of the container and of the codec.
        damage: what was found, with the number of times.
    """

    shown: int = 0
    hidden: int = 0
    fps: float | None = None
    times_s: list[float] = field(default_factory=list)
    steady: bool = True
    transparent: bool = False
    kind: tuple[str, str] = ("", "")
    damage: Counter = field(default_factory=Counter)


@contextmanager
def opened_video(source: bytes | Path, name: str) -> Iterator[tuple["av.container.InputContainer", "av.VideoStream"]]:
    """The container and its best video stream, which is the film and not its cover picture.

    Raises:
        VideoReadError: if there is no video stream, or the header declares more than the file can hold.
        av.FFmpegError: if the file is not a video.
    """
    options = {"format_whitelist": FORMATS}
    # A line of FFmpeg's log waits for Python's lock, and whoever closes a decoder holds it and waits for the decoder's
    # threads: both wait for ever. Older versions of torchvision turn the log on.
    if av.logging.get_level() is not None:
        av.logging.set_level(None)
    # A file object, because FFmpeg takes names such as "a:b.mp4" for protocols and needs names in UTF-8.
    with opened_file(source) as file, av.open(file, metadata_errors="replace", container_options=options) as container:
        stream = _film(container)
        if stream is None:
            raise VideoReadError(f"{name} cannot be decoded as a video: it has no video stream. Pass another file.")
        if stream.codec_context is None:
            raise VideoReadError(
                f"{name} cannot be decoded as a video: its codec is not known. Convert it to H.264 mp4."
            )
        _check_header(container, stream, file, name)
        yield container, stream


def _film(container: "av.container.InputContainer") -> "av.VideoStream | None":
    """The best video stream that is not a picture beside it, such as a cover."""
    stream = container.streams.best("video")
    streams = [stream, *container.streams.video] if stream else []
    return next((s for s in streams if av.stream.Disposition.attached_pic not in s.disposition), None)


def _check_header(
    container: "av.container.InputContainer", stream: "av.VideoStream", file: BinaryIO, name: str
) -> None:
    """A frame takes at least one byte, so a header that declares more frames than bytes is refused."""
    position = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(position)
    duration_s, rate = (container.duration or 0) / av.time_base, float(stream.average_rate or 0)
    if stream.width * stream.height > max_frame_pixels():
        raise VideoReadError(
            f"{name} has frames of {stream.width} x {stream.height} pixels, above the {max_frame_pixels()} allowed; "
            "shrink it. If they are smaller, its header is damaged."
        )
    if stream.frames > size or duration_s * rate > size:
        raise VideoReadError(
            f"{name} is damaged: its header declares {stream.frames} frames and {duration_s:.6g} s at {rate:.6g} "
            f"frames per second, which {size} bytes cannot hold. Write or download it again."
        )


def packets(container: "av.container.InputContainer", damage: Counter) -> Iterator["av.Packet"]:
    """The packets of all streams that hold something. An error of the container ends them and is added to `damage`."""
    try:
        yield from (packet for packet in container.demux() if packet.size)
    except av.FFmpegError as error:
        damage[f"it cannot be read to its end ({error.strerror})"] += 1


class Inspector:
    """Collects what the packets of a video say while they are read."""

    def __init__(self, container: "av.container.InputContainer", stream: "av.VideoStream"):
        self.stream = stream
        self.declared_s = (container.duration or 0) / av.time_base
        self.end_s = 0.0
        self.times_s: list[float] = []  # of shown and hidden frames
        self.found = Inspection(
            fps=float(stream.average_rate) if stream.average_rate else None,
            kind=(container.format.name, stream.codec_context.name),
            transparent=("alpha_mode", "1") in ((key.lower(), value) for key, value in stream.metadata.items()),
        )

    def add(self, packet: "av.Packet") -> None:
        """Take note of a packet of any stream."""
        found = self.found
        if packet.is_corrupt:
            found.damage["a packet is incomplete"] += 1
        has_time = packet.pts is not None and packet.time_base is not None
        if has_time:
            self.end_s = max(self.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == self.stream.index:
            found.hidden += packet.is_discard
            found.shown += not packet.is_discard
            if has_time:
                self.times_s.append(float(packet.pts * packet.time_base))
                if not packet.is_discard:
                    found.times_s.append(self.times_s[-1])

    def close(self) -> Inspection:
        """What was found, after the last packet."""
        found = self.found
        there = found.shown + found.hidden
        if there < self.stream.frames:
            found.damage[f"{there} of {self.stream.frames} frames are there"] += 1
        steps_s = np.diff(sorted(self.times_s)) if len(self.times_s) > 1 else np.zeros(1)
        found.steady = bool(np.ptp(steps_s) <= 0.0021)  # Matroska counts in milliseconds
        # The last frame may come without a duration, and then lasts as long as the longest of the others.
        tolerance_s = MIN_TOLERANCE_S + steps_s.max()
        is_declared = found.kind[0] not in ESTIMATED_DURATION and self.times_s
        if is_declared and self.end_s + tolerance_s < self.declared_s:
            found.damage[f"it ends after {self.end_s:.2f} of {self.declared_s:.2f} s"] += 1
        return found


def inspect_video(source: bytes | Path, name: str) -> Inspection:
    """Read all packets of a video without decoding them.

    Raises:
        VideoReadError, av.FFmpegError: as in `opened_video`.
    """
    with opened_video(source, name) as (container, stream):
        inspector = Inspector(container, stream)
        for packet in packets(container, inspector.found.damage):
            check_time(name)
            inspector.add(packet)
        return inspector.close()
