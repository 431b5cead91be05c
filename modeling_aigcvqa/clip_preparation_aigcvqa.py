"""Prepare clips and prompts for the model: the part of the pipeline that needs no weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .configuration_aigcvqa import AIGCVQAConfig
from .frames_aigcvqa import ReadLimits, reading_within
from .limits_aigcvqa import ClipLimits, checked_clip
from .names_aigcvqa import shortened
from .video_reading_aigcvqa import video_name

TEXTS = ("name", "warning")  # what a prepared clip holds besides the model inputs
VIEW = "pixel_values_"  # prefix of the model inputs that are views of the video


class ClipPreparation:
    """Turns an item `{"video", "prompt"}` into the inputs of the model.

    Args:
        processor: an `AIGCVQAProcessor`.
        config: of the model; only the views that its branches need are computed.
    """

    def __init__(self, processor: Any, config: AIGCVQAConfig):
        self.processor = processor
        self.views = [name.removeprefix(VIEW) for name in config.inputs if name.startswith(VIEW)]

    def __call__(
        self,
        item: dict,
        on_error: str = "raise",
        limits: ClipLimits | None = None,
        processor_options: dict | None = None,
        spent: ReadLimits | None = None,
    ) -> dict:
        """The model inputs of one clip (a batch of one), its `name`, and a `warning` if it is damaged.

        Args:
            on_error: "raise", or "return" for `{"error"}` in the place of the inputs of a clip that cannot be read.
            limits: for clips from strangers.
            processor_options: options of the processor for this call.
            spent: counts the pixels of the clips that were read before in the same call.
        """
        try:
            if not isinstance(item, dict) or "video" not in item:
                raise ValueError(f'expected {{"video": ..., "prompt": ...}} (got {_describe(item)}).')
            prompt = item.get("prompt")
            if prompt is None and self.processor.requires_prompt:
                raise ValueError(f'the item has no "prompt", which the alignment branch needs (got {_describe(item)}).')
            if prompt is not None and not isinstance(prompt, str):
                raise TypeError(f"the prompt is {shortened(repr(prompt))} ({type(prompt).__name__}); pass text.")
            options = {"views": self.views, **(processor_options or {})}
            with self._limited(limits, spent) as limits:
                video = item["video"] if limits is None else checked_clip(item["video"], limits)
                inputs = dict(self.processor(videos=[video], text=prompt, return_metadata=True, **options))
            warning = inputs.pop("video_metadata")[0].warning
            return inputs | {"name": video_name(item["video"])} | ({"warning": warning} if warning else {})
        except (ValueError, TypeError, OSError) as error:
            if on_error == "raise":
                raise
            return {"error": str(error)}

    @contextmanager
    def _limited(self, limits: ClipLimits | None, spent: ReadLimits | None) -> Iterator[ClipLimits | None]:
        """Within the block, one clip is read within the limits and what the clips before it have left."""
        if limits is None:
            yield None
            return
        spent = spent or ReadLimits()
        if limits.max_request_pixels is not None:
            left = max(0, limits.max_request_pixels - spent.decoded_pixels)
            limits = replace(limits, max_total_pixels=min(limits.max_total_pixels, left))
        reading = ReadLimits(limits.deadline, limits.max_pixels, limits.max_total_pixels)
        try:
            # The processor may be of another copy of this code: the installed package's beside remote code.
            with reading_within(reading), self.processor.reading_within(reading):
                yield limits
        finally:
            spent.decoded_pixels += reading.decoded_pixels


def _describe(item: Any) -> str:
    return f"the keys {sorted(item)}" if isinstance(item, dict) else type(item).__name__
