"""Tricks that raise a score without a better clip: in the picture, in the prompt, and by its gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as tvF

from ..protocols_aigcvqa import sample_frame_indices
from ..reward import AIGCVQAReward
from .degradations import by_frame

RADIUS = 2 / 255  # of the gradient ascent, per value
ASCENT_STEPS = 50
WATERMARK = "aivideo.example"
PRAISE = ", masterpiece, best quality, highly detailed, award-winning, cinematic, 8k"


@dataclass(frozen=True)
class Trick:
    """A way to raise a score.

    Attributes:
        title: what a report calls it.
        apply: frames (T, 3, H, W) uint8 and a prompt -> both as the model sees them.
        needs_prompt: whether it does nothing to a model without the alignment branch.
    """

    title: str
    apply: Callable[[Tensor, str], tuple[Tensor, str]]
    needs_prompt: bool = False


def of_picture(title: str, change: Callable[[Tensor], Tensor]) -> Trick:
    return Trick(title, lambda frames, prompt: (change(frames), prompt))


def of_prompt(title: str, change: Callable[[str], str]) -> Trick:
    return Trick(title, lambda frames, prompt: (frames, change(prompt)), needs_prompt=True)


def borders(frames: Tensor) -> Tensor:
    """Black bars above and below, an eighth of the height each."""
    framed = frames.clone()
    bar = frames.shape[-2] // 8
    framed[..., :bar, :] = 0
    framed[..., frames.shape[-2] - bar :, :] = 0
    return framed


def tiles(frames: Tensor) -> Tensor:
    """Four copies of the first frame, in every frame."""
    height, width = frames.shape[-2:]
    small = tvF.resize(frames[:1], [-(-height // 2), -(-width // 2)], antialias=True)
    return small.repeat(1, 1, 2, 2)[..., :height, :width].expand_as(frames).contiguous()


def written(frames: Tensor, text: str, share: float = 0.06) -> Tensor:
    """Text at the lower edge of every frame, `share` of the height tall, in lines as wide as the frame."""
    height, width = frames.shape[-2:]
    font = ImageFont.load_default(max(8, round(share * height)))
    layer = Image.new("L", (width, height))
    draw = ImageDraw.Draw(layer)
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, font) > 0.94 * width:
            lines.append(line)
            longer = word
        line = longer
    block = "\n".join([*lines, line])
    _, top, _, bottom = draw.multiline_textbbox((0, 0), block, font)
    draw.multiline_text((0.03 * width, max(0.0, 0.97 * height - (bottom - top))), block, 255, font)
    mask = torch.from_numpy(np.array(layer)).bool()
    return torch.where(mask, torch.tensor(255, dtype=torch.uint8), frames)


def sharpened(frames: Tensor) -> Tensor:
    return by_frame(frames, lambda image: ImageEnhance.Sharpness(image).enhance(3.0))


def ascended(reward: AIGCVQAReward, frames: Tensor, prompt: str, steps: int) -> Tensor:
    """Frames within `RADIUS` of the given ones with a higher reward, rounded to 8 bits.

    Steps along the sign of the gradient (Madry et al., 2018), each of 2.5 RADIUS / steps.

    Args:
        reward: differentiable.
        frames: (T, 3, H, W) uint8.
    """
    seen = sorted(set(sample_frame_indices(len(frames), reward.pipeline.processor.video_processor.num_frames)))
    start = frames[seen] / 255  # the others have no gradient
    changed = start.clone()
    for _ in range(steps):
        changed.requires_grad_()
        rewards, _parts = reward(changed[None], [prompt])
        (gradient,) = torch.autograd.grad(rewards.sum(), changed)
        with torch.no_grad():
            changed = (changed + 2.5 * RADIUS / steps * gradient.sign_()).clamp_(start - RADIUS, start + RADIUS)
            changed.clamp_(0, 1)
    raised = frames.clone()
    raised[seen] = (changed.detach() * 255).round_().to(torch.uint8)
    return raised


TRICKS = {
    "sharpening": of_picture("Sharpening x 3", sharpened),
    "saturation": of_picture("Saturation x 2", lambda frames: tvF.adjust_saturation(frames, 2.0)),
    "contrast": of_picture("Contrast x 1.6", lambda frames: tvF.adjust_contrast(frames, 1.6)),
    "overexposure": of_picture("Brightness x 1.4", lambda frames: tvF.adjust_brightness(frames, 1.4)),
    "borders": of_picture("Black borders", borders),
    "watermark": of_picture("Watermark", lambda frames: written(frames, WATERMARK)),
    "tiles": of_picture("Tiled copies of one frame", tiles),
    "still": of_picture("Still image as video", lambda frames: frames[:1].expand_as(frames).contiguous()),
    "pasted_prompt": Trick(
        "Prompt written in the picture", lambda frames, prompt: (written(frames, prompt), prompt), needs_prompt=True
    ),
    "repeated_words": of_prompt("Prompt three times", lambda prompt: " ".join([prompt] * 3)),
    "praise": of_prompt("Praise in the prompt", lambda prompt: prompt + PRAISE),
    "special_tokens": of_prompt(
        "Special tokens in the prompt", lambda prompt: f"[CLS] [ENC] {prompt} [SEP] [DEC] [MASK] [PAD]"
    ),
}
ASCENT = "ascent"
ASCENT_TITLE = "Gradient ascent within 2/255"
