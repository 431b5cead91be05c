"""The networks against a plain restatement of their formulas, on odd sizes and lengths too."""

import pytest
import torch

from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.alignment_aigcvqa import AlignmentBackbone
from modeling_aigcvqa.backbone_convnext3d import ConvNeXt3D
from modeling_aigcvqa.backbone_swin3d import SwinTransformer3D, fragment_gate
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from training import oracle

TECHNICAL = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "fragment_bias": [True, False]}
AESTHETIC = {"hidden_sizes": [8, 12], "depths": [3, 2]}


def randomised(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return module.eval()


def video(frames, height, width, batch=1):
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize(
    ("frames", "height", "width", "window"),
    [
        (4, 56, 56, (2, 7, 7)),  # windows shifted along every axis
        (5, 60, 52, (2, 7, 7)),  # odd length, padding along every axis
        (1, 30, 34, (8, 7, 7)),  # window clipped in time
        (4, 28, 56, (8, 7, 7)),  # one window high, two wide
        (6, 17, 19, (2, 4, 3)),  # everything odd
    ],
)
def test_swin3d(frames, height, width, window):
    config = AIGCVQAConfig(technical_config={**TECHNICAL, "window_size": window}).technical_config
    network = randomised(
        SwinTransformer3D(embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=window, fragment_bias=[True, False])
    )
    clip = video(frames, height, width, batch=2)
    with torch.no_grad():
        expected = oracle.swin3d(network.state_dict(), clip, config)
        torch.testing.assert_close(network(clip), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("frames", range(1, 34))
def test_swin3d_at_every_length(frames):
    config = AIGCVQAConfig(technical_config={**TECHNICAL, "window_size": (4, 3, 3)}).technical_config
    network = randomised(
        SwinTransformer3D(
            embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=(4, 3, 3), fragment_bias=[True, False]
        )
    )
    clip = video(frames, 26, 30)
    with torch.no_grad():
        torch.testing.assert_close(
            network(clip), oracle.swin3d(network.state_dict(), clip, config), atol=1e-4, rtol=1e-4
        )


def test_the_gate_is_the_distance_in_fragments():
    """At 224 pixels stage 1 has 56 x 56 tokens, 8 a fragment: a window of 7 straddles at most two along an axis."""
    gate = fragment_gate((8, 56, 56), (8, 7, 7), (0, 0, 0), torch.device("cpu"))
    assert gate.shape == (64, 392, 392)
    assert set(gate.unique().tolist()) == {0.0, 1.0, 2.0}
    assert not gate[0].any(), "the first window lies in one fragment"
    first_row = gate[1, 0, :7].tolist()  # tokens 7..13 of the first row: 7 in fragment 0, the others in fragment 1
    assert first_row == [0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("frames", "height", "width"), [(4, 64, 64), (5, 50, 66), (1, 32, 40)])
def test_convnext3d(frames, height, width):
    config = AIGCVQAConfig(aesthetic_config=AESTHETIC).aesthetic_config
    network = randomised(ConvNeXt3D(depths=[3, 2], hidden_sizes=[8, 12]))
    clip = video(frames, height, width, batch=2)
    with torch.no_grad():
        expected = oracle.convnext3d(network.state_dict(), clip, config)
        torch.testing.assert_close(network(clip), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("frames", range(1, 34))
def test_convnext3d_at_every_length(frames):
    config = AIGCVQAConfig(aesthetic_config=AESTHETIC).aesthetic_config
    network = randomised(ConvNeXt3D(depths=[3, 2], hidden_sizes=[8, 12]))
    clip = video(frames, 33, 41)
    with torch.no_grad():
        expected = oracle.convnext3d(network.state_dict(), clip, config)
        torch.testing.assert_close(network(clip), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("adapter", ["st_adapter", None])
@pytest.mark.parametrize("frames", [1, 3])
def test_alignment(adapter, frames):
    sizes = {
        "image_size": 48,
        "vision_hidden_size": 32,
        "vision_num_hidden_layers": 2,
        "vision_num_attention_heads": 2,
        "vocab_size": 50,
        "text_hidden_size": 24,
        "text_num_hidden_layers": 2,
        "text_num_attention_heads": 3,
        "text_intermediate_size": 48,
        "max_position_embeddings": 16,
        "adapter": adapter,
        "adapter_hidden_size": 12,
    }
    config = AIGCVQAConfig(alignment_config=sizes).alignment_config
    network = randomised(AlignmentBackbone(**sizes))
    clip = imagenet_to_clip(video(frames, 48, 48, batch=2).transpose(1, 2))
    input_ids = torch.tensor([[1, 7, 9, 30], [1, 8, 0, 0]])
    attention_mask = (input_ids != 0).long()
    with torch.no_grad():
        expected = oracle.alignment_backbone(network.state_dict(), clip, input_ids, attention_mask, config)
        output = network(clip, input_ids, attention_mask)
    assert output.shape == (2, 1 if adapter else frames, 24)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
