"""What the packets and the headers of a video file say about it, without decoding: number of frames, rate, damage."""

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .clip_aigcvqa import VideoReadError, opened_file

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
MAX_PIXELS = 16384 * 8192  # per frame; a decoder is not opened for more
MIN_TOLERANCE_S = 0.05  # of the duration in a header, beside the longest time between two frames
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"pnot", b"uuid")
EBML_HEADER, EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


@dataclass
class Inspection:
    """What the packets and the headers of a video say.

    Attributes:
        shown: number of frames that a player shows.
        hidden: number of frames that only serve to decode others, such as those before the start of an edit list.
        fps: mean frame rate in frames per second, or None if it is not known.
        steady: whether all frames have the same distance in time.
        transparent: whether the frames have an alpha channel.
        kind: names of the container and of the codec.
        damage: what was found, with the number of times.
    """

    shown: int = 0
    hidden: int = 0
    fps: float | None = None
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
    options = {"format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS)}
    # A file object, because FFmpeg takes names such as "a:b.mp4" for protocols and needs names in UTF-8.
    with opened_file(source) as file, av.open(file, metadata_errors="replace", options=options) as container:
        stream = _film(container)
        if stream is None:
            raise VideoReadError(f"{name} cannot be decoded as a video: it has no video stream. Pass another file.")
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
    if stream.frames > size or duration_s * rate > size:
        raise VideoReadError(
            f"{name} is damaged: its header declares {stream.frames} frames and {duration_s:.6g} s at {rate:.6g} "
            f"frames per second, which {size} bytes cannot hold. Write or download it again."
        )


def packets(
    container: "av.container.InputContainer", stream: "av.VideoStream | None", damage: Counter
) -> Iterator["av.Packet"]:
    """The packets of one stream, or of all. An error of the container ends them and is added to `damage`."""
    try:
        yield from container.demux(*([] if stream is None else [stream]))
    except av.FFmpegError as error:
        damage[f"it cannot be read to its end ({error.strerror})"] += 1


def inspect_video(source: bytes | Path, name: str) -> Inspection:
    """Read all packets of a video.

    Raises:
        VideoReadError, av.FFmpegError: as in `opened_video`.
    """
    found, times_s, end_s = Inspection(), [], 0.0
    with opened_video(source, name) as (container, stream):
        found.fps = float(stream.average_rate) if stream.average_rate else None
        found.kind = (container.format.name, stream.codec_context.name)
        found.transparent = stream.metadata.get("alpha_mode") == "1"
        for packet in packets(container, None, found.damage):
            if packet.is_corrupt:
                found.damage["a packet is incomplete"] += 1
            is_video = packet.stream_index == stream.index
            if packet.pts is not None and packet.time_base is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if is_video:
                    times_s.append(float(packet.pts * packet.time_base))
            if is_video and packet.size:
                found.hidden += packet.is_discard
                found.shown += not packet.is_discard
        declared, declared_s = stream.frames, (container.duration or 0) / av.time_base
    there = found.shown + found.hidden
    if there < declared:
        found.damage[f"{there} of {declared} frames are there"] += 1
    steps_s = np.diff(sorted(times_s)) if len(times_s) > 1 else np.zeros(1)
    found.steady = bool(np.ptp(steps_s) <= 0.0021)  # Matroska counts in milliseconds
    # The last frame may come without a duration, and then lasts as long as the longest of the others.
    tolerance_s = MIN_TOLERANCE_S + steps_s.max()
    if found.kind[0] not in ESTIMATED_DURATION and times_s and end_s + tolerance_s < declared_s:
        found.damage[f"it ends after {end_s:.2f} of {declared_s:.2f} s"] += 1
    missing = missing_bytes(source)
    if missing:
        found.damage[f"its last {missing} bytes are missing"] += 1
    return found


def missing_bytes(source: bytes | Path) -> int:
    """Bytes that a file lacks at its end according to the sizes in its headers; 0 for a format that has none.

    The sizes are those of RIFF (AVI), of the segment of Matroska and WebM, of the boxes of mp4 and mov, of the file in
    ASF (WMV), and of the packets of an MPEG transport stream.
    """
    with opened_file(source) as file:
        head = file.read(4096)
        size = file.seek(0, io.SEEK_END)
        if head[:4] == b"RIFF":
            declared = int.from_bytes(head[4:8], "little")
            return max(0, declared + 8 - size) if declared != 0xFFFFFFFF else 0
        if head[:4] == EBML_HEADER:
            return max(0, _end_of_segment(head) - size)
        if head[4:8] in MP4_BOXES:
            return max(0, _end_of_boxes(file, size) - size)
        position = head.find(ASF_FILE_PROPERTIES)
        if head[:16] == ASF_HEADER and position >= 0:
            return max(0, int.from_bytes(head[position + 40 : position + 48], "little") - size)
        if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
            return -size % 188
    return 0


def _end_of_segment(head: bytes) -> int:
    """The end of the segment of a Matroska file; 0 if its size is not declared, as in a live stream."""
    position = 4 + sum(_ebml_integer(head, 4))
    if head[position : position + 4] != EBML_SEGMENT:
        return 0
    length, size = _ebml_integer(head, position + 4)
    return 0 if size == (1 << 7 * length) - 1 else position + 4 + length + size


def _ebml_integer(head: bytes, position: int) -> tuple[int, int]:
    """Length and value of the variable-size integer at `position`."""
    length = 9 - (head[position] if position < len(head) else 0).bit_length()
    return length, int.from_bytes(head[position : position + length], "big") & ((1 << 7 * length) - 1)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """The end of the last box of an mp4 file. It lies beyond `size` if the file is cut."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isalnum():  # 0: up to the end of the file; anything else is not a box
            return size
        position += length
    return position
