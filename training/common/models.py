"""Load the model of a run, select the branches to train, and set the level of its scores."""

import copy

import torch
from torch import Tensor

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAProcessor, load_model
from modeling_aigcvqa.common.presets import default_processor, untrained_model
from modeling_aigcvqa.scale_aigcvqa import MIN_REFERENCE, make_reference
from modeling_aigcvqa.uncertainty_aigcvqa import interval_of

MIN_INTERVAL = 50  # clips behind an interval of opinions
MAX_SCALE = 20.0  # largest scale of a branch that `set_level` sets, in standard deviations of the labels


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


def set_interval(config: AIGCVQAConfig, quality: Tensor, mos: Tensor, trained: list[str]) -> None:
    """Store how far opinions are from quality scores, from the residuals on validation clips; see `AIGCVQAConfig`.

    None where it would not hold: for a model with branches that did not train, or with fewer than `MIN_INTERVAL` clips.

    Args:
        quality: scores (N,) on the level that `set_level` has given them.
        mos: labels (N,) of the same clips.
    """
    known = mos.isfinite() & quality.isfinite()
    residuals = (mos - quality)[known]
    config.interval = None
    if len(residuals) >= MIN_INTERVAL and set(trained) == set(config.branches):
        config.interval = interval_of(residuals, config.branches)


def set_reference(config: AIGCVQAConfig, scores: dict[str, Tensor], trained: list[str], of: str) -> None:
    """Store the quantiles of the scores of validation clips, so that scores have percentiles; none for a few clips.

    Args:
        scores: scores (N,) of "quality" and of each trained branch, on the level that they are given out at.
        of: what the clips are.
    """
    scores = {name: scores[name] for name in ("quality", *trained) if name in scores}
    known = torch.stack(list(scores.values())).isfinite().all(0)
    config.reference = config.calibration = None
    if known.sum() >= MIN_REFERENCE:
        named = {f"{name}_score": values[known].double().tolist() for name, values in scores.items()}
        config.reference = make_reference(of, named, trained)


def set_level(config: AIGCVQAConfig, scores: dict[str, Tensor], mos: Tensor) -> tuple[dict[str, Tensor], str | None]:
    """Give the quality score the mean and standard deviation of the labels, and every branch an equal part of the mean.

    The losses do not determine the mean of the scores, and eq. 7 bounds their spread only from below. All branches are
    scaled by the same factor, which keeps their weights in the sum.

    The factor raises no scale above `MAX_SCALE` standard deviations of the labels. Stages start from one deviation, and
    eq. 7 pulls the spread of the scores towards that of the labels, so that a larger factor means scores that hardly
    differ: it would blow rounding and noise up to the spread of the labels.

    Args:
        scores: scores (N,) of "quality" and of each trained branch.
        mos: labels (N,) of the same clips.

    Returns:
        The scores (N,) by name on their new level, and a message if they cannot have the deviation of the labels.
    """
    parts = config.parts
    trained = parts.keys() & scores.keys()
    spread, deviation = scores["quality"].std().item(), mos.std().item()
    if spread > 0 and deviation > 0:
        largest = max(abs(parts[branch].score_scale) for branch in trained)
        wanted = deviation / spread
        factor = min(wanted, max(1.0, MAX_SCALE * deviation / largest))
    else:  # equal scores or labels do not say how far apart the scores should be
        wanted, factor = None, 1.0
    centres = sum(scores[branch].mean() for branch in trained)
    levelled = {"quality": factor * (scores["quality"] - centres) + mos.mean() * len(trained) / len(parts)}
    for branch in trained:
        centre = scores[branch].mean().item()
        levelled[branch] = factor * (scores[branch] - centre) + mos.mean() / len(parts)
        parts[branch].score_scale *= factor
        parts[branch].score_shift = factor * (parts[branch].score_shift - centre) + mos.mean().item() / len(parts)
    if factor == wanted:
        return levelled, None
    return levelled, (
        f"validation: the deviation of the quality scores is {spread:.3g}, that of the labels {deviation:.3g}; the "
        f"scale of the scores is multiplied by {factor:.3g} only, so that theirs stays the smaller one"
    )
