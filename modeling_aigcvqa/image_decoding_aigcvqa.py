"""Read images, animated images (GIF, WebP, APNG, AVIF) and folders of frames with Pillow."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence
from torch import Tensor

from .frames_aigcvqa import (
    ChooseFrames,
    ClipMetadata,
    FrameStore,
    VideoReadError,
    check_frame,
    clip_metadata,
    on_background,
    opened_file,
)
from .names_aigcvqa import IMAGE_SUFFIXES

IMAGE_SIGNATURES = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
AVIF_BRANDS = (b"ftypavif", b"ftypavis")


def is_image(head: bytes) -> bool:
    """Whether a file with these first 12 bytes is an image or an animated image."""
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(IMAGE_SIGNATURES) or is_webp or head[4:12] in AVIF_BRANDS


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """The pixels (H, W, 3) of an image, as a viewer shows it.

    The image is turned as its EXIF data say, transparent pixels are laid on the background, and grey values of 16 bits
    are scaled to 8 bits.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=-1)
    if image.has_transparency_data:
        return on_background(torch.from_numpy(np.array(image.convert("RGBA")))).numpy()
    return np.asarray(image.convert("RGB"))


def read_image(source: bytes | Path, name: str, choose_frames: ChooseFrames) -> tuple[Tensor, ClipMetadata]:
    """The chosen frames of an image, which is a clip of one frame, or of an animated image.

    Raises:
        VideoReadError: if the image cannot be read; names it.
    """
    try:
        with opened_file(source) as file, Image.open(file) as image:
            # The default image of an APNG may be only for viewers that show no animations.
            first = int(getattr(image, "default_image", False))
            total = getattr(image, "n_frames", 1) - first
            store, duration_ms = FrameStore(choose_frames(total), name), 0.0
            for index, frame in enumerate(ImageSequence.Iterator(image), -first):
                check_frame(name, *frame.size)
                frame.load()  # sets the duration of a frame of WebP
                if index >= 0:
                    duration_ms += frame.info.get("duration") or 0
                if index in store:
                    store.add(index, rgb_pixels(frame))
    except VideoReadError:
        raise
    except Exception as error:  # Pillow raises errors of many types for damaged files
        raise VideoReadError(
            f"{name} cannot be read as an image or GIF ({error}); write or download it again."
        ) from error
    frames = store.tensor()
    fps = 1000 * total / duration_ms if duration_ms and total > 1 else None  # GIFs may carry no durations
    return frames, clip_metadata(total, store.indices, fps, frames, "pillow")


def read_folder(path: Path, choose_frames: ChooseFrames) -> tuple[Tensor, ClipMetadata]:
    """The chosen frames of a folder, in the natural order of their names: frame2 comes before frame10.

    Hidden files, such as the `._*` of macOS, are not frames.

    Raises:
        VideoReadError: if the folder has no frames, or one cannot be read; names it.
    """
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
    if not files:
        raise VideoReadError(f"the folder '{path}' holds no frames ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    files.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)])
    store = FrameStore(choose_frames(len(files)), f"'{path}'")
    for index in store.positions:
        try:
            with Image.open(files[index]) as image:
                check_frame(f"'{path}'", *image.size)
                pixels = rgb_pixels(image)
        except VideoReadError:
            raise
        except Exception as error:  # Pillow raises errors of many types for damaged files
            raise VideoReadError(f"frame '{files[index]}' cannot be read ({error}); replace the file.") from error
        store.add(index, pixels)
    frames = store.tensor()
    return frames, clip_metadata(len(files), store.indices, None, frames, "pillow")
