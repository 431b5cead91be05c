"""The networks give the same outputs as a plain restatement of their formulas, also for odd sizes and lengths."""

import pytest
import torch
import torch.nn.functional as F

from modeling_aigcvqa import AIGCVQAConfig, fused_linear_aigcvqa
from modeling_aigcvqa.alignment_aigcvqa import FRAMES_AT_ONCE, AlignmentBackbone
from modeling_aigcvqa.backbone_convnext3d import ConvNeXt3D
from modeling_aigcvqa.backbone_swin3d import SwinTransformer3D, fragment_gate
from modeling_aigcvqa.fused_linear_aigcvqa import FusedMlp
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from training.benchmarks import oracle

TECHNICAL = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "fragment_bias": [True, False]}
AESTHETIC = {"hidden_sizes": [8, 12], "depths": [3, 2]}
ALIGNMENT = {
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
    "adapter_hidden_size": 12,
}


def randomised(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return module.eval()


def video(frames, height, width, batch=1):
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(frames))


def every_length(*size):
    return [pytest.param(frames, *size, marks=pytest.mark.slow) for frames in range(1, 34)]


@pytest.mark.parametrize(
    ("frames", "height", "width", "window"),
    [
        (4, 56, 56, (2, 7, 7)),  # windows shifted along every axis
        (5, 60, 52, (2, 7, 7)),  # odd length, padding along every axis
        (1, 30, 34, (8, 7, 7)),  # window clipped in time
        (4, 28, 56, (8, 7, 7)),  # one window high, two wide
        (6, 17, 19, (2, 4, 3)),  # everything odd
        *every_length(26, 30, (4, 3, 3)),
    ],
)
def test_swin3d(frames, height, width, window):
    sizes = {**TECHNICAL, "window_size": window}
    network, clip = randomised(SwinTransformer3D(**sizes)), video(frames, height, width, batch=2)
    with torch.no_grad():
        expected = oracle.swin3d(network.state_dict(), clip, AIGCVQAConfig(technical_config=sizes).technical_config)
        torch.testing.assert_close(network(clip), expected, atol=1e-4, rtol=1e-4)


def test_the_gate_is_the_distance_in_fragments():
    """At 224 pixels stage 1 has 56 x 56 tokens, 8 per fragment: a window of 7 covers at most two along an axis."""
    gate = fragment_gate((8, 56, 56), (8, 7, 7), (0, 0, 0), torch.device("cpu"))
    assert gate.shape == (64, 392, 392)
    assert set(gate.unique().tolist()) == {0.0, 1.0, 2.0}
    assert not gate[0].any(), "the first window lies in one fragment"
    first_row = gate[1, 0, :7].tolist()  # tokens 7..13 of the first row: 7 in fragment 0, the others in fragment 1
    assert first_row == [0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("frames", "height", "width"), [(4, 64, 64), (5, 50, 66), (1, 32, 40), *every_length(33, 41)])
def test_convnext3d(frames, height, width):
    config = AIGCVQAConfig(aesthetic_config=AESTHETIC).aesthetic_config
    network, clip = randomised(ConvNeXt3D(**AESTHETIC)), video(frames, height, width, batch=2)
    with torch.no_grad():
        expected = oracle.convnext3d(network.state_dict(), clip, config)
        torch.testing.assert_close(network(clip), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("kernel", [None, "_linear_pointwise"])
def test_an_mlp_scores_alike_with_either_kernel_and_in_parts(kernel, monkeypatch):
    mlp, x = randomised(FusedMlp(12, 40)), torch.randn(2, 5, 7, 12)
    expected = F.linear(F.gelu(F.linear(x, mlp.fc1.weight, mlp.fc1.bias)), mlp.fc2.weight, mlp.fc2.bias)
    monkeypatch.setattr(fused_linear_aigcvqa, "_ONEDNN_LINEAR", kernel and getattr(torch.ops.mkldnn, kernel))
    hidden_bytes = []
    mlp.fc1.register_forward_hook(lambda layer, inputs, hidden: hidden_bytes.append(hidden.nbytes))
    for limit, parts in ((16 * 2**20, 1), (4096, 3), (40 * 4, 70)):
        monkeypatch.setattr(fused_linear_aigcvqa, "HIDDEN_BYTES", limit)
        hidden_bytes.clear()
        with torch.no_grad():
            torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-5)
        assert len(hidden_bytes) == parts and max(hidden_bytes) <= limit
    hidden_bytes.clear()
    torch.testing.assert_close(mlp(x), expected)
    assert len(hidden_bytes) == 1, "training takes all rows at once"


def text_features(network, clip, input_ids, attention_mask):
    """Features (B, K, C) of the prompts, grounded in each of the K sequences of visual tokens of a clip."""
    sequences = network.encode_video(clip).unbind(1)
    return torch.stack([network.encode_text(tokens, input_ids, attention_mask) for tokens in sequences], 1)


@pytest.mark.parametrize("tokens", [2, 7, 8, 12])  # scoring computes no keys and values below a head's 8 channels
def test_scoring_and_training_give_the_same_text_features(tokens):
    """They compute the cross-attention in different ways, and scoring encodes the frames in several parts."""
    network = randomised(AlignmentBackbone(**ALIGNMENT))
    clip = imagenet_to_clip(video(FRAMES_AT_ONCE + 1, 48, 48, batch=2).transpose(1, 2))
    input_ids = torch.arange(1, 2 * tokens + 1).view(2, tokens)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 1:] = 0
    layer = network.text_encoder.encoder.layer[0].crossattention.self
    hidden, visual = torch.randn(2, tokens, 24), torch.randn(2, 30, 32)

    def outputs():
        return text_features(network, clip, input_ids, attention_mask), *layer(hidden, encoder_hidden_states=visual)

    trained = outputs()
    assert trained[0].requires_grad
    with torch.no_grad():
        for ours, expected, tolerance in zip(outputs(), trained, (1e-4, 1e-4, 1e-5)):
            torch.testing.assert_close(ours, expected, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("adapter", ["st_adapter", None])
@pytest.mark.parametrize("frames", [1, 3])
def test_alignment(adapter, frames):
    sizes = {**ALIGNMENT, "adapter": adapter}
    config = AIGCVQAConfig(alignment_config=sizes).alignment_config
    network = randomised(AlignmentBackbone(**sizes))
    clip = imagenet_to_clip(video(frames, 48, 48, batch=2).transpose(1, 2))
    input_ids = torch.tensor([[1, 7, 9, 30], [1, 8, 0, 0]])
    attention_mask = (input_ids != 0).long()
    with torch.no_grad():
        expected = oracle.alignment_backbone(network.state_dict(), clip, input_ids, attention_mask, config)
        output = text_features(network, clip, input_ids, attention_mask)
    assert output.shape == (2, 1 if adapter else frames, 24)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
