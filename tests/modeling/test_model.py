import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.modeling_layers import GradientCheckpointingLayer

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.common.presets import untrained_model
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip

SCORES = ("quality_score", "technical_score", "aesthetic_score", "alignment_score")


@torch.no_grad()
def score(model, batch):
    return model(**batch)


def rows(batch, *indices):
    return {name: values[list(indices)] for name, values in batch.items()}


def test_scores_and_maps_have_their_shapes_and_add_up(small_model, batch):
    output = score(small_model, batch)
    assert all(output[name].shape == (2,) and output[name].dtype == torch.float32 for name in SCORES)
    assert output.technical_map.shape == output.aesthetic_map.shape == (2, 8, 7, 7)
    torch.testing.assert_close(output.technical_map.mean((1, 2, 3)), output.technical_score)
    torch.testing.assert_close(
        output.quality_score, output.technical_score + output.aesthetic_score + output.alignment_score
    )
    assert output.loss is None


@pytest.mark.parametrize(
    "branches", [["technical"], ["aesthetic"], ["alignment"], ["technical", "alignment"], ["technical", "aesthetic"]]
)
def test_any_subset_of_branches(small_model, batch, branches):
    model = AIGCVQAModel(AIGCVQAConfig(**{**small_model.config.to_dict(), "branches": branches})).eval()
    model.load_state_dict({k: v for k, v in small_model.state_dict().items() if k in model.state_dict()})
    whole, part = score(small_model, batch), score(model, batch)
    for branch in ("technical", "aesthetic", "alignment"):
        if branch in branches:
            torch.testing.assert_close(part[f"{branch}_score"], whole[f"{branch}_score"])
        else:
            assert getattr(part, f"{branch}_score") is None
            assert not any(name.startswith(branch) for name, _ in model.named_parameters())


def test_affine_maps_scores_and_maps(small_model, batch):
    model = copy.deepcopy(small_model)
    for part in ("technical_config", "aesthetic_config", "alignment_config"):
        getattr(model.config, part).score_scale = 3.0
        getattr(model.config, part).score_shift = -1.0
    raw, mapped = score(small_model, batch), score(model, batch)
    for name in SCORES[1:]:
        torch.testing.assert_close(mapped[name], 3 * raw[name] - 1)
    torch.testing.assert_close(mapped.aesthetic_map, 3 * raw.aesthetic_map - 1)


def test_the_same_input_gives_the_same_score(small_model, batch):
    first, second = score(small_model, batch), score(small_model, batch)
    assert all(torch.equal(first[name], second[name]) for name in SCORES)


def test_a_clip_scores_the_same_alone_and_in_any_batch(small_model, batch):
    together = score(small_model, batch)
    for index in range(2):
        alone = rows(batch, index)
        length = int(alone["attention_mask"].sum())  # without the padding that the longer prompt caused
        alone = {name: v[:, :length] if name in ("input_ids", "attention_mask") else v for name, v in alone.items()}
        for name in SCORES:
            torch.testing.assert_close(score(small_model, alone)[name][0], together[name][index], atol=1e-5, rtol=0)


def test_what_stands_in_padded_tokens_does_not_matter(small_model, batch):
    noisy = {**batch, "input_ids": torch.where(batch["attention_mask"] == 1, batch["input_ids"], 2000)}
    assert not torch.equal(noisy["input_ids"], batch["input_ids"])
    torch.testing.assert_close(
        score(small_model, noisy).alignment_score, score(small_model, batch).alignment_score, atol=1e-6, rtol=0
    )


def test_the_prompt_and_the_frames_matter(small_model, batch):
    base = score(small_model, batch)
    swapped = score(small_model, {**batch, "input_ids": batch["input_ids"].flip(0)})
    assert (swapped.alignment_score - base.alignment_score).abs().max() > 1e-6
    reversed_clip = {**batch, "pixel_values_resized": batch["pixel_values_resized"].flip(1)}
    assert (score(small_model, reversed_clip).alignment_score - base.alignment_score).abs().max() > 1e-6


def without_dropout(model):
    """Stochastic depth may leave a block out of a whole batch, and with it its gradients."""
    for module in model.modules():
        if "p" in vars(module):
            module.p = 0.0
        if "drop_prob" in vars(module):
            module.drop_prob = 0.0
    return model


def without_gradient(model):
    return {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}


