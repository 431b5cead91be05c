"""A depthwise 3D convolution as a sum of 2D ones: for devices whose depthwise kernels are good in 2D alone."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from modeling_aigcvqa.backbone_convnext3d import DepthwiseConv3d


def use_2d_convolutions(model: nn.Module) -> None:
    """Let every depthwise 3D convolution of a model be computed in 2D, in place."""
    for module in model.modules():
        if isinstance(module, DepthwiseConv3d):
            module.forward = partial(convolve_in_2d, module)


def convolve_in_2d(convolution: DepthwiseConv3d, features: Tensor) -> Tensor:
    """(B, C, T, H, W) -> the same: one 2D convolution per temporal tap, summed; equal to rounding."""
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
