"""Sampling protocols: ours, and those of published metrics, whose scores can so be reproduced with one model folder.

| protocol | fragments | resized |
| --- | --- | --- |
| `aigcvqa` | `num_frames` spread evenly over the clip; cells cover the frame | the same frames, resized to a square |
| `fast_vqa` | 4 clips of 32 frames, every second one, evenly placed (FAST-VQA's test mode) | as `aigcvqa` |
| `dover` | 3 clips of 32 frames, every second one, one in each third | 32 frames, one in each 32nd |
| `image_reward` | as `aigcvqa` | every frame a clip of its own; shorter side to 224 by bicubic, centre cut out |

Several clips of one video are scored one by one and averaged by the model.
"""

from dataclasses import dataclass

Clips = list[list[int]]  # frame indices, a list a clip


@dataclass(frozen=True)
class Protocol:
    """What a protocol does otherwise than ours.

    Args:
        fragment_clips, resized_clips: "even", or the name of the sampler below.
        published_cells: cells as FAST-VQA's and DOVER's code lays them; see `sample_fragments`.
        crop: cut the centre out instead of squeezing the frame to a square.
        max_prompt_tokens: where prompts are cut, if not at the tokenizer's limit.
    """

    fragment_clips: str = "even"
    resized_clips: str = "even"
    published_cells: bool = False
    crop: bool = False
    max_prompt_tokens: int | None = None


PROTOCOLS = {
    "aigcvqa": Protocol(),
    "fast_vqa": Protocol(fragment_clips="four_strided", published_cells=True),
    "dover": Protocol(fragment_clips="three_strided", resized_clips="segments", published_cells=True),
    "image_reward": Protocol(resized_clips="single_frames", crop=True, max_prompt_tokens=35),
}

STRIDED_FRAMES, STRIDE, DOVER_SEGMENTS = 32, 2, 32


def get_protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"protocol={name!r}: expected one of {list(PROTOCOLS)}.")
    return PROTOCOLS[name]


def sample_clips(sampler: str, total: int, num_frames: int, noise: list[float] | None = None) -> Clips:
    """Frame indices of every clip that `sampler` takes from `total` frames.

    Args:
        noise: uniform numbers in [0, 1) for the samplers that place at random, 32 of them; None for the middle.
    """
    if sampler == "even":
        return [sample_frame_indices(total, num_frames)]
    if sampler == "single_frames":
        return [[index] for index in sample_frame_indices(total, num_frames)]
    if sampler == "four_strided":
        return _fast_vqa_clips(total, clips=4)
    if sampler == "three_strided":
        return _dover_clips(total, clips=3, length=STRIDED_FRAMES, stride=STRIDE, noise=noise)
    starts = _dover_clips(total, clips=DOVER_SEGMENTS, length=1, stride=STRIDE, noise=noise)
    return [[start for (start,) in starts]]


def sample_frame_indices(total: int, num_frames: int) -> list[int]:
    """`num_frames` of `total` frames, spread evenly from the first to the last; a short clip's frames repeat evenly.

    Linspace rounded to the nearest index, in integers, so that no platform rounds otherwise; 1 frame: the middle one.
    """
    if num_frames == 1:
        return [(total - 1) // 2]
    steps = num_frames - 1
    return [(2 * step * (total - 1) + steps) // (2 * steps) for step in range(num_frames)]


def _fast_vqa_clips(total: int, clips: int) -> Clips:
    """FAST-VQA's test mode: clips evenly placed; frames beyond the end start again from the first."""
    span = STRIDED_FRAMES * STRIDE
    interval = (total - span + 1) / clips
    starts = [int(clip * interval + interval / 2) if total >= span else 0 for clip in range(clips)]
    return [[(start + STRIDE * frame) % total for frame in range(STRIDED_FRAMES)] for start in starts]


def _dover_clips(total: int, clips: int, length: int, stride: int, noise: list[float] | None) -> Clips:
    """DOVER's sampler: one clip in each of `clips` equal parts, placed at random where the part is longer than it."""
    part = total // clips
    room = max(part - length * stride, 0)
    offsets = [room // 2 if noise is None else int(noise[clip] * room) for clip in range(clips)]
    return [
        [(part * clip + offset + stride * frame) % total for frame in range(length)]
        for clip, offset in enumerate(offsets)
    ]
