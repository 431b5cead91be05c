"""Images, animated images and folders of frames look as a viewer shows them."""

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_aigcvqa import VideoReadError
from modeling_aigcvqa.video_reading_aigcvqa import read_video
from tests.barcodes import FRAMES, IMAGE_KINDS, number_of

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
TRANSPARENT = (200, 0, 0, 0)  # the hidden colour must not be seen
HALF = (200, 0, 0, 128)
WHITE, PINK = [255, 255, 255], [227, 127, 127]


def read(video, **options):
    frames, metadata = read_video(video, range, **options)
    return frames.numpy(), metadata


def stills(*colours, size=(32, 24)):
    return [Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour) for colour in colours]


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_frames_of_animations(tmp_path, kind):
    frames, metadata = read(IMAGE_KINDS[kind](tmp_path / kind))
    assert list(map(number_of, frames)) == list(range(FRAMES)) == metadata.frames_indices


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "bmp", "webp", "avif"])
def test_single_images_are_clips_of_one_frame(tmp_path, suffix):
    stills(GREEN)[0].save(tmp_path / f"image.{suffix}")
    frames, metadata = read(tmp_path / f"image.{suffix}")
    assert (frames.shape, metadata.fps) == ((1, 24, 32, 3), None)
    assert frames[0, 9, 9].tolist() == pytest.approx(GREEN, abs=12)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_cut_animations_are_refused(tmp_path, kind, share):
    content = IMAGE_KINDS[kind](tmp_path / kind).read_bytes()
    with pytest.raises(VideoReadError):
        read(content[: int(share * len(content))])


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_16_bits_is_scaled(tmp_path, suffix):
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / f"grey.{suffix}")
    frames, _ = read(tmp_path / f"grey.{suffix}")
    np.testing.assert_array_equal(frames[0, ..., 0], np.arange(256).reshape(16, 16))
    assert (frames[..., :1] == frames).all()


@pytest.mark.parametrize("in_folder", [False, True])
def test_exif_orientation_is_applied(tmp_path, in_folder):
    image = Image.new("RGB", (40, 20), GREEN)
    image.paste(RED, (0, 0, 8, 8))  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    frames, _ = read(tmp_path if in_folder else tmp_path / "phone.jpg")
    assert frames.shape == (1, 40, 20, 3)
    assert frames[0, 3, 16].tolist() == pytest.approx(RED, abs=20), "top right as shown"


@pytest.mark.parametrize("suffix", ["png", "webp", "avif", "gif"])
def test_transparent_pixels_lie_on_white(tmp_path, suffix):
    first, *rest = stills(TRANSPARENT, (*GREEN, 255))
    options = {} if suffix == "gif" else {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"clip.{suffix}", save_all=True, append_images=rest, duration=100, **options)
    frames, _ = read(tmp_path / f"clip.{suffix}")
    assert frames[:, 5, 5].tolist() == [pytest.approx(WHITE, abs=3), pytest.approx(list(GREEN), abs=12)]


def test_transparency_in_every_form_gives_the_same_pixels(tmp_path):
    images = stills(TRANSPARENT, HALF)
    (tmp_path / "frames").mkdir()
    for index, image in enumerate(images):
        image.save(tmp_path / f"frames/{index}.png")
    array = np.stack([np.asarray(image) for image in images])
    forms = [tmp_path / "frames", images, array, list(array), torch.from_numpy(array).permute(0, 3, 1, 2)]
    for form in forms:
        assert read(form)[0][:, 5, 5].tolist() == [WHITE, PINK]
    floats = read(torch.from_numpy(array) / 255)[0]
    np.testing.assert_allclose(floats[:, 5, 5] * 255, [WHITE, PINK], atol=0.5)


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = stills(RED)[0].convert("P")
    image.save(tmp_path / "palette.png", transparency=image.getpixel((0, 0)))
    assert read(tmp_path / "palette.png")[0][0, 0, 0].tolist() == WHITE


def test_hidden_files_are_not_frames(tmp_path):
    stills(RED)[0].save(tmp_path / "0.png")
    (tmp_path / "._0.png").write_bytes(b"\0\5\x16\7 resource fork")
    (tmp_path / ".thumbnail.png").touch()
    assert len(read(tmp_path)[0]) == 1


@pytest.mark.parametrize("suffix", ["webp", "png", "avif", "gif"])
def test_the_rate_of_animations(tmp_path, suffix):
    first, *rest = stills(RED, GREEN, BLUE)
    first.save(tmp_path / f"clip.{suffix}", save_all=True, append_images=rest, duration=[100, 200, 300])
    frames, metadata = read(tmp_path / f"clip.{suffix}")
    assert len(frames) == 3
    assert metadata.fps == pytest.approx(5)


def test_the_default_image_of_an_apng_is_not_shown(tmp_path):
    first, *rest = stills(RED, GREEN, BLUE)
    first.save(tmp_path / "clip.png", save_all=True, append_images=rest, default_image=True, duration=250)
    frames, metadata = read(tmp_path / "clip.png")
    assert frames[:, 0, 0].tolist() == [list(GREEN), list(BLUE)]
    assert metadata.fps == pytest.approx(4)


def test_what_diffusers_returns_is_one_clip(tmp_path):
    images = stills(RED, GREEN)
    array = np.stack([np.asarray(image) for image in images])
    for form in ([images], array[None], torch.from_numpy(array[None] / np.float32(255)), [array]):
        frames = np.asarray(read(form)[0])
        assert frames.shape == (2, 24, 32, 3)
        np.testing.assert_array_equal(frames / frames.max(), array / 255)
