"""The reward in the shapes in which trainers call one. With `on_error="return"`, what failed is marked, never a number.

Both functions have the name `aigcvqa`, because trainers log a reward by the name of its function.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .frames import UNIT, Range
from .reward import AIGCVQAReward


def flow_grpo_reward(reward: AIGCVQAReward, value_range: Range = UNIT) -> Callable:
    """A function `(images, prompts, metadata) -> (scores, info)`, as trainers by Flow-GRPO and DDPO call it.

    `images` are clips (B, T, 3, H, W) or (B, T, H, W, 3), or single images of 4 axes. `scores` is a list of floats, NaN
    for a clip that failed; `info` holds the parts by name, as lists.
    """

    def aigcvqa(images: Any, prompts: Sequence[str], metadata: Any = None, **_: Any) -> tuple[list[float], dict]:
        is_still = not isinstance(images, list | tuple) and images.ndim == 4
        rewards, parts = reward(images[:, None] if is_still else images, list(prompts), value_range)
        return rewards.tolist(), {name: _listed(values) for name, values in parts.items()}

    return aigcvqa


def trl_reward(reward: AIGCVQAReward, value_range: Range = UNIT) -> Callable:
    """A function `(prompts, completions, **kwargs) -> list[float | None]`, as TRL's trainers call it.

    `completions` are the generated clips, each (T, 3, H, W) or (T, H, W, 3). A clip that failed has None, which TRL
    leaves out.
    """

    def aigcvqa(prompts: Sequence[str], completions: Sequence[Any], **_: Any) -> list[float | None]:
        rewards, _parts = reward(completions, list(prompts), value_range)
        return [None if math.isnan(value) else value for value in rewards.tolist()]

    return aigcvqa


def _listed(values: Any) -> list:
    return values.tolist() if isinstance(values, Tensor) else list(values)
