"""Clips whose frames carry their number as a barcode, in the containers, codecs and forms that users have them in."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

HEIGHT, WIDTH, FRAMES, FPS = 120, 160, 24, 24
BITS = 6
JITTER_MS = (13, 91, 22, 70, 35, 48, 86, 17, 60, 29)  # a variable frame rate, the same on every run


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width, 3) uint8: a background that drifts, and `BITS` bars, white for 1."""
    y, x = np.mgrid[:height, :width]
    background = [60 + x * 80 // width, 60 + y * 80 // height, 90 + 30 * np.sin(x / 9 + number / 5)]
    frame = np.stack(np.broadcast_arrays(*background), -1).astype(np.uint8)
    for bit in range(BITS):
        left, right = (int(width * (bit + edge) / BITS) for edge in (0.1, 0.9))
        frame[height // 3 : 2 * height // 3, left:right] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number in a frame (H, W, 3)."""
    height, width = frame.shape[:2]
    return sum(int(frame[height // 2, int(width * (bit + 0.5) / BITS)].mean() > 128) << bit for bit in range(BITS))


def write_barcodes(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict | None = None,
    container_options: dict | None = None,
    variable_rate: bool = False,
    metadata: dict | None = None,
    sound: str | None = None,
) -> Path:
    """Encode `FRAMES` pictures."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width, stream.pix_fmt, stream.options = HEIGHT, WIDTH, pix_fmt, options or {}
        stream.metadata.update(metadata or {})
        unit = Fraction(1, 1000) if variable_rate else Fraction(1, FPS)
        stream.codec_context.time_base = unit
        audio = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        times = np.cumsum([0, *np.resize(JITTER_MS, FRAMES - 1)]) if variable_rate else range(FRAMES)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = int(time), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48000
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path


def cut_without_encoding(source: Path, target: Path, start: int) -> Path:
    """Remux from frame `start` on, as `ffmpeg -ss TIME -c copy` does: an edit list hides the frames before it."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.size:
                offset = int(Fraction(start, FPS) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
                new.mux(packet)
    return target


def write_cut(path: Path) -> Path:
    whole = write_barcodes(path.with_name("whole.mp4"), options={"bf": "3", "g": "100"})
    return cut_without_encoding(whole, path, start=8)


B_FRAMES = {"bf": "3", "g": "12"}
X265 = {"x265-params": "log-level=none:keyint=12"}


def write(codec: str = "libx264", pix_fmt: str = "yuv420p", **options) -> Callable[[Path], Path]:
    return partial(write_barcodes, codec=codec, pix_fmt=pix_fmt, **options)


# name of the file -> function of its path. Every file is whole; its frames are 0, 1, 2, ... unless `SHOWN` says others.
KINDS: dict[str, Callable[[Path], Path]] = {
    "h264.mp4": write(options=B_FRAMES),
    "h264_index_first.mp4": write(options=B_FRAMES, container_options={"movflags": "faststart"}),
    "h264_fragments.mp4": write(options=B_FRAMES, container_options={"movflags": "frag_keyframe+empty_moov"}),
    "h264_sound.mp4": write(options=B_FRAMES, sound="aac"),
    "h264_open_gop.mp4": write(options={"x264-params": "open-gop=1:bframes=8:keyint=12"}),
    "h264_10_bit.mp4": write(pix_fmt="yuv420p10le"),
    "h264_variable.mp4": write(options=B_FRAMES, variable_rate=True),
    "h264_cut.mp4": write_cut,
    "h264_cut.mov": write_cut,
    "h264_variable.mkv": write(options=B_FRAMES, variable_rate=True),
    "h264.avi": write(options=B_FRAMES),
    "h264.ts": write(options=B_FRAMES),
    "h264.flv": write(options=B_FRAMES),
    "hevc.mp4": write("libx265", options=X265),
    "hevc.mkv": write("libx265", options=X265),
    "vp8_variable.webm": write("libvpx", variable_rate=True),
    "vp9_variable.webm": write("libvpx-vp9", variable_rate=True),
    "vp9_live.webm": write("libvpx-vp9", container_options={"live": "1"}),
    "vp9.mp4": write("libvpx-vp9"),
    "vp8.ogg": write("libvpx"),
    "av1.webm": write("libsvtav1"),
    "mpeg4_b_frames.mp4": write("mpeg4", options={"bf": "2"}),
    "mpeg4_b_frames.avi": write("mpeg4", options={"bf": "2"}),
    "mpeg1.mpg": write("mpeg1video", options={"bf": "2"}),
    "mpeg2.mpg": write("mpeg2video", options={"bf": "2"}),
    "mpeg2.ts": write("mpeg2video", options={"bf": "2"}),
    "wmv2.wmv": write("wmv2"),
    "mjpeg.avi": write("mjpeg", "yuvj420p"),
    "prores.mov": write("prores_ks", "yuv422p10le"),
    "ffv1.mkv": write("ffv1"),
    "flv1.flv": write("flv"),
}
SHOWN = dict.fromkeys(("h264_cut.mp4", "h264_cut.mov"), range(8, FRAMES))


def write_images(path: Path, **options) -> Path:
    """The pictures as an animated image."""
    first, *others = (Image.fromarray(picture(number)) for number in range(FRAMES))
    first.save(path, save_all=True, append_images=others, duration=1000 // FPS, **options)
    return path


IMAGE_KINDS: dict[str, Callable[[Path], Path]] = {
    "clip.gif": write_images,
    "clip.webp": partial(write_images, quality=80),
    "clip.png": write_images,
    "clip.avif": write_images,
}
