"""The rows to score: of a manifest, or of the clips and folders that are named on a command line."""

import hashlib
import json
import os
from pathlib import Path

from ..common.manifests import clip_of, read_manifest
from ..names_aigcvqa import IMAGE_SUFFIXES, RESULTS, SCALE, UNCERTAINTY, VIDEO_SUFFIXES


def rows_of_manifest(manifest: Path) -> tuple[list[str], list[dict]]:
    """The clip to open and the row of each video of a manifest.

    The manifest may be the output of an earlier run: its results are left out, so that they never stand beside new
    ones.
    """
    old = (*RESULTS, *UNCERTAINTY, *SCALE)
    rows = [{name: value for name, value in row.items() if name not in old} for row in read_manifest(manifest)]
    return [clip_of(row, manifest) for row in rows], rows


def rows_of_videos(videos: list[str], prompt: str | None) -> tuple[list[str], list[dict]]:
    """The clip to open and the row of each video; a folder of clips stands for the clips in it."""
    clips = [clip for video in videos for clip in clips_of(video)]
    return clips, [{"file": clip} | ({} if prompt is None else {"prompt": prompt}) for clip in clips]


def digest_of_rows(clips: list[str], rows: list[dict]) -> str:
    """SHA-256 of the clips' names and the rows, in their order."""
    digest = hashlib.sha256()
    for clip, row in zip(clips, rows):
        digest.update(json.dumps([clip, row]).encode() + b"\n")
    return digest.hexdigest()


def clips_of(video: str) -> list[str]:
    """The clips that a name on the command line stands for.

    A folder of images is one clip. Any other folder stands for the videos and the folders of images in it and in its
    subfolders, in the order of their names. Hidden files are left out.

    Raises:
        ValueError: if a folder holds both images and videos, or neither; names the folder.
    """
    if not os.path.isdir(video):
        return [video]
    found: list[str] = []
    for folder, names, files in os.walk(video):
        names[:] = sorted(name for name in names if name[0] != ".")
        files = sorted(name for name in files if name[0] != ".")
        videos = [name for name in files if name.lower().endswith(VIDEO_SUFFIXES)]
        images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
        if videos and images:
            raise ValueError(
                f"the folder '{folder}' holds videos ('{videos[0]}', ...) and images ('{images[0]}', ...); name the "
                "videos, or move the images to a folder of their own."
            )
        found += [folder] if images else [os.path.join(folder, name) for name in videos]
    if not found:
        raise ValueError(f"the folder '{video}' holds neither videos nor images.")
    return found


class Items:
    """Clips and prompts as the pipeline takes them. Unlike a list, they are scored lazily."""

    def __init__(self, clips: list[str], rows: list[dict]):
        self.clips, self.rows = clips, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return {"video": self.clips[index], "prompt": self.rows[index].get("prompt")}
