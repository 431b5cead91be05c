"""Formats of published checkpoints: how to recognise each by its content, and which of its keys is which parameter.

Every key is accounted for: it is used, or listed with the reason why not. A missing key, an unknown key or a key of a
wrong shape is an error.
"""

import fnmatch
import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

StateDict = dict[str, Tensor]

INDEX_REASON = "derived from the window size"
CLASSIFIER_REASON = "classifier of the pre-training task"
CONTRASTIVE_REASON = "projection of the contrastive loss"


class CheckpointError(ValueError):
    """A checkpoint that cannot be converted. The message names the file, the key and the remedy."""


@dataclass(frozen=True)
class CheckpointFormat:
    """One format of published checkpoints.

    Args:
        name: name of the published model, for messages and reports.
        license: licence of the published weights.
        signature: keys that together identify the format.
        prefixes: branch -> pairs (published prefix, our prefix).
        unused: pairs (pattern of published keys, reason why they are not used).
        rename: pairs (regular expression, replacement), applied to published keys before `prefixes`.
        inflate: whether 2D kernels are repeated along time and divided by its length (Carreira and Zisserman, 2017).
        copy_fragment_tables: whether fragment tables start as copies of the relative position tables, as in FAST-VQA.
        affine: branch -> (scale, shift) that turns raw scores into the z-scores of the published metric.
        untrained: branch -> prefixes of its parameters that the checkpoint does not hold.
        non_commercial: whether the licence forbids commercial use.
    """

    name: str
    license: str
    signature: tuple[str, ...]
    prefixes: dict[str, tuple[tuple[str, str], ...]]
    unused: tuple[tuple[str, str], ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    inflate: bool = False
    copy_fragment_tables: bool = False
    affine: dict[str, tuple[float, float]] = field(default_factory=dict)
    untrained: dict[str, tuple[str, ...]] = field(default_factory=dict)
    non_commercial: bool = False

    def to_ours(self, key: str, branch: str) -> str | None:
        """Our name of a published key; None if the key does not belong to `branch`."""
        for pattern, replacement in self.rename:
            key = re.sub(pattern, replacement, key)
        for published, ours in self.prefixes[branch]:
            if key.startswith(published):
                return ours + key.removeprefix(published)
        return None


def zscore(mean: float, std: float, weight: float = 1.0) -> tuple[float, float]:
    """(scale, shift) of `weight * (raw - mean) / std`."""
    return weight / std, -weight * mean / std


SWIN_BUFFERS = ("*.relative_position_index", INDEX_REASON)
DOVER = CheckpointFormat(
    name="DOVER",
    license="S-Lab License 1.0 (non-commercial)",
    signature=("technical_backbone.patch_embed.proj.weight", "aesthetic_backbone.downsample_layers.0.0.weight"),
    prefixes={
        "technical": (("technical_backbone.", "technical_backbone."), ("technical_head.", "technical_head.")),
        "aesthetic": (("aesthetic_backbone.", "aesthetic_backbone."), ("aesthetic_head.", "aesthetic_head.")),
    },
    unused=(SWIN_BUFFERS,),
    # The fusion for user-generated video in evaluate_one_video.py of DOVER, before the sigmoid.
    affine={"technical": zscore(0.1107, 0.07355, 0.6104), "aesthetic": zscore(-0.08285, 0.03774, 0.3896)},
    non_commercial=True,
)
FAST_VQA = CheckpointFormat(
    name="FAST-VQA",
    license="MIT",
    signature=("fragments_backbone.patch_embed.proj.weight", "vqa_head.fc_hid.weight"),
    prefixes={"technical": (("fragments_backbone.", "technical_backbone."), ("vqa_head.", "technical_head."))},
    unused=(SWIN_BUFFERS,),
    # mean_stds["FAST-VQA"] in vqa.py of FAST-VQA, before the sigmoid.
    affine={"technical": zscore(-0.110198185, 0.04178565)},
)
VIDEO_SWIN = CheckpointFormat(
    name="Video-Swin-T",
    license="Apache-2.0",
    signature=("backbone.patch_embed.proj.weight", "backbone.layers.0.blocks.0.attn.relative_position_bias_table"),
    prefixes={"technical": (("backbone.", "technical_backbone."),)},
    unused=(SWIN_BUFFERS, ("cls_head.*", CLASSIFIER_REASON)),
    copy_fragment_tables=True,
    untrained={"technical": ("technical_head",)},
)
CONVNEXT_RENAME = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
    (r"^head\.norm\.", "norm."),
    (r"^(?=downsample_layers\.|stages\.|norm\.)", "aesthetic_backbone."),
)
CONVNEXT = CheckpointFormat(
    name="ConvNeXt-T (timm)",
    license="MIT",
    signature=("stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "stages.3.blocks.2.conv_dw.weight"),
    prefixes={"aesthetic": (("aesthetic_backbone.", "aesthetic_backbone."),)},
    unused=(("head.fc.*", CLASSIFIER_REASON),),
    rename=CONVNEXT_RENAME,
    inflate=True,
    untrained={"aesthetic": ("aesthetic_head",)},
)
BLIP_ENCODERS = (
    ("visual_encoder.", "alignment_backbone.visual_encoder."),
    ("text_encoder.", "alignment_backbone.text_encoder."),
)
BLIP = CheckpointFormat(
    name="BLIP ViT-L",
    license="BSD-3-Clause",
    signature=("visual_encoder.cls_token", "text_encoder.encoder.layer.0.crossattention.self.query.weight"),
    prefixes={"alignment": BLIP_ENCODERS},
    unused=(
        ("*.position_ids", "derived from the number of positions"),
        ("visual_encoder_m.*", "momentum copy"),
        ("text_encoder_m.*", "momentum copy"),
        ("vision_proj*", CONTRASTIVE_REASON),
        ("text_proj*", CONTRASTIVE_REASON),
        ("image_queue", "queue of the contrastive loss"),
        ("text_queue", "queue of the contrastive loss"),
        ("queue_ptr", "queue of the contrastive loss"),
        ("ptr_queue", "queue of the contrastive loss"),
        ("temp", "temperature of the contrastive loss"),
        ("itm_head.*", CLASSIFIER_REASON),
        ("text_decoder.*", "captioning decoder"),
    ),
    untrained={"alignment": ("alignment_head", "alignment_backbone.adapter")},
)
IMAGE_REWARD = CheckpointFormat(
    name="ImageReward",
    license="Apache-2.0",
    signature=("blip.visual_encoder.cls_token", "mlp.layers.0.weight"),
    prefixes={
        "alignment": (
            *((f"blip.{published}", ours) for published, ours in BLIP_ENCODERS),
            ("mlp.layers.", "alignment_head."),
        )
    },
    unused=(
        ("*.position_ids", "derived from the number of positions"),
        ("blip.vision_proj.*", CONTRASTIVE_REASON),
        ("blip.text_proj.*", CONTRASTIVE_REASON),
    ),
    affine={"alignment": zscore(0.16717362830052426, 1.0333394966054072)},  # mean and std in ImageReward.py
    untrained={"alignment": ("alignment_backbone.adapter",)},
)
FORMATS = (DOVER, FAST_VQA, VIDEO_SWIN, CONVNEXT, IMAGE_REWARD, BLIP)


def recognise(state: StateDict, source: str, branch: str) -> CheckpointFormat:
    """The format of the checkpoint `state` from `source`.

    Raises:
        CheckpointError: if the format is unknown or does not hold `branch`.
    """
    for candidate in FORMATS:
        if all(key in state for key in candidate.signature):
            if branch not in candidate.prefixes:
                holds = " and ".join(candidate.prefixes)
                raise CheckpointError(
                    f"'{source}' is a {candidate.name} checkpoint, which holds the {holds} branch and not the {branch} "
                    f"one; pass it as --{next(iter(candidate.prefixes))}."
                )
            return candidate
    known = ", ".join(candidate.name for candidate in FORMATS)
    first = ", ".join(sorted(state)[:3]) or "nothing"
    raise CheckpointError(f"'{source}' is not a known checkpoint ({known}); its first keys are: {first}.")


@dataclass
class Conversion:
    """The converted tensors of one branch, and an account of every key.

    Args:
        tensors: our name -> tensor.
        used: published key -> our name.
        unused: published key -> reason why it is not used.
        untrained: our names of parameters that the checkpoint does not hold.
    """

    tensors: StateDict
    used: dict[str, str]
    unused: dict[str, str]
    untrained: list[str]


def convert_state(
    state: StateDict, checkpoint_format: CheckpointFormat, branch: str, targets: StateDict, source: str = "checkpoint"
) -> Conversion:
    """Convert a published state dict to the parameters of one branch.

    Args:
        state: the published state dict.
        targets: parameters and buffers of our model, for their names and shapes.
        source: where `state` comes from, for messages.

    Raises:
        CheckpointError: if a key is missing, unknown or has a wrong shape; names the key.
    """
    targets = {key: value for key, value in targets.items() if key.startswith(branch)}
    tensors, used, unused = {}, {}, {}
    for key, tensor in state.items():
        if reason := _reason_unused(key, checkpoint_format, branch):
            unused[key] = reason
            continue
        ours = checkpoint_format.to_ours(key, branch)
        if ours not in targets:
            raise CheckpointError(f"'{source}': unknown key {key!r} in a {checkpoint_format.name} checkpoint.")
        inflate = checkpoint_format.inflate and tensor.ndim == 4 and targets[ours].ndim == 5
        _check(tensor, targets[ours], inflate, f"'{source}': key {key!r}")
        tensors[ours], used[key] = _inflate(tensor, targets[ours].shape[2]) if inflate else tensor, ours
    if checkpoint_format.copy_fragment_tables:
        for key in targets:
            if key.endswith("fragment_position_bias_table"):
                relative = key.replace("fragment_position", "relative_position")
                if relative in tensors:  # otherwise it is reported as missing
                    tensors[key] = tensors[relative].clone()
    untrained = sorted(key for key in targets if key.startswith(checkpoint_format.untrained.get(branch, ())))
    missing = [key for key in targets if key not in tensors and key not in untrained]
    if missing:
        raise CheckpointError(
            f"'{source}': this {checkpoint_format.name} checkpoint has no key for {len(missing)} parameters of the "
            f"{branch} branch, first {missing[0]!r}."
        )
    return Conversion(tensors, used, unused, untrained)


def _reason_unused(key: str, checkpoint_format: CheckpointFormat, branch: str) -> str | None:
    for pattern, reason in checkpoint_format.unused:
        if fnmatch.fnmatchcase(key, pattern):
            return reason
    others = (other for other in checkpoint_format.prefixes if other != branch)
    if any(checkpoint_format.to_ours(key, other) for other in others):
        return "belongs to another branch"
    return None


def _check(tensor: Tensor, target: Tensor, inflate: bool, what: str) -> None:
    """Refuse a tensor of another shape or kind than the parameter, before anything is copied; `what` names it."""
    shape = target.shape[:2] + target.shape[3:] if inflate else target.shape
    if tensor.shape != shape:
        raise CheckpointError(
            f"{what} has the shape {tuple(tensor.shape)}, the model needs {tuple(shape)}; this is a checkpoint of "
            "another size."
        )
    if target.is_floating_point() and not tensor.is_floating_point():
        raise CheckpointError(f"{what} holds {tensor.dtype}, not floating-point numbers; it is damaged.")
    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
        raise CheckpointError(f"{what} holds NaN or infinite numbers; it is damaged: fetch the file again.")


def _inflate(tensor: Tensor, length: int) -> Tensor:
    """(O, I, h, w) -> (O, I, t, h, w), repeated along time and divided by its length t."""
    return tensor[:, :, None].expand(-1, -1, length, -1, -1) / length
