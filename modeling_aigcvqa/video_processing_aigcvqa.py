"""From a video to the two views of AIGC-VQA: fragments for the technical branch, resized frames for the other two."""

from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from huggingface_hub.dataclasses import validate_typed_dict
from torch import Tensor
from torchvision.transforms.v2 import functional as tvF
from transformers import BatchFeature
from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import PILImageResampling, pil_torch_interpolation_mapping
from transformers.processing_utils import Unpack
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .video_reading_aigcvqa import read_video, split_batch

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class AIGCVQAVideoProcessorKwargs(TypedDict, total=False):
    """The options: only what is honoured, so that no other option of the base class passes unnoticed.

    num_frames: T, spread evenly over each clip.
    size: of the resized view, {"height", "width"} in pixels.
    resample: filter of the resized view, a `PILImageResampling`.
    image_mean, image_std: of the normalisation, one value a colour.
    fragment_grid: fragments a side of the technical view.
    fragment_size: pixels a side of a fragment, taken from the frame as they are.
    fragment_sampling: "center" (deterministic) or "random" places of the fragments within their cells.
    seed: makes random fragments repeatable: a clip gets the same ones alone and in any batch.
    generator: the torch.Generator to draw random fragments from, clip after clip.
    device: where the views are computed, e.g. "cuda"; by default where the frames are.
    return_metadata: adds `video_metadata`, with the frame indices that were used.
    return_tensors: "pt" (default) or "np".
    """

    num_frames: int
    size: dict[str, int]
    resample: int
    image_mean: list[float]
    image_std: list[float]
    fragment_grid: int
    fragment_size: int
    fragment_sampling: str
    seed: int
    generator: torch.Generator
    device: str | torch.device
    return_metadata: bool
    return_tensors: str


class AIGCVQAVideoProcessor(BaseVideoProcessor):
    """One decode, two views of the same frames.

    Returns `pixel_values_fragments` (B, T, 3, g s, g s) with g = `fragment_grid`, s = `fragment_size`, and
    `pixel_values_resized` (B, T, 3, `size.height`, `size.width`), both ImageNet-normalised float32. Every option is
    saved with the model and can be given per call.
    """

    valid_kwargs = AIGCVQAVideoProcessorKwargs
    model_input_names = ["pixel_values_fragments", "pixel_values_resized"]

    num_frames = 16
    size = {"height": 224, "width": 224}
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
    fragment_grid = 7
    fragment_size = 32
    fragment_sampling = "center"

    def __init__(self, **kwargs: Unpack[AIGCVQAVideoProcessorKwargs]):
        super().__init__(**kwargs)

    def preprocess(self, videos: Any, **kwargs: Unpack[AIGCVQAVideoProcessorKwargs]) -> BatchFeature:
        """Process one video or a list of them, in the forms of `read_video`; options as in the class of `kwargs`."""
        return_tensors = kwargs.pop("return_tensors", None) or "pt"
        unknown = sorted(set(kwargs) - set(self.valid_kwargs.__annotations__))
        if unknown:
            raise TypeError(f"AIGCVQAVideoProcessor has no option {unknown}.")
        validate_typed_dict(self.valid_kwargs, {key: value for key, value in kwargs.items() if value is not None})
        options = {name: kwargs.get(name) for name in self.valid_kwargs.__annotations__}
        options = {name: getattr(self, name, None) if value is None else value for name, value in options.items()}
        options["size"] = get_size_dict(options["size"], default_to_square=True)
        self._check_options(options)
        views, metadata = [], []
        for video in split_batch(videos):
            frames, clip_metadata = read_video(video, lambda total: sample_frame_indices(total, options["num_frames"]))
            views.append(self._views(frames, options))
            metadata.append(clip_metadata)
        fragments, resized = (torch.stack(view) for view in zip(*views))
        data = {"pixel_values_fragments": fragments, "pixel_values_resized": resized}
        features = BatchFeature(data, tensor_type=return_tensors)
        if options["return_metadata"]:
            features["video_metadata"] = metadata
        return features

    def sample_frames(self, metadata: VideoMetadata, num_frames: int | None = None, **kwargs) -> np.ndarray:
        """Indices (T,) of the frames that are used, for callers of the base class's interface."""
        return np.asarray(sample_frame_indices(metadata.total_num_frames, num_frames or self.num_frames))

    def _check_options(self, options: dict) -> None:
        if options["fragment_sampling"] not in ("center", "random"):
            raise ValueError(f"fragment_sampling={options['fragment_sampling']!r}: expected 'center' or 'random'.")
        for name in ("num_frames", "fragment_grid", "fragment_size"):
            if options[name] < 1:
                raise ValueError(f"{name}={options[name]}: expected at least 1.")
        if options["seed"] is not None and options["generator"] is not None:
            raise ValueError(f"seed={options['seed']} and a generator were both given; pass one of them.")

    def _views(self, frames: Tensor, options: dict) -> tuple[Tensor, Tensor]:
        """Frames (T, H, W, 3) -> fragments and resized frames, both (T, 3, h, w), normalised."""
        if options["device"] is not None:
            frames = frames.to(options["device"])
        generator = options["generator"]
        if options["seed"] is not None:
            generator = torch.Generator().manual_seed(options["seed"])
        grid, size = options["fragment_grid"], options["fragment_size"]
        noise = None
        if options["fragment_sampling"] == "random":
            noise = torch.rand(2, grid, grid, generator=generator, device=generator.device if generator else None)
        fragments = sample_fragments(frames, grid, size, noise)
        resized = resize_frames(frames, options["size"], options["resample"])
        return tuple(normalize(view, options["image_mean"], options["image_std"]) for view in (fragments, resized))


