"""The reward of frames in memory."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..clip_preparation_aigcvqa import ClipPreparation
from ..common.choices import SHIPPED
from ..loading import load_pipeline
from ..names_aigcvqa import ON_ERROR, SCORES
from .frames import UNIT, Range, as_stored, checked_range, clips_of, unit_clip

GPU_MICRO_BATCH = 4


class AIGCVQAReward:
    """Rewards of generated clips, as tensors: `rewards, parts = reward(frames, prompts)`.

    The same frames give the same reward on every call. Without gradients it is the score that a lossless file of the
    frames has: floats are rounded to 8 bits, as in a file. With `differentiable=True` nothing is rounded: the reward is
    a continuous function of the frames, and the gradient reaches them. The weights of the model never get one.

    The class facts `higher_is_better`, `is_differentiable`, `plot_lower_bound` and `plot_upper_bound` are those of
    torchmetrics. Scores have no bounds; those of different models cannot be compared.

    Args:
        model, branches, device, dtype, alignment_num_frames: as of `load_pipeline`.
        weights: of the branches in the reward, by name; None for 1 each, the quality score.
        differentiable: whether gradients reach the frames. Activations are not kept: every micro-batch is computed
            again on the way back.
        micro_batch: clips per pass, which bounds the memory; None for 1 on a CPU (more are not faster) and 4 on a GPU.
            The last digits of a reward depend on it.
        on_error: "raise" for an error if a clip has no finite score, or "return" for NaN as its reward and the reason
            in `parts["error"]`.

    Raises:
        ValueError: for a model that cannot be loaded, or an option that is out of range.

    Example:
        >>> reward = AIGCVQAReward(model="small", differentiable=True)
        >>> rewards, parts = reward(frames, prompts, value_range=(-1, 1))
        >>> (-rewards.mean()).backward()
    """

    higher_is_better = True
    is_differentiable = True
    plot_lower_bound = None
    plot_upper_bound = None

    def __init__(
        self,
        model: str = SHIPPED,
        branches: Sequence[str] | None = None,
        weights: dict[str, float] | None = None,
        device: str = "auto",
        dtype: str | None = None,
        differentiable: bool = False,
        micro_batch: int | None = None,
        alignment_num_frames: int | None = None,
        on_error: str = "raise",
    ):
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch={micro_batch}: expected at least 1.")
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error={on_error!r}: expected one of {list(ON_ERROR)}.")
        built = None if branches is None else list(branches)
        self.pipeline = load_pipeline(str(model), built, str(device), dtype, alignment_num_frames)
        self.pipeline.model.requires_grad_(False)
        self.prepare = ClipPreparation(self.pipeline.processor, self.pipeline.model.config)
        self.weights = _checked_weights(weights, self.pipeline.model.config.branches)
        self.differentiable, self.on_error = differentiable, on_error
        self.micro_batch = micro_batch or (1 if self.pipeline.device.type == "cpu" else GPU_MICRO_BATCH)

    def __call__(
        self,
        frames: Tensor | np.ndarray | Sequence[Tensor | np.ndarray],
        prompts: Sequence[str] | None = None,
        value_range: Range = UNIT,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The rewards of a batch.

        Args:
            frames: (B, T, 3, H, W) or (B, T, H, W, 3), of any length and size; uint8 in 0..255, or floats in
                `value_range`. Or a list of clips that differ in length or size. They are resized where they lie, on a
                CPU or a GPU; the frames of files are resized on a CPU.
            prompts: one per clip; None only without the alignment branch.
            value_range: lowest and highest value of float frames, as (0, 1) or (-1, 1).

        Returns:
            Rewards (B,), and their parts by name, (B,): `quality_score` (the plain sum) and the score of each branch.
            All float32, on the device of the model. With `on_error="return"` also `error`: a list with None, or the
            reason why a clip has no reward.

        Raises:
            ValueError: for frames or prompts of another form, values outside of the range and, with
                `on_error="raise"`, a score that is not finite; names the clip.
        """
        clips, value_range = clips_of(frames), checked_range(value_range)
        prompts = _checked_prompts(prompts, len(clips))
        if not self.differentiable and torch.is_grad_enabled() and any(clip.requires_grad for clip in clips):
            raise ValueError(
                "frames require a gradient, but the reward was built without: pass differentiable=True, or "
                "frames.detach()."
            )
        results: list[dict[str, Any]] = []
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            for start in range(0, len(clips), self.micro_batch):
                stop = min(start + self.micro_batch, len(clips))
                inputs = [self._inputs(clips[i], prompts[i], f"frames[{i}]", value_range) for i in range(start, stop)]
                results += self._scores(inputs)
            return self._rewards(results)

    def _inputs(self, clip: Tensor, prompt: str | None, name: str, value_range: Range) -> dict[str, Any]:
        """The inputs of the model for one clip, or `{"error"}`."""
        try:
            return inputs_of_clip(self.prepare, clip, prompt, name, value_range, is_rounded=not self.differentiable)
        except ValueError as error:
            if self.on_error == "raise":
                raise
            return {"error": str(error)}

    def _scores(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if torch.is_grad_enabled():
            return checkpoint(self.pipeline.scores_of, inputs, use_reentrant=False, preserve_rng_state=False)
        return self.pipeline.scores_of(inputs)

    def _rewards(self, results: list[dict[str, Any]]) -> tuple[Tensor, dict[str, Any]]:
        names = [name for name in SCORES if name == "quality_score" or name.removesuffix("_score") in self.weights]
        missing = torch.full((), math.nan, device=self.pipeline.device)
        parts: dict[str, Any] = {name: torch.stack([result.get(name, missing) for result in results]) for name in names}
        if self.weights == dict.fromkeys(self.weights, 1.0):
            rewards = parts["quality_score"]
        else:
            rewards = sum(weight * parts[f"{branch}_score"] for branch, weight in self.weights.items())
        errors = [result.get("error") for result in results]
        for index in (~torch.isfinite(rewards)).nonzero()[:, 0].tolist():
            errors[index] = errors[index] or (
                f"frames[{index}]: the model gives {float(rewards[index])}; check its weights, or choose another dtype."
            )
        if self.on_error == "raise":
            if bad := next((error for error in errors if error), None):
                raise ValueError(bad)
            return rewards, parts
        failed = torch.tensor([error is not None for error in errors], device=rewards.device)
        return rewards.masked_fill(failed, math.nan), parts | {"error": errors}


def inputs_of_clip(
    prepare: ClipPreparation, clip: Tensor, prompt: str | None, name: str, value_range: Range, is_rounded: bool = True
) -> dict[str, Any]:
    """The inputs of the model for one clip in memory.

    Args:
        clip, name, value_range: as of `unit_clip`.
        is_rounded: floats are rounded to 8 bits, as in a file.

    Raises:
        ValueError: for a clip or prompt that cannot be scored; names the clip.
    """
    clip = unit_clip(clip, name, value_range)
    try:
        return prepare({"video": as_stored(clip) if is_rounded else clip, "prompt": prompt})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _checked_weights(weights: dict[str, float] | None, branches: Sequence[str]) -> dict[str, float]:
    """The weights of the branches that are built."""
    given = dict.fromkeys(branches, 1.0) if weights is None else dict(weights)
    for name, value in given.items():
        if name not in branches:
            raise ValueError(f"weights names {name!r}; the branches of this model are {list(branches)}.")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"weights[{name!r}]={value!r}: expected a finite number.")
    if not any(given.values()):
        raise ValueError(f"weights={weights!r}: at least one branch needs a weight other than 0.")
    return {name: float(given.get(name, 0.0)) for name in branches}


def _checked_prompts(prompts: Sequence[str] | None, count: int) -> list[str | None]:
    if prompts is None:
        return [None] * count
    if isinstance(prompts, str) or len(prompts) != count:
        given = "one text" if isinstance(prompts, str) else f"{len(prompts)} prompts"
        raise ValueError(f"prompts: {given} for {count} clips; pass a list with one prompt per clip.")
    return list(prompts)
