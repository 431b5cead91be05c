"""Requests to a service: their limits, and the items in them. The endpoint's handler and `aigcvqa serve` share them.

An operator sets limits in environment variables (defaults in brackets):
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
from dataclasses import dataclass, fields
from typing import Any, ClassVar
from urllib.parse import unquote

URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class RequestLimits:
    """Limits of a request, and what is read of one within them.

    The environment variable of a field is `AIGCVQA_` and the field's name in capitals.
    """

    busy: ClassVar[str] = "the service is busy, and the time of this request is over; send it again."

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
    def from_environment(cls) -> "RequestLimits":
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

    def items(self, data: Any) -> tuple[list[Any], bool]:
        """The items of a request `{"inputs": item or list of items}`, and whether the request is a single item.

        Raises:
            ValueError: for a request of another form, or with too many items.
        """
        inputs = data.get("inputs") if isinstance(data, dict) else None
        if not isinstance(inputs, dict | list) or not inputs:
            raise ValueError('expected {"inputs": {"video": ..., "prompt": ...}} or a list of such items in "inputs".')
        if len(inputs) > self.max_items and isinstance(inputs, list):
            raise ValueError(f"{len(inputs)} items exceed the {self.max_items} per request; send several.")
        return (inputs, False) if isinstance(inputs, list) else ([inputs], True)

    def wants_scale(self, data: Any) -> bool:
        """Whether a request asks for percentiles: `{"inputs": ..., "parameters": {"scale": true}}`.

        Raises:
            ValueError: for another parameter.
        """
        parameters = data.get("parameters") or {} if isinstance(data, dict) else {}
        if not isinstance(parameters, dict) or not parameters.keys() <= {"scale"}:
            raise ValueError(f'parameters={parameters!r}: this service takes only {{"scale": true}}; leave others out.')
        if not isinstance(parameters.get("scale", False), bool):
            raise ValueError(f"the parameter scale is {parameters['scale']!r}; send true or false.")
        return parameters.get("scale", False)

    def checked_item(self, item: Any) -> dict[str, Any]:
        """An item with its video as bytes or as an address, or `{"error": message}`."""
        try:
            if not isinstance(item, dict) or "video" not in item:
                raise ValueError(f'expected {{"video": ..., "prompt": ...}} (got {_describe(item)}).')
            prompt = item.get("prompt")
            if prompt is not None and not isinstance(prompt, str):
                raise ValueError(f"the prompt is {type(prompt).__name__}; pass text.")
            self.check_prompt(prompt)
            return {"video": self._content(item["video"]), "prompt": prompt}
        except ValueError as error:
            return {"error": str(error)}

    def check_prompt(self, prompt: str | None) -> None:
        """Raise ValueError for a prompt that is too long."""
        if prompt is not None and len(prompt) > self.max_prompt:
            raise ValueError(f"a prompt of {len(prompt)} characters exceeds the {self.max_prompt} allowed.")

    def _content(self, video: Any) -> Any:
        """Decode base64 to bytes; leave addresses and bytes as they are, because the pipeline checks them."""
        if not isinstance(video, str) or "://" in video[:16]:
            return video
        content = unquote(video.partition(",")[2]) if video.startswith("data:") else video
        # Line breaks and missing padding are usual, and some encoders write - and _ for + and /.
        content = "".join(content.split()).rstrip("=").translate(URL_SAFE)
        if len(content) // 4 * 3 > self.max_bytes:
            raise ValueError(f"the video has more than the {self.max_bytes} bytes allowed; shorten it.")
        try:
            return base64.b64decode(content + "=" * (-len(content) % 4), validate=True)
        except ValueError as error:
            raise ValueError(
                f"the video {video[:40]!r} is not base64 ({error}); send the file's content as base64. Paths are not "
                "opened."
            ) from error


def _describe(value: Any) -> str:
    return f"the keys {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__


__all__ = ["RequestLimits"]
