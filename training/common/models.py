"""Load the model of a run, select the branches to train, and set the level of its scores."""

import copy

import torch
from torch import Tensor

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAProcessor, load_model
from modeling_aigcvqa.common.presets import default_processor, untrained_model


def initial_model(init_from: str | None) -> tuple[AIGCVQAModel, AIGCVQAProcessor]:
    """The model, in float32, and the processor of a folder or Hub id; None gives an untrained full-size model."""
    if init_from is None:
        model = untrained_model("full")
        return model, default_processor(model.config)
    model, processor = load_model(init_from)
    return model.float(), processor


def select_branches(model: AIGCVQAModel, branches: list[str]) -> AIGCVQAModel:
    """A model with only some of the branches. It shares its modules with `model`, so training it trains `model` too.

    Raises:
        ValueError: for a branch that is not in the model.
    """
    missing = [branch for branch in branches if branch not in model.config.branches]
    if missing:
        raise ValueError(f"branches={branches}: the model has only {model.config.branches}.")
    config = copy.deepcopy(model.config)
    config.branches = [branch for branch in model.config.branches if branch in branches]
    with torch.device("meta"):
        selected = AIGCVQAModel(config)
    for name, _ in list(selected.named_children()):
        setattr(selected, name, getattr(model, name))
    return selected


def set_level(config: AIGCVQAConfig, scores: dict[str, Tensor], mos: Tensor) -> None:
    """Give the quality score the mean and standard deviation of the labels, and every branch an equal part of the mean.

    The losses do not determine the mean of the scores, and eq. 7 bounds their spread only from below. All branches are
    scaled by the same factor, which keeps their weights in the sum.

    Args:
        scores: scores (N,) of "quality" and of each trained branch.
        mos: labels (N,) of the same clips.
    """
    spread = scores["quality"].std()
    factor = (mos.std() / spread).item() if spread > 0 else 1.0
    parts = config.parts
    for branch in parts.keys() & scores.keys():
        centre = scores[branch].mean().item()
        parts[branch].score_scale *= factor
        parts[branch].score_shift = factor * (parts[branch].score_shift - centre) + mos.mean().item() / len(parts)