def test_gradient_reaches_every_trainable_parameter(small_model, batch):
    model = without_dropout(copy.deepcopy(small_model)).train()
    model(**batch, mos=torch.tensor([20.0, 70.0])).loss.backward()
    # Both losses compare scores: a bias that only shifts them all alike has no gradient (the alignment head is linear,
    # so the norm before it is such a one); nor has a key's bias, which shifts all logits of a query before the softmax.
    shifts = ("_head.", "encoder.layer.2.output.LayerNorm.bias", "self.key.bias")
    from_shifts = {name for name in without_gradient(model) if any(shift in name for shift in shifts)}
    assert all(name.endswith(".bias") for name in from_shifts)
    assert without_gradient(model) == from_shifts
    model.zero_grad()
    model(**batch).quality_score.sum().backward()
    assert all(name.endswith("self.key.bias") for name in without_gradient(model))


def test_the_adapter_is_the_identity_at_initialisation_and_learns(batch):
    model = untrained_model("small").train()
    adapter = model.alignment_backbone.adapter
    tokens = torch.randn(1, 4, 197, 128)
    torch.testing.assert_close(adapter(tokens, 14), tokens)
    model(**batch, mos=torch.tensor([20.0, 70.0])).loss.backward()
    assert adapter.conv.weight.grad.abs().sum() > 0


def test_the_adapter_leaves_the_class_token_and_mixes_frames(small_model):
    tokens = torch.randn(1, 4, 197, 128)
    adapted = small_model.alignment_backbone.adapter(tokens, 14)
    torch.testing.assert_close(adapted[:, :, 0], tokens[:, :, 0])
    changed = tokens.clone()
    changed[:, 0, 1:] += 1
    difference = (small_model.alignment_backbone.adapter(changed, 14) - adapted).abs().sum((0, 2, 3))
    assert difference[1] > 0, "a frame hears its neighbour"
    assert difference[3] == 0, "kernel 3 reaches one frame"


def test_without_the_adapter_frames_are_scored_one_by_one(batch):
    config = AIGCVQAConfig.small(branches=["alignment"], alignment_num_frames=None)
    config.alignment_config.adapter = None
    model = AIGCVQAModel(config).eval()
    clip = rows(batch, 0)
    frames = [{**clip, "pixel_values_resized": clip["pixel_values_resized"][:, i : i + 1]} for i in range(16)]
    per_frame = torch.stack([score(model, frame).alignment_score for frame in frames])
    torch.testing.assert_close(score(model, clip).alignment_score, per_frame.mean(0), atol=1e-5, rtol=1e-5)


def test_fewer_frames_for_the_alignment_branch(small_model, batch):
    model = copy.deepcopy(small_model)
    model.config.alignment_num_frames = None
    whole = score(model, batch)
    chosen = {**batch, "pixel_values_resized": batch["pixel_values_resized"][:, [0, 5, 10, 15]]}
    of_chosen = score(model, chosen).alignment_score
    model.config.alignment_num_frames = 4
    output = score(model, batch)
    torch.testing.assert_close(output.alignment_score, of_chosen)
    assert (of_chosen - whole.alignment_score).abs().max() > 1e-6
    torch.testing.assert_close(output.aesthetic_score, whole.aesthetic_score)
    model.config.alignment_num_frames = 99
    torch.testing.assert_close(score(model, batch).alignment_score, whole.alignment_score)


