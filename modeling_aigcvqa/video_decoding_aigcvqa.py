"""Decode the chosen frames of a video file: those that a player shows, in presentation order."""

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .frames_aigcvqa import (
    ChooseFrames,
    ClipMetadata,
    FrameStore,
    VideoReadError,
    check_frame,
    check_time,
    clip_metadata,
    max_frame_pixels,
    on_background,
    opened_file,
)
from .video_integrity_aigcvqa import Inspection, Inspector, inspect_video, opened_video, packets
from .video_structure_aigcvqa import structural_damage

try:
    import av
except ImportError:
    av = None
try:
    import decord
except ImportError:
    decord = None
if TYPE_CHECKING:
    from av.video.reformatter import VideoReformatter

DECODERS = ("pyav", "decord")
MAX_ROUNDS = 4
# decord seeks by an index of its own. It was right in every read of these, at a steady rate and without hidden frames.
DECORD_CONTAINERS = {"mov", "matroska"}
DECORD_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d"}
# Every packet of these gives a frame. Others have packets for frames that are not shown, or for two fields.
ONE_FRAME_PER_PACKET = {
    "h264",
    "hevc",
    "vp9",
    "av1",
    "libdav1d",
    "mjpeg",
    "prores",
    "ffv1",
    "png",
    "qtrle",
    "mpeg2video",
}
# Decoders that know the alpha channel of WebM.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decode_video(
    source: bytes | Path, name: str, choose_frames: ChooseFrames, on_damage: str = "raise", decoder: str = "pyav"
) -> tuple[Tensor, ClipMetadata]:
    """Decode the chosen frames of a video.

    Args:
        source: path of a file, or its content.
        name: the name of the video in messages.
        choose_frames: gives the indices (T,) for the number of frames of the clip.
        on_damage: "raise", or "warn" to take the frames that are there and to say so in the metadata.
        decoder: "pyav", or "decord" for files that it is known to read rightly; PyAV reads the others.

    Returns:
        Frames (T, H, W, 3) of uint8, and their metadata.

    Raises:
        VideoReadError: if the video has no frames, has frames of different sizes, or is damaged; names it.
        ImportError: if PyAV is missing.
    """
    if av is None:
        raise ImportError("reading videos needs PyAV: pip install av")
    damage = Counter(filter(None, [structural_damage(source)]))
    if damage and on_damage == "raise":
        raise _damaged(name, damage)
    try:
        if decoder == "decord" and not damage:
            decoded = _decode_with_decord(source, name, choose_frames)
            if decoded is not None:
                return decoded
        return _decode_with_pyav(source, name, choose_frames, damage, on_damage)
    except av.FFmpegError as error:
        raise VideoReadError(
            f"{name} cannot be decoded as a video ({error.strerror}); it may be truncated, damaged, without a video "
            "stream or not a video at all. Write or download it again, or convert it to H.264 mp4."
        ) from error


def _damaged(name: str, damage: Counter) -> VideoReadError:
    return VideoReadError(
        f"{name} is damaged: {_describe(damage)}. Write or download it again, or pass on_damage='warn' to score the "
        "frames that are there."
    )


def _describe(damage: Counter) -> str:
    return "; ".join(f"{what} ({count} times)" if count > 1 else what for what, count in damage.items())


def _decode_with_pyav(
    source: bytes | Path, name: str, choose_frames: ChooseFrames, damage: Counter, on_damage: str
) -> tuple[Tensor, ClipMetadata]:
    """Decode all frames in order, because the indexes of many files are wrong, and convert the chosen ones."""
    # What threads do with broken frames depends on their timing, so damaged files are decoded without them.
    total, threads = None, "NONE" if damage else "AUTO"
    for _ in range(MAX_ROUNDS):
        decoding = _decode_all(source, name, choose_frames, total, threads)
        if decoding.damage and on_damage == "raise":
            raise _damaged(name, decoding.damage)
        if decoding.is_settled and (threads == "NONE" or not decoding.damage):
            break
        threads, total = "NONE" if decoding.damage else threads, decoding.decoded
    damage = damage + decoding.damage
    if not decoding.is_settled or not decoding.decoded:
        raise VideoReadError(
            f"{name} has no frames that can be decoded{f' ({_describe(damage)})' if damage else ''}; write or download "
            "it again."
        )
    store, frames = decoding.store, decoding.store.tensor()
    metadata = clip_metadata(decoding.decoded, store.indices, decoding.fps, frames, "pyav", _describe(damage) or None)
    return frames, metadata


