"""The model of a run: read from a folder, cut to the branches that train, written on the labels' level."""

import copy
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAProcessor, load_model
from modeling_aigcvqa.common.files import whole_folder
from modeling_aigcvqa.common.presets import default_processor, untrained_model

from .arguments import SUM

BEST = "best"  # folder of the best model so far


def initial_model(init_from: str | None) -> tuple[AIGCVQAModel, AIGCVQAProcessor]:
    """The model of a folder or Hub id, or an untrained full-size one for None, in float32; and its processor."""
    if init_from is None:
        model = untrained_model("full")
        return model, default_processor(model.config)
    model, processor = load_model(init_from)
    return model.float(), processor


def select_branches(model: AIGCVQAModel, branches: list[str]) -> AIGCVQAModel:
    """A model of some of the branches, made of `model`'s own modules: what trains in it trains in `model`.

    Raises:
        ValueError: for a branch that the model lacks.
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
    """Give the quality score the labels' mean and deviation, and every branch an equal part of the mean.

    Both losses leave the level of the scores open and eq. 7 bounds their spread only from below. One common factor
    keeps the weights of the branches in the sum.

    Args:
        scores: "quality" and each branch that was trained, (N,), of clips labelled `mos` (N,).
    """
    spread = scores["quality"].std()
    factor = (mos.std() / spread).item() if spread > 0 else 1.0
    parts = config.parts
    for branch in parts.keys() & scores.keys():
        centre = scores[branch].mean().item()
        parts[branch].score_scale *= factor
        parts[branch].score_shift = factor * (parts[branch].score_shift - centre) + mos.mean().item() / len(parts)


def save_best(
    accelerator: Accelerator,
    trained: nn.Module,
    average: AveragedModel | None,
    model: AIGCVQAModel,
    processor: AIGCVQAProcessor,
    scores: dict[str, Tensor],
    labels: dict[str, Tensor],
    output: str,
) -> None:
    """Write the whole model to OUTPUT/best, on the level of the labels; whole or not at all.

    Args:
        trained: what was prepared for training, branches of `model`; `average` of its weights goes before them.
        scores, labels: of the validation clips (N,), see `set_level`.
    """
    state = average.module.state_dict() if average else accelerator.get_state_dict(trained)
    if accelerator.is_main_process:
        whole = model.state_dict() | {name: value.detach().cpu() for name, value in state.items()}
        config = copy.deepcopy(model.config)
        set_level(config, scores, labels[SUM])
        own, model.config = model.config, config
        with whole_folder(Path(output) / BEST) as folder:
            model.save_pretrained(folder, state_dict=whole)
            processor.save_pretrained(folder)
        model.config = own
    accelerator.wait_for_everyone()
