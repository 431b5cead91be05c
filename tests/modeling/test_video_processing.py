import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_aigcvqa import AIGCVQAVideoProcessor
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_processing_aigcvqa import (
    resize_frames,
    sample_fragments,
)


def coordinate_clip(frames: int, height: int, width: int) -> torch.Tensor:
    """A clip whose pixels say where they come from: red = row, green = column (both modulo 256), blue = frame."""
    clip = torch.zeros(frames, height, width, 3, dtype=torch.uint8)
    clip[..., 0] = torch.arange(height).view(1, -1, 1) % 256
    clip[..., 1] = torch.arange(width).view(1, 1, -1) % 256
    clip[..., 2] = torch.arange(frames).view(-1, 1, 1)
    return clip


@pytest.mark.parametrize("size", [(224, 224), (240, 320), (511, 233), (720, 1280)])
@pytest.mark.parametrize("random", [False, True])
def test_fragments_stand_verbatim_in_their_cells_at_one_place_in_all_frames(size, random):
    height, width = size
    clip = coordinate_clip(4, height, width)
    noise = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(3)) if random else None
    fragments = sample_fragments(clip, 7, 32, noise)
    assert fragments.shape == (4, 3, 224, 224)
    assert fragments.dtype == torch.uint8
    for i in range(7):
        for j in range(7):
            patch = fragments[:, :, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
            top, bottom, left, right = height * i // 7, height * (i + 1) // 7, width * j // 7, width * (j + 1) // 7
            places = [
                (y, x)
                for y in range(top, bottom - 31)
                for x in range(left, right - 31)
                if y % 256 == patch[0, 0, 0, 0] and x % 256 == patch[0, 1, 0, 0]
            ]
            assert places, f"cell {i}, {j} holds pixels of another cell"
            y, x = places[0]
            assert torch.equal(patch, clip[:, y : y + 32, x : x + 32].permute(0, 3, 1, 2))
            if not random:
                assert abs((y - top) - (bottom - 32 - y)) <= 1, "the centre of the cell"


def test_random_fragments_reach_the_whole_cell_and_differ_between_cells():
    clip = coordinate_clip(1, 252, 252)  # cells of 36: offsets 0..4
    offsets = set()
    for seed in range(60):
        fragments = sample_fragments(clip, 7, 32, torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(seed)))
        offsets |= {int(fragments[0, 0, 0, 0]), int(fragments[0, 0, 32, 0]) - 36}
    assert offsets == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("size", [(100, 150), (223, 400), (16, 16), (1, 7), (300, 120)])
def test_small_frames_are_enlarged_as_a_whole_first(size):
    height, width = size
    clip = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scale = 224 / min(size)
    enlarged = [max(round(height * scale), 224), max(round(width * scale), 224)]
    whole = F.interpolate(clip.permute(0, 3, 1, 2) / 255, enlarged, mode="bilinear", align_corners=False)
    expected = sample_fragments(whole.permute(0, 2, 3, 1), 7, 32)
    torch.testing.assert_close(sample_fragments(clip, 7, 32), expected, atol=1e-4, rtol=0)


def test_the_grid_covers_the_whole_frame():
    clip = torch.zeros(1, 160, 160, 3, dtype=torch.uint8)
    clip[:, 150:, 150:] = 255  # only the bottom right corner is bright
    fragments = sample_fragments(clip, 7, 32)
    assert fragments[..., -8:, -8:].mean() > 0.9
    assert fragments[..., :160, :160].max() == 0


@pytest.mark.parametrize(
    ("total", "num_frames", "expected"),
    [
        (16, 16, list(range(16))),
        (3, 6, [0, 0, 1, 1, 2, 2]),
        (1, 4, [0, 0, 0, 0]),
        (9, 5, [0, 2, 4, 6, 8]),
        (7, 1, [3]),
        (2, 5, [0, 0, 1, 1, 1]),
    ],
)
def test_frames_are_spread_evenly_and_short_clips_repeat_evenly(total, num_frames, expected):
    assert sample_frame_indices(total, num_frames) == expected


@pytest.mark.parametrize("total", [1, 2, 3, 15, 17, 33, 1000])
@pytest.mark.parametrize("num_frames", [1, 2, 8, 16, 32])
def test_frame_sampling_is_rounded_linspace(total, num_frames):
    indices = sample_frame_indices(total, num_frames)
    assert len(indices) == num_frames
    assert indices == sorted(indices)
    if num_frames > 1:
        assert (indices[0], indices[-1]) == (0, total - 1)
        assert np.abs(np.array(indices) - np.linspace(0, total - 1, num_frames)).max() <= 0.5
        counts = np.bincount(indices, minlength=total)
        if total <= num_frames:
            assert counts.min() >= 1, "no frame of a short clip is left out"


