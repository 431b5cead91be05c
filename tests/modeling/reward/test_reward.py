"""Rewards of frames in memory: values, gradients, marks of failure, and what trainers call."""

import math

import numpy as np
import pytest
import torch

from modeling_aigcvqa import AIGCVQAReward, load_pipeline
from modeling_aigcvqa.reward import best_of_n, flow_grpo_reward, group_advantages, trl_reward
from tests.conftest import moving_gradient, write_video

PROMPTS = ["a moving gradient", "colours that drift over a very long prompt"]
PARTS = ["quality_score", "technical_score", "aesthetic_score", "alignment_score"]


@pytest.fixture(scope="module")
def reward(model_folder):
    return AIGCVQAReward(model_folder, device="cpu")


@pytest.fixture(scope="module")
def differentiable(model_folder):
    return AIGCVQAReward(model_folder, device="cpu", differentiable=True)


@pytest.fixture(scope="module")
def frames():
    """(2, 20, 64, 80, 3) uint8; smaller than the fragments, so that they are enlarged."""
    first = moving_gradient(20, 64, 80)
    return torch.from_numpy(np.stack([first, first[:, ::-1]]))


def lossless(folder, clip):
    return write_video(folder / "clip.mkv", clip.numpy(), "ffv1", "bgr0")


def test_rewards_are_the_scores_of_lossless_files(reward, model_folder, frames, tmp_path):
    pipeline = load_pipeline(str(model_folder), device="cpu")
    files = [pipeline({"video": lossless(tmp_path, clip), "prompt": p}) for clip, p in zip(frames, PROMPTS)]
    rewards, parts = reward(frames, PROMPTS)
    assert list(parts) == PARTS
    assert rewards.dtype == torch.float32
    assert rewards.shape == (2,)
    for name in PARTS:
        assert parts[name].tolist() == [scores[name] for scores in files]
    assert rewards.tolist() == parts["quality_score"].tolist()


def as_channels_first(frames):
    return frames.movedim(-1, 2)


FORMS = {
    "channels first": (as_channels_first, (0, 1)),
    "array": (lambda frames: frames.numpy(), (0, 1)),
    "floats": (lambda frames: frames / 255, (0, 1)),
    "symmetric": (lambda frames: frames / 127.5 - 1, (-1, 1)),
    "bytes as floats": (lambda frames: frames.float(), (0, 255)),
    "list": (list, (0, 1)),
}


@pytest.mark.parametrize(("form", "value_range"), FORMS.values(), ids=FORMS)
def test_the_form_of_the_frames_does_not_matter(reward, frames, form, value_range):
    assert reward(form(frames), PROMPTS, value_range)[0].tolist() == reward(frames, PROMPTS)[0].tolist()


def test_lists_hold_clips_of_any_length_and_size(reward):
    clips = [torch.from_numpy(moving_gradient(*shape)) for shape in ((1, 32, 48), (33, 300, 240), (16, 64, 80))]
    together, _ = reward(clips, ["a gradient"] * 3)
    assert together.tolist() == [reward(clip[None], ["a gradient"])[0].item() for clip in clips]


def test_micro_batches_change_only_rounding(model_folder, frames, reward):
    other = AIGCVQAReward(model_folder, device="cpu", micro_batch=2)
    torch.testing.assert_close(other(frames, PROMPTS)[0], reward(frames, PROMPTS)[0], rtol=1e-5, atol=1e-5)


def test_weights_and_branches(model_folder, frames, reward):
    weighted = AIGCVQAReward(model_folder, device="cpu", weights={"technical": 2, "alignment": -0.5})
    rewards, parts = weighted(frames, PROMPTS)
    assert rewards.tolist() == (2 * parts["technical_score"] - 0.5 * parts["alignment_score"]).tolist()
    without_prompts = AIGCVQAReward(model_folder, device="cpu", branches=["technical", "aesthetic"])
    rewards, parts = without_prompts(frames)
    assert list(parts) == PARTS[:3]
    assert torch.equal(parts["technical_score"], reward(frames, PROMPTS)[1]["technical_score"])
    for weights in ({"alignment": 1}, {"technical": math.nan}, {"technical": 0}):
        with pytest.raises(ValueError, match="weights"):
            AIGCVQAReward(model_folder, branches=["technical"], weights=weights)


