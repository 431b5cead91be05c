"""Choose the parameters that train, and form the parameter groups of the optimiser."""

import re
from itertools import accumulate

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
TOLERANCE = 0.05  # largest accepted distance between the share asked for and the share that trains
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
    """Freeze the first parameters of every encoder, so that `ratio` of them train, as near as whole tensors allow.

    Paper section 3.4: 70 % in stage 2, 30 % in stage 3. The trained tensors are counted from the output, within layers
    too. Adapter and heads always train. An encoder with LoRA adapters trains these alone.

    Raises:
        ValueError: for a ratio outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"unfixed_ratio={ratio}: expected a share between 0 and 1.")
    model.requires_grad_(True)
    for encoder in encoders(model).values():
        encoder.requires_grad_(False)
        for parameter in lora_parameters(encoder) or trained_tensors(encoder, ratio):
            parameter.requires_grad_(True)


def lora_parameters(encoder: nn.Module) -> list[nn.Parameter]:
    """The matrices of the LoRA adapters of an encoder; none if it has no adapters."""
    return [parameter for name, parameter in encoder.named_parameters() if ".lora_" in name]


def trained_tensors(encoder: nn.Module, ratio: float) -> list[nn.Parameter]:
    """The tensors of an encoder that train: the last ones, whose share is nearest to `ratio`.

    The table of word embeddings is 17 % of BLIP's text encoder and the first tensor to freeze, so no run of last
    tensors comes within `TOLERANCE` of 0.9. There the table trains, and the first layers freeze in its place.
    """
    order = [parameter for layer in reversed(layers(encoder)) for parameter in reversed(layer)]
    total = sum(parameter.numel() for parameter in order)
    *others, first = order
    last = _nearest(order, ratio * total)
    if first.numel() <= 2 * TOLERANCE * total:
        return last
    swapped = [*_nearest(others, ratio * total - first.numel()), first]
    error, swapped_error = (abs(share(chosen, total) - ratio) for chosen in (last, swapped))
    return swapped if swapped_error <= TOLERANCE < error else last


def share(parameters: list[nn.Parameter], total: int) -> float:
    """The share of `total` numbers that some tensors hold."""
    return sum(parameter.numel() for parameter in parameters) / total


def _nearest(order: list[nn.Parameter], wanted: float) -> list[nn.Parameter]:
    """The first tensors of `order`, as many as bring their number of elements nearest to `wanted`."""
    sums = list(accumulate((parameter.numel() for parameter in order), initial=0))
    return order[: min(range(len(sums)), key=lambda number: abs(sums[number] - wanted))]


def train_mode(model: AIGCVQAModel) -> None:
    """Training mode, except for the frozen parts of the encoders: these use neither dropout nor stochastic depth."""
    model.train()
    for encoder in encoders(model).values():
        for module in encoder.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


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
        counts[branch] = _counts([p for name, p in model.named_parameters() if name.startswith(f"{branch}_")])
    return counts


def encoder_counts(model: AIGCVQAModel) -> dict[str, tuple[int, int]]:
    """The number of trained parameters and of all parameters, by encoder."""
    return {name: _counts(list(encoder.parameters())) for name, encoder in encoders(model).items()}


def _counts(parameters: list[nn.Parameter]) -> tuple[int, int]:
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