def test_every_form_of_a_clip_gives_the_same_views(tmp_path):
    from PIL import Image

    clip = torch.randint(0, 256, (5, 230, 250, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = [Image.fromarray(frame.numpy()) for frame in clip]
    (tmp_path / "frames").mkdir()
    for index, image in enumerate(images):
        image.save(tmp_path / "frames" / f"frame{index * 7}.png")  # natural order: 0, 7, 14, 21, 28
    images[0].save(tmp_path / "clip.png", save_all=True, append_images=images[1:])  # APNG, lossless
    apng = (tmp_path / "clip.png").read_bytes()
    forms = {
        "tensor THWC": clip,
        "tensor TCHW": clip.permute(0, 3, 1, 2),
        "array": clip.numpy(),
        "float": clip.float() / 255,
        "PIL": images,
        "PIL in RGBA": [image.convert("RGBA") for image in images],
        "arrays of frames": list(clip.numpy()),
        "folder": tmp_path / "frames",
        "folder as str": str(tmp_path / "frames"),
        "file": tmp_path / "clip.png",
        "bytes": apng,
        "dict with bytes": {"bytes": apng, "path": None},
        "dict with path": {"bytes": None, "path": str(tmp_path / "clip.png")},
    }
    processor = AIGCVQAVideoProcessor()
    expected = processor(clip)
    for name, form in forms.items():
        views = processor(form)
        for key in processor.model_input_names:
            assert views[key].shape == (1, 16, 3, 224, 224), name
            tolerance = 1.1 / 255 / 0.22 if name == "float" and key.endswith("resized") else 1e-5  # uint8 rounding
            torch.testing.assert_close(views[key], expected[key], atol=tolerance, rtol=0, msg=f"{name}, {key}")
    batch = processor(list(forms.values()))
    assert batch["pixel_values_resized"].shape[0] == len(forms)


def test_views_are_imagenet_normalised():
    clip = torch.full((2, 224, 224, 3), 51, dtype=torch.uint8)  # 0.2
    views = AIGCVQAVideoProcessor()(clip)
    expected = (0.2 - torch.tensor(IMAGENET_DEFAULT_MEAN)) / torch.tensor(IMAGENET_DEFAULT_STD)
    for key in ("pixel_values_fragments", "pixel_values_resized"):
        torch.testing.assert_close(views[key].mean((0, 1, 3, 4)), expected, atol=1e-5, rtol=0)


def test_resizing_is_antialiased():
    stripes = torch.zeros(1, 448, 448, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    resized = resize_frames(stripes, {"height": 224, "width": 224}, 2)
    assert (resized.float() - 127.5).abs().max() < 40


def test_options_per_call_and_saved(tmp_path):
    clip = torch.randint(0, 256, (20, 256, 300, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = AIGCVQAVideoProcessor()
    views = processor(clip, num_frames=8, size={"height": 112, "width": 96}, fragment_grid=4, return_metadata=True)
    assert views["pixel_values_resized"].shape == (1, 8, 3, 112, 96)
    assert views["pixel_values_fragments"].shape == (1, 8, 3, 128, 128)
    assert views["video_metadata"][0].frames_indices == sample_frame_indices(20, 8)
    assert processor(clip)["pixel_values_resized"].shape == (1, 16, 3, 224, 224), "a call leaves nothing behind"
    AIGCVQAVideoProcessor(num_frames=8, fragment_sampling="random").save_pretrained(tmp_path)
    loaded = AIGCVQAVideoProcessor.from_pretrained(tmp_path)
    assert (loaded.num_frames, loaded.fragment_sampling) == (8, "random")
    assert isinstance(processor(clip, return_tensors="np")["pixel_values_resized"], np.ndarray)


def test_seeds_and_generators():
    clip = torch.randint(0, 256, (4, 300, 300, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def fragments(videos=clip, **options):
        return AIGCVQAVideoProcessor(fragment_sampling="random")(videos, **options)["pixel_values_fragments"]

    assert torch.equal(fragments(seed=1), fragments(seed=1))
    assert not torch.equal(fragments(seed=1), fragments(seed=2))
    assert not torch.equal(fragments(), fragments())
    in_batch = fragments([clip.flip(1), clip], seed=1)
    assert torch.equal(in_batch[1:], fragments(seed=1)), "the same fragments alone and in a batch"
    generator = torch.Generator().manual_seed(5)
    first, second = fragments(generator=generator), fragments(generator=generator)
    assert not torch.equal(first, second), "a generator moves on"
    generator.manual_seed(5)
    assert torch.equal(fragments(generator=generator), first)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fragment_sampling": "corner"}, ValueError, "corner"),
        ({"num_frames": 0}, ValueError, "num_frames=0"),
        ({"num_frames": "many"}, Exception, "num_frames"),
        ({"frames": 3}, TypeError, "frames"),
        ({"seed": 1, "generator": torch.Generator()}, ValueError, "seed=1"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        AIGCVQAVideoProcessor()(torch.zeros(2, 224, 224, 3, dtype=torch.uint8), **options)


def test_patches_of_frames_with_a_gradient_are_the_same():
    frames = torch.rand(3, 100, 130, 3)
    patches = sample_fragments(frames, 7, 8)
    leaf = frames.clone().requires_grad_()
    with_gradient = sample_fragments(leaf, 7, 8)
    assert torch.equal(patches, with_gradient)
    (gradient,) = torch.autograd.grad(with_gradient.sum(), leaf)
    assert gradient.sum() == patches.numel(), "every pixel of a patch counts once"
