"""What a public endpoint accepts: limits on clips, prompts and tables, checked before anything is decoded."""

import csv
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gradio_client.utils import strip_invalid_filename_characters

from modeling_aigcvqa.limits_aigcvqa import ClipLimits, check_clip

CLIP_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".mkv", ".avi", ".webp")


@dataclass(frozen=True)
class PageLimits:
    """Largest values beside those of a clip: a prompt in characters, a table in rows."""

    prompt: int = 1000
    rows: int = 30


LIMITS = PageLimits()
CLIP_LIMITS = ClipLimits(max_bytes=50 * 2**20, max_pixels=1920 * 1088, max_frames=1800, max_seconds=60)


def check_prompt(prompt: str | None) -> str:
    """The prompt without surrounding space; refuses an empty and an endless one."""
    prompt = (prompt or "").strip()
    if not prompt:
        raise ValueError("Write the prompt that the video was generated from.")
    if len(prompt) > LIMITS.prompt:
        raise ValueError(f"The prompt has {len(prompt)} characters; the limit is {LIMITS.prompt}.")
    return prompt


def check_upload(file: str | None) -> Path:
    """The path of an uploaded clip that is within the limits.

    Raises:
        ValueError: naming the file and the limit, or that it is no video.
    """
    if not file:
        raise ValueError("Choose a video first.")
    check_clip(Path(file), CLIP_LIMITS)
    return Path(file)


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
    clips, left = {}, CLIP_LIMITS.max_bytes * LIMITS.rows
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if member.filename.lower().endswith(CLIP_SUFFIXES)]
            for member in members[: 2 * LIMITS.rows]:
                target = folder / clip_name(member.filename)
                with opened.open(member) as source:
                    content = source.read(CLIP_LIMITS.max_bytes + 1)  # what is declared may be a lie
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
