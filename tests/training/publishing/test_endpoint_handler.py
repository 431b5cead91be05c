"""The handler for Inference Endpoints: its answers, its limits, and several clients at once.

`test_repository.py` runs it in a fresh process from an exported folder, without the package.
"""

import base64
import io
import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import pytest
from PIL import Image, ImageFile

from modeling_aigcvqa import AIGCVQAPipeline, frames_aigcvqa, image_decoding_aigcvqa, video_decoding_aigcvqa
from modeling_aigcvqa.frames_aigcvqa import check_frame, check_time
from modeling_aigcvqa.requests_aigcvqa import RequestLimits as Limits
from tests.conftest import moving_gradient, write_video
from training.publishing.endpoint_handler import EndpointHandler

PROMPT = "a moving gradient"
HOST = "clips.example.org"


@pytest.fixture(scope="module")
def handler(model_folder):
    return EndpointHandler(str(model_folder))


@pytest.fixture(scope="module")
def video(clip):
    return clip.read_bytes()


@pytest.fixture(scope="module")
def expected(small_model, processor, video):
    return AIGCVQAPipeline(model=small_model, processor=processor)({"video": video, "prompt": PROMPT})


def gif(frames=6, size=64):
    images = [Image.fromarray(frame) for frame in moving_gradient(frames, size, size)]
    file = io.BytesIO()
    images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=100)
    return file.getvalue()


def text(video):
    return base64.b64encode(video).decode()


