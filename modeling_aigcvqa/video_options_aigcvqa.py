"""Options of the video processor, and what they may be."""

import math
from typing import TypedDict

import torch
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from transformers.image_utils import pil_torch_interpolation_mapping

from .names_aigcvqa import ON_DAMAGE
from .protocols_aigcvqa import get_protocol
from .saved_files_aigcvqa import one_line
from .video_reading_aigcvqa import DECODERS

VIEWS = ("fragments", "resized")
MAX_DRAWS = 64  # for the uncertainty of a clip
MAX_SIDE = 4096  # pixels per side of a view, and frames; a view above this would exhaust the memory
# What processor_config.json holds besides the options.
BOOKKEEPING = {"processor_class", "video_processor_type", "auto_map", "image_processor_type", "_name_or_path"}


class AIGCVQAVideoProcessorKwargs(TypedDict, total=False):
    """Options of the video processor. Options of the base class that would have no effect are left out and refused.

    Attributes:
        views: the views to compute: "fragments", "resized" or both (default).
        num_frames: number of frames T, spread evenly over each clip.
        size: size of the resized view in pixels, {"height", "width"}.
        resample: filter of the resized view, a `PILImageResampling`.
        image_mean, image_std: statistics of the normalisation, one value per colour.
        fragment_grid: number of fragments per side of the technical view.
        fragment_size: pixels per side of a fragment; they are copied from the frame without resizing.
        fragment_sampling: where fragments lie within their cells: "center" (deterministic) or "random".
        protocol: sampling protocol: "aigcvqa", "fast_vqa", "dover" or "image_reward"; see `protocols_aigcvqa`.
        uncertainty: adds so many random draws of fragments, and some of frames, as `draws_fragments` (B, K, T, 3, h, w)
            and `draws_resized` (B, F, T, 3, h, w); see `uncertainty_aigcvqa`. They are the same at each call.
        seed: makes random fragments repeatable: a clip gets the same fragments alone and in any batch.
        generator: the torch.Generator that random fragments are drawn from, clip after clip.
        device: where the views are computed, for example "cuda"; by default on the device of the frames.
        on_damage: what to do with a damaged file: "raise" (default), or "warn" to take the frames that it still has.
        decoder: "pyav" (default), or "decord" for the files that it is known to read rightly.
        return_metadata: adds `video_metadata` with the indices of the frames that were used.
        return_tensors: "pt" (default) or "np".
    """

    views: list[str]
    num_frames: int
    size: dict[str, int]
    resample: int
    image_mean: list[float | int]
    image_std: list[float | int]
    fragment_grid: int
    fragment_size: int
    fragment_sampling: str
    protocol: str
    uncertainty: int
    seed: int
    generator: torch.Generator
    device: str | torch.device
    on_damage: str
    decoder: str
    return_metadata: bool
    return_tensors: str


def check_types(options: dict) -> None:
    """Raises TypeError for an option of a wrong type; names it."""
    try:
        validate_typed_dict(AIGCVQAVideoProcessorKwargs, options)
    except StrictDataclassError as error:
        raise TypeError(one_line(error)) from error


def check_options(options: dict) -> None:
    """Raises ValueError for a value that makes no sense, or a view that would exhaust the memory; names the option."""
    if options["fragment_sampling"] not in ("center", "random"):
        raise ValueError(f"fragment_sampling={options['fragment_sampling']!r}: expected 'center' or 'random'.")
    if not options["views"] or not set(options["views"]) <= set(VIEWS):
        raise ValueError(f"views={options['views']!r}: expected one or both of {list(VIEWS)}.")
    _check_sizes(options)
    _check_statistics(options)
    if options["resample"] not in pil_torch_interpolation_mapping:
        known = sorted(map(int, pil_torch_interpolation_mapping))
        raise ValueError(f"resample={options['resample']}: expected one of {known}.")
    for name, known in (("on_damage", ON_DAMAGE), ("decoder", DECODERS)):
        if options[name] not in known:
            raise ValueError(f"{name}={options[name]!r}: expected one of {list(known)}.")
    get_protocol(options["protocol"])
    if options["uncertainty"] is not None:
        if not 2 <= options["uncertainty"] <= MAX_DRAWS:
            raise ValueError(f"uncertainty={options['uncertainty']}: expected 2 to {MAX_DRAWS} draws.")
        if options["protocol"] != "aigcvqa":
            raise ValueError(f"uncertainty goes with protocol='aigcvqa' (got {options['protocol']!r}); leave it out.")
    if options["seed"] is not None and options["generator"] is not None:
        raise ValueError(f"seed={options['seed']} and a generator were both given; pass one of them.")


def _check_sizes(options: dict) -> None:
    sides = {name: options["size"].get(name) for name in ("height", "width")}
    counts = {name: options[name] for name in ("num_frames", "fragment_grid", "fragment_size")}
    for name, value in {**counts, **sides}.items():
        if not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
            raise ValueError(f"{name}={value}: expected a number in 1..{MAX_SIDE}.")
    if options["fragment_grid"] * options["fragment_size"] > MAX_SIDE:
        raise ValueError(
            f"fragment_grid={options['fragment_grid']} and fragment_size={options['fragment_size']}: expected a "
            f"product of at most {MAX_SIDE}."
        )


def _check_statistics(options: dict) -> None:
    for name in ("image_mean", "image_std"):
        values = options[name]
        if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "image_std" and min(values) <= 0):
            above = " above 0" if name == "image_std" else ""
            raise ValueError(f"{name}={list(values)}: expected 3 finite numbers{above}, one per colour.")