def test_a_change_of_weights_is_seen_by_what_is_cached(small_model, batch):
    """Position biases are kept between scoring calls; no way of changing the tables may leave an old one in use."""
    model = copy.deepcopy(small_model)
    before = score(model, batch).technical_score
    table = model.technical_backbone.layers[0].blocks[0].attn.relative_position_bias_table
    table.data.mul_(5)  # not even a version counter tells of this
    changed = score(model, batch).technical_score
    assert (changed - before).abs().max() > 1e-6
    fresh = AIGCVQAModel(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(score(fresh, batch).technical_score, changed)
    clip = {**batch, "pixel_values_fragments": batch["pixel_values_fragments"][:, :5]}  # another geometry
    torch.testing.assert_close(score(model, clip).technical_score, score(fresh, clip).technical_score)
    torch.testing.assert_close(score(model, batch).technical_score, changed)
    half = score(model.to(torch.bfloat16), batch).technical_score
    torch.testing.assert_close(half, changed, atol=0.1, rtol=0.1)


@pytest.mark.slow
def test_under_torch_compile(small_model, batch):
    compiled = torch.compile(copy.deepcopy(small_model))
    expected = score(small_model, batch)
    for name in SCORES:
        torch.testing.assert_close(score(compiled, batch)[name], expected[name], atol=1e-4, rtol=1e-4)


def test_loss_is_the_paper_s_stage_3_sum(small_model, batch):
    from modeling_aigcvqa.loss_aigcvqa import plcc_loss, rank_loss

    mos = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        output = small_model(**batch, mos=mos)
    expected = sum(plcc_loss(output[name], mos) + rank_loss(output[name], mos) for name in SCORES)
    torch.testing.assert_close(output.loss, expected)


def test_gradient_checkpointing_changes_no_gradient(small_model, batch):
    gradients = []
    for checkpointing in (False, True):
        model = without_dropout(copy.deepcopy(small_model))
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
            assert len(layers) == 4 + 5 + 4 + 3 and all(layer.gradient_checkpointing for layer in layers)
        model(**batch, mos=torch.tensor([0.2, 0.7])).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_saved_weights_come_back_bit_equal(small_model, model_folder, batch):
    loaded = AIGCVQAModel.from_pretrained(model_folder)
    assert not loaded.training
    for name, tensor in small_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for (name, buffer), (_, other) in zip(small_model.named_buffers(), loaded.named_buffers()):
        assert torch.equal(buffer, other), name
    assert set(load_file(model_folder / "model.safetensors")) == set(small_model.state_dict())
    for name in SCORES:
        torch.testing.assert_close(score(loaded, batch)[name], score(small_model, batch)[name], atol=1e-6, rtol=0)


def test_shards(small_model, batch, tmp_path):
    small_model.save_pretrained(tmp_path, max_shard_size="5MB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    loaded = AIGCVQAModel.from_pretrained(tmp_path)
    torch.testing.assert_close(score(loaded, batch).quality_score, score(small_model, batch).quality_score)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision(small_model, model_folder, batch, dtype, tolerance):
    model = AIGCVQAModel.from_pretrained(model_folder, dtype=dtype)
    assert model.dtype == dtype
    assert next(model.technical_head.parameters()).dtype == torch.float32, "scores keep their digits"
    output, exact = score(model, batch), score(small_model, batch)
    for name in SCORES:
        assert output[name].dtype == torch.float32
        torch.testing.assert_close(output[name], exact[name], atol=tolerance, rtol=tolerance)


def test_a_model_cast_by_hand_and_autocast(small_model, batch):
    exact = score(small_model, batch)
    cast = copy.deepcopy(small_model).to(torch.bfloat16)
    torch.testing.assert_close(score(cast, batch).quality_score, exact.quality_score, atol=0.1, rtol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(score(small_model, batch).quality_score, exact.quality_score, atol=0.1, rtol=0.1)


def test_device_map(small_model, model_folder, batch, tmp_path):
    pytest.importorskip("accelerate")
    expected = score(small_model, batch).quality_score
    whole = AIGCVQAModel.from_pretrained(model_folder, device_map="auto")
    torch.testing.assert_close(score(whole, batch).quality_score, expected)
    device_map = {name: "cpu" for name, _ in small_model.named_children()} | {"alignment_backbone": "disk"}
    split = AIGCVQAModel.from_pretrained(model_folder, device_map=device_map, offload_folder=tmp_path)
    assert {p.device.type for p in split.alignment_backbone.parameters()} == {"meta"}
    torch.testing.assert_close(score(split, batch).quality_score, expected)


def test_imagenet_to_clip():
    frames = torch.rand(2, 3, 5, 5)
    normalised = (frames - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    expected = (frames - torch.tensor(OPENAI_CLIP_MEAN)[:, None, None]) / torch.tensor(OPENAI_CLIP_STD)[:, None, None]
    torch.testing.assert_close(imagenet_to_clip(normalised), expected, atol=1e-5, rtol=1e-5)


def test_scores_are_differentiable_down_to_the_frames(small_model, processor):
    frames = torch.rand(16, 256, 256, 3, requires_grad=True)
    small_model(**processor(videos=frames, text="a reward")).quality_score.sum().backward()
    assert torch.isfinite(frames.grad).all()
    assert (frames.grad != 0).float().mean() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values_fragments": None}, "technical branch needs pixel_values_fragments"),
        ({"pixel_values_resized": None}, "aesthetic branch needs pixel_values_resized"),
        ({"input_ids": None}, "needs input_ids"),
        ({"input_ids": torch.zeros(3, 4, dtype=torch.long)}, "one prompt per video"),
        ({"input_ids": torch.zeros(2, 300, dtype=torch.long), "attention_mask": None}, "max_position_embeddings"),
        ({"pixel_values_fragments": torch.zeros(2, 3, 16, 224, 224)}, r"\(B, T, 3, H, W\)"),
        ({"pixel_values_resized": torch.zeros(2, 16, 3, 96, 96)}, "96 x 96|96, 96"),
        ({"mos": torch.zeros(2, 1)}, r"\(B,\)"),
    ],
)
def test_wrong_inputs_are_named(small_model, batch, change, message):
    with pytest.raises(ValueError, match=message), torch.no_grad():
        small_model(**{**batch, **change})