@pytest.mark.parametrize("size", [(64, 80), (240, 288)], ids=["enlarged", "raw"])
@pytest.mark.parametrize("branch", ["technical", "aesthetic", "alignment"])
def test_gradients_agree_with_finite_differences(model_folder, branch, size):
    """Along the gradient, through fragments or resizing and the branch."""
    reward = AIGCVQAReward(model_folder, [branch], device="cpu", differentiable=True)
    clip = torch.from_numpy(moving_gradient(18, *size))[None].movedim(-1, 2) / 255 * 0.8 + 0.1
    clip.requires_grad_()
    rewards, _ = reward(clip, ["a moving gradient"])
    (gradient,) = torch.autograd.grad(rewards.sum(), clip)
    direction = gradient / gradient.norm()
    step = 0.05
    with torch.no_grad():
        ahead, behind = (reward(clip + sign * step * direction, ["a moving gradient"])[0] for sign in (1, -1))
    assert float(ahead - behind) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.02)
    seen = reward.pipeline.model.config.alignment_num_frames if branch == "alignment" else 16
    assert gradient.abs().sum((0, 2, 3, 4)).count_nonzero() == seen, "each frame that is looked at gets a gradient"


def test_gradients_do_not_depend_on_micro_batches_and_spare_the_weights(model_folder, differentiable, frames):
    gradients = []
    for reward in (differentiable, AIGCVQAReward(model_folder, device="cpu", differentiable=True, micro_batch=2)):
        leaf = (frames / 255).requires_grad_()
        reward(leaf, PROMPTS)[0].sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in differentiable.pipeline.model.parameters())


def test_without_rounding_the_reward_stays_near_to_the_files(differentiable, reward, frames):
    exact, continuous = reward(frames, PROMPTS)[0], differentiable(frames / 255, PROMPTS)[0]
    torch.testing.assert_close(continuous, exact, rtol=0, atol=0.02)


def test_activations_are_not_kept(model_folder, frames):
    """What autograd saves between the passes is about the views, far below the activations of the networks."""
    reward = AIGCVQAReward(model_folder, device="cpu", differentiable=True)
    clips = (frames / 255).requires_grad_()

    def saved_bytes(function):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = function()
        assert kept is not None
        return sum(sizes.values())

    inputs = [reward._inputs(clips[0], PROMPTS[0], "frames[0]", (0, 1))]
    plain = saved_bytes(lambda: reward.pipeline.scores_of(inputs))
    assert saved_bytes(lambda: reward(clips[:1], PROMPTS[:1])) < plain / 4


def test_frames_that_need_a_gradient_are_not_cut_off_in_silence(reward, frames):
    with pytest.raises(ValueError, match="differentiable=True"):
        reward((frames / 255).requires_grad_(), PROMPTS)


WRONG = {
    "negative": (lambda f: f / 127.5 - 1, PROMPTS, (0, 1), r"frames\[0\] holds values from -1 .*value_range"),
    "too large": (lambda f: f.float(), PROMPTS, (0, 1), r"frames\[0\] holds values from 0 to 174"),
    "NaN": (lambda f: torch.full(f.shape, math.nan), PROMPTS, (0, 1), r"frames\[0\] holds values from nan"),
    "integers": (lambda f: f.long(), PROMPTS, (0, 1), "int64"),
    "one clip": (lambda f: f[0], PROMPTS, (0, 1), r"frames\[None\]"),
    "empty": (lambda f: f[:0], [], (0, 1), "empty"),
    "no colours": (lambda f: f[..., :2], PROMPTS, (0, 1), "is not"),
    "two colour axes": (lambda f: f[:, :, :3].movedim(-1, 2)[..., :3], PROMPTS, (0, 1), "two axes"),
    "one prompt for all": (lambda f: f, "a gradient", (0, 1), "one prompt per clip"),
    "too few prompts": (lambda f: f, PROMPTS[:1], (0, 1), "1 prompts for 2 clips"),
    "no prompts": (lambda f: f, None, (0, 1), r"frames\[0\].*prompt"),
    "empty prompt": (lambda f: f, ["a gradient", " "], (0, 1), r"frames\[1\].*empty"),
    "no range": (lambda f: f, PROMPTS, (1, 0), r"value_range=\(1, 0\)"),
}


