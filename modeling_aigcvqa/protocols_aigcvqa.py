"""Sampling protocols: ours, and those of published metrics, so that one model folder can reproduce their scores.

| protocol | fragments | resized |
| --- | --- | --- |
| `aigcvqa` | `num_frames` spread evenly over the clip; cells cover the frame | the same frames, resized to a square |
| `fast_vqa` | 4 clips of 32 frames with stride 2, evenly placed (FAST-VQA's test mode) | as `aigcvqa` |
| `dover` | 3 clips of 32 frames with stride 2, one in each third of the video | 32 frames, one in each 32nd |
| `image_reward` | as `aigcvqa` | every frame is a clip; shorter side resized to 224 (bicubic), centre cut out |

If a video has several clips, the model scores each clip and averages the scores.
"""

from dataclasses import dataclass

Clips = list[list[int]]  # frame indices, one list per clip


@dataclass(frozen=True)
class Protocol:
    """A sampling protocol. The defaults are our own protocol.

    Args:
        fragment_clips, resized_clips: sampler of the view's frames, a name that `sample_clips` knows.
        published_cells: whether cells are placed as in the code of FAST-VQA and DOVER; see `sample_fragments`.
        crop: whether the centre is cut out, instead of resizing the whole frame to a square.
        max_prompt_tokens: longest prompt in tokens; None for the tokenizer's limit.
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
        noise: 32 uniform numbers in [0, 1) for the samplers that can place clips at random; None for the middle.
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
    """`num_frames` of `total` frames, spread evenly from the first to the last. The frames of a short clip repeat.

    This is a linspace rounded to the nearest index. It is computed in integers, so that all platforms round alike. For
    one frame it is the middle one.
    """
    if num_frames == 1:
        return [(total - 1) // 2]
    steps = num_frames - 1
    return [(2 * step * (total - 1) + steps) // (2 * steps) for step in range(num_frames)]


def _fast_vqa_clips(total: int, clips: int) -> Clips:
    """FAST-VQA's test mode: evenly placed clips. Frames beyond the end wrap around to the first frame."""
    span = STRIDED_FRAMES * STRIDE
    interval = (total - span + 1) / clips
    starts = [int(clip * interval + interval / 2) if total >= span else 0 for clip in range(clips)]
    return [[(start + STRIDE * frame) % total for frame in range(STRIDED_FRAMES)] for start in starts]


def _dover_clips(total: int, clips: int, length: int, stride: int, noise: list[float] | None) -> Clips:
    """DOVER's sampler: one clip in each of `clips` equal parts, placed by `noise` if the part has room for it."""
    part = total // clips
    room = max(part - length * stride, 0)
    offsets = [room // 2 if noise is None else int(noise[clip] * room) for clip in range(clips)]
    return [
        [(part * clip + offset + stride * frame) % total for frame in range(length)]
        for clip, offset in enumerate(offsets)
    ]
