"""A client of the service. It needs no model."""

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from torch import Tensor

from ..names_aigcvqa import SCORES
from ..reward.frames import UNIT, Range
from .tensors import as_uint8, packed

AGAIN = (429, 502, 503, 504)  # the service is busy, or a process of it has just been replaced
LONGEST_PAUSE = 60.0  # seconds


class ServiceError(RuntimeError):
    """The service refused a request, or could not be reached. The message names the address and the reason."""


class AIGCVQAClient:
    """Scores and rewards of a service that `aigcvqa serve` has started.

    Args:
        url: as "http://127.0.0.1:8000".
        token: of the service.
        timeout: seconds until a request is given up.
        retries: how often a request is sent again if the service is busy or cannot be reached. A request is the same
            each time and changes nothing in the service, so that it may be sent twice.

    Example:
        >>> with AIGCVQAClient("http://127.0.0.1:8000") as client:
        ...     rewards, parts = client.reward(frames, prompts)
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 120.0, retries: int = 5):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self.url, self.retries = url, retries

    def __enter__(self) -> "AIGCVQAClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def score(self, video: str | Path | bytes, prompt: str | None = None, scale: bool = False) -> dict[str, Any]:
        """The scores of one video file, given by its path or content.

        Args:
            scale: whether to give percentiles among the reference of the model too.

        Raises:
            ServiceError: if it cannot be scored.
            OSError: if the file cannot be read.
        """
        content = video if isinstance(video, bytes) else Path(video).read_bytes()
        data = ({} if prompt is None else {"prompt": prompt}) | ({"scale": "true"} if scale else {})
        return self._sent("POST", "/score", files={"video": ("clip", content)}, data=data).json()

    def score_tensors(
        self,
        frames: Tensor | np.ndarray,
        prompts: Sequence[str] | None = None,
        value_range: Range = UNIT,
        scale: bool = False,
    ) -> list[dict[str, Any]]:
        """Per clip its scores, or `{"error"}`; arguments as of `AIGCVQAReward` and `score`. Floats are sent as 8 bits.

        Raises:
            ServiceError: if the request as a whole is refused.
        """
        frames = torch.as_tensor(frames).detach()
        if frames.is_floating_point() and not _is_within(frames, value_range):
            content = packed(
                frames.float().cpu(), _listed(prompts), value_range, scale
            )  # the service says what is wrong
        else:
            content = packed(as_uint8(frames, value_range).cpu(), _listed(prompts), scale=scale)
        headers = {"Content-Type": "application/octet-stream"}
        return self._sent("POST", "/score_tensors", content=content, headers=headers).json()["results"]

    def reward(
        self, frames: Tensor | np.ndarray, prompts: Sequence[str] | None = None, value_range: Range = UNIT
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Rewards (B,) and their parts by name, as `AIGCVQAReward` gives them, on the CPU.

        Raises:
            ServiceError: if a clip has no score; names the clip and the reason.
        """
        results = self.score_tensors(frames, prompts, value_range)
        if bad := next((result["error"] for result in results if "error" in result), None):
            raise ServiceError(f"{self.url}: {bad}")
        parts = {name: torch.tensor([result[name] for result in results]) for name in SCORES if name in results[0]}
        return parts["quality_score"], parts

    def health(self) -> dict[str, Any]:
        """What the service serves."""
        return self._sent("GET", "/healthz").json()

    def _sent(self, method: str, path: str, **request: Any) -> httpx.Response:
        for attempt in range(self.retries + 1):
            pause = min(2.0**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            try:
                response = self.http.request(method, path, **request)
            except httpx.TransportError as error:
                problem, is_final = f"{type(error).__name__}: {error}", isinstance(error, httpx.ReadTimeout)
            else:
                if response.is_success:
                    return response
                problem, is_final = _reason(response), response.status_code not in AGAIN
                pause = max(pause, min(_seconds(response), LONGEST_PAUSE))
            if is_final:
                break
            if attempt < self.retries:
                time.sleep(pause)
        raise ServiceError(f"{self.url}{path}: {problem}")


def _reason(response: httpx.Response) -> str:
    try:
        return f"{response.status_code}: {response.json()['error']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code}: {response.text[:200]}"


def _seconds(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _listed(prompts: Sequence[str] | None) -> list[str] | None:
    return None if prompts is None else list(prompts)


def _is_within(frames: Tensor, value_range: Range) -> bool:
    low, high = (float(value) for value in frames.aminmax()) if frames.numel() else (math.nan, math.nan)
    return value_range[0] <= low <= high <= value_range[1]