@pytest.mark.parametrize(("form", "prompts", "value_range", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_stops(reward, frames, form, prompts, value_range, message):
    with pytest.raises(ValueError, match=message):
        reward(form(frames), prompts, value_range)


def test_failures_are_marked_if_wanted(model_folder, reward, frames):
    marking = AIGCVQAReward(model_folder, device="cpu", on_error="return")
    broken = frames.float() / 255
    broken[0] = math.nan
    rewards, parts = marking(broken, PROMPTS)
    assert rewards.isnan().tolist() == [True, False]
    assert all(parts[name].isnan().tolist() == [True, False] for name in PARTS)
    assert "frames[0] holds values from nan" in parts["error"][0]
    assert parts["error"][1] is None
    assert rewards[1].item() == reward(frames, PROMPTS)[0][1].item()


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_a_model_that_overflows_is_no_score(model_folder, frames, on_error):
    reward = AIGCVQAReward(model_folder, device="cpu", on_error=on_error)
    torch.nn.init.constant_(reward.pipeline.model.aesthetic_head.fc_last.bias, math.inf)
    if on_error == "raise":
        with pytest.raises(ValueError, match=r"frames\[0\]: the model gives inf"):
            reward(frames, PROMPTS)
    else:
        rewards, parts = reward(frames, PROMPTS)
        assert rewards.isnan().all()
        assert all("the model gives" in error for error in parts["error"])


def test_class_facts():
    facts = {name: getattr(AIGCVQAReward, name) for name in ("higher_is_better", "is_differentiable")}
    assert facts == {"higher_is_better": True, "is_differentiable": True}
    assert AIGCVQAReward.plot_lower_bound is AIGCVQAReward.plot_upper_bound is None


def test_called_as_flow_grpo_does(reward, frames):
    """Its `multi_score` multiplies the scores of a list by a weight and adds them to those of other functions."""
    function = flow_grpo_reward(reward)
    images = as_channels_first(frames) / 255
    scores, info = function(images, tuple(PROMPTS), [{}, {}], only_strict=True)
    assert [0.5 * score for score in scores] == [0.5 * value for value in reward(frames, PROMPTS)[0].tolist()]
    assert list(info) == PARTS
    stills, _ = function(frames[:, 0].numpy(), PROMPTS, [{}, {}])
    assert stills == reward(frames[:, :1], PROMPTS)[0].tolist()


def test_called_as_trl_does(model_folder, frames):
    """TRL passes every column of the data set, and takes None for a sample that has no reward."""
    function = trl_reward(AIGCVQAReward(model_folder, device="cpu", on_error="return"))
    rewards = function(
        prompts=[PROMPTS[0], " "], completions=list(frames), completion_ids=None, trainer_state=None, extra=[1, 2]
    )
    assert function.__name__ == "aigcvqa"
    assert isinstance(rewards[0], float)
    assert rewards[1] is None


def test_best_of_n():
    rewards = torch.tensor([1.0, 3.0, math.nan, 2.0, 2.0])
    assert best_of_n(rewards, ["a", "a", "b", "b", "b"]) == {"a": 1, "b": 3}
    with pytest.raises(ValueError, match="'b' has no reward"):
        best_of_n(rewards[1:3], ["a", "b"])
    with pytest.raises(ValueError, match="one group per clip"):
        best_of_n(rewards, ["a"])


def test_advantages_are_within_groups():
    rewards = torch.tensor([1.0, 10.0, 3.0, math.nan, 30.0, 7.0])
    advantages = group_advantages(rewards, ["a", "b", "a", "a", "b", "c"], epsilon=0.0)
    expected = torch.tensor([-(0.5**0.5), -(0.5**0.5), 0.5**0.5, math.nan, 0.5**0.5, 0.0])
    torch.testing.assert_close(advantages, expected, equal_nan=True)
    centred = group_advantages(rewards, ["a", "b", "a", "a", "b", "c"], scale=False)
    assert centred.nan_to_num().tolist() == [-1.0, -10.0, 1.0, 0.0, 10.0, 0.0]
    assert group_advantages(torch.ones(3), ["a"] * 3).tolist() == [0.0] * 3
