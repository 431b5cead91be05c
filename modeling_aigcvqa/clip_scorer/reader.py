"""Read and decode the clips of a batch: the part of scoring that needs neither weights nor a GPU."""

from typing import Any

import numpy as np
import torch

from ..clip_preparation_aigcvqa import ClipPreparation
from ..common.places import fetched_from_place
from ..loading import load_processor
from ..video_reading_aigcvqa import video_name
from .settings import ScorerSettings


class ClipReader:
    """Turns a batch of clips and prompts into the inputs of the model. An error costs its clip alone.

    Args:
        settings: of the scorer that takes the inputs.

    Raises:
        ValueError: for a model that cannot be loaded.
    """

    def __init__(self, settings: ScorerSettings):
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        config, processor = load_processor(**settings.what_is_built)
        self.prepare = ClipPreparation(processor, config)
        self.options = {"on_damage": settings.on_damage}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The columns of the batch, and `inputs`: per clip the inputs of the model, or `{"error"}`.

        Args:
            batch: equally long columns, lists or arrays: `video` in any form that `read_video` takes, also as an
                fsspec address such as s3://..., or `file`; and `prompt`.

        Raises:
            ValueError: if the batch has neither of the columns.
        """
        videos = next((batch[name] for name in ("video", "file") if name in batch), None)
        if videos is None:
            raise ValueError(f"the batch has no column 'video' or 'file' (it has {sorted(batch)}).")
        prompts = batch.get("prompt", [None] * len(videos))
        return {**batch, "inputs": [self.read(video, prompt) for video, prompt in zip(videos, prompts)]}

    def read(self, video: Any, prompt: str | None) -> dict[str, Any]:
        """The inputs of one clip, with its `name` and a `warning` if it is damaged; or `{"error"}`."""
        video = _plain(video)
        try:
            item = {"video": fetched_from_place(video), "prompt": _plain(prompt)}
            inputs = self.prepare(item, on_error="return", processor_options=self.options)
        except Exception as error:  # a defect of a decoder or of this code must not cost the other clips
            if isinstance(error, ValueError | OSError):
                return {"error": str(error)}
            return {"error": f"{video_name(video)} cannot be read ({type(error).__name__}: {error})."}
        return inputs if "error" in inputs else inputs | {"name": video_name(video)}


def _plain(value: Any) -> Any:
    """A text, number or bytes of NumPy as Python's."""
    return value.item() if isinstance(value, np.generic) else value