ENCODINGS = {
    "bytes": bytes,
    "base64": text,
    "data address": lambda video: f"data:video/mp4;base64,{text(video)}",
    "percent signs": lambda video: "data:video/mp4;codecs=avc1;base64," + urllib.parse.quote(text(video), safe=""),
    "line breaks": lambda video: base64.encodebytes(video).decode().replace("\n", "\r\n"),
    "URL-safe": lambda video: base64.urlsafe_b64encode(video).decode(),
    "no padding": lambda video: text(video + b"\0" * (1 - len(video) % 3)).rstrip("="),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_scores_are_the_pipelines(handler, video, expected, encode):
    scores = handler({"inputs": {"video": encode(video), "prompt": PROMPT}})
    assert scores.pop("note") == handler.scorer.model.config.weights_note
    assert scores == pytest.approx(expected, abs=1e-5)


def test_a_bad_item_does_not_stop_a_list(handler, video, expected):
    items = [
        {"video": text(video[: len(video) // 2]), "prompt": PROMPT},
        {"video": text(video), "prompt": PROMPT},
        {"video": text(video), "prompt": ""},
        "no item",
        {"video": text(gif()), "prompt": PROMPT},
    ]
    results = handler({"inputs": items})
    assert ["error" in result for result in results] == [True, False, True, True, False]
    assert results[1]["quality_score"] == pytest.approx(expected["quality_score"], abs=1e-5)
    assert "empty" in results[2]["error"]
    with pytest.raises(ValueError, match="cannot be"):
        handler({"inputs": items[0]})


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"inputs": []},
        {"inputs": "clip.mp4"},
        {"inputs": {"video": "AAAA"}, "parameters": {"num_frames": 9}},
        {"inputs": {"video": "AAAA"}, "parameters": ["scale"]},
        {"inputs": {"video": "AAAA"}, "parameters": {"scale": "yes"}},
    ],
)
def test_requests_of_another_form_are_refused(handler, data):
    with pytest.raises(ValueError, match=r"expected|takes only|send true or false"):
        handler(data)


def test_percentiles_on_request(handler, video, expected):
    scores = handler({"inputs": {"video": text(video), "prompt": PROMPT}, "parameters": {"scale": True}})
    config = handler.scorer.model.config
    assert scores.pop("about_scale") == config.about_scale
    assert scores == pytest.approx(expected | config.on_scale(expected) | {"note": config.weights_note}, abs=1e-3)
    assert 0 < scores["quality_percentile"] < 100


@pytest.mark.parametrize(
    "name",
    ["clip.mp4", "/etc/passwd", "../clip.mp4", "file:///etc/passwd", "https://example.org/clip.mp4", {"path": "x"}, 7],
)
def test_paths_and_addresses_are_refused(handler, clip, monkeypatch, name):
    monkeypatch.chdir(clip.parent)
    with pytest.raises(ValueError, match=r"not base64|no video|not fetched|Paths are not opened"):
        handler({"inputs": {"video": name, "prompt": PROMPT}})


def test_limits_of_a_request(handler, video):
    item = {"video": text(video), "prompt": "word " * 1000}
    with pytest.raises(ValueError, match="5000 characters exceeds the 4000"):
        handler({"inputs": item})
    with pytest.raises(ValueError, match="9 items exceed the 8 per request"):
        handler({"inputs": [item] * 9})


def test_limits_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("AIGCVQA_MAX_ITEMS", "3")
    monkeypatch.setenv("AIGCVQA_URL_HOSTS", "Clips.example.org, other.example.org")
    assert Limits.from_environment() == Limits(max_items=3, url_hosts=(HOST, "other.example.org"))
    monkeypatch.setenv("AIGCVQA_MAX_BYTES", "64 MB")
    with pytest.raises(ValueError, match="AIGCVQA_MAX_BYTES='64 MB': expected a whole number"):
        Limits.from_environment()


def test_the_budget_of_a_request_is_shared_by_its_items(handler, video, monkeypatch):
    pixels = 320 * 256 * 20
    monkeypatch.setattr(handler, "limits", Limits(max_total_pixels=2 * pixels))
    items = [{"video": video, "prompt": PROMPT}] * 2
    assert all("error" not in result for result in handler({"inputs": items}))
    results = handler({"inputs": [*items, items[0]]})
    assert ["error" in result for result in results] == [False, False, True]
    assert "pixels that are allowed in all frames together" in results[2]["error"]
    small = {"video": gif(), "prompt": PROMPT}
    monkeypatch.setattr(handler, "limits", Limits(max_total_pixels=pixels + 6 * 64 * 64))
    assert all("error" not in result for result in handler({"inputs": [small, items[0]]})), "each takes what it needs"


def test_an_animation_of_small_frames_does_not_hold_the_endpoint(handler, monkeypatch):
    """Within every other limit, a GIF of a few megabytes may take minutes."""
    large = gif(frames=8, size=256)
    monkeypatch.setattr(handler, "limits", Limits(max_total_pixels=8 * 256 * 256 - 1))
    with pytest.raises(ValueError, match="pixels that are allowed in all frames together"):
        handler({"inputs": {"video": large, "prompt": PROMPT}})


class SlowVideo:
    """Time passes with every check of the clip."""

    def __init__(self, monkeypatch, step):
        self.now = time.monotonic()
        monkeypatch.setattr(frames_aigcvqa, "monotonic", lambda: self.now)
        self.step = step

    def check_time(self, name):
        self.now += self.step
        check_time(name)

    def check_frame(self, name, width, height):
        self.now += self.step
        check_frame(name, width, height)


@pytest.mark.parametrize("kind", ["video", "gif"])
def test_the_deadline_ends_the_reading_of_a_clip(small_model, processor, video, monkeypatch, kind):
    scorer = AIGCVQAPipeline(model=small_model, processor=processor)
    item = {"video": video if kind == "video" else gif(), "prompt": PROMPT}
    slow = SlowVideo(monkeypatch, step=1.0)
    monkeypatch.setattr(video_decoding_aigcvqa, "check_time", slow.check_time)
    monkeypatch.setattr(image_decoding_aigcvqa, "check_frame", slow.check_frame)
    assert "error" not in scorer(item, limits={"deadline": slow.now + 1000}, on_error="return")
    found = scorer(item, limits={"deadline": slow.now + 3}, on_error="return")
    assert "takes longer to read than is allowed here" in found["error"]


def test_the_deadline_ends_the_counting_of_frames(small_model, processor):
    """A GIF of many tiny frames takes long before its number of frames is known."""
    scorer = AIGCVQAPipeline(model=small_model, processor=processor)
    item = {"video": gif(frames=200, size=16), "prompt": PROMPT}
    found = scorer(item, limits={"deadline": time.monotonic() - 1}, on_error="return")
    assert "takes longer to read than is allowed here" in found["error"]


def test_a_request_that_waits_is_answered_at_its_deadline(handler, video, monkeypatch):
    monkeypatch.setattr(handler, "limits", Limits(request_seconds=1))
    blocked = threading.Event()
    busy = handler.scoring.submit(blocked.wait)
    try:
        with pytest.raises(ValueError, match="the service is busy"):
            handler({"inputs": {"video": video, "prompt": PROMPT}})
        assert not busy.done(), "it was answered although the one before it goes on"
    finally:
        blocked.set()


def test_a_frame_larger_than_the_first_is_refused_before_it_is_decoded(handler, monkeypatch):
    frames = [Image.new("P", (64, 64), 1), Image.new("P", (9000, 9000), 2)]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[:1] * 2, duration=100)
    content = file.getvalue()
    single = io.BytesIO()
    frames[1].save(single, format="GIF")
    large = single.getvalue()
    picture = large[large.index(b"\x2c\0\0\0\0" + (9000).to_bytes(2, "little")) :]
    handler({"inputs": {"video": content, "prompt": PROMPT}})
    monkeypatch.setattr(ImageFile.ImageFile, "load", _small_alone(ImageFile.ImageFile.load))
    with pytest.raises(ValueError, match=r"frames of 9000 x 9000 pixels, above the 9437184 allowed"):
        handler({"inputs": {"video": content[:-1] + picture, "prompt": PROMPT}})


