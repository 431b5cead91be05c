"""Linear layers that use oneDNN's kernels where they pay, and MLPs of them, for scoring on a CPU.

PyTorch computes a linear layer on a CPU with a general matrix product, writes the bias in a pass of its own before it
and GELU in another after it. oneDNN does all three at once and, with AVX-512, is 1.1 to 1.6 times as fast on the shapes
of these networks; without AVX-512 it is the slower one on most (0.65 to 1 times on ViT-L's). It has no gradient:
training, GPUs and compiled models take PyTorch's own operations, with results equal to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PAYS = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _PAYS else None
_DTYPES = [torch.float32]
if _ONEDNN_LINEAR is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # else oneDNN refuses it
    _DTYPES.append(torch.bfloat16)

# Bytes of an MLP's hidden activation at once when it scores on a CPU. It then stays in the cache and in memory that the
# allocator keeps; fresh pages for a larger one cost more than its matrix product.
HIDDEN_BYTES = 16 * 2**20


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """`F.linear`, followed by exact GELU on request: (..., in) -> (..., out)."""
    if _ONEDNN_LINEAR is None or not _onednn_takes(x, weight):
        y = F.linear(x, weight, bias)
        if not gelu:
            return y
        # In place where no gradient needs the input: a second tensor of this size costs more time than GELU itself.
        return F.gelu(y) if torch.is_grad_enabled() else torch.ops.aten.gelu_(y)
    return _ONEDNN_LINEAR(x, weight, bias, "gelu" if gelu else "none", [], "none" if gelu else "")


def scores_on_cpu(x: Tensor) -> bool:
    """Whether `x` is on a CPU, without gradients and outside of torch.compile."""
    return x.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def _onednn_takes(x: Tensor, weight: Tensor) -> bool:
    return (
        scores_on_cpu(x)
        and weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in _DTYPES
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
    )


class FusedLinear(nn.Linear):
    """`nn.Linear` with the kernels above, followed by exact GELU where `gelu` says so."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, gelu: bool = False):
        super().__init__(in_features, out_features, bias=bias)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.gelu)


def mlp(x: Tensor, fc1: FusedLinear, fc2: FusedLinear) -> Tensor:
    """`fc2(fc1(x))`, some rows after the other where the hidden activation is large: (..., in) -> (..., out)."""
    if scores_on_cpu(x):
        rows = x.flatten(0, -2)
        parts = -(-len(rows) * fc1.out_features * x.element_size() // HIDDEN_BYTES)
        if parts > 1:
            return torch.cat([fc2(fc1(part)) for part in rows.chunk(parts)]).unflatten(0, x.shape[:-1])
    return fc2(fc1(x))


class FusedMlp(nn.Module):
    """Two linear layers with GELU between, parameters named as in timm's `Mlp`: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden_size: int):
        super().__init__()
        self.fc1 = FusedLinear(dim, hidden_size, gelu=True)
        self.fc2 = FusedLinear(hidden_size, dim)

    def forward(self, x: Tensor) -> Tensor:
        return mlp(x, self.fc1, self.fc2)
