"""Handler for Hugging Face Inference Endpoints; `training.export_hub` ships it as `handler.py` beside the weights.

The handler needs only the exported folder and its requirements.txt. It writes no files and opens no file that a client
names.

Request: `{"inputs": {"video": ..., "prompt": "..."}}`, or a list of such items. `video` is base64 text (also a data
URI) or bytes, or an https address of a host that the operator lists. Response: the scores of the item, or a list
of scores. In a list, an item that cannot be scored gives `{"error": ...}` in its place. A single item that cannot be
scored raises an error, which the endpoint answers with status 400 and the message.
With `"parameters": {"scale": true}` beside the inputs, scores come with percentiles among the reference of the model,
and with `about_scale`, what they are of.

The operator sets limits in environment variables; see `requests_aigcvqa.py`, which both this handler and
`aigcvqa serve` obey.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import torch
from transformers import pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module


class EndpointHandler:
    """Scores videos with the model in the folder `path`; may be called from several threads at once."""

    def __init__(self, path: str = ""):
        limits = get_class_from_dynamic_module("requests_aigcvqa.RequestLimits", path)
        self.limits = limits.from_environment()
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
        inputs, single = self.limits.items(data)
        scale = self.limits.wants_scale(data)
        self.scorer.model.config.check_scale(scale)
        items = [self.limits.checked_item(item) for item in inputs]
        good = [item for item in items if "error" not in item]
        scored = iter(self._scored(good, deadline) if good else [])
        results = [item if "error" in item else self._explained(next(scored), scale) for item in items]
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
                return [{"error": self.limits.busy}] * len(items)
            return request.result()  # its clips are being read or scored: reading ends at the deadline

    def _explained(self, result: dict[str, Any], scale: bool) -> dict[str, Any]:
        config = self.scorer.model.config
        if "error" in result:
            return result
        if scale:
            result = {**result, **config.on_scale(result), "about_scale": config.about_scale}
        return {**result, "note": config.weights_note} if config.weights_note else result
