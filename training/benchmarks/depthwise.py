"""Compute depthwise 3D convolutions as sums of 2D convolutions, for devices with fast depthwise kernels only in 2D."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from modeling_aigcvqa.backbone_convnext3d import DepthwiseConv3d


def use_2d_convolutions(model: nn.Module) -> None:
    """Compute every depthwise 3D convolution of a model in 2D; changes the model in place."""
    for module in model.modules():
        if isinstance(module, DepthwiseConv3d):
            module.forward = partial(convolve_in_2d, module)


def convolve_in_2d(convolution: DepthwiseConv3d, features: Tensor) -> Tensor:
    """(B, C, T, H, W) -> same shape: the sum of one 2D convolution per temporal tap; equal up to rounding."""
    before = convolution.padding[0]
    frames = rearrange(F.pad(features, (0, 0, 0, 0, before, before)), "b c t h w -> b t c h w")
    length = frames.shape[1] - convolution.kernel_size[0] + 1
    options = {"padding": convolution.padding[1:], "groups": convolution.groups}
    taps = [
        F.conv2d(frames[:, tap : tap + length].flatten(0, 1), kernel, **options)
        for tap, kernel in enumerate(convolution.weight.unbind(2))
    ]
    summed = torch.stack(taps).sum(0) + convolution.bias[:, None, None]
    return rearrange(summed, "(b t) c h w -> b c t h w", t=length)
