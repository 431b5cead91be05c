"""Turns a video into two views: fragments for the technical branch and resized frames for the other two branches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2 import functional as tvF
from transformers import BatchFeature
from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    PILImageResampling,
    pil_torch_interpolation_mapping,
)
from transformers.processing_utils import Unpack
from transformers.utils import logging
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .protocols_aigcvqa import DOVER_SEGMENTS, Protocol, get_protocol, sample_clips, sample_frame_indices
from .uncertainty_aigcvqa import FRAGMENTS, RESIZED, frame_draws
from .video_options_aigcvqa import BOOKKEEPING, VIEWS, AIGCVQAVideoProcessorKwargs, check_options, check_types
from .video_reading_aigcvqa import read_video, split_batch, video_name

logger = logging.get_logger(__name__)

# This block is freed at once and never touched. It raises glibc's dynamic threshold (mallopt(3), M_MMAP_THRESHOLD, at
# most 32 MiB), below which freed memory is kept for the next allocation instead of being returned to the system. Fresh
# pages for the 10 MB of a view would cost about 5 ms per clip, more than the normalisation itself.
torch.empty(31 * 2**20, dtype=torch.uint8)


class AIGCVQAVideoProcessor(BaseVideoProcessor):
    """Decodes a video once and computes two views of the same frames.

    Returns `pixel_values_fragments` (B, T, 3, g s, g s) with g = `fragment_grid`, s = `fragment_size`, and
    `pixel_values_resized` (B, T, 3, `size.height`, `size.width`), both ImageNet-normalised float32. A protocol that
    takes several clips per video gives (B, clips, T, 3, h, w). The option `views` leaves one view out. Every option is
    saved with the model and can be overridden per call.
    """

    valid_kwargs = AIGCVQAVideoProcessorKwargs
    model_input_names = ["pixel_values_fragments", "pixel_values_resized"]

    views = list(VIEWS)
    num_frames = 16
    size = {"height": 224, "width": 224}
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    fragment_grid = 7
    fragment_size = 32
    fragment_sampling = "center"
    protocol = "aigcvqa"
    uncertainty = None
    on_damage = "raise"
    decoder = "pyav"

    def __init__(self, **kwargs: Unpack[AIGCVQAVideoProcessorKwargs]):
        unknown = sorted(set(kwargs) - set(self.valid_kwargs.__annotations__) - BOOKKEEPING)
        if unknown:
            raise TypeError(f"AIGCVQAVideoProcessor has no option {unknown}.")
        super().__init__(**kwargs)
        options = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        size = get_size_dict(options["size"], default_to_square=True)
        options["size"] = {name: value for name, value in dict(size).items() if value is not None}
        options |= {name: list(options[name]) for name in ("image_mean", "image_std") if options[name]}  # tuples
        check_types({name: value for name, value in options.items() if value is not None})
        check_options(options)

    def preprocess(self, videos: Any, **kwargs: Unpack[AIGCVQAVideoProcessorKwargs]) -> BatchFeature:
        """Process one video or a list of videos, in any form of `read_video`; see `AIGCVQAVideoProcessorKwargs`."""
        return_tensors = kwargs.pop("return_tensors", None) or "pt"
        unknown = sorted(set(kwargs) - set(self.valid_kwargs.__annotations__))
        if unknown:
            raise TypeError(f"AIGCVQAVideoProcessor has no option {unknown}.")
        check_types({key: value for key, value in kwargs.items() if value is not None})
        options = {name: kwargs.get(name) for name in self.valid_kwargs.__annotations__}
        options = {name: getattr(self, name, None) if value is None else value for name, value in options.items()}
        options["size"] = get_size_dict(options["size"], default_to_square=True)
        check_options(options)
        protocol = get_protocol(options["protocol"])
        processed, metadata = zip(*(self._process(video, options, protocol) for video in split_batch(videos)))
        data = {
            name: torch.stack([views[name] for views in processed]) if len(processed) > 1 else processed[0][name][None]
            for name in processed[0]
        }
        features = BatchFeature(data, tensor_type=return_tensors)
        if options["return_metadata"]:
            features["video_metadata"] = list(metadata)
        return features

    def sample_frames(self, metadata: VideoMetadata, num_frames: int | None = None, **kwargs) -> np.ndarray:
        """Indices (T,) of the frames that are used; part of the base class's interface."""
        return np.asarray(sample_frame_indices(metadata.total_num_frames, num_frames or self.num_frames))

    def _process(self, video: Any, options: dict, protocol: Protocol) -> tuple[dict[str, Tensor], VideoMetadata]:
        """The normalised views of one video, and draws of them, by the name of the input; and its metadata."""
        random, generator = options["fragment_sampling"] == "random", options["generator"]
        if options["seed"] is not None:
            generator = torch.Generator().manual_seed(options["seed"])
        samplers = {"fragments": protocol.fragment_clips, "resized": protocol.resized_clips}
        noises = {
            name: _uniform(generator, DOVER_SEGMENTS).tolist() if random and sampler != "even" else None
            for name, sampler in samplers.items()
        }
        clips: dict[str, list[list[int]]] = {}
        draws: list[list[int]] = []  # frames of each draw
        drawing = torch.Generator()

        def choose_frames(total: int) -> list[int]:  # called again if there are more or fewer frames than packets
            for name in options["views"]:
                clips[name] = sample_clips(samplers[name], total, options["num_frames"], noises[name])
            first, *others = clips.values()
            chosen = [first] if all(view == first for view in others) else clips.values()  # frames that views share
            if options["uncertainty"] is not None:
                drawing.manual_seed(options["seed"] or 0)
                draws[:] = frame_draws(total, options["num_frames"], options["uncertainty"], drawing)
            return [index for clip in [*(clip for view in chosen for clip in view), *draws] for index in clip]

        frames, metadata = read_video(video, choose_frames, options["on_damage"], options["decoder"])
        if metadata.warning and not options["return_metadata"]:
            logger.warning(f"{video_name(video)} is damaged: {metadata.warning}.")
        if options["device"] is not None:
            frames = frames.to(options["device"])
        frames, *drawn = frames.split([len(frames) - sum(map(len, draws)), *map(len, draws)]) if draws else [frames]
        counts = [sum(map(len, view)) for view in clips.values()]
        parts = frames.split(counts) if len(frames) == sum(counts) else [frames] * len(clips)
        views = {}
        for (name, view_clips), part in zip(clips.items(), parts):
            if name == "fragments":
                view = _fragments_of_clips(part.chunk(len(view_clips)), options, protocol, generator)
            else:
                view = resize_frames(part, options["size"], options["resample"], protocol.crop)
            view = normalize(view, options["image_mean"], options["image_std"])
            views[f"pixel_values_{name}"] = view if len(view_clips) == 1 else view.unflatten(0, (len(view_clips), -1))
        return views | _draws(drawn, options, drawing), metadata


