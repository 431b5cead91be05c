"""The Space refuses uploads beyond its limits before it decodes them."""

import csv
import dataclasses
import importlib.util
import zipfile

import pytest
from PIL import Image

from tests.conftest import REPOSITORY, moving_gradient, write_video

pytest.importorskip("gradio_client", reason="gradio is not installed: pip install gradio")


@pytest.fixture
def clips():
    """A fresh copy of the module space/clips.py. It is not in a package because a Space has its files side by side."""
    spec = importlib.util.spec_from_file_location("space_clips", REPOSITORY / "space" / "clips.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A clip of 16 frames, 2 s, 96 x 128."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", moving_gradient(16, 96, 128))


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    path = tmp_path_factory.mktemp("gif") / "clip.gif"
    images = [Image.fromarray(frame) for frame in moving_gradient(16, 96, 128)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=125)
    return path


@pytest.mark.parametrize("kind", ["video", "gif"])
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_bytes": 0}, "above the 0 allowed"),
        ({"max_seconds": 1.5}, "longer than the 1.5 s"),
        ({"max_frames": 15}, "more than the 15 frames"),
        ({"max_pixels": 96 * 128 - 1}, "of 128 x 96, above"),
    ],
)
def test_clips_beyond_a_limit(clips, request, monkeypatch, kind, limit, message):
    file = request.getfixturevalue(kind)
    assert clips.check_upload(str(file)) == file
    monkeypatch.setattr(clips, "CLIP_LIMITS", dataclasses.replace(clips.CLIP_LIMITS, **limit))
    with pytest.raises(ValueError, match=message):
        clips.check_upload(str(file))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.mp4", b"no video" * 99), ("a.gif", b"GIF89a" + b"\xff" * 99), ("a.png", b"\x89PNG\r\n\x1a\n"), ("a.mp4", b"")],
)
def test_files_that_are_not_videos(clips, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        clips.check_upload(str(tmp_path / name))


def test_prompts(clips):
    assert clips.check_prompt("  a dog ") == "a dog"
    with pytest.raises(ValueError, match="Write the prompt"):
        clips.check_prompt(None)
    with pytest.raises(ValueError, match="limit is 1000"):
        clips.check_prompt("a" * 1001)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([("file",), ("a.mp4",)], "it needs file and prompt"),
        ([("file", "prompt")], "no rows"),
        ([("file", "prompt"), ("a.mp4", "one", "two")], "more values than columns"),
        ([("file", "prompt"), *[("a.mp4", "one")] * 31], "more than 30 rows"),
    ],
)
def test_tables(clips, tmp_path, rows, message):
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(ValueError, match=message):
        clips.read_table(str(tmp_path / "t.csv"))


def test_files_that_are_not_tables(clips, video):
    with pytest.raises(ValueError, match="not a CSV"):
        clips.read_table(str(video))
    with pytest.raises(ValueError, match="Choose a CSV"):
        clips.read_table(None)


def test_archives(clips, video, tmp_path, monkeypatch):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(video, "../../outside.mp4")
        archive.writestr("notes.txt", "no clip")
    assert clips.gather_clips([str(tmp_path / "a.zip")], folder) == {"outside.mp4": folder / "outside.mp4"}
    assert not (tmp_path.parent / "outside.mp4").exists()

    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.mp4", bytes(2**20))
    monkeypatch.setattr(clips, "MAX_ROWS", 2)
    monkeypatch.setattr(clips, "CLIP_LIMITS", dataclasses.replace(clips.CLIP_LIMITS, max_bytes=2**20))
    with pytest.raises(ValueError, match=r"bomb\.zip' is too large"):
        clips.gather_clips([str(tmp_path / "bomb.zip")], folder)
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"broken\.zip' cannot be unpacked"):
        clips.gather_clips([str(tmp_path / "broken.zip")], folder)
    with pytest.raises(ValueError, match="Upload the clips"):
        clips.gather_clips(None, folder)
