"""Set a patch embedding from the statistics of image patches, for networks that start from random weights.

The output of a random embedding is little more than the mean colour of a patch, which holds nearly all the variance of
images: noise, blur, edges and motion stay hidden for thousands of steps. After whitening, every component has the same
variance (Coates and Ng, 2012, "Learning feature representations with k-means", section 3.1).
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

MAX_CLIPS = 2000  # clips that patches are taken from
PATCHES_PER_CLIP = 40
MIXED = 0.25  # share of the channels that are random mixtures of the components without a channel of their own
SMALLEST_VARIANCE = 1e-4  # of normalised pixels; components of smaller variance are mostly rounding


def whiten_from_clips(
    embedding: nn.Conv2d | nn.Conv3d,
    view_of: Callable[[int], Tensor],
    num_clips: int,
    seed: int,
    constant: bool = False,
) -> None:
    """Whiten an embedding with random patches of clips.

    Args:
        view_of: gives a clip's normalised frames (T, 3, H, W) by its index, below `num_clips`.
        constant: see `whiten`.
    """
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randperm(num_clips, generator=generator)[:MAX_CLIPS].tolist()
    patches = [patches_of(view_of(clip), embedding, PATCHES_PER_CLIP, generator) for clip in clips]
    whiten(embedding, torch.cat(patches), generator, constant)


def patches_of(video: Tensor, embedding: nn.Conv2d | nn.Conv3d, number: int, generator: torch.Generator) -> Tensor:
    """Random patches of a clip (T, 3, H, W), in the order of the kernel's weights: (number, kernel's size)."""
    time, height, width = (1, *embedding.kernel_size)[-3:]
    grid = rearrange(video, "(t a) c (h b) (w d) -> (t h w) (c a b d)", a=time, b=height, d=width)
    return grid[torch.randint(len(grid), (number,), generator=generator)]


def whiten(embedding: nn.Conv2d | nn.Conv3d, patches: Tensor, generator: torch.Generator, constant: bool) -> None:
    """Set an embedding to whitened principal components of patches (N, kernel's size); outputs have mean 0, variance 1.

    The components of largest variance get one channel each. A quarter of the channels are random mixtures of the other
    components, so that the energy of fine detail reaches the network as well.

    Args:
        constant: make one channel constant and as large as all other channels together. Without it, a LayerNorm after
            the embedding would hide how much energy a patch has, and with it blur, flat areas and frozen frames.
    """
    patches = patches.double()
    mean = patches.mean(0)
    variances, components = torch.linalg.eigh(torch.cov((patches - mean).T))
    whitened = (components / variances.clamp(min=SMALLEST_VARIANCE).sqrt()).T.flip(0)  # largest variance first
    channels = embedding.out_channels - constant
    own = min(channels - round(MIXED * channels), len(whitened))
    rest = whitened[own:]
    mixing = torch.randn(channels - own, len(rest), generator=generator, dtype=torch.float64)
    rows = torch.cat([whitened[:own], mixing @ rest / max(len(rest), 1) ** 0.5])
    bias = -(rows @ mean)
    if constant:
        rows, bias = (torch.cat([values, torch.zeros_like(values[:1])]) for values in (rows, bias))
        bias[-1] = channels**0.5
    with torch.no_grad():
        embedding.weight.copy_(rows.view_as(embedding.weight))
        embedding.bias.copy_(bias)