def _small_alone(load):
    def loaded(image):
        assert image.size[0] < 9000, "it was decoded"
        return load(image)

    return loaded


def test_a_video_whose_frames_grow_is_refused(handler, tmp_path, monkeypatch):
    """H.264 may change its size between key frames: only the first one is known before decoding."""
    small, large = (
        write_video(tmp_path / f"{size}.h264", moving_gradient(4, size, size)).read_bytes() for size in (64, 512)
    )
    path = tmp_path / "grows.mkv"
    with av.open(io.BytesIO(small + large), format="h264") as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux() if packet.size):
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = number * 40
            packet.duration = 40
            target.mux(packet)
    monkeypatch.setattr(handler, "limits", Limits(max_pixels=256 * 256))
    with pytest.raises(ValueError, match=r"damaged|frames of 512 x 512"):
        handler({"inputs": {"video": path.read_bytes(), "prompt": PROMPT}})


OPENED = []  # (path, mode, flags), filled while `watching` is set, because an audit hook cannot be removed
watching = threading.Event()


def _audit(event, arguments):
    if watching.is_set() and (event == "open" or event.startswith(("os.mkdir", "os.rename", "os.link", "os.symlink"))):
        OPENED.append(arguments)


def test_no_file_is_written_and_none_is_opened_that_a_client_names(handler, clip, video):
    handler({"inputs": {"video": video, "prompt": PROMPT}})  # imports of the first call happen now
    sys.addaudithook(_audit)
    watching.set()
    try:
        results = handler({"inputs": [{"video": v, "prompt": PROMPT} for v in (video, text(gif()), str(clip))]})
        assert ["error" in result for result in results] == [False, False, True]
        with open(clip, "rb"):
            pass  # proves that the hook sees opened files
    finally:
        watching.clear()
    opened = [str(entry[0]) for entry in OPENED]
    assert opened.count(str(clip)) == 1
    writing = [
        entry for entry in OPENED if len(entry) != 3 or (entry[1] or "r")[0] in "wax" or "+" in (entry[1] or "r")
    ]
    assert not writing


class Counted:
    """The handler's pipeline, counting the calls that run at the same time."""

    def __init__(self, scorer):
        self.scorer, self.model = scorer, scorer.model
        self.running = self.most = 0

    def __call__(self, *arguments, **options):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return self.scorer(*arguments, **options)
        finally:
            self.running -= 1


def test_eight_clients_at_once(handler, serve, video, monkeypatch):
    """Serve the handler as an endpoint does: JSON in, JSON out, status 400 with the message for a refused request."""
    counted = Counted(handler.scorer)
    monkeypatch.setattr(handler, "scorer", counted)

    def answer(_, body):
        try:
            return 200, {}, json.dumps(handler(json.loads(body))).encode()
        except ValueError as error:
            return 400, {}, json.dumps({"error": str(error)}).encode()

    port = serve(answer)
    good, other = ({"video": text(v), "prompt": f"{PROMPT} of {len(v)} bytes"} for v in (video, gif()))
    broken = {"video": text(b"broken"), "prompt": PROMPT}
    kinds = [good, other, broken, [other, broken]]
    expected = [handler({"inputs": kind}) if kind is not broken else None for kind in kinds]

    def ask(client):
        body = json.dumps({"inputs": kinds[client % 4]}).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", body, timeout=120) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(ask, range(8)))
    assert [status for status, _ in answers] == [200, 200, 400, 200] * 2
    assert counted.most == 1  # which bounds the memory
    assert "no video" in answers[2][1]["error"]
    for kind, (_, result) in zip([0, 1, 2, 3] * 2, answers):
        if kind < 2:
            assert result["quality_score"] == pytest.approx(expected[kind]["quality_score"], abs=1e-5)
        elif kind == 3:
            assert result[0]["quality_score"] == pytest.approx(expected[1]["quality_score"], abs=1e-5)
            assert result[1] == expected[3][1]
