"""Every input gives a correct score or one clear error; every decoder gives the same frames."""

import gc
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from modeling_aigcvqa import AIGCVQAVideoProcessor, VideoReadError
from modeling_aigcvqa import video_reading_aigcvqa as reading
from tests.conftest import moving_gradient, write_video


def read(video, **options):
    return reading.read_video(video, range, **options)


BROKEN = {
    "missing.mp4": "does not exist",
    "empty.mp4": "empty",
    "text.mp4": "cannot be decoded",
    "truncated_end.mp4": r"is damaged: at least \d+ bytes are missing",
    "truncated_middle.mp4": r"is damaged: at least \d+ bytes are missing",
    "truncated.gif": "cannot be read as an image",
    "audio.mp4": "cannot be decoded",
    "no_frames.mp4": "no video stream",
    "no_frames_inside": "holds no frames",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder with the files above."""
    folder = tmp_path_factory.mktemp("broken")
    pixels = moving_gradient(40, 128, 128)
    index_first = write_video(folder / "index_first.mp4", pixels, options={"movflags": "faststart"}).read_bytes()
    index_last = write_video(folder / "index_last.mp4", pixels).read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 50)
    (folder / "truncated_end.mp4").write_bytes(index_last[:-3000])
    (folder / "truncated_middle.mp4").write_bytes(index_first[: len(index_first) // 2])
    (folder / "truncated.gif").write_bytes(b"GIF89a\x10")
    (folder / "no_frames_inside").mkdir()
    with av.open(str(folder / "no_frames.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    with av.open(str(folder / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_the_reason(broken, name):
    with pytest.raises(VideoReadError, match=BROKEN[name]) as error:
        AIGCVQAVideoProcessor()(broken / name)
    assert name in str(error.value)


def test_bytes_of_a_broken_file_are_refused_too(broken):
    with pytest.raises(VideoReadError, match="bytes"):
        AIGCVQAVideoProcessor()((broken / "text.mp4").read_bytes())
    with pytest.raises(VideoReadError, match="0 bytes"):
        AIGCVQAVideoProcessor()(b"")


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (torch.full((4, 8, 8, 3), float("nan")), "NaN"),
        (torch.full((4, 8, 8, 3), float("inf")), "NaN or infinite"),
        (torch.full((4, 8, 8, 3), 200.0), r"200.*0\.\.1"),
        (torch.full((4, 8, 8, 3), -0.5), "-0.5"),
        (np.zeros((4, 8, 8, 1), np.uint8), "3 colours"),
        (np.zeros((4, 8, 8, 3), np.int64), "int64"),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one frame"),
        (np.zeros((8, 8), np.uint8), r"\(T, H, W, C\)"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))], "different sizes"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "different sizes"),
        ({"bytes": None, "path": None}, "bytes"),
    ],
)
def test_bad_frames_are_refused(video, message):
    with pytest.raises(VideoReadError, match=message):
        AIGCVQAVideoProcessor()(video)


@pytest.mark.parametrize("video", [3, object(), [3, 4]])
def test_other_types_are_refused(video):
    with pytest.raises(TypeError, match="not a video"):
        AIGCVQAVideoProcessor()(video)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="empty"):
        AIGCVQAVideoProcessor()([])


@pytest.mark.parametrize(
    ("frames", "height", "width"),
    [(1, 240, 320), (3, 240, 320), (5, 16, 16), (3, 48, 40), (5, 241, 317), (4, 640, 360), (2, 2160, 3840), (2, 2, 2)],
)
def test_unusual_clips_score(small_model, processor, tmp_path, frames, height, width):
    """One frame, three frames, tiny, odd, portrait and 4K clips."""
    pixels = moving_gradient(frames, height, width)
    clip = write_video(tmp_path / "clip.mp4", pixels, pix_fmt="yuv420p" if height % 2 == 0 else "yuv444p")
    with torch.no_grad():
        output = small_model(**processor(videos=clip, text="a clip"))
    assert torch.isfinite(output.quality_score).all()
    decoded, metadata = read(clip)
    assert metadata.total_num_frames == frames
    assert decoded.shape == (frames, height, width, 3)
    if min(height, width) > 16:
        assert np.abs(decoded.numpy().astype(int) - pixels).mean() < 6, "the frames that were written"


@pytest.mark.parametrize(("options", "fps"), [({}, None), ({"duration": 125}, 8)])
def test_gifs_with_and_without_durations(tmp_path, options, fps):
    pixels = moving_gradient(6, 64, 80)
    frames = [Image.fromarray(frame) for frame in pixels]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], **options)
    decoded, metadata = read(tmp_path / "clip.gif")
    assert decoded.shape == (6, 64, 80, 3)
    assert np.abs(decoded.numpy().astype(int) - pixels).mean() < 20
    assert metadata.fps == (fps and pytest.approx(fps, rel=0.05))


def test_frames_of_different_sizes_in_a_folder(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    Image.new("RGB", (20, 22)).save(tmp_path / "1.png")
    with pytest.raises(VideoReadError, match="different sizes"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("h264.mp4", "libx264", "yuv420p"),
        ("h264.mkv", "libx264", "yuv444p"),
        ("hevc.mp4", "libx265", "yuv420p"),
        ("h264_10_bit.mp4", "libx264", "yuv420p10le"),
        ("av1.mp4", "libsvtav1", "yuv420p"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_both_decoders_give_the_same_frames(tmp_path, name, codec, pix_fmt):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec} encoder to make the clip with")
    pixels = moving_gradient(8, 128, 160)
    clip = write_video(tmp_path / name, pixels, codec=codec, pix_fmt=pix_fmt)
    with_av, metadata = read(clip)
    assert (metadata.total_num_frames, metadata.video_backend) == (8, "pyav")
    assert np.abs(with_av.numpy().astype(int) - pixels).mean() < 8
    with_decord, metadata = read(clip, decoder="decord")
    assert (metadata.total_num_frames, metadata.video_backend) == (8, "decord")
    difference = np.abs(with_av.numpy().astype(int) - with_decord.numpy())
    assert difference.mean() < (1.5 if "10_bit" in name else 0.01), "decoders differ only by rounding of 10 bits"


def rotate_in_header(path, target):
    """Write a quarter turn into the matrix of the track header, as phones do."""
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4 + 40  # version 0: the matrix begins 40 bytes in
    for index, value in enumerate((0, 1 << 16, 0, -(1 << 16), 0, 0, 128 << 16, 0, 1 << 30)):
        data[start + 4 * index : start + 4 * index + 4] = value.to_bytes(4, "big", signed=True)
    target.write_bytes(data)
    return target


def test_rotation_is_applied_by_both_decoders(tmp_path):
    upright = write_video(tmp_path / "upright.mp4", moving_gradient(4, 128, 160))
    turned = rotate_in_header(upright, tmp_path / "turned.mp4")
    expected = np.rot90(read(upright)[0].numpy(), k=-1, axes=(1, 2))
    for decoder in ("pyav", "decord"):
        np.testing.assert_array_equal(read(turned, decoder=decoder)[0].numpy(), expected)


def test_only_the_chosen_frames_are_kept(tmp_path):
    clip = write_video(tmp_path / "long.mp4", moving_gradient(60, 64, 64))
    frames, metadata = reading.read_video(clip, lambda total: [0, 30, 30, 59])
    assert frames.shape == (4, 64, 64, 3)
    assert metadata.total_num_frames == 60
    assert torch.equal(frames[1], frames[2])


def test_frames_outlive_their_reader(clip, tmp_path):
    other = write_video(tmp_path / "other.mp4", 255 - moving_gradient(20, 128, 128))
    frames = read(clip)[0]
    copy = frames.clone()
    for _ in range(10):
        read(other)
    gc.collect()
    assert torch.equal(frames, copy)
    frames += 1  # the frames belong to the caller
    assert torch.equal(read(clip)[0], copy)


def test_the_callers_decord_bridge_does_not_matter(clip):
    decord = pytest.importorskip("decord")
    expected = read(clip)[0]
    with decord.bridge.use_torch():
        frames, metadata = read(clip, decoder="decord")
    assert torch.equal(frames, expected) and metadata.video_backend == "decord"


PEAK_OF_READING = """
import re, sys
from modeling_aigcvqa import AIGCVQAVideoProcessor
def peak():  # in MiB. VmHWM, because ru_maxrss also includes the peak of the parent process
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 2**10
before = peak()
AIGCVQAVideoProcessor()(sys.argv[1], decoder=sys.argv[2])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_longer_4k_clip_takes_no_more_memory(tmp_path, decoder):
    peaks = []
    for total in (40, 160):
        wide = np.tile(np.linspace(0, 255, 3840 + total, dtype=np.uint8)[None, :, None], (2160, 1, 3))
        frames = np.lib.stride_tricks.sliding_window_view(wide, 3840, axis=1)[:, :total].transpose(1, 0, 3, 2)
        clip = write_video(tmp_path / f"{total}.mp4", frames, codec="mpeg4")
        command = [sys.executable, "-c", PEAK_OF_READING, str(clip), decoder]
        peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    frame_mib = 2160 * 3840 * 3 / 2**20
    assert 16 * frame_mib < peaks[0] < 50 * frame_mib, "the used frames and the memory of the decoder"
    assert peaks[1] - peaks[0] < 10 * frame_mib, "the other 120 frames are not kept"


@pytest.mark.parametrize("as_floats", [False, True])
def test_only_the_chosen_frames_of_arrays_are_taken_and_checked(as_floats):
    video = torch.from_numpy(moving_gradient(30, 16, 16))
    video = video / 255 if as_floats else video
    results = [reading.read_video(form, lambda total: [0, 12, 12, total - 1]) for form in (video, list(video))]
    for frames, metadata in results:
        assert torch.equal(frames, video[[0, 12, 12, 29]])
        assert (metadata.total_num_frames, metadata.frames_indices) == (30, [0, 12, 12, 29])
    if as_floats:
        video[12] = float("nan")
        for form in (video, list(video)):
            with pytest.raises(VideoReadError, match="NaN"):
                reading.read_video(form, lambda _: [0, 12])


def test_urls(clip, serve):
    pages = {"/clip.mp4": (200, {}, clip.read_bytes())}
    address = f"http://127.0.0.1:{serve(lambda path, _: pages.get(path, (404, {}, b'')))}"
    assert torch.equal(read(f"{address}/clip.mp4")[0], read(clip)[0])
    with pytest.raises(VideoReadError, match=r"nothing\.mp4.*could not be fetched.*404"):
        read(f"{address}/nothing.mp4")
    with pytest.raises(VideoReadError, match="could not be fetched"):
        read("http://127.0.0.1:9/clip.mp4")


def test_frame_rate_and_duration(clip):
    metadata = read(clip)[1]
    assert metadata.fps == pytest.approx(8)
    assert metadata.duration == pytest.approx(20 / 8)
