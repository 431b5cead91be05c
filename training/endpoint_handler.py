"""Handler for Hugging Face Inference Endpoints; `training.export_hub` ships it as `handler.py` beside the weights.

It needs nothing but the exported folder and its requirements.txt, writes no file and opens none that a client names.

Request: `{"inputs": {"video": ..., "prompt": "..."}}`, or a list of such items. `video` is base64 (also a data URI) or
bytes; an https address only of hosts that the operator lists. Response: the scores of the item, or a list of them; in
a list an item that cannot be scored gives `{"error": ...}` in its place, a single one raises, which the endpoint
answers with status 400 and the message.

Set by the operator, in the environment:
    AIGCVQA_MAX_ITEMS (8) items a request, AIGCVQA_MAX_BYTES (67108864) a video, AIGCVQA_MAX_PIXELS (9437184) a frame,
    AIGCVQA_MAX_FRAMES (3600) and AIGCVQA_MAX_SECONDS (60) a video, AIGCVQA_MAX_PROMPT (4000) characters,
    AIGCVQA_URL_HOSTS (none): comma-separated names of hosts that videos may be fetched from.
"""

import base64
import binascii
import http.client
import io
import ipaddress
import os
import socket
import threading
import time
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

import av
import torch
from PIL import Image
from transformers import pipeline

ENVIRONMENT = "AIGCVQA_"
FETCH_TIMEOUT_S = 30.0
MAX_URL = 2048  # characters
IMAGE_FORMATS = ("GIF", "PNG", "JPEG", "WEBP")
IMAGE_SIGNATURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff")
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
MATROSKA_SIGNATURE = b"\x1a\x45\xdf\xa3"


@dataclass(frozen=True)
class Limits:
    """What a client may send; every field is an environment variable, `AIGCVQA_` and its name in capitals."""

    max_items: int = 8
    max_bytes: int = 64 * 2**20
    max_pixels: int = 4096 * 2304
    max_frames: int = 3600
    max_seconds: int = 60
    max_prompt: int = 4000
    url_hosts: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> "Limits":
        """Raises ValueError, naming the variable, for a limit that is no whole number above 0."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            name = ENVIRONMENT + field.name.upper()
            text = os.environ.get(name, "").strip()
            if not text:
                continue
            if field.name == "url_hosts":
                values[field.name] = tuple(host.strip().lower() for host in text.split(",") if host.strip())
            elif text.isdecimal() and int(text) > 0:
                values[field.name] = int(text)
            else:
                raise ValueError(f"the environment variable {name}={text!r}: expected a whole number above 0.")
        return cls(**values)


class EndpointHandler:
    """Scores videos with the model in `path`; requests may come from several threads."""

    def __init__(self, path: str = ""):
        self.limits = Limits.from_environment()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.scorer = pipeline(
            "video-quality-assessment", model=path, trust_remote_code=True, device=torch.device(device)
        )
        # One request at a time: it bounds the memory, and a tokenizer is not safe to share between threads.
        self.scoring = threading.Lock()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """Scores of the item or the list of items in `data["inputs"]`; see the module's docstring.

        Returns:
            `quality_score`, `technical_score`, `aesthetic_score`, `alignment_score`, floats, higher is better; and
            `note` where the weights need a caveat.

        Raises:
            ValueError: for a request of another form, above a limit, or a single item that cannot be scored.
        """
        inputs, single = self._inputs(data)
        items = [self._checked(item) for item in inputs]
        good = [item for item in items if "error" not in item]
        with self.scoring:
            scored = iter(self.scorer(good, batch_size=len(good), on_error="return") if good else [])
        results = [item if "error" in item else self._with_note(next(scored)) for item in items]
        if not single:
            return results
        if "error" in results[0]:
            raise ValueError(results[0]["error"])
        return results[0]

    def _inputs(self, data: Any) -> tuple[list[Any], bool]:
        """The items of a request and whether it was a single one."""
        inputs = data.get("inputs") if isinstance(data, dict) else None
        if not isinstance(inputs, dict | list) or not inputs:
            raise ValueError('expected {"inputs": {"video": ..., "prompt": ...}} or a list of such items in "inputs".')
        if data.get("parameters"):
            raise ValueError(f"parameters={data['parameters']!r}: this endpoint takes none; leave them out.")
        if len(inputs) > self.limits.max_items and isinstance(inputs, list):
            raise ValueError(f"{len(inputs)} items exceed the {self.limits.max_items} a request; send several.")
        return (inputs, False) if isinstance(inputs, list) else ([inputs], True)

    def _checked(self, item: Any) -> dict[str, Any]:
        """An item with its video as bytes within the limits, or `{"error"}`."""
        try:
            if not isinstance(item, dict) or "video" not in item:
                raise ValueError(f'expected {{"video": ..., "prompt": ...}} (got {_describe(item)}).')
            prompt = item.get("prompt")
            if prompt is not None and not isinstance(prompt, str):
                raise ValueError(f"the prompt is {type(prompt).__name__}; pass text.")
            if prompt is not None and len(prompt) > self.limits.max_prompt:
                raise ValueError(f"a prompt of {len(prompt)} characters exceeds the {self.limits.max_prompt} allowed.")
            video = video_bytes(item["video"], self.limits)
            check_video(video, self.limits)
        except ValueError as error:
            return {"error": str(error)}
        return {"video": video, "prompt": prompt}

    def _with_note(self, result: dict[str, Any]) -> dict[str, Any]:
        note = getattr(self.scorer.model.config, "weights_note", None)
        return {**result, "note": note} if note and "error" not in result else result


def _describe(value: Any) -> str:
    return f"the keys {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__


def video_bytes(video: Any, limits: Limits) -> bytes:
    """The encoded video that a client sent, as bytes of at most `limits.max_bytes`.

    Raises:
        ValueError: for anything but bytes, base64 or an allowed address; a path of a file is never opened.
    """
    if isinstance(video, str):
        if "://" in video[:16]:
            return fetch(video[:MAX_URL], limits)
        _check_size(len(video) // 4 * 3, limits)
        return _from_base64(video)
    if not isinstance(video, bytes | bytearray):
        raise ValueError(f"the video is {_describe(video)}; send base64 text or bytes.")
    _check_size(len(video), limits)
    return bytes(video)


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise ValueError(f"a video of {size} bytes exceeds the {limits.max_bytes} allowed; shorten or compress it.")


def _from_base64(text: str) -> bytes:
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"the video {text[:40]!r} is not base64 ({error}); send the file's content as base64. Paths are not opened."
        ) from error


def fetch(url: str, limits: Limits) -> bytes:
    """The body at an https address of one of `limits.url_hosts`, up to `limits.max_bytes`.

    Redirects are not followed and the host's addresses must all be public: a listed name that points inside the
    operator's network is refused.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if not limits.url_hosts:
        raise ValueError(f"the address {url!r} is not fetched: this endpoint takes none. Send the video as base64.")
    if parts.scheme != "https" or host not in limits.url_hosts or "@" in parts.netloc or parts.netloc.lower() != host:
        raise ValueError(
            f"the address {url!r} is not allowed: expected https://HOST/... with HOST one of {list(limits.url_hosts)}, "
            "without port and user."
        )
    connection = CheckedConnection(host, timeout=FETCH_TIMEOUT_S)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        if response.status != 200:
            reason = "redirects are not followed" if response.status // 100 == 3 else response.reason
            raise ValueError(f"the address {url!r} answered {response.status} ({reason}).")
        return _read_body(response, limits)
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"the address {url!r} could not be fetched ({error}).") from error
    finally:
        connection.close()


