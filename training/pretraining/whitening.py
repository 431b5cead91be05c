"""A patch embedding that starts from the statistics of patches, for networks that start from random weights.

With random weights an embedding gives little but a patch's mean colour, which holds nearly all the variance of images:
noise, blur, edges and change stay hidden for thousands of steps. Whitened, every component has the same variance
(Coates and Ng, 2012, "Learning feature representations with k-means", section 3.1).
"""

import torch
from einops import rearrange
from torch import Tensor, nn

MIXED = 0.25  # share of the channels that are random mixtures of the components that got none of their own
SMALLEST_VARIANCE = 1e-4  # of normalised pixels; components below are little but rounding


def patches_of(video: Tensor, embedding: nn.Conv2d | nn.Conv3d, number: int, generator: torch.Generator) -> Tensor:
    """Some random patches of a clip (T, 3, H, W), as the embedding's kernels are laid out: (number, kernel's size)."""
    time, height, width = (1, *embedding.kernel_size)[-3:]
    grid = rearrange(video, "(t a) c (h b) (w d) -> (t h w) (c a b d)", a=time, b=height, d=width)
    return grid[torch.randint(len(grid), (number,), generator=generator)]


def whiten(embedding: nn.Conv2d | nn.Conv3d, patches: Tensor, generator: torch.Generator, constant: bool) -> None:
    """Set an embedding's weights to whitened principal components of patches (N, kernel's size), its bias to centre.

    The components of largest variance get a channel each; a quarter of the channels are random mixtures of the others,
    so that the energy of fine detail reaches the network as well. Outputs have unit variance.

    Args:
        constant: one channel is constant and as large as all others together. A LayerNorm that follows the embedding
            would otherwise hide how much energy a patch has, and with it blur, flat areas and standing frames.
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
