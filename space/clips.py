"""The limits of the Space on clips, prompts and tables, which are checked before a clip is decoded."""

import base64
import html
import io
import os
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from gradio_client.utils import strip_invalid_filename_characters
from PIL import Image

from modeling_aigcvqa.common.manifests import read_manifest
from modeling_aigcvqa.frames_aigcvqa import ReadLimits, reading_within
from modeling_aigcvqa.limits_aigcvqa import ClipLimits, check_clip
from modeling_aigcvqa.video_reading_aigcvqa import read_video

SHOWN_AS_VIDEO, SHOWN_AS_IMAGE = (".mp4", ".webm", ".mov"), (".gif", ".webp")  # by browsers
THUMBNAIL = (320, 240)  # pixels
CLIP_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".mkv", ".avi", ".webp")
CLIP_LIMITS = ClipLimits(max_bytes=50 * 2**20, max_pixels=1920 * 1088, max_frames=1800, max_seconds=60)
READ_SECONDS = 60  # for all reading of a clip: its scores, its windows and its report
MAX_CHARACTERS = 1000  # of a prompt
MAX_ROWS = 30  # of a table


def check_prompt(prompt: str | None) -> str:
    """The prompt without surrounding blanks. An empty or too long prompt is a ValueError."""
    prompt = (prompt or "").strip()
    if not prompt:
        raise ValueError("Write the prompt that the video was generated from.")
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(f"The prompt has {len(prompt)} characters; the limit is {MAX_CHARACTERS}.")
    return prompt


def check_upload(file: str | None) -> Path:
    """The path of an uploaded clip.

    Raises:
        ValueError: if the file is missing, is not a video, or exceeds a limit.
    """
    if not file:
        raise ValueError("Choose a video first.")
    check_clip(Path(file), CLIP_LIMITS)
    return Path(file)


def preview_html(file: str | None) -> str:
    """An uploaded clip as a browser plays it; a frame of it if no browser does; or why it cannot be read."""
    if not file:
        return ""
    path = Path(file)
    try:
        check_upload(file)
        address, suffix = f"/gradio_api/file={quote(file)}", path.suffix.lower()
        if suffix in SHOWN_AS_VIDEO:
            shown = f'<video controls muted loop playsinline preload="metadata" src="{address}"></video>'
        elif suffix in SHOWN_AS_IMAGE:
            shown = f'<img alt="the video" src="{address}">'
        else:
            content = io.BytesIO()
            thumbnail(path).save(content, "JPEG")
            picture = base64.b64encode(content.getvalue()).decode()
            shown = f'<img alt="a frame of the video" src="data:image/jpeg;base64,{picture}">'
    except (ValueError, TypeError, OSError) as error:
        return f'<p class="refused" role="alert">{html.escape(str(error).replace(str(path.parent) + "/", ""))}</p>'
    return f'<div class="aigcvqa-preview">{shown}<p>{html.escape(path.name)}</p></div>'


def thumbnail(path: Path) -> Image.Image:
    """The frame in the middle of a clip, small."""
    with reading_a_clip():
        frames, _ = read_video(str(path), lambda total: [total // 2])
    image = Image.fromarray(frames[0].numpy())
    image.thumbnail(THUMBNAIL)
    return image


@contextmanager
def reading_a_clip() -> Iterator[None]:
    """Within the block, reading ends with a ValueError after READ_SECONDS or at a frame above the limit."""
    with reading_within(ReadLimits(time.monotonic() + READ_SECONDS, CLIP_LIMITS.max_pixels)):
        yield


def read_table(file: str | None) -> list[dict[str, str]]:
    """The rows of an uploaded CSV with the columns `file` and `prompt`; other columns are kept.

    Raises:
        ValueError: if the file is not such a table, or has no rows or too many rows.
    """
    if not file:
        raise ValueError("Choose a CSV with the columns file and prompt.")
    path = Path(file)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"'{path.name}' is not a CSV; choose a CSV with the columns file and prompt.")
    try:
        rows = read_manifest(path)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error
    if len(rows) > MAX_ROWS:
        raise ValueError(f"'{path.name}' has more than {MAX_ROWS} rows, which is the limit; split the table.")
    for row in rows:
        if not isinstance(row.get("prompt"), str):
            raise ValueError(f"'{path.name}' has the columns {', '.join(row)}; it needs file and prompt, both text.")
    return rows


def gather_clips(files: Iterable[str] | None, folder: Path) -> dict[str, Path]:
    """The uploaded clips by name. Zip archives are unpacked into `folder`, without the folders inside them.

    Raises:
        ValueError: if there are no files, or if an archive is broken or too large.
    """
    clips: dict[str, Path] = {}
    for file in map(Path, files or ()):
        if file.suffix.lower() == ".zip":
            clips |= _unpack(file, folder)
        else:
            clips[file.name] = file
    if not clips:
        raise ValueError("Upload the clips that the table names, as files or in a zip.")
    return clips


def _unpack(archive: Path, folder: Path) -> dict[str, Path]:
    clips, left = {}, CLIP_LIMITS.max_bytes * MAX_ROWS
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if member.filename.lower().endswith(CLIP_SUFFIXES)]
            for member in members[: 2 * MAX_ROWS]:
                target = folder / clip_name(member.filename)
                with opened.open(member) as source:
                    content = source.read(CLIP_LIMITS.max_bytes + 1)  # the declared size may be wrong
                left -= len(content)
                if left < 0:
                    raise ValueError(f"'{archive.name}' is too large when unpacked; upload fewer clips.")
                target.write_bytes(content)
                clips[target.name] = target
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # RuntimeError: needs a password
        raise ValueError(f"'{archive.name}' cannot be unpacked ({error}).") from error
    return clips


def clip_name(file: str) -> str:
    """The name of `file` after its upload: without folders, and with only the characters that Gradio keeps."""
    return strip_invalid_filename_characters(os.path.basename(file.replace("\\", "/")))