def _draws(drawn: Sequence[Tensor], options: dict, generator: torch.Generator) -> dict[str, Tensor]:
    """The views of draws of frames, (K, T, 3, h, w) with random fragments and (F, T, 3, h, w) of whole frames."""
    if not drawn:
        return {}
    statistics = options["image_mean"], options["image_std"]
    grid, size = options["fragment_grid"], options["fragment_size"]
    views = {}
    if "fragments" in options["views"]:
        fragments = [
            sample_fragments(drawn[draw % len(drawn)], grid, size, _uniform(generator, 2, grid, grid))
            for draw in range(options["uncertainty"])
        ]
        views[FRAGMENTS] = torch.stack([normalize(view, *statistics) for view in fragments])
    if "resized" in options["views"]:
        resized = [resize_frames(frames, options["size"], options["resample"]) for frames in drawn]
        views[RESIZED] = torch.stack([normalize(view, *statistics) for view in resized])
    return views


def _fragments_of_clips(
    clips: Sequence[Tensor], options: dict, protocol: Protocol, generator: torch.Generator | None
) -> Tensor:
    """Fragments of the clips of one video, joined in time: (clips T, 3, h, w)."""
    grid, size, random = options["fragment_grid"], options["fragment_size"], options["fragment_sampling"] == "random"
    fragments = []
    for frames in clips:
        noise = _uniform(generator, 2, grid, grid) if random else None
        fragments.append(sample_fragments(frames, grid, size, noise, protocol.published_cells))
    return torch.cat(fragments) if len(fragments) > 1 else fragments[0]  # a copy only where there are several


def _uniform(generator: torch.Generator | None, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, device=generator.device if generator else None)


def sample_fragments(
    frames: Tensor, grid: int, size: int, noise: Tensor | None = None, published_cells: bool = False
) -> Tensor:
    """Grid mini-patch sampling (FAST-VQA section 3.1): one patch of raw pixels from every cell, put side by side.

    The frame is cut into `grid` x `grid` cells that cover it. A patch has the same place in its cell in all frames.
    A frame with a side below `grid * size` is first enlarged with its aspect ratio kept, and then cut into cells.

    Args:
        frames: (T, H, W, 3), uint8 or float.
        noise: None for the centre of every cell, or uniform numbers in [0, 1), (2, grid, grid), for y and x.
        published_cells: place the cells as the code of FAST-VQA and DOVER does: equal cells of H // grid pixels, which
            leave the rest of the frame out. On an enlarged frame, the cells keep the size and the place that they have
            on the original frame, so that only the top left of the enlarged frame is sampled.

    Returns:
        (T, 3, grid * size, grid * size): uint8 if `frames` is uint8 and was not enlarged, otherwise float in 0..1.
    """
    height, width = frames.shape[1:3]
    scale = max(grid * size / min(height, width), 1.0)
    if published_cells:
        corners = [_published_corners(length, grid, size, noise, axis) for axis, length in enumerate((height, width))]
        return _take_patches(_published_enlargement(frames, scale) if scale > 1 else frames, *corners, size)
    enlarged = [max(round(length * scale), grid * size) if scale > 1 else length for length in (height, width)]
    corners = [_patch_corners(length, grid, size, noise, axis) for axis, length in enumerate(enlarged)]
    return _interpolate_at(frames, *corners, size, enlarged) if scale > 1 else _take_patches(frames, *corners, size)


