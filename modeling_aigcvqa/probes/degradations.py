"""Degradations of a clip, each in three strengths. Lengths are shares of the frame's shorter side.

Every function takes frames (T, 3, H, W) uint8, a strength and a generator, and gives frames of the same shape.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tvF

from ..video_reading_aigcvqa import read_video

STRENGTHS = ("mild", "medium", "strong")


@dataclass(frozen=True)
class Degradation:
    """A way to spoil a clip.

    Attributes:
        title: what a report calls it.
        strengths: the values for mild, medium and strong.
        unit: what the values are.
        apply: the function.
    """

    title: str
    strengths: tuple[float, float, float]
    unit: str
    apply: Callable[[Tensor, float, Generator], Tensor]


def blur(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    sigma = max(0.5, strength * min(frames.shape[-2:]))
    return by_frame(frames, lambda image: image.filter(ImageFilter.GaussianBlur(sigma)))


def noise(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    return _bytes(frames + strength * 255 * torch.randn(frames.shape, generator=generator))


def jpeg(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    def encoded(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(strength))
        return Image.open(file)

    return by_frame(frames, encoded)


def h264(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    """H.264 at a constant rate factor (0 to 51), decoded again. Odd sizes lose a row or column, which is repeated."""
    height, width = frames.shape[-2:]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(8))
        stream.height, stream.width = height // 2 * 2, width // 2 * 2
        stream.pix_fmt = "yuv420p"
        # x264's look-ahead gives other bits at each call for frames below 128 pixels, and so do several threads.
        stream.options = {"crf": str(int(strength)), "threads": "1", "tune": "zerolatency"}
        for frame in frames[..., : stream.height, : stream.width].movedim(1, -1).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    decoded, _ = read_video(file.getvalue(), range)
    decoded = decoded.movedim(-1, 1)
    missing = (0, width - decoded.shape[-1], 0, height - decoded.shape[-2])
    return F.pad(decoded.float(), missing, "replicate").to(torch.uint8) if any(missing) else decoded


def low_resolution(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    height, width = frames.shape[-2:]
    small = [max(1, round(height / strength)), max(1, round(width / strength))]
    return tvF.resize(tvF.resize(frames, small, antialias=True), [height, width], antialias=True)


def banding(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    return tvF.posterize(frames, int(strength))


def flicker(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    factors = 1 + strength * (2 * torch.rand(len(frames), generator=generator) - 1)
    return _bytes(frames * factors[:, None, None, None])


def frozen(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    hold = max(2, round(strength * len(frames)))
    return frames[torch.arange(len(frames)) // hold * hold]


def shuffled(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    window = max(2, round(strength * len(frames)))
    order = []
    for part in torch.arange(len(frames)).split(window):
        order.append(part[torch.randperm(len(part), generator=generator)])
    return frames[torch.cat(order)]


def warping(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    """Every frame is bent differently, smoothly over its area."""
    height, width = frames.shape[-2:]
    coarse = torch.randn(len(frames), 2, 5, 5, generator=generator)
    bend = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    bend = strength * min(height, width) * bend / torch.tensor([width, height]).view(1, 2, 1, 1) * 2
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1) + bend.movedim(1, -1)
    return _bytes(F.grid_sample(frames.float(), grid, padding_mode="reflection", align_corners=True))


def ghosting(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    """Earlier frames shine through: half of the picture is that of some frames before."""
    lag = max(1, round(strength * len(frames)))
    return _bytes((frames.float() + frames[(torch.arange(len(frames)) - lag).clamp(min=0)]) / 2)


def brightness(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    return tvF.adjust_brightness(frames, strength)


def saturation(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    return tvF.adjust_saturation(frames, strength)


def contrast(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    return tvF.adjust_contrast(frames, strength)


def crop(frames: Tensor, strength: float, generator: Generator) -> Tensor:
    height, width = frames.shape[-2:]
    size = [max(1, round(strength * height)), max(1, round(strength * width))]
    return tvF.resize(tvF.center_crop(frames, size), [height, width], antialias=True)


def by_frame(frames: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Change every frame of (T, 3, H, W) uint8 as a Pillow image."""
    images = [change(Image.fromarray(frame)) for frame in frames.movedim(1, -1).contiguous().numpy()]
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).movedim(-1, 1).contiguous()


def _bytes(frames: Tensor) -> Tensor:
    return frames.round().clamp(0, 255).to(torch.uint8)


DEGRADATIONS = {
    "blur": Degradation("Blur", (0.004, 0.01, 0.025), "deviation / shorter side", blur),
    "noise": Degradation("Noise", (0.03, 0.08, 0.18), "deviation / 255", noise),
    "jpeg": Degradation("JPEG blocks", (30, 12, 4), "quality", jpeg),
    "h264": Degradation("H.264 blocks", (34, 42, 50), "rate factor", h264),
    "low_resolution": Degradation("Low resolution", (2, 4, 8), "times smaller", low_resolution),
    "banding": Degradation("Banding", (4, 3, 2), "bits per colour", banding),
    "flicker": Degradation("Flicker", (0.1, 0.25, 0.5), "change of brightness", flicker),
    "frozen": Degradation("Frozen frames", (0.125, 0.25, 0.5), "share of the clip per hold", frozen),
    "shuffled": Degradation("Shuffled frames", (0.125, 0.35, 1.0), "window / clip", shuffled),
    "warping": Degradation("Warping", (0.004, 0.01, 0.025), "shift / shorter side", warping),
    "ghosting": Degradation("Ghosting", (0.05, 0.12, 0.3), "lag / clip", ghosting),
    "dark": Degradation("Dark", (0.6, 0.35, 0.15), "times brightness", brightness),
    "overexposed": Degradation("Overexposed", (1.4, 1.9, 2.8), "times brightness", brightness),
    "grey": Degradation("Grey", (0.6, 0.3, 0.0), "times saturation", saturation),
    "low_contrast": Degradation("Low contrast", (0.6, 0.35, 0.15), "times contrast", contrast),
    "crop": Degradation("Crop", (0.7, 0.5, 0.3), "part that is left", crop),
}
