"""Handler for Hugging Face Inference Endpoints; `training.export_hub` ships it as `handler.py` beside the weights.

The handler needs only the exported folder and its requirements.txt. It writes no files and opens no file that a client
names.

Request: `{"inputs": {"video": ..., "prompt": "..."}}`, or a list of such items. `video` is base64 text (also a data
URI) or bytes, or an https address of a host that the operator lists. Response: the scores of the item, or a list
of scores. In a list, an item that cannot be scored gives `{"error": ...}` in its place. A single item that cannot be
scored raises an error, which the endpoint answers with status 400 and the message.

The operator sets limits in environment variables (defaults in brackets):
    AIGCVQA_MAX_ITEMS (8): items per request
    AIGCVQA_MAX_BYTES (67108864): bytes per video
    AIGCVQA_MAX_PIXELS (9437184): pixels per frame
    AIGCVQA_MAX_FRAMES (3600): frames per video
    AIGCVQA_MAX_SECONDS (60): seconds per video
    AIGCVQA_MAX_TOTAL_PIXELS (2147483648): width x height x frames of all videos of a request together; the default is
        8 s of decoding for H.264 on two cores, and half a minute for a GIF
    AIGCVQA_REQUEST_SECONDS (60): time from the arrival of a request to its last video being read
    AIGCVQA_MAX_PROMPT (4000): characters per prompt
    AIGCVQA_URL_HOSTS (none): hosts that videos may be fetched from, separated by commas
"""

import base64
import os
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import unquote

import torch
from transformers import pipeline

URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class Limits:
    """Limits of a request. The environment variable of a field is `AIGCVQA_` and the field's name in capitals."""

    max_items: int = 8
    max_bytes: int = 64 * 2**20
    max_pixels: int = 4096 * 2304
    max_frames: int = 3600
    max_seconds: int = 60
    max_total_pixels: int = 2**31
    request_seconds: int = 60
    max_prompt: int = 4000
    url_hosts: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> "Limits":
        """Raises ValueError if a limit is not a whole number above 0."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            name = f"AIGCVQA_{field.name.upper()}"
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

    def of_clips(self, deadline: float) -> dict[str, Any]:
        """The limits that the pipeline checks for the clips of a request; reading ends at `deadline`."""
        own = ("max_items", "max_prompt", "request_seconds")
        limits = {name: value for name, value in vars(self).items() if name not in own}
        return limits | {"max_request_pixels": self.max_total_pixels, "deadline": deadline}


class EndpointHandler:
    """Scores videos with the model in the folder `path`; may be called from several threads at once."""

    def __init__(self, path: str = ""):
        self.limits = Limits.from_environment()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.scorer = pipeline(
            "video-quality-assessment", model=path, trust_remote_code=True, device=torch.device(device)
        )
        # One dedicated thread scores all requests. Scoring one request at a time bounds the memory, and tokenizers are
        # not thread-safe. The thread is dedicated because every thread that computes starts its own team of OpenMP
        # threads, and many teams on few cores can block each other indefinitely.
        self.scoring = ThreadPoolExecutor(1)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """Score the item or the list of items in `data["inputs"]`; see the module's docstring.

        Returns:
            `quality_score`, `technical_score`, `aesthetic_score` and `alignment_score` as floats, higher is better; and
            `note` if the weights need a caveat.

        Raises:
            ValueError: the request has another form, exceeds a limit, or is a single item that cannot be scored.
        """
        deadline = time.monotonic() + self.limits.request_seconds
        inputs, single = self._inputs(data)
        items = [self._checked(item) for item in inputs]
        good = [item for item in items if "error" not in item]
        scored = iter(self._scored(good, deadline) if good else [])
        results = [item if "error" in item else self._with_note(next(scored)) for item in items]
        if not single:
            return results
        if "error" in results[0]:
            raise ValueError(results[0]["error"])
        return results[0]

    def _scored(self, items: list[dict[str, Any]], deadline: float) -> list[dict[str, Any]]:
        """Scores, or `{"error"}`, of items. A request that others kept waiting to its deadline is answered then."""
        limits = self.limits.of_clips(deadline)
        request = self.scoring.submit(self.scorer, items, batch_size=len(items), on_error="return", limits=limits)
        try:
            return request.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            if request.cancel():
                busy = "the endpoint is busy, and the time of this request is over; send it again."
                return [{"error": busy}] * len(items)
            return request.result()  # its clips are being read or scored: reading ends at the deadline

    def _inputs(self, data: Any) -> tuple[list[Any], bool]:
        """The items of a request, and whether the request is a single item."""
        inputs = data.get("inputs") if isinstance(data, dict) else None
        if not isinstance(inputs, dict | list) or not inputs:
            raise ValueError('expected {"inputs": {"video": ..., "prompt": ...}} or a list of such items in "inputs".')
        if data.get("parameters"):
            raise ValueError(f"parameters={data['parameters']!r}: this endpoint takes no parameters; leave them out.")
        if len(inputs) > self.limits.max_items and isinstance(inputs, list):
            raise ValueError(f"{len(inputs)} items exceed the {self.limits.max_items} per request; send several.")
        return (inputs, False) if isinstance(inputs, list) else ([inputs], True)

    def _checked(self, item: Any) -> dict[str, Any]:
        """An item with its video as bytes or as an address, or `{"error": message}`."""
        try:
            if not isinstance(item, dict) or "video" not in item:
                raise ValueError(f'expected {{"video": ..., "prompt": ...}} (got {_describe(item)}).')
            prompt = item.get("prompt")
            if prompt is not None and not isinstance(prompt, str):
                raise ValueError(f"the prompt is {type(prompt).__name__}; pass text.")
            if prompt is not None and len(prompt) > self.limits.max_prompt:
                raise ValueError(f"a prompt of {len(prompt)} characters exceeds the {self.limits.max_prompt} allowed.")
            return {"video": self._video(item["video"]), "prompt": prompt}
        except ValueError as error:
            return {"error": str(error)}

    def _video(self, video: Any) -> Any:
        """Decode base64 to bytes; leave addresses and bytes as they are, because the pipeline checks them."""
        if not isinstance(video, str) or "://" in video[:16]:
            return video
        content = unquote(video.partition(",")[2]) if video.startswith("data:") else video
        # Line breaks and missing padding are usual, and some encoders write - and _ for + and /.
        content = "".join(content.split()).rstrip("=").translate(URL_SAFE)
        if len(content) // 4 * 3 > self.limits.max_bytes:
            raise ValueError(f"the video has more than the {self.limits.max_bytes} bytes allowed; shorten it.")
        try:
            return base64.b64decode(content + "=" * (-len(content) % 4), validate=True)
        except ValueError as error:
            raise ValueError(
                f"the video {video[:40]!r} is not base64 ({error}); send the file's content as base64. Paths are not "
                "opened."
            ) from error

    def _with_note(self, result: dict[str, Any]) -> dict[str, Any]:
        note = getattr(self.scorer.model.config, "weights_note", None)
        return {**result, "note": note} if note and "error" not in result else result


def _describe(value: Any) -> str:
    return f"the keys {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__
