"""The branches on the published code's weights give the published code's numbers, through the conversion."""

import numpy as np
import pytest
import torch

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.common.presets import default_tokenizer
from modeling_aigcvqa.conversion.formats import DOVER, IMAGE_REWARD, convert_state
from tests.modeling.conversion import reference

TOLERANCE = 1e-4


def build(branch, name, checkpoint_format):
    model = AIGCVQAModel(AIGCVQAConfig(branches=[branch])).eval()
    conversion = convert_state(reference.state_dict(name), checkpoint_format, branch, model.state_dict())
    missing, unexpected = model.load_state_dict(conversion.tensors, strict=False)
    assert not unexpected
    assert sorted(missing) == conversion.untrained
    return model


@pytest.fixture(scope="module", params=["technical", "aesthetic"])
def dover(request):
    return request.param, build(request.param, "dover", DOVER)


@pytest.mark.parametrize(
    ("batch", "frames"),
    [(1, 8), pytest.param(2, 16, marks=pytest.mark.slow), pytest.param(1, 32, marks=pytest.mark.slow)],
)
def test_dover(dover, batch, frames):
    branch, model = dover
    clip = reference.dover_clip(batch, frames).transpose(1, 2)
    name = "pixel_values_fragments" if branch == "technical" else "pixel_values_resized"
    stored = {key.split(".", 1)[1]: value for key, value in reference.outputs("dover").items() if f"T{frames}." in key}
    with torch.no_grad():
        output = model(**{name: clip})
        features = getattr(model, f"{branch}_backbone")(clip.transpose(1, 2)).mean((1, 2, 3))
    for ours, published in (
        (output[f"{branch}_map"], f"{branch}.map"),
        (output[f"{branch}_score"], f"{branch}.score"),
        (features, f"{branch}.feature_mean"),
    ):
        np.testing.assert_allclose(ours.numpy(), stored[published], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def image_reward():
    return build("alignment", "imagereward", IMAGE_REWARD)


@pytest.mark.slow
def test_image_reward_on_single_frames(image_reward):
    stored = reference.outputs("imagereward")
    frames = reference.imagereward_frames()
    ids, mask = torch.from_numpy(stored["input_ids"]), torch.from_numpy(stored["attention_mask"])
    backbone = image_reward.alignment_backbone
    with torch.no_grad():
        tokens = backbone.visual_encoder(frames)
        text = backbone.encode_text(backbone.encode_video(frames[:, None])[:, 0], ids, mask)
        reward = image_reward.alignment_head(text)
    scale, shift = IMAGE_REWARD.affine["alignment"]
    for ours, published in (
        (tokens.mean(1), "image_embeds_mean"),
        (tokens[:, :3, :64], "image_embeds_head"),
        (text, "text_cls"),
        (reward, "reward_raw"),
        (scale * reward + shift, "reward"),
    ):
        np.testing.assert_allclose(ours.numpy(), stored[published], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_image_reward_on_joint_frames(image_reward):
    """The adapter is the identity before training, so joined frames give what the published encoder gives on them."""
    stored = reference.outputs("imagereward")
    ids, mask = torch.from_numpy(stored["input_ids"])[:1], torch.from_numpy(stored["attention_mask"])[:1]
    backbone = image_reward.alignment_backbone
    with torch.no_grad():
        text = backbone.encode_text(backbone.encode_video(reference.imagereward_frames()[None])[:, 0], ids, mask)
        reward = image_reward.alignment_head(text)
    np.testing.assert_allclose(text.numpy(), stored["joint_text_cls"], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(reward.numpy(), stored["joint_reward_raw"], atol=TOLERANCE, rtol=0)


def test_the_reference_prompts_are_tokens_of_our_tokenizer():
    stored = reference.outputs("imagereward")
    tokenizer = default_tokenizer()
    for ids, mask in zip(stored["input_ids"], stored["attention_mask"]):
        prompt = tokenizer.decode(ids[mask == 1], skip_special_tokens=True)
        again = tokenizer(prompt, padding="max_length", max_length=35)
        assert again["input_ids"] == ids.tolist()
        assert again["attention_mask"] == mask.tolist()
