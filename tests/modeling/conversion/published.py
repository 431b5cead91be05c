"""Checkpoints as they are published, made from a model of ours: the way back from our names to the published ones."""

import re

import torch

from modeling_aigcvqa.conversion.formats import CheckpointFormat

EXTRAS = {
    "DOVER": {"technical_backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(392, 392).long()},
    "FAST-VQA": {"fragments_backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(392, 392).long()},
    "Video-Swin-T": {"cls_head.fc_cls.weight": torch.zeros(400, 768), "cls_head.fc_cls.bias": torch.zeros(400)},
    "ConvNeXt-T (timm)": {"head.fc.weight": torch.zeros(1000, 768), "head.fc.bias": torch.zeros(1000)},
    "ImageReward": {
        "blip.text_encoder.embeddings.position_ids": torch.arange(512)[None],
        "blip.vision_proj.weight": torch.zeros(256, 8),
    },
    "BLIP ViT-L": {
        "visual_encoder_m.cls_token": torch.zeros(1, 1, 8),
        "text_encoder_m.embeddings.LayerNorm.bias": torch.zeros(8),
        "image_queue": torch.zeros(256, 9),
        "temp": torch.zeros(()),
        "itm_head.weight": torch.zeros(2, 8),
        "text_decoder.cls.predictions.bias": torch.zeros(9),
    },
}  # fmt: skip


# Our names of ConvNeXt's parameters -> timm's.
CONVNEXT_NAMES = (
    (r"^aesthetic_backbone\.", ""),
    (r"^norm\.", "head.norm."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
)


def published_name(key: str, checkpoint_format: CheckpointFormat, branch: str) -> str | None:
    """The published name of a parameter of ours, None where the checkpoint has none."""
    for published, ours in checkpoint_format.prefixes[branch]:
        if key.startswith(ours):
            key = published + key.removeprefix(ours)
            for pattern, replacement in CONVNEXT_NAMES if checkpoint_format.rename else ():
                key = re.sub(pattern, replacement, key)
            return key
    return None


def published(model: torch.nn.Module, checkpoint_format: CheckpointFormat, branches) -> dict[str, torch.Tensor]:
    """The state dict of a published file: its keys, its shapes and what else it holds."""
    state = {}
    for key, tensor in model.state_dict().items():
        branch = key.partition("_")[0]
        name = published_name(key, checkpoint_format, branch) if branch in branches else None
        if name is not None and "adapter" not in name:
            state[name] = tensor
    if checkpoint_format.inflate:
        state = {key: value.sum(2) if value.ndim == 5 else value for key, value in state.items()}
    if checkpoint_format.copy_fragment_tables:
        state = {key: value for key, value in state.items() if "fragment_position" not in key}
    return state | EXTRAS[checkpoint_format.name]