def _read_body(response: http.client.HTTPResponse, limits: Limits) -> bytes:
    """At most `limits.max_bytes`, within the time of one fetch, also from a host that sends drop by drop."""
    body, deadline = bytearray(), time.monotonic() + FETCH_TIMEOUT_S
    while chunk := response.read1(1 << 16):
        body += chunk
        _check_size(len(body), limits)
        if time.monotonic() > deadline:
            raise OSError(f"not complete after {FETCH_TIMEOUT_S:.0f} s")
    return bytes(body)


class CheckedConnection(http.client.HTTPSConnection):
    """HTTPS to an address that was checked; the name is not looked up again, so that it cannot change in between."""

    def connect(self) -> None:
        plain = socket.create_connection((public_address(self.host, self.port), self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def public_address(host: str, port: int) -> str:
    """An IP address of `host`. Raises ValueError where any of its addresses is not a public one."""
    found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_global or address.is_multicast:
            raise ValueError(f"the host {host!r} is not fetched from: its address {text} is not a public one.")
    return found[0]


def check_video(data: bytes, limits: Limits) -> None:
    """Refuse what is above the limits before it is decoded, and what is no video file.

    Only containers of video itself pass: playlists and the like, which make a decoder open other files and addresses,
    have none of these signatures.

    Raises:
        ValueError: naming the limit or the remedy.
    """
    if data.startswith(IMAGE_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        _check_image(data, limits)
    elif (
        (data[:1] == b"\0" and data[4:8] in MP4_BOXES)
        or data.startswith(MATROSKA_SIGNATURE)
        or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")
    ):
        _check_stream(data, limits)
    else:
        raise ValueError(
            f"the {len(data)} bytes are no video (they begin with {data[:8]!r}); send mp4, mov, mkv, webm, avi, gif, "
            "webp, png or jpeg."
        )


def _check_image(data: bytes, limits: Limits) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            _check_pixels(*image.size, limits)
            _check_frames(getattr(image, "n_frames", 1), limits)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image of {len(data)} bytes cannot be read ({error}).") from error


def _check_stream(data: bytes, limits: Limits) -> None:
    """Check a video by its packets; opening it decodes a frame, so that its size is not the header's alone."""
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise ValueError(f"the {len(data)} bytes hold no video stream.")
            _check_pixels(container.streams.video[0].width, container.streams.video[0].height, limits)
            _check_length(container, limits)
    except av.FFmpegError as error:
        raise ValueError(f"the video of {len(data)} bytes cannot be read ({error.strerror}).") from error


def _check_length(container: Any, limits: Limits) -> None:
    """Count the packets and their times: headers may be wrong about both."""
    times: list[float] = []
    for packet in container.demux(video=0):
        if packet.pts is not None:
            times += [
                float(packet.pts * packet.time_base),
                float((packet.pts + (packet.duration or 0)) * packet.time_base),
            ]
            _check_frames(len(times) // 2, limits)
    seconds = max(times, default=0.0) - min(times, default=0.0)
    if seconds > limits.max_seconds:
        raise ValueError(f"a video of {seconds:.1f} s exceeds the {limits.max_seconds} s allowed; cut it.")


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise ValueError(f"frames of {width} x {height} exceed the {limits.max_pixels} pixels allowed; shrink them.")


def _check_frames(count: int, limits: Limits) -> None:
    if count > limits.max_frames:
        raise ValueError(f"a video of more than {limits.max_frames} frames exceeds what is allowed; cut it.")
