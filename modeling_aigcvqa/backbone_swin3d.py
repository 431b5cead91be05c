"""Swin 3D with gated relative position bias, the backbone of the technical branch.

Architecture: Video Swin Transformer (Liu et al., CVPR 2022; https://github.com/SwinTransformer/Video-Swin-Transformer,
Apache-2.0) with the gated position bias of FAST-VQA (Wu et al., ECCV 2022, section 3.3;
https://github.com/VQAssessment/FAST-VQA-and-FasterVQA, MIT). Parameter names are those of the published checkpoints.
Letters in docstrings: D, H, W are the sizes of a token grid, N the tokens per window, S the spatial windows.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, calculate_drop_path_rates
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .fused_linear_aigcvqa import FusedLinear, FusedMlp

Size3D = tuple[int, int, int]

# Added to the attention logit of two tokens that were not neighbours before the shift (the value of Video Swin).
SHIFT_MASK_VALUE = -100.0


def fit_window(grid: Size3D, window: Size3D, shift: Size3D) -> tuple[Size3D, Size3D]:
    """Window and shift for a token grid. An axis that one window covers is not shifted."""
    fitted = tuple(min(size, length) for size, length in zip(window, grid))
    shifted = tuple(0 if length <= size else step for size, length, step in zip(window, grid, shift))
    return fitted, shifted


def window_partition(tokens: Tensor, window: Size3D) -> Tensor:
    """(B, D, H, W, ...) -> (B, windows, N, ...), windows and tokens both in D, H, W order."""
    d, h, w = window
    return rearrange(tokens, "b (nd d) (nh h) (nw w) ... -> b (nd nh nw) (d h w) ...", d=d, h=h, w=w)


def window_reverse(windows: Tensor, grid: Size3D, window: Size3D) -> Tensor:
    """Inverse of `window_partition`: (B, windows, N, C) -> (B, D, H, W, C)."""
    counts = {f"n{axis}": length // size for axis, length, size in zip("dhw", grid, window)}
    sizes = dict(zip("dhw", window))
    return rearrange(windows, "b (nd nh nw) (d h w) c -> b (nd d) (nh h) (nw w) c", **counts, **sizes)


@lru_cache(maxsize=64)
def relative_position_index(window: Size3D, table_window: Size3D, device: torch.device) -> Tensor:
    """Row of the bias table for every pair of tokens in a window, (N, N) int64.

    The table has one row per displacement within `table_window`; `window` may be smaller.
    """
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(size) for size in window), indexing="ij")).flatten(1)
    displacement = coordinates[:, :, None] - coordinates[:, None, :]
    rows = torch.zeros_like(displacement[0])
    for axis, size in zip(displacement, table_window):
        rows = rows * (2 * size - 1) + axis + size - 1
    return rows.to(device)


@lru_cache(maxsize=64)
def fragment_gate(grid: Size3D, window: Size3D, shift: Size3D, device: torch.device) -> Tensor:
    """Distance between the fragments of every pair of tokens in a window: (S, N, N) float32.

    As in FAST-VQA eq. 4 and its code, the grid of fragments (as many as the window has tokens in height and width) is
    resized to the padded token grid by nearest neighbour and rolled by the shift. The gate is the L1 distance between
    the coordinates of the two fragments, which is 0 within a fragment. All windows along time have the same gate.
    """
    (_, height, width), (_, frag_h, frag_w) = grid, window
    labels = torch.stack(torch.meshgrid(torch.arange(frag_h), torch.arange(frag_w), indexing="ij")).float()
    labels = F.interpolate(labels[None], size=(height, width), mode="nearest")[0]
    labels = labels.roll((-shift[1], -shift[2]), (1, 2)).expand(window[0], 2, height, width)
    windows = window_partition(rearrange(labels, "d c h w -> 1 d h w c"), window)[0]
    return torch.cdist(windows, windows, p=1).round().to(device)


@lru_cache(maxsize=64)
def shift_mask(grid: Size3D, window: Size3D, shift: Size3D, device: torch.device) -> Tensor | None:
    """0 for tokens that were neighbours before the shift, otherwise `SHIFT_MASK_VALUE`: (windows, N, N).

    None if nothing is shifted.
    """
    if not any(shift):
        return None
    region = torch.zeros(grid)
    for axis, (length, size, step) in enumerate(zip(grid, window, shift)):
        position = torch.arange(length)
        side = (position >= length - size).int() + (position >= length - step).int() if step else position * 0
        region = region * 3 + side.view([-1 if axis == other else 1 for other in range(3)])
    windows = window_partition(region[None, ..., None], window)[0, ..., 0]
    return ((windows[:, :, None] != windows[:, None, :]) * SHIFT_MASK_VALUE).to(device)


class WindowAttention3D(nn.Module):
    """Attention within windows, with relative and fragment position bias (FAST-VQA eq. 5)."""

    def __init__(self, dim: int, num_heads: int, window: Size3D, fragment_bias: bool):
        super().__init__()
        self.num_heads, self.window = num_heads, window
        rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        if fragment_bias:
            self.fragment_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        else:
            self.register_parameter("fragment_position_bias_table", None)
        self.qkv = FusedLinear(dim, 3 * dim)
        self.proj = FusedLinear(dim, dim)
        self._cache: tuple | None = None  # (geometry, copies of the tables, bias)

    def position_bias(self, grid: Size3D, window: Size3D, shift: Size3D) -> Tensor:
        """Bias of the attention logits: (W, heads, N, N), where W is 1, S or the number of windows."""
        device = self.relative_position_bias_table.device
        index = relative_position_index(window, self.window, device)
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)[None]  # (1, heads, N, N)
        if self.fragment_position_bias_table is not None:
            fragment = self.fragment_position_bias_table[index].permute(2, 0, 1)
            gate = fragment_gate(grid, window, shift, device)[:, None].to(bias.dtype)
            # relative * gate + fragment * (1 - gate), (S, heads, N, N)
            bias = torch.addcmul(fragment, gate, bias - fragment)
        mask = shift_mask(grid, window, shift, device)
        if mask is not None:
            bias = (mask.to(bias.dtype).unflatten(0, (-1, len(bias))).unsqueeze(2) + bias).flatten(0, 1)
        return bias

    def cached_position_bias(self, *geometry: Size3D) -> Tensor:
        """`position_bias`, cached between scoring calls on a CPU for the last geometry.

        Copies of the tables are kept with it and compared, so that no change of the tables goes unnoticed.
        """
        tables = [t for t in (self.relative_position_bias_table, self.fragment_position_bias_table) if t is not None]
        if torch.is_grad_enabled() or tables[0].device.type != "cpu" or torch.compiler.is_compiling():
            self._cache = None
            return self.position_bias(*geometry)
        if self._cache is not None:
            known, copies, bias = self._cache
            if known == geometry and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(tables, copies)):
                return bias
        bias = self.position_bias(*geometry).contiguous()
        self._cache = geometry, [table.detach().clone() for table in tables], bias
        return bias

    def forward(self, windows: Tensor, grid: Size3D, window: Size3D, shift: Size3D) -> Tensor:
        """(B, windows, N, C) -> (B, windows, N, C)."""
        bias = self.cached_position_bias(grid, window, shift)
        qkv = rearrange(
            self.qkv(windows), "b s n (three heads c) -> three b s heads n c", three=3, heads=self.num_heads
        )
        bias = bias.to(qkv.dtype)
        if 1 < bias.shape[0] < windows.shape[1]:  # one bias for all windows along time
            bias = bias.repeat(windows.shape[1] // bias.shape[0], 1, 1, 1)
        # One call per clip: the fused kernels then broadcast the bias over the windows without copying it.
        clips = [
            rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=bias), "s heads n c -> s n (heads c)")
            for q, k, v in zip(*qkv)
        ]
        return self.proj(torch.stack(clips) if len(clips) > 1 else clips[0][None])


class SwinTransformerBlock3D(GradientCheckpointingLayer):
    """One block: (shifted) window attention and MLP, both residual. (B, D, H, W, C) -> (B, D, H, W, C)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Size3D,
        shift: Size3D,
        mlp_ratio: float,
        fragment_bias: bool,
        drop_path: float,
    ):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention3D(dim, num_heads, window, fragment_bias)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FusedMlp(dim, int(dim * mlp_ratio))

    def attend(self, tokens: Tensor) -> Tensor:
        grid = tuple(tokens.shape[1:4])
        window, shift = fit_window(grid, self.window, self.shift)
        padded = tuple(-(-length // size) * size for length, size in zip(grid, window))  # whole windows
        if padded != grid:
            tokens = F.pad(tokens, (0, 0, 0, padded[2] - grid[2], 0, padded[1] - grid[1], 0, padded[0] - grid[0]))
        if any(shift):
            tokens = tokens.roll([-step for step in shift], (1, 2, 3))
        tokens = self.attn(window_partition(tokens, window), padded, window, shift)
        tokens = window_reverse(tokens, padded, window)
        if any(shift):
            tokens = tokens.roll(shift, (1, 2, 3))
        return tokens[:, : grid[0], : grid[1], : grid[2]]

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attend(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class PatchMerging(nn.Module):
    """Halve height and width, double the channels: (B, D, H, W, C) -> (B, D, ceil(H/2), ceil(W/2), 2C)."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = FusedLinear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = F.pad(tokens, (0, 0, 0, tokens.shape[3] % 2, 0, tokens.shape[2] % 2))
        # Order of the published weights: (even, even), (odd, even), (even, odd), (odd, odd) in (H, W).
        merged = rearrange(tokens, "b d (h p) (w q) c -> b d h w (q p c)", p=2, q=2)
        return self.reduction(self.norm(merged))


class SwinStage3D(nn.Module):
    """Blocks, of which every second one is shifted by half a window, and `PatchMerging` except in the last stage."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Size3D,
        mlp_ratio: float,
        fragment_bias: bool,
        drop_path: list[float],
        downsample: bool,
    ):
        super().__init__()
        half, unshifted = tuple(size // 2 for size in window), (0, 0, 0)
        self.blocks = nn.ModuleList(
            SwinTransformerBlock3D(
                dim, num_heads, window, half if index % 2 else unshifted, mlp_ratio, fragment_bias, rate
            )
            for index, rate in enumerate(drop_path)
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return tokens if self.downsample is None else self.downsample(tokens)


class PatchEmbed3D(nn.Module):
    """(B, C, T, H, W) -> tokens (B, T/2, H/4, W/4, dim) for a patch of (2, 4, 4). The end is padded with zeros."""

    def __init__(self, patch_size: Size3D, in_channels: int, dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, video: Tensor) -> Tensor:
        missing = [-length % patch for length, patch in zip(video.shape[2:], self.patch_size)]
        if any(missing):
            video = F.pad(video, (0, missing[2], 0, missing[1], 0, missing[0]))
        return self.norm(rearrange(self.proj(video), "b c d h w -> b d h w c"))


class SwinTransformer3D(nn.Module):
    """Swin 3D backbone. (B, 3, T, H, W), ImageNet-normalised -> features (B, T/2, H/32, W/32, `num_features`).

    Args:
        patch_size, window_size: (time, height, width), in pixels and in tokens.
        embed_dim: channels of the first stage; every later stage doubles them.
        depths, num_heads, fragment_bias: one value per stage; `fragment_bias` says whether the bias is gated.
        drop_path_rate: stochastic depth rate of the last block; the rates grow linearly from 0.
    """

    def __init__(
        self,
        patch_size: Size3D = (2, 4, 4),
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: Size3D = (8, 7, 7),
        fragment_bias: tuple[bool, ...] = (True, True, True, False),
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        in_channels: int = 3,
    ):
        super().__init__()
        self.num_features = embed_dim * 2 ** (len(depths) - 1)
        self.patch_embed = PatchEmbed3D(tuple(patch_size), in_channels, embed_dim)
        self.layers = nn.ModuleList(
            SwinStage3D(
                embed_dim * 2**stage,
                num_heads[stage],
                tuple(window_size),
                mlp_ratio,
                fragment_bias[stage],
                rates,
                downsample=stage < len(depths) - 1,
            )
            for stage, rates in enumerate(calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True))
        )
        self.norm = nn.LayerNorm(self.num_features)

    def forward(self, video: Tensor) -> Tensor:
        tokens = self.patch_embed(video)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)
