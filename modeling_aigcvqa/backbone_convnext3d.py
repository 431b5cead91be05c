"""ConvNeXt 3D, the backbone of the aesthetic branch.

Architecture: ConvNeXt (Liu et al., CVPR 2022; https://github.com/facebookresearch/ConvNeXt, MIT) inflated in time as
DOVER does (Wu et al., ICCV 2023). Parameter names are those of the published checkpoints.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, calculate_drop_path_rates
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .fused_linear_aigcvqa import FusedLinear, mlp

Size3D = tuple[int, int, int]


class ChannelsFirstLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T, H, W)."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class DepthwiseConv3d(nn.Conv3d):
    """A depthwise 3D convolution that keeps the shape (B, C, T, H, W)."""

    def __init__(self, dim: int, kernel_size: Size3D):
        padding = tuple(size // 2 for size in kernel_size)
        super().__init__(dim, dim, tuple(kernel_size), padding=padding, groups=dim)


class ConvNeXtBlock3D(GradientCheckpointingLayer):
    """Depthwise (temporal, 7, 7) convolution, pointwise MLP with layer scale, residual. Keeps (B, C, T, H, W)."""

    def __init__(self, dim: int, temporal_kernel: int, layer_scale: float, drop_path: float):
        super().__init__()
        self.dwconv = DepthwiseConv3d(dim, (temporal_kernel, 7, 7))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = FusedLinear(dim, 4 * dim, gelu=True)
        self.pwconv2 = FusedLinear(4 * dim, dim)
        self.layer_scale = layer_scale  # the initial value of gamma
        self.gamma = nn.Parameter(self.norm.weight.new_full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.norm(rearrange(self.dwconv(features), "b c t h w -> b t h w c"))
        hidden = self.drop_path(mlp(hidden, self.pwconv1, self.pwconv2))
        features = torch.addcmul(rearrange(features, "b c t h w -> b t h w c"), hidden, self.gamma)
        return rearrange(features, "b t h w c -> b c t h w")


class ConvNeXt3D(nn.Module):
    """ConvNeXt 3D backbone. (B, 3, T, H, W), ImageNet-normalised -> features (B, T/2, H/32, W/32, `num_features`).

    If the number of frames is odd, the last frame is repeated.

    Args:
        patch_size: (time, height, width) of the stem, in pixels; every later stage halves height and width.
        depths, hidden_sizes: one value per stage.
        temporal_kernel_sizes: the blocks of a stage take these values in turn.
        layer_scale_init_value: initial value of the layer scale of every block.
        drop_path_rate: stochastic depth rate of the last block; the rates grow linearly from 0.
    """

    def __init__(
        self,
        patch_size: Size3D = (2, 4, 4),
        depths: tuple[int, ...] = (3, 3, 9, 3),
        hidden_sizes: tuple[int, ...] = (96, 192, 384, 768),
        temporal_kernel_sizes: tuple[int, ...] = (1, 3, 1),
        layer_scale_init_value: float = 1e-6,
        drop_path_rate: float = 0.0,
        in_channels: int = 3,
    ):
        super().__init__()
        self.num_features = hidden_sizes[-1]
        self.frames_per_patch = patch_size[0]
        stem = nn.Conv3d(in_channels, hidden_sizes[0], kernel_size=tuple(patch_size), stride=tuple(patch_size))
        self.downsample_layers = nn.ModuleList([nn.Sequential(stem, ChannelsFirstLayerNorm(hidden_sizes[0], eps=1e-6))])
        for dim, next_dim in pairwise(hidden_sizes):
            halve = nn.Conv3d(dim, next_dim, kernel_size=(1, 2, 2), stride=(1, 2, 2))
            self.downsample_layers.append(nn.Sequential(ChannelsFirstLayerNorm(dim, eps=1e-6), halve))
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    ConvNeXtBlock3D(
                        dim, temporal_kernel_sizes[index % len(temporal_kernel_sizes)], layer_scale_init_value, rate
                    )
                    for index, rate in enumerate(rates)
                )
            )
            for dim, rates in zip(hidden_sizes, calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True))
        )
        self.norm = nn.LayerNorm(self.num_features, eps=1e-6)

    def forward(self, video: Tensor) -> Tensor:
        missing = -video.shape[2] % self.frames_per_patch
        if missing:
            video = F.pad(video, (0, 0, 0, 0, 0, missing), mode="replicate")
        features = video
        for downsample, stage in zip(self.downsample_layers, self.stages):
            features = stage(downsample(features))
        return self.norm(rearrange(features, "b c t h w -> b t h w c"))