@dataclass
class Decoding:
    """What decoding a video gave.

    Attributes:
        store: the frames that were chosen for a clip of `total` frames.
        total: number of frames that was expected.
        decoded: number of frames that there are.
        fps: mean frame rate in frames per second, or None.
        damage: what was found, with the number of times.
    """

    store: FrameStore
    total: int
    decoded: int
    fps: float | None
    damage: Counter

    @property
    def is_settled(self) -> bool:
        return self.decoded == self.total


def _decode_all(
    source: bytes | Path, name: str, choose_frames: ChooseFrames, total: int | None, threads: str
) -> Decoding:
    """Decode all frames and keep the chosen ones.

    Args:
        total: number of frames to expect; None for the number in the header or, if it has none, that of the packets.
        threads: "AUTO" or "NONE".
    """
    with opened_video(source, name) as (container, stream):
        if total is None:
            total = stream.frames or inspect_video(source, name).shown
        store = FrameStore(choose_frames(total) if total else [], name)
        inspector = Inspector(container, stream)
        damage = inspector.found.damage
        context = stream.codec_context
        if inspector.found.transparent and context.name in ALPHA_DECODERS:
            context = av.CodecContext.create(ALPHA_DECODERS[context.name], "r")
        context.thread_type = threads
        context.options = {"max_pixels": str(max_frame_pixels())}  # larger frames are not even allocated
        reformatter = av.video.reformatter.VideoReformatter()
        decoded, first_s, interlaced = 0, None, False
        for packet in chain(packets(container, damage), [None]):  # None: the frames that the decoder still holds
            check_time(name)
            if packet is not None:
                inspector.add(packet)
                if packet.stream_index != stream.index:
                    continue
            try:
                frames = context.decode(packet)
            except av.FFmpegError as error:
                damage[f"a frame cannot be decoded ({error.strerror})"] += 1
                continue
            for frame in frames:
                check_frame(name, frame.width, frame.height)
                if frame.is_corrupt:
                    damage["a frame is broken"] += 1
                if first_s is None and frame.pts is not None and frame.time_base:
                    first_s = float(frame.pts * frame.time_base)
                interlaced |= frame.interlaced_frame
                if decoded in store:
                    store.add(decoded, _pixels(frame, reformatter))
                decoded += 1
        inspection = inspector.close()
    if inspection.kind[1] in ONE_FRAME_PER_PACKET and not interlaced:
        # Frames before the first one may refer to frames that the file never had, as in a cut of a broadcast.
        expected = sum(time_s >= (first_s or 0) for time_s in inspection.times_s)
        if decoded < expected:
            damage[f"{expected - decoded} of {expected} frames cannot be decoded"] += 1
    return Decoding(store, total, decoded, inspection.fps, damage)


def _pixels(frame: "av.VideoFrame", reformatter: "VideoReformatter") -> np.ndarray:
    """(H, W, 3), turned as a player turns it."""
    transparent = any(component.is_alpha for component in frame.format.components)
    channels = 4 if transparent else 3
    plane = reformatter.reformat(frame, format="rgba" if transparent else "rgb24").planes[0]
    pixels = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    pixels = pixels[:, : plane.width * channels].reshape(plane.height, plane.width, channels)
    if transparent:
        pixels = on_background(torch.from_numpy(pixels.copy())).numpy()
    return np.rot90(pixels, k=frame.rotation // 90) if frame.rotation else pixels


def decord_reads(inspection: Inspection) -> bool:
    """Whether decord gives the frames of this video rightly: the kinds of files for which it was measured."""
    container, codec = inspection.kind
    return (
        decord is not None
        and container.split(",")[0] in DECORD_CONTAINERS
        and codec in DECORD_CODECS
        and inspection.steady
        and not inspection.hidden
        and not inspection.transparent
        and not inspection.damage
    )


def _decode_with_decord(
    source: bytes | Path, name: str, choose_frames: ChooseFrames
) -> tuple[Tensor, ClipMetadata] | None:
    """The chosen frames; None for a video that decord may read wrongly or cannot read."""
    inspection = inspect_video(source, name)
    if not decord_reads(inspection):
        return None
    try:
        with opened_file(source) as file:
            reader = decord.VideoReader(file)
            total = len(reader)
            if total != inspection.shown:
                return None
            indices = [int(index) for index in choose_frames(total)]
            wanted, order = np.unique(indices, return_inverse=True)
            batch = reader.get_batch(wanted.tolist())  # it fails on widths of 16, 24, 32, 48, 96, 144
            # A tensor already if the caller has set decord's torch bridge; otherwise its memory is reused, not copied.
            frames = torch.from_dlpack(batch.to_dlpack() if hasattr(batch, "to_dlpack") else batch)
    except (RuntimeError, decord.DECORDError):
        return None
    if list(wanted) != indices:
        frames = frames[torch.from_numpy(order)]
    return frames, clip_metadata(total, indices, reader.get_avg_fps(), frames, "decord")