def _patch_corners(length: int, grid: int, size: int, noise: Tensor | None, axis: int) -> Tensor:
    """First pixel of every patch along one axis, (grid, grid) int64; the cells follow each other along `axis`."""
    borders = torch.arange(grid + 1) * length // grid
    return _place(borders[:-1], borders.diff() - size, noise, axis, spare=1)


def _published_corners(length: int, grid: int, size: int, noise: Tensor | None, axis: int) -> Tensor:
    """`_patch_corners` for published cells; `length` is the length before any enlargement."""
    start = (torch.arange(grid) * (length // grid)).clamp(max=max(length - size, 0))
    return _place(start, torch.full((grid,), max(length // grid - size, 0)), noise, axis, spare=0)


def _place(start: Tensor, room: Tensor, noise: Tensor | None, axis: int, spare: int) -> Tensor:
    """Start of each cell (grid,) plus the offset of its patch: half of the spare room, or a share given by `noise`."""
    grid = len(start)
    start, room = (value.view((grid, 1) if axis == 0 else (1, grid)).expand(grid, grid) for value in (start, room))
    return start + (room // 2 if noise is None else (noise[axis].cpu() * (room + spare)).long())


def _take_patches(frames: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """The patches at the corners (grid, grid), put side by side: (T, H, W, 3) -> (T, 3, grid size, grid size)."""
    if frames.requires_grad:  # one index: the gradient of every slice would be as large as the frames
        inside = torch.arange(size)
        y, x = ((corner[..., None] + inside).to(frames.device) for corner in (top, left))
        return rearrange(frames[:, y[..., None], x[..., None, :]], "t i j a b c -> t c (i a) (j b)")
    corners = torch.stack([top, left], -1).tolist()
    rows = [torch.cat([frames[:, y : y + size, x : x + size] for y, x in row], 2) for row in corners]
    return rearrange(torch.cat(rows, 1), "t h w c -> t c h w")


def _published_enlargement(frames: Tensor, scale: float) -> Tensor:
    """(T, H, W, 3) -> (T, scale H, scale W, 3), bilinear; uint8 values are truncated, as in the published code."""
    unit = frames / 255 if frames.dtype == torch.uint8 else frames
    enlarged = F.interpolate(rearrange(unit, "t h w c -> t c h w"), scale_factor=scale, mode="bilinear")
    if frames.dtype == torch.uint8:
        enlarged = (enlarged * 255).to(torch.uint8)
    return rearrange(enlarged, "t c h w -> t h w c").contiguous()


def _interpolate_at(frames: Tensor, top: Tensor, left: Tensor, size: int, enlarged: list[int]) -> Tensor:
    """The patches of the enlarged frame, interpolated without computing the whole enlarged frame; floats in 0..1."""
    inside = torch.arange(size)
    rows = rearrange(top[..., None] + inside, "i j s -> i s j 1").to(frames.device)
    columns = rearrange(left[..., None] + inside, "i j s -> i 1 j s").to(frames.device)
    grid = torch.stack(torch.broadcast_tensors(columns / enlarged[1], rows / enlarged[0]), -1)
    half_pixel = grid.new_tensor([0.5 / enlarged[1], 0.5 / enlarged[0]])
    grid = rearrange(2 * (grid + half_pixel) - 1, "i a j b xy -> 1 (i a) (j b) xy")
    pixels = rearrange(frames, "t h w c -> t c h w").float()
    patches = F.grid_sample(
        pixels, grid.expand(len(pixels), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return patches / 255 if frames.dtype == torch.uint8 else patches


def resize_frames(frames: Tensor, size: Any, resample: Any, crop: bool = False) -> Tensor:
    """(T, H, W, 3) -> (T, 3, height, width), antialiased.

    Without `crop` the aspect ratio changes to that of `size`, as in DOVER. With `crop` the shorter side is resized with
    the bicubic filter and the centre is cut out, as in CLIP, BLIP and ImageReward.
    """
    frames, target = rearrange(frames, "t h w c -> t c h w"), [size["height"], size["width"]]
    if crop:
        bicubic = tvF.InterpolationMode.BICUBIC
        return tvF.center_crop(tvF.resize(frames, [min(target)], interpolation=bicubic, antialias=True), target)
    mode = pil_torch_interpolation_mapping.get(resample, resample)
    return tvF.resize(frames, target, interpolation=mode, antialias=True)


def normalize(frames: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """(T, 3, h, w), uint8 in 0..255 or float in 0..1 -> normalised float32, contiguous."""
    unit = 255.0 if frames.dtype == torch.uint8 else 1.0
    mean, std = (torch.tensor(values, device=frames.device)[:, None, None] for values in (mean, std))
    if frames.requires_grad:
        return frames * (1 / (unit * std)) - mean / std
    # Convert first and then work in place: arithmetic on uint8, or a new tensor per step, takes twice as long.
    normalized = torch.empty(frames.shape, device=frames.device).copy_(frames)
    return normalized.mul_(1 / (unit * std)).sub_(mean / std)


__all__ = ["AIGCVQAVideoProcessor"]
