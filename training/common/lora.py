"""Low-rank adapters (LoRA, Hu et al., 2022) on the encoders, by the library peft, and how they are merged."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_aigcvqa import AIGCVQAModel
from modeling_aigcvqa.fused_linear_aigcvqa import FusedLinear

from .parameters import encoders

ADAPTER = "default"  # peft's name of the only adapter
BASE = ".base_layer."  # in the names of the parameters of a layer that has an adapter


def add_lora(model: AIGCVQAModel, names: list[str], rank: int, factor: float, seed: int) -> None:
    """Give every linear layer of some encoders a product of two matrices, B A, that is added to its weight.

    B starts at zero, so the scores do not change. `unfix` decides afterwards what trains.

    Args:
        names: names of the encoders, see `encoders`.
        rank: number of rows of A and of columns of B.
        factor: of the product; alpha / rank in the paper's terms.
        seed: of A, which is the same on any number of processes.

    Raises:
        ValueError: for an encoder that the model does not have.
        ImportError: if peft is missing.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("--lora_rank needs peft: pip install 'aigcvqa[train]'") from error
    known = encoders(model)
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"lora_encoders: the branches that train have the encoders {', '.join(known)}, not {', '.join(missing)}; "
            "name others with --lora_encoders."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            linear = [path for path, layer in known[name].named_modules() if isinstance(layer, nn.Linear)]
            config = LoraConfig(r=rank, lora_alpha=factor * rank, lora_dropout=0.0, target_modules=linear)
            inject_adapter_in_model(config, known[name], ADAPTER)
            for layer in known[name].modules():
                base = getattr(layer, "base_layer", None)
                if isinstance(base, FusedLinear) and base.gelu:  # the adapter's share is added before GELU
                    base.gelu = False
                    layer.register_forward_hook(_gelu)


def _gelu(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return F.gelu(output)


def merged(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The weights of a model with adapters as those of the plain model: W + factor B A, under W's own name.

    Args:
        state: weights by name; without adapters they come back as they are.
        factor: as in `add_lora`.
    """
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        if BASE in name and name.endswith("weight"):
            layer = name.split(BASE)[0]
            first, second = (state[f"{layer}.lora_{matrix}.{ADAPTER}.weight"].float() for matrix in "AB")
            value = (value.float() + factor * second @ first).to(value.dtype)
        plain[name.replace(BASE, ".")] = value
    return plain
