"""The frames of every kind of file are those that a player shows, and a damaged file is never taken for a whole one."""

import json
import os
import struct

import av
import numpy as np
import pytest
import torch

from modeling_aigcvqa import VideoReadError
from modeling_aigcvqa.video_reading_aigcvqa import read_video
from tests.barcodes import FRAMES, KINDS, SHOWN, number_of
from tests.conftest import SHARED, write_video

ODD = SHARED / "odd_videos"


def read(video, choose_frames=range, **options):
    frames, metadata = read_video(video, choose_frames, **options)
    return frames.numpy(), metadata


@pytest.fixture(scope="module")
def clip_of(tmp_path_factory):
    """A function that gives the file of a kind; each is encoded once."""
    folder, made = tmp_path_factory.mktemp("kinds"), {}

    def get(kind):
        if kind not in made:
            made[kind] = KINDS[kind](folder / kind)
        return made[kind]

    return get


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_that_a_player_shows(clip_of, kind, decoder):
    frames, metadata = read(clip_of(kind), decoder=decoder)
    expected = list(SHOWN.get(kind, range(FRAMES)))
    assert list(map(number_of, frames)) == expected
    assert (metadata.total_num_frames, metadata.warning) == (len(expected), None)
    if kind.startswith("h264_variable") or "cut" in kind:
        assert metadata.video_backend == "pyav", "decord is not asked where it is known to fail"


@pytest.mark.parametrize("kind", ["h264.mp4", "vp9_variable.webm", "h264_cut.mp4"])
def test_chosen_frames_and_repetitions(clip_of, kind):
    first = SHOWN.get(kind, range(FRAMES))[0]
    indices = [9, 2, 2, 15]
    for source in (clip_of(kind), clip_of(kind).read_bytes(), str(clip_of(kind))):
        frames, metadata = read(source, lambda total: indices)
        assert list(map(number_of, frames)) == [first + index for index in indices]
        assert metadata.frames_indices == indices


# Containers that tell that they are cut. An mp4 with its index at the end cannot be opened at all.
CUT = ["h264_index_first.mp4", "h264_fragments.mp4", "h264_variable.mkv", "h264.avi", "h264.ts", "h264.flv"]
CUT += ["vp8_variable.webm", "vp9_live.webm", "vp8.ogg", "mpeg2.mpg", "mpeg2.ts", "wmv2.wmv", "mjpeg.avi", "ffv1.mkv"]


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("kind", CUT)
def test_cut_files_are_refused_or_scored_with_a_warning(clip_of, tmp_path, kind, share):
    content = clip_of(kind).read_bytes()
    cut = tmp_path / kind
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(VideoReadError, match=r"is damaged|cannot be decoded|no frames") as error:
        read(cut)
    assert kind in str(error.value)
    if "on_damage='warn'" in str(error.value):
        frames, metadata = read(cut, on_damage="warn")
        assert metadata.warning
        assert 0 < len(frames) == metadata.total_num_frames <= FRAMES
        again, _ = read(cut, on_damage="warn")
        np.testing.assert_array_equal(frames, again)


@pytest.mark.parametrize("kind", ["h264.mp4", "hevc.mkv", "vp9.mp4", "h264.ts", "mpeg2.mpg"])
def test_overwritten_frames_are_found(clip_of, kind):
    content = bytearray(clip_of(kind).read_bytes())
    start = int(0.4 * len(content))
    content[start : start + len(content) // 10] = bytes(len(content) // 10)
    with pytest.raises(VideoReadError, match="is damaged"):
        read(bytes(content))


@pytest.mark.parametrize("kind", ["h264.avi", "h264.mp4"])
def test_a_header_that_declares_more_than_the_file_can_hold(clip_of, kind):
    content = bytearray(clip_of(kind).read_bytes())
    if kind.endswith(".avi"):
        start = content.index(b"strh") + 8 + 32  # dwLength of the stream's header
        content[start : start + 4] = struct.pack("<I", 4_000_000_000)
        start = content.index(b"avih") + 8 + 16  # dwTotalFrames
        content[start : start + 4] = struct.pack("<I", 4_000_000_000)
    else:
        start = content.index(b"stts") + 8  # the number of entries, then (count, duration)
        content[start + 4 : start + 8] = struct.pack(">I", 2_000_000_000)
    with pytest.raises(VideoReadError, match=r"is damaged|cannot be decoded"):
        read(bytes(content))


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "concat:a.mp4", "file:a.mp4", "%d.mp4", "-.mp4", "\udcff\udcfe.mp4", "ü 猫.mp4"]
)
def test_every_name_of_a_file_is_a_name(clip_of, tmp_path, monkeypatch, name):
    content = clip_of("h264.mp4").read_bytes()
    monkeypatch.chdir(tmp_path)
    with open(os.fsencode(name), "wb") as file:
        file.write(content)
    assert len(read(name)[0]) == FRAMES


PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nclip.mp4\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile clip.mp4\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>clip.mp4</BaseURL></MPD>',
    "text": "a clip\n" * 50,
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_texts_that_name_other_files_are_refused(clip_of, tmp_path, kind):
    (tmp_path / "clip.mp4").write_bytes(clip_of("h264.mp4").read_bytes())
    (tmp_path / "list.mp4").write_text(PLAYLISTS[kind])
    with pytest.raises(VideoReadError, match=r"list\.mp4.*cannot be decoded"):
        read(tmp_path / "list.mp4")


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"), [("qtrle", "argb", "mov"), ("png", "rgba", "mov"), ("ffv1", "bgra", "mkv")]
)
def test_transparent_video_lies_on_white(tmp_path, codec, pix_fmt, suffix):
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 48, pix_fmt
        for alpha in (0, 128, 255):
            pixels = np.full((32, 48, 4), (200, 0, 0, alpha), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)))
        container.mux(stream.encode())
    frames, _ = read(path)
    assert frames[:, 9, 9].tolist() == [[255, 255, 255], [227, 127, 127], [200, 0, 0]]


def test_webm_with_alpha_lies_on_white(tmp_path):
    path = tmp_path / "clip.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=8)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuva420p"
        stream.options = {"auto-alt-ref": "0"}
        stream.metadata["alpha_mode"] = "1"
        for _ in range(3):
            pixels = np.full((64, 64, 4), (200, 0, 0, 0), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva420p")))
        container.mux(stream.encode())
    frames, _ = read(path)
    assert np.abs(frames.astype(int) - 255).max() < 4


def test_the_cover_of_a_file_is_not_the_clip(clip_of, tmp_path):
    picture = write_video(tmp_path / "cover.jpg.mkv", np.zeros((1, 480, 640, 3), np.uint8), "mjpeg", "yuvj420p")
    with av.open(str(picture)) as container:
        jpeg = next(bytes(packet) for packet in container.demux(video=0) if packet.size)
    path = tmp_path / "clip.mkv"
    with av.open(str(clip_of("h264_variable.mkv"))) as old, av.open(str(path), "w") as new:
        if not hasattr(new, "add_attachment"):
            pytest.skip("this PyAV cannot write attachments")
        new.add_attachment("cover.jpg", "image/jpeg", jpeg)
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    frames, _ = read(path)
    assert list(map(number_of, frames)) == list(range(FRAMES))


def test_a_stream_whose_size_changes(tmp_path):
    parts = []
    for size in ((64, 96), (128, 96)):
        part = write_video(tmp_path / f"{size[0]}.ts", np.zeros((4, *size, 3), np.uint8), "mpeg2video")
        parts.append(part.read_bytes())
    with pytest.raises(VideoReadError, match=r"different sizes|is damaged"):
        read(b"".join(parts))


@pytest.mark.parametrize("tail", [b"\xff\x00 a tag of another program", b"\0" * 40, b"TAG" + b" " * 125])
def test_bytes_after_the_end_of_an_mp4_do_no_harm(clip_of, tail):
    assert len(read(clip_of("h264.mp4").read_bytes() + tail)[0]) == FRAMES


def test_decord_does_not_hide_damage(clip_of):
    cut = clip_of("h264_index_first.mp4").read_bytes()[:-200]
    with pytest.raises(VideoReadError, match="is damaged"):
        read(cut, decoder="decord")
    assert read(cut, decoder="decord", on_damage="warn")[1].warning


def test_the_log_of_ffmpeg_is_off_while_a_video_is_read(clip_of):
    """Its lines wait for Python's lock, which whoever closes a decoder holds. An older torchvision turns it on."""
    level = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.ERROR)
        read(clip_of(next(iter(KINDS))), lambda total: [0])
        assert av.logging.get_level() is None
    finally:
        av.logging.set_level(level)


def test_wrong_options_are_named(clip_of):
    with pytest.raises(ValueError, match=r"on_damage='ignore'.*'raise', 'warn'"):
        read(clip_of("h264.mp4"), on_damage="ignore")
    with pytest.raises(ValueError, match=r"decoder='ffmpeg'.*'pyav', 'decord'"):
        read(clip_of("h264.mp4"), decoder="ffmpeg")


def test_rgba_and_rgb_arrays_are_told_apart():
    assert read(np.zeros((2, 8, 9, 4), np.uint8))[0].shape == (2, 8, 9, 3)
    assert read(torch.zeros(2, 3, 8, 9))[0].shape == (2, 8, 9, 3)


@pytest.mark.skipif(not ODD.is_dir(), reason="shared/odd_videos is not beside this checkout")
def test_odd_videos():
    def barcode(frame):
        return sum(int(frame[120, 48 + 32 * bit].mean() > 128) << bit for bit in range(8))

    for entry in json.loads((ODD / "expected.json").read_text()):
        if entry.get("damaged"):
            with pytest.raises(VideoReadError, match="is damaged"):
                read(ODD / entry["file"])
        else:
            assert list(map(barcode, read(ODD / entry["file"])[0])) == entry["barcodes"], entry["file"]
    for path in ODD.glob("absurd_length.*"):
        with pytest.raises(VideoReadError, match="cannot hold"):
            read(path)
