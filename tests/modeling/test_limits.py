"""What a public surface accepts of a clip, and where it fetches clips from."""

import io
from dataclasses import replace
from http.client import HTTPConnection

import pytest
from PIL import Image

from modeling_aigcvqa import AIGCVQAPipeline, downloads_aigcvqa
from modeling_aigcvqa.downloads_aigcvqa import public_address
from modeling_aigcvqa.limits_aigcvqa import ClipLimits, check_clip, checked_clip
from tests.conftest import SHARED, moving_gradient, write_video

HOST = "clips.example.org"
OTHER = "files.example.org"


@pytest.fixture(scope="module")
def video(clip):
    return clip.read_bytes()


def gif(frames=6, size=64):
    images = [Image.fromarray(frame) for frame in moving_gradient(frames, size, size)]
    file = io.BytesIO()
    images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=100)
    return file.getvalue()


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("max_bytes", 1000, "bytes, above the 1000 allowed"),
        ("max_pixels", 256 * 320 - 1, "frames of 320 x 256, above"),
        ("max_frames", 19, "more than the 19 frames"),
        ("max_seconds", 2, "longer than the 2 s"),
    ],
)
def test_limits_of_a_video(video, limit, value, message):
    limits = replace(ClipLimits(), **{limit: value})
    with pytest.raises(ValueError, match=message):
        check_clip(video, limits)
    relaxed = replace(limits, **{limit: value + (len(video) if limit == "max_bytes" else 1)})
    check_clip(video, relaxed)


def test_limits_of_an_animated_image():
    check_clip(gif(), replace(ClipLimits(), max_frames=6, max_pixels=64 * 64))
    for limit in ({"max_frames": 5}, {"max_pixels": 64 * 64 - 1}):
        with pytest.raises(ValueError, match=r"more than the 5|above the"):
            check_clip(gif(), replace(ClipLimits(), **limit))


def test_a_header_that_lies_about_the_size_does_not_help(tmp_path):
    video = write_video(tmp_path / "large.mp4", moving_gradient(2, 512, 512)).read_bytes()
    place = video.index(b"avc1", video.index(b"stsd")) + 28  # width and height in the sample description
    assert video[place : place + 4] == bytes([2, 0, 2, 0])
    lying = video[:place] + bytes([0, 64, 0, 64]) + video[place + 4 :]
    with pytest.raises(ValueError, match="frames of 512 x 512, above"):
        check_clip(lying, replace(ClipLimits(), max_pixels=256 * 256))


@pytest.mark.parametrize(
    "playlist",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"",
    ],
)
def test_files_that_point_elsewhere_are_no_videos(playlist):
    with pytest.raises(ValueError, match="no video"):
        check_clip(playlist, ClipLimits())


def test_a_pipeline_with_limits_takes_bytes_alone(small_model, processor, clip, video):
    scorer = AIGCVQAPipeline(model=small_model, processor=processor)
    items = [{"video": v, "prompt": "a"} for v in (video, str(clip), clip, {"path": str(clip)}, f"https://{HOST}/a")]
    results = scorer(items, limits={"max_seconds": 3}, on_error="return")
    assert ["error" in result for result in results] == [False, True, True, True, True]
    assert all("not opened" in result["error"] for result in results[1:4])
    assert "no host is allowed" in results[4]["error"]
    assert "longer than the 2 s" in scorer(items[:1], limits={"max_seconds": 2}, on_error="return")[0]["error"]
    with pytest.raises(TypeError, match="max_second"):
        scorer(items, limits={"max_second": 3})


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/clip.mp4",
        f"https://{HOST}:8443/clip.mp4",
        f"https://user@{HOST}/clip.mp4",
        f"https://{HOST}.evil.org/clip.mp4",
        f"https://evil.org/?{HOST}",
        "ftp://clips.example.org/clip.mp4",
    ],
)
def test_only_https_addresses_of_listed_hosts(url):
    with pytest.raises(ValueError, match="is not allowed"):
        checked_clip(url, ClipLimits(url_hosts=(HOST,)))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::1", "::ffff:10.0.0.1"]
)
def test_a_listed_host_inside_the_network_is_refused(monkeypatch, address):
    public = (2, 1, 6, "", ("93.184.215.14", 443))
    found = [public, (2, 1, 6, "", (address, 443))]
    monkeypatch.setattr(downloads_aigcvqa.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ValueError, match="is not public"):
        checked_clip(f"https://{HOST}/clip.mp4", ClipLimits(url_hosts=(HOST,)))
    found.pop()
    assert public_address(HOST, 443) == "93.184.215.14"


def test_fetching(serve, monkeypatch, video):
    """The answers of a host, over plain HTTP: certificates for 127.0.0.1 would prove nothing more."""
    pages = {
        "/clip.mp4?a=1": (200, {}, video),
        "/moved": (302, {"Location": f"https://{OTHER}/clip.mp4?a=1"}, b""),
        "/inside": (302, {"Location": "http://169.254.169.254/"}, b""),
        "/gone": (404, {}, b""),
    }
    asked = []

    def answer(path, _):
        asked.append(path)
        return pages[path]

    port = serve(answer)
    asked_hosts = []
    monkeypatch.setattr(
        downloads_aigcvqa._Connections, "https_open", lambda self, request: self.do_open(HTTPConnection, request)
    )

    def connect(sockets, address, *options):
        asked_hosts.append(address[0])
        return sockets.connect(("127.0.0.1", port), *options)

    monkeypatch.setattr(downloads_aigcvqa._Sockets, "connect_to_public", connect)
    limits = ClipLimits(url_hosts=(HOST, OTHER))
    assert checked_clip(f"https://{HOST}/clip.mp4?a=1", limits) == video
    assert checked_clip(f"https://{HOST}/moved", limits) == video
    with pytest.raises(ValueError, match=r"is not allowed: expected https://HOST"):
        checked_clip(f"https://{HOST}/inside", limits)
    with pytest.raises(ValueError, match=r"is not allowed: expected https://HOST"):
        checked_clip(f"https://{HOST}/moved", replace(limits, url_hosts=(HOST,)))
    with pytest.raises(ValueError, match="answered 404"):
        checked_clip(f"https://{HOST}/gone", limits)
    with pytest.raises(ValueError, match="more than the 1000"):
        checked_clip(f"https://{HOST}/clip.mp4?a=1", replace(limits, max_bytes=1000))
    assert len(asked) == 7
    assert set(asked_hosts) == {HOST, OTHER}


@pytest.mark.skipif(not SHARED.exists(), reason="real clips are not beside this checkout")
def test_real_clips_pass_the_limits():
    clips = [clip for clip in (SHARED / "videos").iterdir() if clip.suffix in (".mp4", ".gif")]
    assert len(clips) == 23
    for clip in clips:
        check_clip(clip.read_bytes(), ClipLimits())
