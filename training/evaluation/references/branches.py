"""DOVER and ImageReward, branches of an AIGC-VQA model: the arrays of dover_seed*.npz and imagereward_seed*.npz."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.conversion.formats import DOVER, IMAGE_REWARD, convert_state
from modeling_aigcvqa.conversion.reading import read_checkpoint

LIMIT = 1e-4
INPUTS = {"technical": "pixel_values_fragments", "aesthetic": "pixel_values_resized"}


def dover(name: str, recipe: ModuleType, seed: int, stored: Mapping[str, np.ndarray], _: Path | None) -> dict:
    """Our arrays by their names in the reference."""
    found: dict[str, Tensor] = {}
    shapes = sorted({match.groups() for key in stored if (match := re.match(r"B(\d+)_T(\d+)\.", key))})
    for branch, view in INPUTS.items():
        model = _built(branch, recipe.state_dict("dover", seed), DOVER)
        backbone, statistics = getattr(model, f"{branch}_backbone"), {}
        stages = backbone.layers if branch == "technical" else backbone.stages
        parts = {f"stage{number}": stage for number, stage in enumerate(stages)}
        if branch == "technical":
            parts["patch_embed"] = backbone.patch_embed
        for part, module in parts.items():
            module.register_forward_hook(_notes(statistics, part))
        for batch, frames in shapes:
            clip = recipe.dover_clip(int(batch), int(frames), seed).transpose(1, 2)
            output, tag = model(**{view: clip}), f"B{batch}_T{frames}.{branch}"
            found |= {f"{tag}.{part}.stats": values for part, values in statistics.items()}
            found |= {f"{tag}.map": output[f"{branch}_map"], f"{tag}.score": output[f"{branch}_score"]}
            found[f"{tag}.feature_mean"] = backbone(clip.transpose(1, 2)).mean((1, 2, 3))
    return {key: value.numpy() for key, value in found.items()}


def imagereward(name: str, recipe: ModuleType, seed: int, stored: Mapping[str, np.ndarray], _: Path | None) -> dict:
    """Our arrays by their names in the reference. The adapter of an untrained model is the identity."""
    model = _built("alignment", recipe.state_dict("imagereward", seed), IMAGE_REWARD)
    backbone, head = model.alignment_backbone, model.alignment_head
    ids, mask = (torch.from_numpy(stored[part]).long() for part in ("input_ids", "attention_mask"))
    frames = recipe.imagereward_frames(seed)
    tokens = backbone.visual_encoder(frames)
    text = backbone.encode_text(backbone.encode_video(frames[:, None])[:, 0], ids, mask)
    joint = backbone.encode_text(backbone.encode_video(frames[None])[:, 0], ids[:1], mask[:1])
    reward = head(text)
    scale, shift = IMAGE_REWARD.affine["alignment"]
    found = {
        "input_ids": ids,
        "attention_mask": mask,
        "image_embeds_mean": tokens.mean(1),
        "image_embeds_head": tokens[:, :3, :64],
        "text_cls": text,
        "reward_raw": reward,
        "reward": scale * reward + shift,
        "joint_text_cls": joint,
        "joint_reward_raw": head(joint),
    }
    return {key: value.numpy() for key, value in found.items()}


def _built(branch: str, state: dict[str, Tensor], kind: object) -> AIGCVQAModel:
    """A full-size model of one branch with published weights, read from a file as the conversion reads it."""
    model = AIGCVQAModel(AIGCVQAConfig(branches=[branch])).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(state, path)
        conversion = convert_state(read_checkpoint(path), kind, branch, model.state_dict())
        model.load_state_dict({key: value.clone() for key, value in conversion.tensors.items()}, strict=False)
    return model


def _notes(statistics: dict[str, Tensor], part: str) -> object:
    """A hook that notes mean, deviation, first and last element of what a module gives."""

    def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        ends = (output[0, 0, 0, 0, 0], output[-1, -1, -1, -1, -1])
        statistics[part] = torch.stack([output.mean(), output.std(), *ends])

    return hook


def limit_of(key: str) -> float:
    """The largest difference that is allowed of an array."""
    return LIMIT