def sample_frame_indices(total: int, num_frames: int) -> list[int]:
    """`num_frames` of `total` frames, spread evenly from the first to the last; a short clip's frames repeat evenly.

    Linspace rounded to the nearest index, in integers, so that no platform rounds otherwise; 1 frame: the middle one.
    """
    if num_frames == 1:
        return [(total - 1) // 2]
    steps = num_frames - 1
    return [(2 * step * (total - 1) + steps) // (2 * steps) for step in range(num_frames)]


def sample_fragments(frames: Tensor, grid: int, size: int, noise: Tensor | None = None) -> Tensor:
    """Grid mini-patch sampling (FAST-VQA section 3.1): a patch of raw pixels from every cell, side by side.

    The frame is cut into `grid` x `grid` cells that cover it; the patch's place in its cell is the same in all frames.
    A frame with a side below `grid * size` is enlarged first, keeping its shape, and the cells lie on the enlarged one.

    Args:
        frames: (T, H, W, 3), uint8 or float.
        noise: None for the centre of every cell, or uniform numbers in [0, 1), (2, grid, grid), for y and x.

    Returns:
        (T, 3, grid * size, grid * size), uint8 where uint8 came in and nothing had to be enlarged, else float in 0..1.
    """
    height, width = frames.shape[1:3]
    scale = max(grid * size / min(height, width), 1.0)
    enlarged = [max(round(length * scale), grid * size) if scale > 1 else length for length in (height, width)]
    rows, columns = (
        _patch_positions(length, grid, size, None if noise is None else noise[axis], axis)
        for axis, length in enumerate(enlarged)
    )  # (grid, grid, size): [row of cells, column of cells, pixel in the patch]
    rows = rearrange(rows, "i j s -> i s j 1").to(frames.device)
    columns = rearrange(columns, "i j s -> i 1 j s").to(frames.device)
    if scale > 1:
        return _interpolate_at(frames, rows, columns, enlarged)
    return rearrange(frames[:, rows, columns], "t i a j b c -> t c (i a) (j b)")


def _patch_positions(length: int, grid: int, size: int, noise: Tensor | None, axis: int) -> Tensor:
    """Positions along one axis of every patch's pixels, (grid, grid, size) int64; cells change along `axis`."""
    borders = torch.arange(grid + 1) * length // grid
    room = borders.diff() - size
    start = borders[:-1].view((grid, 1) if axis == 0 else (1, grid)).expand(grid, grid)
    room = room.view((grid, 1) if axis == 0 else (1, grid)).expand(grid, grid)
    offset = room // 2 if noise is None else (noise.cpu() * (room + 1)).long()
    return (start + offset)[..., None] + torch.arange(size)


def _interpolate_at(frames: Tensor, rows: Tensor, columns: Tensor, enlarged: list[int]) -> Tensor:
    """What bilinear enlargement of the whole frame would hold at the patches' positions, without making it."""
    grid = torch.stack(torch.broadcast_tensors(columns / enlarged[1], rows / enlarged[0]), -1)
    half_pixel = grid.new_tensor([0.5 / enlarged[1], 0.5 / enlarged[0]])
    grid = rearrange(2 * (grid + half_pixel) - 1, "i a j b xy -> 1 (i a) (j b) xy")
    pixels = rearrange(frames, "t h w c -> t c h w").float()
    grid = grid.to(pixels.dtype).expand(len(pixels), -1, -1, -1)
    patches = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return patches / 255 if frames.dtype == torch.uint8 else patches


def resize_frames(frames: Tensor, size: Any, resample: Any) -> Tensor:
    """(T, H, W, 3) -> (T, 3, height, width), antialiased, not keeping the shape (as DOVER does)."""
    mode = pil_torch_interpolation_mapping.get(resample, resample)
    size = [size["height"], size["width"]]
    return tvF.resize(rearrange(frames, "t h w c -> t c h w"), size, interpolation=mode, antialias=True)


def normalize(frames: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """(T, 3, h, w), uint8 in 0..255 or float in 0..1 -> normalised float32."""
    unit = 255.0 if frames.dtype == torch.uint8 else 1.0
    mean, std = (torch.tensor(values, device=frames.device)[:, None, None] for values in (mean, std))
    return frames.float().mul(1 / (unit * std)).sub(mean / std)


__all__ = ["AIGCVQAVideoProcessor"]
