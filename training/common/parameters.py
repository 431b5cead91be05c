"""Choose the parameters that train, and form the parameter groups of the optimiser."""

import re

from torch import nn

from modeling_aigcvqa import AIGCVQAModel

# Position of a parameter between the input and the output of its encoder, by the start of the parameter's name: None
# stands for the next number in the name. Positions are compared as tuples.
DEPTHS = (
    # alignment: timm's ViT and the BLIP text encoder
    (r"(cls_token|pos_embed|patch_embed\.)", (0,)),
    (r"blocks\.(\d+)\.", (1, None)),
    (r"embeddings\.", (0,)),
    (r"encoder\.layer\.(\d+)\.", (1, None)),
    # technical: Swin-3D; patch embedding, then the blocks and a reduction per stage
    (r"layers\.(\d+)\.blocks\.(\d+)\.", (1, None, 0, None)),
    (r"layers\.(\d+)\.downsample\.", (1, None, 1)),
    # aesthetic: ConvNeXt-3D; a reduction (the first is the stem) and the blocks per stage
    (r"downsample_layers\.(\d+)\.", (1, None, 0)),
    (r"stages\.(\d+)\.(\d+)\.", (1, None, 1, None)),
    (r"norm\.", (2,)),
)
NO_DECAY = r"(position_bias_table|pos_embed|cls_token|position_embeddings)"


def encoders(model: AIGCVQAModel) -> dict[str, nn.Module]:
    """The pre-trained encoders of the model by name, without the adapter and the heads."""
    found = {}
    for branch in model.config.branches:
        backbone = getattr(model, f"{branch}_backbone")
        if branch == "alignment":
            found |= {"alignment vision": backbone.visual_encoder, "alignment text": backbone.text_encoder}
        else:
            found[branch] = backbone
    return found


def layers(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each layer of an encoder, from input to output."""
    by_depth: dict[tuple, list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        by_depth.setdefault(_depth(name), []).append(parameter)
    return [by_depth[depth] for depth in sorted(by_depth)]


def _depth(name: str) -> tuple[int, ...]:
    for pattern, place in DEPTHS:
        match = re.match(pattern, name)
        if match:
            numbers = iter(match.groups())
            return tuple(int(next(numbers)) if part is None else part for part in place)
    raise ValueError(f"parameter '{name}' belongs to no known layer; add it to training/common/parameters.py.")


def unfix(model: AIGCVQAModel, ratio: float) -> None:
    """Freeze the first layers of every encoder, so that about `ratio` of its parameters train.

    Whole layers are unfrozen, starting at the output, until at least `ratio` of the parameters train (paper section
    3.4: 70 % in stage 2, 30 % in stage 3). Adapter and heads always train.

    Raises:
        ValueError: for a ratio outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"unfixed_ratio={ratio}: expected a share between 0 and 1.")
    model.requires_grad_(True)
    for encoder in encoders(model).values():
        total = sum(parameter.numel() for parameter in encoder.parameters())
        unfixed = 0
        for layer in reversed(layers(encoder)):
            trains = unfixed < ratio * total
            unfixed += trains * sum(parameter.numel() for parameter in layer)
            for parameter in layer:
                parameter.requires_grad_(trains)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for AdamW: no weight decay on biases, norms, layer scales, class token and position tables."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    exempt = {name for name, parameter in trained.items() if parameter.ndim <= 1 or re.search(NO_DECAY, name)}
    return [
        {"params": [p for name, p in trained.items() if name not in exempt], "weight_decay": weight_decay},
        {"params": [p for name, p in trained.items() if name in exempt], "weight_decay": 0.0},
    ]


def trainable_counts(model: AIGCVQAModel) -> dict[str, tuple[int, int]]:
    """The number of trained parameters and of all parameters, by branch."""
    counts = {}
    for branch in model.config.branches:
        parameters = [p for name, p in model.named_parameters() if name.startswith(f"{branch}_")]
        counts[branch] = sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
    return counts
