"""Linear layers and MLPs that use oneDNN's fused kernels for scoring on a CPU.

On a CPU, PyTorch computes bias, matrix product and GELU in three passes over memory. oneDNN computes all three in one
pass. With AVX-512 it is 1.1 to 1.6 times as fast on the shapes of these networks; without AVX-512 it is slower on most
of them (0.65 to 1 times as fast on those of ViT-L) and is not used. The kernel has no gradient, so training, GPUs and
compiled models use PyTorch's own operations. The results are equal up to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PAYS = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _PAYS else None
_DTYPES = [torch.float32]
if _ONEDNN_LINEAR is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # oneDNN refuses it otherwise
    _DTYPES.append(torch.bfloat16)

# Largest hidden activation of an MLP that scores on a CPU; larger inputs are computed in parts. Up to this size, the
# activation stays in the cache and the allocator reuses its memory. Fresh pages cost more than the matrix product.
HIDDEN_BYTES = 16 * 2**20


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """`F.linear`, followed by exact GELU if `gelu` is set: (..., in) -> (..., out)."""
    if _ONEDNN_LINEAR is None or not _onednn_takes(x, weight):
        y = F.linear(x, weight, bias)
        if not gelu:
            return y
        # In place if no gradient needs the input: a second tensor of this size costs more time than GELU itself.
        return F.gelu(y) if torch.is_grad_enabled() else torch.ops.aten.gelu_(y)
    return _ONEDNN_LINEAR(x, weight, bias, "gelu" if gelu else "none", [], "none" if gelu else "")


def scores_on_cpu(x: Tensor) -> bool:
    """Whether `x` is on a CPU, gradients are off and torch.compile is not tracing."""
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
    """`nn.Linear` with the fused kernel, followed by exact GELU if `gelu` is set."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, gelu: bool = False):
        super().__init__(in_features, out_features, bias=bias)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.gelu)


def mlp(x: Tensor, fc1: FusedLinear, fc2: FusedLinear) -> Tensor:
    """`fc2(fc1(x))`, computed in parts if the hidden activation exceeds `HIDDEN_BYTES`: (..., in) -> (..., out)."""
    if scores_on_cpu(x):
        rows = x.flatten(0, -2)
        parts = -(-len(rows) * fc1.out_features * x.element_size() // HIDDEN_BYTES)
        if parts > 1:
            return torch.cat([fc2(fc1(part)) for part in rows.chunk(parts)]).unflatten(0, x.shape[:-1])
    return fc2(fc1(x))


class FusedMlp(nn.Module):
    """Two linear layers with GELU in between; parameter names as in timm's `Mlp`. (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden_size: int):
        super().__init__()
        self.fc1 = FusedLinear(dim, hidden_size, gelu=True)
        self.fc2 = FusedLinear(hidden_size, dim)

    def forward(self, x: Tensor) -> Tensor:
        return mlp(x, self.fc1, self.fc2)
