"""How much the scores of a clip depend on what was looked at: draws of fragments and of frames.

The fragments are drawn K times. The branches that see whole frames do not depend on them: they are computed for
F = ceil(sqrt(K)) draws of frames, or once if the model sees all frames of the clip. So 16 draws cost 16 passes of the
technical branch and 4 of the other two.

The deviation over the draws says how steady a score is, not how far it is from people's opinion. For that a config may
hold an interval, made by split conformal prediction (Vovk et al., 2005; Lei et al., 2018) from the residuals on
validation clips.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .protocols_aigcvqa import sample_frame_indices

FRAGMENTS, RESIZED = "draws_fragments", "draws_resized"
COVERAGE = 0.9  # of the interval of opinions
GPU_DRAWS = 8  # that a GPU computes at once; on a CPU one by one is as fast


def frame_draws(total: int, num_frames: int, draws: int, generator: torch.Generator) -> list[list[int]]:
    """F sets of frame indices (T,): in each, one frame at random from every part of the clip.

    One set, that of the scores, if the clip has no more frames than a set.
    """
    if total <= num_frames:
        return [sample_frame_indices(total, num_frames)]
    noise = torch.rand(math.ceil(math.sqrt(draws)), num_frames, generator=generator, dtype=torch.float64)
    places = (torch.arange(num_frames) + noise) * total / num_frames
    return places.long().clamp(max=total - 1).tolist()


def draw_scores(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores of a clip's draws, by name: (K,) of quality and technical, (F,) of the other branches.

    Quality is the sum over the branches, whose F draws take turns with the K of the fragments.

    Args:
        inputs: of one clip, with `draws_fragments` (1, K, T, 3, h, w) and `draws_resized` (1, F, T, 3, h, w), as far as
            the branches need them, and with the tokens of the prompt.
    """
    scores: dict[str, Tensor] = {}
    for branch in model.config.branches:
        draws = inputs[FRAGMENTS if branch == "technical" else RESIZED][0]
        parts = draws.split(1 if draws.device.type == "cpu" else GPU_DRAWS)
        if branch == "alignment":
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            found = [
                model.score_prompts(model.encode_video(part), ids.expand(len(part), -1), mask.expand(len(part), -1))
                for part in parts
            ]
        else:
            found = [model.score_map(branch, part).mean((1, 2, 3)) for part in parts]
        scores[branch] = torch.cat(found)
    turns = torch.arange(max(map(len, scores.values())))
    return {"quality": torch.stack([values[turns % len(values)] for values in scores.values()]).sum(0), **scores}


def spread(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean and deviation of a clip's scores over its draws: `quality_score_mean`, `quality_score_std`, ..."""
    result = {}
    for name, values in draw_scores(model, inputs).items():
        result[f"{name}_score_mean"] = values.mean()
        result[f"{name}_score_std"] = values.std() if len(values) > 1 else torch.zeros(())
    return result


def interval_of(residuals: Sequence[float] | Tensor, branches: Sequence[str]) -> dict[str, Any]:
    """The interval of a config, from the differences of opinions and quality scores of validation clips.

    Args:
        branches: whose sum the quality is.
    """
    half_width = conformal_half_width(residuals, COVERAGE)
    return {"half_width": half_width, "coverage": COVERAGE, "clips": len(residuals), "branches": list(branches)}


def conformal_half_width(residuals: Sequence[float] | Tensor, coverage: float) -> float | None:
    """Half the width of an interval that holds the label of a new clip with at least this probability.

    It is the ceil((n + 1) coverage)-th smallest absolute residual (Lei et al., 2018, algorithm 2).

    Returns:
        None if there are too few residuals for this coverage.
    """
    values = torch.as_tensor(residuals, dtype=torch.float64).abs().sort().values
    rank = math.ceil((len(values) + 1) * coverage)
    return float(values[rank - 1]) if 0 < rank <= len(values) else None
