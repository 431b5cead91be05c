"""What a public endpoint accepts: limits on clips, prompts and tables, checked before anything is decoded."""

import csv
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
from gradio_client.utils import strip_invalid_filename_characters
from PIL import Image, UnidentifiedImageError

CLIP_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".mkv", ".avi", ".webp")


@dataclass(frozen=True)
class Limits:
    """Largest values: a file in MiB, a clip in seconds, frames and pixels a frame, a prompt in characters, rows."""

    megabytes: int = 50
    seconds: float = 60.0
    frames: int = 1800
    pixels: int = 1920 * 1088
    prompt: int = 1000
    rows: int = 30


LIMITS = Limits()


def check_prompt(prompt: str | None) -> str:
    """The prompt without surrounding space; refuses an empty and an endless one."""
    prompt = (prompt or "").strip()
    if not prompt:
        raise ValueError("Write the prompt that the video was generated from.")
    if len(prompt) > LIMITS.prompt:
        raise ValueError(f"The prompt has {len(prompt)} characters; the limit is {LIMITS.prompt}.")
    return prompt


def check_clip(file: str | None) -> Path:
    """The path of an uploaded clip that is within the limits, judged by its header.

    Raises:
        ValueError: naming the file and the limit, or that it is no video.
    """
    if not file:
        raise ValueError("Choose a video first.")
    path = Path(file)
    megabytes = path.stat().st_size / 2**20
    if megabytes > LIMITS.megabytes:
        raise ValueError(f"'{path.name}' has {megabytes:.0f} MB; the limit is {LIMITS.megabytes} MB.")
    width, height, frames, seconds = _read_header(path)
    if not width or not height:
        raise ValueError(f"'{path.name}' is damaged: it does not say how large its frames are.")
    if width * height > LIMITS.pixels:
        raise ValueError(f"'{path.name}' is {width} x {height}; the limit is 1920 x 1088. Make it smaller.")
    if seconds > LIMITS.seconds:
        raise ValueError(f"'{path.name}' is {seconds:.0f} s long; the limit is {LIMITS.seconds:.0f} s. Cut it.")
    if frames > LIMITS.frames:
        raise ValueError(f"'{path.name}' has {frames} frames; the limit is {LIMITS.frames}. Cut it.")
    return path


def _read_header(path: Path) -> tuple[int, int, int, float]:
    """Width, height, number of frames and seconds, as the file declares them; 0 where it does not."""
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            return *image.size, frames, frames * image.info.get("duration", 0) / 1000
    except UnidentifiedImageError:
        pass
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"'{path.name}' cannot be read as an animated image ({error}).") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"'{path.name}' has no video stream.")
            stream = container.streams.video[0]
            seconds = (container.duration or 0) / av.time_base
            return stream.width, stream.height, stream.frames, seconds
    except av.FFmpegError as error:
        raise ValueError(
            f"'{path.name}' is damaged or no video ({error.strerror}). Upload an mp4, a GIF or another common video."
        ) from error


def read_table(file: str | None) -> list[dict[str, str]]:
    """Rows of an uploaded CSV with the columns `file` and `prompt`; other columns are kept.

    Raises:
        ValueError: for a file that is no such table, or has no rows or too many.
    """
    if not file:
        raise ValueError("Choose a CSV with the columns file and prompt.")
    name = Path(file).name
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns, rows = reader.fieldnames or [], []
            for row in reader:
                rows.append(row)
                if len(rows) > LIMITS.rows:
                    raise ValueError(f"'{name}' has more than {LIMITS.rows} rows, the limit here; split it.")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"'{name}' is no CSV in UTF-8 ({error}).") from error
    if not {"file", "prompt"} <= set(columns):
        raise ValueError(f"'{name}' has the columns {', '.join(columns) or 'none'}; it needs file and prompt.")
    if not rows:
        raise ValueError(f"'{name}' has no rows.")
    if any(None in row for row in rows):
        raise ValueError(f"'{name}': a row has more values than columns; quote prompts that hold commas.")
    return rows


def gather_clips(files: Iterable[str] | None, folder: Path) -> dict[str, Path]:
    """Uploaded clips by name; zip archives are unpacked into `folder`, without the folders inside them.

    Raises:
        ValueError: for no files, a broken archive, or one that holds too much.
    """
    clips: dict[str, Path] = {}
    for file in map(Path, files or ()):
        if file.suffix.lower() == ".zip":
            clips |= _unpack(file, folder)
        else:
            clips[file.name] = file
    if not clips:
        raise ValueError("Upload the clips that the table names, or a zip of them.")
    return clips


def _unpack(archive: Path, folder: Path) -> dict[str, Path]:
    clips, left = {}, LIMITS.megabytes * LIMITS.rows * 2**20
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if member.filename.lower().endswith(CLIP_SUFFIXES)]
            for member in members[: 2 * LIMITS.rows]:
                target = folder / clip_name(member.filename)
                with opened.open(member) as source:
                    content = source.read(LIMITS.megabytes * 2**20 + 1)  # what is declared may be a lie
                left -= len(content)
                if left < 0:
                    raise ValueError(f"'{archive.name}' holds more than this page takes; upload fewer clips.")
                target.write_bytes(content)
                clips[target.name] = target
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # RuntimeError: a password
        raise ValueError(f"'{archive.name}' cannot be unpacked ({error}).") from error
    return clips


def clip_name(file: str) -> str:
    """The name under which an upload of `file` arrives: no folders, and the characters that Gradio keeps."""
    return strip_invalid_filename_characters(os.path.basename(file.replace("\\", "/")))
