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
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import pipeline

ENVIRONMENT = "AIGCVQA_"


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

    @property
    def of_clips(self) -> dict[str, Any]:
        """Those that the pipeline checks."""
        return {name: value for name, value in vars(self).items() if name not in ("max_items", "max_prompt")}


class EndpointHandler:
    """Scores videos with the model in `path`; requests may come from several threads."""

    def __init__(self, path: str = ""):
        self.limits = Limits.from_environment()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.scorer = pipeline(
            "video-quality-assessment", model=path, trust_remote_code=True, device=torch.device(device)
        )
        # One thread scores for all requests. One at a time bounds the memory, and a tokenizer is not safe to share. A
        # thread of its own: each thread that computes starts a team of OpenMP threads, and many teams on few cores can
        # hold each other up without end.
        self.scoring = ThreadPoolExecutor(1)

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
        scored = iter(self.scoring.submit(self._score, good).result() if good else [])
        results = [item if "error" in item else self._with_note(next(scored)) for item in items]
        if not single:
            return results
        if "error" in results[0]:
            raise ValueError(results[0]["error"])
        return results[0]

    def _score(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.scorer(items, batch_size=len(items), on_error="return", limits=self.limits.of_clips)

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
        """An item with its video as bytes or as an address, or `{"error"}`."""
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
        """Base64 as bytes; an address and bytes as they are, for the pipeline to check."""
        if not isinstance(video, str) or "://" in video[:16]:
            return video
        if len(video) // 4 * 3 > self.limits.max_bytes:
            raise ValueError(f"the video has more than the {self.limits.max_bytes} bytes allowed; shorten it.")
        content = video.partition(",")[2] if video.startswith("data:") else video
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(
                f"the video {video[:40]!r} is not base64 ({error}); send the file's content as base64. Paths are not "
                "opened."
            ) from error

    def _with_note(self, result: dict[str, Any]) -> dict[str, Any]:
        note = getattr(self.scorer.model.config, "weights_note", None)
        return {**result, "note": note} if note and "error" not in result else result


def _describe(value: Any) -> str:
    return f"the keys {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__
