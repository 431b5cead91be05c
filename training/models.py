"""The model of a run: read from a folder, cut to the branches that train, put on the labels' scale, written again."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.loading import load_model
from modeling_aigcvqa.presets import UNTRAINED_NOTE, default_processor, untrained_model

# How the notes of training/convert_checkpoints.py begin, and what of them outlives training.
ASSEMBLED, NON_COMMERCIAL = "Assembled from published weights", "NON-COMMERCIAL"
NOT_TRAINED = "Branches not trained yet, their scores say nothing: "


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


def branch_parts(config: AIGCVQAConfig) -> dict[str, object]:
    """The sub-config of every branch that is built."""
    return {branch: getattr(config, f"{branch}_config") for branch in config.branches}


def set_label_scale(config: AIGCVQAConfig, mean: float, std: float) -> None:
    """Move the scores from the scale of one set of labels to another's: their sum keeps its place in deviations."""
    ratio, parts = std / config.mos_std, branch_parts(config)
    for part in parts.values():
        part.score_scale *= ratio
        part.score_shift = (part.score_shift - config.mos_mean / len(parts)) * ratio + mean / len(parts)
    config.mos_mean, config.mos_std = mean, std


def set_level(config: AIGCVQAConfig, scores: dict[str, Tensor], mos: Tensor) -> None:
    """Give the quality score the labels' mean and deviation, and every branch an equal part of the mean.

    Both losses leave the level of the scores open and eq. 7 bounds their spread only from below. One common factor
    keeps the weights of the branches in the sum.

    Args:
        scores: "quality" and each branch that was trained, (N,), of clips labelled `mos` (N,).
    """
    spread = scores["quality"].std()
    factor = (mos.std() / spread).item() if spread > 0 else 1.0
    parts = branch_parts(config)
    for branch in parts.keys() & scores.keys():
        centre = scores[branch].mean().item()
        parts[branch].score_scale *= factor
        parts[branch].score_shift = factor * (parts[branch].score_shift - centre) + mos.mean().item() / len(parts)


def note_weights(config: AIGCVQAConfig, trained: list[str], note: str | None) -> None:
    """Set the caveat on the weights: `note`, or the old one less what no longer holds once `trained` are trained."""
    if note is not None:
        config.weights_note = note
        return
    old = config.weights_note or ""
    if old.startswith(ASSEMBLED) and set(config.branches) <= set(trained):
        config.weights_note = old[old.index(NON_COMMERCIAL) :] if NON_COMMERCIAL in old else None
        return
    if old == UNTRAINED_NOTE:
        untrained = config.branches
    elif old.startswith(NOT_TRAINED):
        untrained = old.removeprefix(NOT_TRAINED).rstrip(".").split(", ")
    else:
        return
    missing = [branch for branch in untrained if branch not in trained]
    config.weights_note = f"{NOT_TRAINED}{', '.join(missing)}." if missing else None


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
        best, partial = Path(output) / "best", Path(output) / "best.partial"
        shutil.rmtree(partial, ignore_errors=True)
        whole = model.state_dict() | {name: value.detach().cpu() for name, value in state.items()}
        config = copy.deepcopy(model.config)
        set_level(config, scores, labels["quality"])
        own, model.config = model.config, config
        model.save_pretrained(partial, state_dict=whole)
        model.config = own
        processor.save_pretrained(partial)
        shutil.rmtree(best, ignore_errors=True)
        os.rename(partial, best)
    accelerator.wait_for_everyone()
