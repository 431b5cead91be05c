"""Published sampling, restated from the published code, gives the same frames and pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from modeling_aigcvqa import AIGCVQAVideoProcessor
from modeling_aigcvqa.protocols_aigcvqa import sample_clips
from modeling_aigcvqa.video_reading_aigcvqa import read_video
from tests.conftest import moving_gradient, write_video


def fast_vqa_test_frames(total, length=32, interval=2, clips=4):
    span = length * interval
    average = (total - span + 1) / float(clips)
    starts = (np.arange(clips) * average + average / 2.0).astype(np.int32) if total > span - 1 else np.zeros(clips, int)
    return np.mod(starts[:, None] + np.arange(length)[None] * interval, total)


def dover_frames(total, length, clips, interval=2, draw=None):
    grids = np.array([total // clips * i for i in range(clips)])
    room = total // clips - length * interval
    offsets = np.array([draw(room) for _ in grids]) if room > 0 else np.zeros(clips, int)
    return np.mod(np.arange(length)[None] * interval + offsets[:, None] + grids[:, None], total)


@pytest.mark.parametrize("total", [1, 16, 63, 64, 65, 100, 300, 1000])
def test_frames_of_fast_vqa_and_dover(total):
    np.testing.assert_array_equal(sample_clips("four_strided", total, 16), fast_vqa_test_frames(total))
    middle = lambda room: room // 2  # noqa: E731
    np.testing.assert_array_equal(sample_clips("three_strided", total, 16), dover_frames(total, 32, 3, draw=middle))
    np.testing.assert_array_equal(
        sample_clips("segments", total, 16)[0], dover_frames(total, 1, 32, draw=middle).flatten()
    )


def test_random_places_are_those_that_dover_can_draw():
    for noise in (0.0, 0.5, 0.999):
        clips = np.array(sample_clips("three_strided", 300, 16, [noise] * 32))
        offsets = clips[:, 0] - np.array([0, 100, 200])
        assert (offsets == int(noise * 36)).all()


def published_fragments(video, grid=7, size=32):
    """FAST-VQA's and DOVER's sampling in space on (C, T, H, W) uint8, its random offsets in the middle."""
    height, width = video.shape[-2:]
    ratio = min(height, width) / (grid * size)
    if ratio < 1:
        original = video
        video = F.interpolate(video / 255.0, scale_factor=1 / ratio, mode="bilinear")
        video = (video * 255.0).type_as(original)
    target = torch.zeros(*video.shape[:2], grid * size, grid * size)
    for i in range(grid):
        for j in range(grid):
            top = min(height // grid * i, height - size) + max(height // grid - size, 0) // 2
            left = min(width // grid * j, width - size) + max(width // grid - size, 0) // 2
            patch = video[:, :, top : top + size, left : left + size]
            target[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size] = patch
    return target


MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


@pytest.mark.parametrize("size", [(240, 320), (230, 224), (256, 700), (160, 200), (100, 333)])
def test_dover_s_two_views(size):
    clip = torch.from_numpy(moving_gradient(40, *size))
    inputs = AIGCVQAVideoProcessor()(clip, protocol="dover")
    assert inputs["pixel_values_fragments"].shape == (1, 3, 32, 3, 224, 224)
    assert inputs["pixel_values_resized"].shape == (1, 32, 3, 224, 224)
    frames = dover_frames(40, 32, 3).flatten()
    views = published_fragments(clip[frames].permute(3, 0, 1, 2))
    views = ((views.permute(1, 2, 3, 0) - MEAN) / STD).permute(0, 3, 1, 2).unflatten(0, (3, 32))
    torch.testing.assert_close(inputs["pixel_values_fragments"][0], views, atol=1e-5, rtol=0)
    # torchvision's Resize on the uint8 frames, as DOVER does
    from torchvision.transforms import Resize

    resized = Resize((224, 224))(clip[dover_frames(40, 1, 32).flatten()].permute(0, 3, 1, 2))
    expected = ((resized.permute(0, 2, 3, 1) - MEAN) / STD).permute(0, 3, 1, 2)
    torch.testing.assert_close(inputs["pixel_values_resized"][0], expected, atol=1.01 / 57, rtol=0)


def test_fast_vqa_s_fragments():
    clip = torch.from_numpy(moving_gradient(70, 240, 320))
    inputs = AIGCVQAVideoProcessor()(clip, protocol="fast_vqa")
    views = published_fragments(clip[fast_vqa_test_frames(70).flatten()].permute(3, 0, 1, 2))
    views = ((views.permute(1, 2, 3, 0) - MEAN) / STD).permute(0, 3, 1, 2).unflatten(0, (4, 32))
    torch.testing.assert_close(inputs["pixel_values_fragments"][0], views, atol=1e-5, rtol=0)
    assert inputs["pixel_values_resized"].shape == (1, 16, 3, 224, 224)


@pytest.mark.parametrize("size", [(300, 400), (180, 90)])
def test_image_reward_s_frames(size):
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    clip = torch.from_numpy(moving_gradient(5, *size))
    inputs = AIGCVQAVideoProcessor()(clip, protocol="image_reward", num_frames=5)["pixel_values_resized"]
    assert inputs.shape == (1, 5, 1, 3, 224, 224), "every frame a clip of its own"
    resize = Resize(224, interpolation=InterpolationMode.BICUBIC)
    published = [np.asarray(CenterCrop(224)(resize(Image.fromarray(frame.numpy())))) for frame in clip]
    expected = ((torch.from_numpy(np.stack(published)) - MEAN) / STD).permute(0, 3, 1, 2)[:, None]
    torch.testing.assert_close(inputs[0], expected, atol=1.01 / 57, rtol=0)  # one level of uint8 rounding
    assert (inputs[0] - expected).abs().mean() < 0.002


def test_image_reward_s_prompts_are_cut_at_35(processor):
    clip = moving_gradient(2, 224, 224)
    assert processor(videos=clip, text="word " * 50, protocol="image_reward")["input_ids"].shape == (1, 35)
    assert processor(videos=clip, text="word " * 50)["input_ids"].shape == (1, 52)


@torch.no_grad()
def test_clips_of_a_video_are_scored_one_by_one_and_averaged(small_model, processor):
    clip = moving_gradient(80, 240, 320)
    inputs = processor(videos=[clip, clip[::-1].copy()], text=["one", "two"], protocol="dover", num_frames=4)
    inputs["pixel_values_fragments"] = inputs["pixel_values_fragments"][:, :, :4]
    inputs["pixel_values_resized"] = inputs["pixel_values_resized"][:, :4]
    output = small_model(**inputs)
    assert output.technical_map.shape == (2, 6, 7, 7)
    for index in range(3):
        one = small_model(**{**inputs, "pixel_values_fragments": inputs["pixel_values_fragments"][:, index]})
        torch.testing.assert_close(output.technical_map[:, 2 * index : 2 * index + 2], one.technical_map)


@torch.no_grad()
def test_per_frame_scores_are_averaged(small_model, processor):
    clip = moving_gradient(3, 224, 224)
    inputs = processor(videos=clip, text="a prompt", protocol="image_reward", num_frames=3)
    frames = [{**inputs, "pixel_values_resized": inputs["pixel_values_resized"][:, i]} for i in range(3)]
    each = torch.stack([small_model(**frame).alignment_score for frame in frames])
    torch.testing.assert_close(small_model(**inputs).alignment_score, each.mean(0), atol=1e-5, rtol=1e-5)


def test_frames_are_chosen_anew_where_a_second_decoder_takes_over(tmp_path):
    """decord2 3.4 fails on frames 96 pixels wide once the frames are chosen, and PyAV reads them then."""
    clip = write_video(tmp_path / "narrow.mp4", moving_gradient(70, 64, 96))
    frames, _ = read_video(clip, lambda total: list(range(total)))
    for options in ({}, {"fragment_sampling": "random", "seed": 3}):
        from_file = AIGCVQAVideoProcessor()(clip, protocol="dover", **options)
        from_frames = AIGCVQAVideoProcessor()(frames, protocol="dover", **options)
        for name, view in from_file.items():
            assert torch.equal(view, from_frames[name]), name


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol='vbench'"):
        AIGCVQAVideoProcessor()(moving_gradient(2, 224, 224), protocol="vbench")
