"""The scores of one clip and of all that the probes make of it."""

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvF

from ..names_aigcvqa import SCORES
from ..protocols_aigcvqa import sample_frame_indices
from ..reward import AIGCVQAReward
from ..video_reading_aigcvqa import read_video
from .degradations import DEGRADATIONS, STRENGTHS, h264
from .tricks import ASCENT, TRICKS, ascended

MAX_FRAMES, MAX_SIDE = 32, 384  # of a clip: more of it would take longer and show no more
BATCH = 4
HIGH_QUALITY = 12  # rate factor of H.264

Scores = dict[str, float]


@dataclass(frozen=True)
class ProbedClip:
    """A clip to be probed.

    Attributes:
        name: in messages and records.
        video: in any form that `read_video` takes.
        prompt: None only without the alignment branch.
    """

    name: str
    video: Any
    prompt: str | None


class Prober:
    """Measures clips.

    Args:
        load: gives a reward, for keywords of `AIGCVQAReward`; called for the dtype of the model and for bfloat16.
        ascent_steps: of the gradient ascent; 0 leaves it out.
    """

    def __init__(self, load: Callable[..., AIGCVQAReward], ascent_steps: int):
        self.reward = load(micro_batch=1)
        self.batched, self.differentiable = copy.copy(self.reward), copy.copy(self.reward)
        self.batched.micro_batch, self.differentiable.differentiable = BATCH, True
        self.in_bfloat16 = load(micro_batch=1, dtype="bfloat16")
        self.ascent_steps = ascent_steps
        self.has_alignment = "alignment" in self.reward.pipeline.model.config.branches

    def __call__(self, clip: ProbedClip, other_prompts: Sequence[str]) -> dict[str, Any]:
        """The scores of a clip, and by group and name those of what was made of it.

        Raises:
            VideoReadError: if the clip cannot be read.
            ValueError: if it cannot be scored.
        """
        frames, prompt = read_frames(clip.video), clip.prompt
        original = self._scores(frames, prompt)
        result: dict[str, Any] = {
            "original": original,
            "degradations": {
                f"{name}/{strength}": self._scores(degraded(frames, name, strength), prompt)
                for name in DEGRADATIONS
                for strength in STRENGTHS
            },
            "tricks": {
                name: self._scores(*trick.apply(frames, prompt))
                for name, trick in TRICKS.items()
                if self.has_alignment or not trick.needs_prompt
            },
            "steadiness": {name: self._scores(change(frames), prompt) for name, change in STEADINESS.items()},
        }
        if self.ascent_steps:
            raised = ascended(self.differentiable, frames, prompt, self.ascent_steps)
            result["tricks"][ASCENT] = self._scores(raised, prompt)
        result["steadiness"] |= {
            "again": self._scores(frames, prompt),
            "batch": self._first_of_a_batch(frames, prompt),
            "bfloat16": self._scores(frames, prompt, self.in_bfloat16),
        }
        if self.has_alignment:
            result["swaps"] = self._alignments(frames, [prompt, *other_prompts])
        return result

    def _scores(self, frames: Tensor, prompt: str | None, reward: AIGCVQAReward | None = None) -> Scores:
        _, parts = (reward or self.reward)(frames[None], [prompt])
        return {name: float(parts[name]) for name in SCORES if name in parts}

    def _first_of_a_batch(self, frames: Tensor, prompt: str | None) -> Scores:
        mirrored = frames.flip(-1)
        clips = [frames, mirrored, frames.flip(0), mirrored.flip(0)]
        _, parts = self.batched(torch.stack(clips), [prompt, f"{prompt} in another batch", prompt, prompt])
        return {name: float(parts[name][0]) for name in SCORES if name in parts}

    def _alignments(self, frames: Tensor, prompts: list[str]) -> list[float]:
        """The alignment scores against several prompts, of which the first is the clip's own."""
        pipeline = self.reward.pipeline
        inputs = self.reward.prepare({"video": frames, "prompt": prompts[0]})
        tokens = pipeline.processor(text=prompts).to(pipeline.device)
        with torch.no_grad():
            video = pipeline.model.encode_video(inputs["pixel_values_resized"].to(pipeline.device))
            scores = [
                pipeline.model.score_prompts(video, ids[None], mask[None])
                for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"])
            ]
        return torch.cat(scores).tolist()


def read_frames(video: Any) -> Tensor:
    """A clip as (T, 3, H, W) uint8: at most `MAX_FRAMES` frames, spread evenly, and `MAX_SIDE` on the shorter side."""
    frames, _ = read_video(video, lambda total: sample_frame_indices(total, min(total, MAX_FRAMES)))
    frames = frames.movedim(-1, 1).contiguous()
    return tvF.resize(frames, [MAX_SIDE], antialias=True) if min(frames.shape[-2:]) > MAX_SIDE else frames


def degraded(frames: Tensor, name: str, strength: str) -> Tensor:
    """The frames with a degradation; the same at each call."""
    degradation = DEGRADATIONS[name]
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name}/{strength}".encode()))
    return degradation.apply(frames, degradation.strengths[STRENGTHS.index(strength)], generator)


def _shifted(frames: Tensor) -> Tensor:
    return torch.cat([frames[..., :1], frames[..., :-1]], -1)


def _without_one(frames: Tensor) -> Tensor:
    middle = len(frames) // 2
    return torch.cat([frames[:middle], frames[middle + 1 :]]) if len(frames) > 1 else frames


def _half_size(frames: Tensor) -> Tensor:
    return tvF.resize(frames, [max(1, length // 2) for length in frames.shape[-2:]], antialias=True)


def _encoded(frames: Tensor) -> Tensor:
    return h264(frames, HIGH_QUALITY, torch.Generator())


# What hardly changes a clip.
STEADINESS: dict[str, Callable[[Tensor], Tensor]] = {
    "frame_dropped": _without_one,
    "pixel_shifted": _shifted,
    "encoded_again": _encoded,
    "half_resolution": _half_size,
    "half_frame_rate": lambda frames: frames[::2],
}
