"""The scorer of batches of clips."""

from typing import Any

import torch

from ..loading import load_pipeline
from ..names_aigcvqa import RESULTS, SCALE
from .identity import ScorerIdentity
from .reader import ClipReader
from .settings import ScorerSettings


class ClipScorer:
    """Scores batches of clips: `scorer(batch)` for `map` of `datasets`, `map_batches` of Ray Data, and the like.

    It never raises for a clip: a clip that cannot be scored has an `error` and no number.

    Higher is better. Scores have no bounds; those of different models cannot be compared.

    Args:
        settings: what is loaded and how it computes; or the fields of `ScorerSettings` as keywords.

    Raises:
        ValueError: for a model that cannot be loaded, or an option that is out of range.

    Example:
        >>> scorer = ClipScorer(model="small")
        >>> scorer({"video": ["clip.mp4"], "prompt": ["a corgi"]})["quality_score"]
    """

    higher_is_better = True

    def __init__(self, settings: ScorerSettings | None = None, **fields: Any):
        if settings is not None and fields:
            raise ValueError(f"pass settings or their fields, not both (got {sorted(fields)} too).")
        self.settings = settings or ScorerSettings(**fields)
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        self.identity = ScorerIdentity.of(self.settings)
        self.pipeline = load_pipeline(
            **self.settings.what_is_built, device=self.settings.device, dtype=self.settings.dtype
        )
        self.pipeline.model.config.check_scale(self.settings.scale)
        self.read = ClipReader(self.settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The columns of the batch and its scores.

        Args:
            batch: as of `ClipReader`; or with its column `inputs`, if the clips are read already.

        Returns:
            The columns without `inputs`, and as lists: the scores by name (None for a branch that is not built, and
            for a clip that cannot be scored), `quality_of` (the branches in the sum, None for all three), `warning`
            (of a damaged clip), `error` (None for a clip that is scored), `model_revision`, `options_fingerprint`.
        """
        if "inputs" not in batch:
            batch = self.read(batch)
        results = self.score(batch["inputs"])
        columns = {name: column for name, column in batch.items() if name != "inputs"}
        columns |= {name: [result.get(name) for result in results] for name in self._result_names}
        columns["model_revision"] = [self.identity.model_revision] * len(results)
        columns["options_fingerprint"] = [self.identity.options_fingerprint] * len(results)
        return columns

    @property
    def _result_names(self) -> tuple[str, ...]:
        return (*RESULTS, *SCALE) if self.settings.scale else RESULTS

    def score(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The scores of clips that a `ClipReader` has read, or `{"error"}`."""
        step = 1 if self.pipeline.device.type == "cpu" else self.settings.batch_size
        return [
            result
            for start in range(0, len(inputs), step)
            for result in self._results(list(inputs[start : start + step]))
        ]

    def _results(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return self.pipeline.postprocess(
                self.pipeline.forward(inputs), on_error="return", scale=self.settings.scale
            )
        except Exception as error:
            if _device_is_lost(error):
                raise  # no clip's fault, and every following clip would fail
            if len(inputs) > 1:  # too large together, or one of them is to blame
                return [result for item in inputs for result in self._results([item])]
            return [{"error": f"{inputs[0]['name']} cannot be scored ({type(error).__name__}: {error})."}]


def _device_is_lost(error: Exception) -> bool:
    """Whether a GPU has failed so that the process cannot use it any more; a lack of memory is no such failure."""
    kind = getattr(torch, "AcceleratorError", None)  # since torch 2.8
    return kind is not None and isinstance(error, kind) and not isinstance(error, torch.OutOfMemoryError)
