"""Tests of training/common: data, losses on the global batch, parameter groups, scale of the scores, arguments."""

import json
import math
import os
import re
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.common.presets import default_processor
from modeling_aigcvqa.loss_aigcvqa import quality_loss
from tests.training.tiny import forget_accelerator, tiny_data, tiny_folder, tiny_model
from training import stage1, stage2, stage3
from training.common.arguments import StageArguments, parse_arguments
from training.common.batches import ClipDataset, FrameCache, make_loader
from training.common.clips import load_clips, some_clips
from training.common.labels import check_labels
from training.common.losses import DualLoss, fetch_values, score_gradients
from training.common.mixtures import MixedBatchSampler, Mixture, Share
from training.common.models import MAX_SCALE, select_branches, set_interval, set_level
from training.common.parameters import (
    encoder_counts,
    encoders,
    layers,
    parameter_groups,
    train_mode,
    trainable_counts,
    unfix,
)
from training.common.runs import make_accelerator, tf32_text
from training.common.steps import score, training_step, with_negative_labels
from training.common.validation import (
    chosen_figures,
    score_clips,
    selection_score,
    validation_batches,
    validation_metrics,
)

INPUTS = AIGCVQAConfig().inputs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model():
    return tiny_model(dropout=False)


@pytest.fixture(scope="module")
def processor(model):
    return default_processor(model.config, num_frames=4)


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget_accelerator()
    return Accelerator()


# --- data --------------------------------------------------------------------------------------------------------


def test_parts_of_a_split_file_and_of_a_data_set(data):
    folder, split = map(str, data)
    assert [len(load_clips(folder, split, part)) for part in ("train", "validation", "test")] == [12, 4, 4]
    assert len(load_clips(folder)) == len(load_clips(folder, part="train")) == 20
    clip = load_clips(folder, split, "test")[0]
    assert clip["video"]["path"].endswith(".mp4") and 0 < clip["mos"] < 100


CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train/**
---
"""


def test_a_moved_or_changed_folder_is_read_again(tmp_path):
    """`datasets` would return the cached paths and labels of another folder with the same name and card."""
    first, second = tmp_path / "first" / "data", tmp_path / "second" / "data"
    tiny_data(first.parent)
    (first / "README.md").write_text(CARD)
    before = load_clips(str(first))
    assert load_clips(str(first))._fingerprint == before._fingerprint, "the cache is used"
    second.parent.mkdir()
    first.rename(second)
    for clip in load_clips(str(second)):
        assert clip["video"]["path"].startswith(str(second)), "the path is that of the moved folder"
    metadata = second / "data" / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    metadata.write_text("".join(json.dumps(row | {"mos": row["mos"] + 1}) + "\n" for row in rows))
    assert load_clips(str(second))["mos"][0] == pytest.approx(before["mos"][0] + 1)


def test_wrong_splits_are_refused(data, tmp_path):
    folder, split = map(str, data)
    with pytest.raises(ValueError, match="not 'validation'; pass --split_file"):
        load_clips(folder, part="validation")
    with pytest.raises(ValueError, match="expected one of"):
        load_clips(folder, split, "dev")
    with pytest.raises(ValueError, match="neither a folder nor a Hub id"):
        load_clips(str(tmp_path / "nowhere"))
    (tmp_path / "other.csv").write_text("id,split\nunheard-of,train\n")
    with pytest.raises(ValueError, match="'unheard-of'"):
        load_clips(folder, tmp_path / "other.csv", "train")
    (tmp_path / "empty.csv").write_text("id,split\n00000-aurora,train\n")
    with pytest.raises(ValueError, match="no clip in the part 'test'"):
        load_clips(folder, tmp_path / "empty.csv", "test")


@pytest.mark.parametrize("parts", [("train", "train"), ("train", "test"), ("test", "train")])
def test_a_split_file_that_lists_an_id_twice_is_refused(data, tmp_path, parts):
    lines = data[1].read_text().splitlines()
    clip = lines[1].split(",")[0]
    (tmp_path / "s.csv").write_text("\n".join([lines[0], f"{clip},{parts[0]}", *lines[2:], f"{clip},{parts[1]}"]))
    for part in (*{*parts}, "validation", None):  # also where the part that is read has no clip twice
        with pytest.raises(ValueError, match=f"lists the id '{clip}' a second time"):
            load_clips(str(data[0]), tmp_path / "s.csv", part)


def test_an_id_that_the_data_have_twice_is_refused(data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data[0], copy)
    metadata = copy / "data" / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    rows[1]["id"] = rows[0]["id"]
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "s.csv").write_text(f"id,split\n{rows[0]['id']},train\n")
    with pytest.raises(ValueError, match=f"for example '{rows[0]['id']}'"):
        load_clips(str(copy), tmp_path / "s.csv", "train")


def test_the_global_batches_do_not_depend_on_the_number_of_processes():
    whole = MixedBatchSampler([Share(23)], 4, 7, 0, 1)
    halves = [MixedBatchSampler([Share(23)], 4, 7, rank, 2) for rank in range(2)]
    for sampler in (whole, *halves):
        sampler.epoch = 3
    assert list(whole) == [first + second for first, second in zip(*halves)]
    assert len(whole) == 5 and len({index for batch in whole for _, _, index in batch}) == 20
    later = MixedBatchSampler([Share(23)], 4, 7, 0, 1)
    later.epoch, later.start_batch = 3, 2
    assert list(later) == list(whole)[2:]
    later.epoch = 4
    assert list(later) != list(whole)[2:]


def test_a_sample_depends_only_on_seed_epoch_and_clip(data, processor, monkeypatch):
    monkeypatch.setattr(
        processor.video_processor, "fragment_size", 8
    )  # smaller than a cell, so that fragments can move in a frame of 64 x 64 pixels
    clips = load_clips(str(data[0]))
    columns = {"quality": "mos", "alignment": "alignment_mos"}
    dataset = ClipDataset(clips, processor, columns, INPUTS, seed=1, prompt_negatives=2)
    state = torch.get_rng_state()
    alone = dataset[(2, 5)]
    batch = next(iter(make_loader(dataset, [[(2, 3), (2, 5)]], num_workers=1)))
    assert torch.equal(batch["pixel_values_fragments"][1], alone["pixel_values_fragments"])
    assert not torch.equal(dataset[(3, 5)]["pixel_values_fragments"], alone["pixel_values_fragments"])
    assert torch.equal(torch.get_rng_state(), state)
    assert batch["input_ids"].shape[:2] == (2, 3) and alone["prompts"][0] not in alone["prompts"][1:]
    assert batch["labels"]["alignment"][1].item() == pytest.approx(clips[5]["alignment_mos"])
    with pytest.raises(ValueError, match="no column"):
        ClipDataset(clips, processor, {"quality": "stars"}, INPUTS)


def test_wrong_prompts_need_a_second_prompt(data, processor):
    clips = load_clips(str(data[0]))
    alike = clips.remove_columns("prompt").add_column("prompt", ["a red kite"] * len(clips))
    labels = {"quality": "mos"}
    with pytest.raises(ValueError, match=r"prompt_negatives=1 .* all 20 clips have the prompt 'a red kite'"):
        ClipDataset(alike, processor, labels, INPUTS, prompt_negatives=1)
    ClipDataset(alike, processor, labels, INPUTS)
    ClipDataset(alike, processor, labels, ["pixel_values_resized"], prompt_negatives=1)  # reads no prompts
    two = alike.remove_columns("prompt").add_column("prompt", ["a red kite"] * 19 + ["a dog"])
    assert ClipDataset(two, processor, labels, INPUTS, prompt_negatives=2)[(0, 3)]["prompts"][1:] == ["a dog", "a dog"]


def test_only_the_inputs_of_the_branches_are_read(data, processor):
    """Clips without a prompt are valid unless a branch reads prompts; only the views of the branches are computed."""
    clips = load_clips(str(data[0]))
    clips = clips.remove_columns("prompt").add_column("prompt", [""] * len(clips))
    for inputs in (["pixel_values_fragments", "pixel_values_resized"], ["pixel_values_resized"]):
        dataset = ClipDataset(clips, processor, {"quality": "mos"}, inputs)
        batch = next(iter(make_loader(dataset, [[(0, 0), (0, 1)]], num_workers=0)))
        assert set(batch) == {*inputs, "labels", "index", "source", "failed"}
    with pytest.raises(ValueError, match="is empty"):
        next(iter(make_loader(ClipDataset(clips, processor, {"quality": "mos"}, INPUTS), [[(0, 0)]], num_workers=0)))


def test_the_cache_changes_nothing(data, processor, tmp_path):
    clips = load_clips(str(data[0]))
    plain = ClipDataset(clips, processor, {"quality": "mos"}, INPUTS, seed=1)
    cached = ClipDataset(clips, processor, {"quality": "mos"}, INPUTS, seed=1, cache=FrameCache(tmp_path, processor))
    for _ in range(2):  # the first pass fills the cache, the second reads it
        for name in ("pixel_values_fragments", "pixel_values_resized"):
            assert torch.equal(plain[(0, 2)][name], cached[(0, 2)][name])
    assert len(list(tmp_path.iterdir())) == 1, "no partial file is left"
    assert np.load(next(tmp_path.iterdir())).shape == (4, 64, 64, 3)


def test_validation_is_distributed_evenly():
    shares = [validation_batches([7, 4], 2, rank, 3) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert all(len({source for _, source, _ in batch}) == 1 for share in shares for batch in share)
    seen = {(source, index) for share in shares for batch in share for _, source, index in batch}
    assert seen == {(0, index) for index in range(7)} | {(1, index) for index in range(4)}


def test_some_clips(data):
    clips = load_clips(str(data[0]))
    assert some_clips(clips, None, 0) is clips
    assert some_clips(clips, 5, 0)["id"] == some_clips(clips, 5, 0)["id"] != some_clips(clips, 5, 1)["id"]


# --- losses ------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(data, processor):
    dataset = ClipDataset(
        load_clips(str(data[0])), processor, dict.fromkeys(("quality", "technical"), "mos"), INPUTS, seed=0
    )
    return next(iter(make_loader(dataset, [[(0, index) for index in range(0, 16, 2)]], num_workers=0)))


def gradients(accelerator, model, batch, terms, parts) -> tuple[dict, dict]:
    model.zero_grad()
    losses = training_step(accelerator, model.train(), batch, terms, DualLoss(1.0, 0.5, 10.0), parts)
    return fetch_values([losses])[0], {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


def test_the_gradient_is_the_gradient_of_the_losses(accelerator, model, batch):
    losses, found = gradients(accelerator, model, batch, ["quality", "technical"], 1)
    model.zero_grad()
    scores, mos = score(model, batch, ["quality", "technical"]), batch["labels"]["quality"].float() / 10
    wanted = sum(quality_loss(value / 10, mos, 1.0, 0.5) for value in scores.values())
    wanted.backward()
    assert sum(losses.values()) == pytest.approx(wanted.item(), abs=1e-5)
    assert len(found) > 50
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("parts", [3, 8])
def test_accumulation_does_not_change_the_loss(accelerator, model, batch, parts):
    whole_losses, whole = gradients(accelerator, model, batch, ["quality", "technical"], 1)
    losses, found = gradients(accelerator, model, batch, ["quality", "technical"], parts)
    assert losses == pytest.approx(whole_losses, abs=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


SCORES, LABELS = [3.0, 5.0, 1.0, 4.0, 2.0, 9.0], [10.0, math.nan, 20.0, 30.0, math.nan, 60.0]


def test_clips_without_a_label_do_not_count(accelerator):
    scores, labels = {"technical": torch.tensor(SCORES)}, {"technical": torch.tensor(LABELS)}
    losses, gradient = score_gradients(accelerator, scores, labels, DualLoss(1.0, 0.5, 10.0, incomplete=True))
    known = labels["technical"].isfinite()
    few = {"technical": scores["technical"][known]}
    wanted, few_gradient = score_gradients(
        accelerator, few, {"technical": labels["technical"][known]}, DualLoss(1.0, 0.5, 10.0)
    )
    assert losses["technical"] == wanted["technical"] > 0
    assert torch.equal(gradient["technical"][known], few_gradient["technical"])
    assert not gradient["technical"][~known].any()


@pytest.mark.parametrize("labelled", [0, 1])
def test_a_batch_with_fewer_than_two_labels_has_no_loss(accelerator, labelled):
    labels = torch.tensor([[50.0, 1.0]] * labelled + [[math.nan, math.nan]] * (4 - labelled))  # with wrong prompts
    losses, gradient = score_gradients(
        accelerator, {"alignment": torch.randn(4, 2)}, {"alignment": labels}, DualLoss(1.0, 1.0, 10.0, incomplete=True)
    )
    assert losses["alignment"] == 0 and not gradient["alignment"].any()


def with_column(clips, **columns):
    for name, values in columns.items():
        clips = clips.remove_columns(name).add_column(name, values)
    return clips


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_mos_that_no_loss_can_use_is_named(data, wrong, part):
    clips = {name: load_clips(*map(str, data), name) for name in ("train", "validation")}
    clips[part] = with_column(clips[part], mos=[wrong, *clips[part]["mos"][1:]])
    with pytest.raises(ValueError, match=rf"'mos' of the {part} part: 1 .*{clips[part]['id'][0]}"):
        check_labels(clips, {"quality": "mos", "technical": "technical_mos"})


def test_labels_of_a_branch_may_be_empty_but_not_wrong(data):
    clips = {name: load_clips(*map(str, data), name) for name in ("train", "validation")}
    columns = {"quality": "mos", "technical": "technical_mos"}
    assert check_labels(clips, columns) == {}
    own = clips["train"]
    clips["train"] = with_column(own, technical_mos=[None] * 10 + [1.0, 2.0])
    assert check_labels(clips, columns) == {"technical": 10}
    clips["train"] = with_column(own, technical_mos=[None] * 11 + [1.0])
    with pytest.raises(ValueError, match="labels of technical: 1 of 12 training clips"):
        check_labels(clips, columns)
    clips["train"] = with_column(own, technical_mos=[math.nan] * 6 + [1.0] * 6)
    with pytest.raises(ValueError, match=rf"6 labels .*{own['id'][0]} \(nan\).*, \.\.\."):
        check_labels(clips, columns)
    with pytest.raises(ValueError, match=r"no column \['stars'\]"):
        check_labels(clips, {"quality": "stars"})


def test_both_passes_of_an_accumulated_step_use_the_same_dropout(accelerator, batch, monkeypatch):
    model = tiny_model(dropout=True).train()
    drawn = []
    original = torch.nn.functional.dropout

    def spy(values, p, training, inplace=False):
        result = original(values, p, training, inplace)
        drawn.append(result.detach() == 0)
        return result

    monkeypatch.setattr(torch.nn.functional, "dropout", spy)
    training_step(accelerator, model, batch, ["quality"], DualLoss(1.0, 1.0, 10.0), 2)
    half = len(drawn) // 2
    assert half and all(torch.equal(first, second) for first, second in zip(drawn[:half], drawn[half:]))
    assert any(mask.any() for mask in drawn)


def test_wrong_prompts_get_the_negative_label():
    batch = {"input_ids": torch.ones(2, 3, 5), "labels": {"alignment": torch.tensor([50.0, 80.0])}}
    labels = with_negative_labels(batch, 10.0)["labels"]["alignment"]
    assert labels.tolist() == [[50, 10, 10], [80, 10, 10]]


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_model():
    with torch.device("meta"):
        return AIGCVQAModel(AIGCVQAConfig())


def test_every_parameter_of_an_encoder_belongs_to_a_layer(full_model):
    counts = {name: len(layers(encoder)) for name, encoder in encoders(full_model).items()}
    # technical: patch embedding, 12 blocks, 3 reductions, norm; aesthetic: stem, 18 blocks, 3 reductions, norm;
    # alignment: patch embedding, 24 blocks, norm; word embedding, 12 layers
    assert counts == {"technical": 17, "aesthetic": 23, "alignment vision": 26, "alignment text": 13}
    for encoder in encoders(full_model).values():
        assert sum(len(layer) for layer in layers(encoder)) == len(list(encoder.parameters()))


def test_convnext_layers_run_from_stem_to_output(full_model):
    names = {id(p): name for name, p in full_model.aesthetic_backbone.named_parameters()}
    order = [names[id(layer[0])].rsplit(".", 1)[0] for layer in layers(full_model.aesthetic_backbone)]
    assert order[0].startswith("downsample_layers.0") and order[1].startswith("stages.0.0")
    assert order[4].startswith("downsample_layers.1") and order[-1].startswith("norm")


def test_the_share_that_trains_is_the_share_asked_for(full_model):
    for percent in range(5, 101):
        unfix(full_model, percent / 100)
        for name, (trained, total) in encoder_counts(full_model).items():
            assert trained / total == pytest.approx(percent / 100, abs=0.05), (name, percent)
        frozen = [n for n, p in full_model.named_parameters() if re.search("head|adapter", n) and not p.requires_grad]
        assert frozen == []


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.7, 0.8, 1.0])
def test_the_last_tensors_of_every_encoder_train(full_model, ratio):
    unfix(full_model, ratio)
    for name, encoder in encoders(full_model).items():
        trains = [p.requires_grad for layer in layers(encoder) for p in layer]
        assert trains == sorted(trains), f"{name}: a frozen tensor follows one that trains"
        assert any(trains) == (ratio > 0) and all(trains) == (ratio == 1), name


def test_words_train_only_where_their_table_is_needed_for_the_share(full_model):
    table = full_model.alignment_backbone.text_encoder.embeddings.word_embeddings.weight
    found = {}
    for ratio in (0.8, 0.85, 0.9, 1.0):
        unfix(full_model, ratio)
        found[ratio] = table.requires_grad
    assert found == {0.8: False, 0.85: False, 0.9: True, 1.0: True}


def test_frozen_parts_use_neither_dropout_nor_stochastic_depth(data, processor, accelerator):
    model = tiny_model()
    unfix(model, 0.3)
    train_mode(model)
    loader = make_loader(ClipDataset(load_clips(str(data[0])), processor, {"quality": "mos"}, INPUTS), [[(0, 0)]], 0)
    for _ in range(2):  # validation gives every part its mode back
        for encoder in encoders(model).values():
            for module in encoder.modules():
                parameters = list(module.parameters())
                assert not parameters or module.training == any(p.requires_grad for p in parameters)
        swin = model.technical_backbone
        assert not swin.layers[0].blocks[0].drop_path.training and swin.layers[-1].blocks[-1].drop_path.training
        assert model.technical_head.dropout.training
        score_clips(accelerator, model, loader, ["quality"])


def test_ratios_outside_0_to_1_are_refused(model):
    with pytest.raises(ValueError, match=r"unfixed_ratio=70"):
        unfix(model, 70)


def test_no_weight_decay_on_biases_norms_and_position_tables(full_model):
    unfix(full_model, 1.0)
    names = {id(p): name for name, p in full_model.named_parameters()}
    decayed, exempt = ([names[id(p)] for p in group["params"]] for group in parameter_groups(full_model, 0.05))
    assert len(decayed) + len(exempt) == len(names)
    assert not [n for n in decayed if n.endswith("bias") or "norm" in n.lower() or "bias_table" in n or "gamma" in n]
    assert {"alignment_backbone.visual_encoder.pos_embed", "alignment_backbone.visual_encoder.cls_token"} <= set(exempt)
    assert any("position_embeddings" in n for n in exempt) and any("word_embeddings" in n for n in decayed)


def test_counts_by_branch(model):
    unfix(model, 1.0)
    counts = trainable_counts(model)
    assert sum(total for _, total in counts.values()) == sum(p.numel() for p in model.parameters())
    assert all(trained == total for trained, total in counts.values())


# --- models ------------------------------------------------------------------------------------------------------


def test_saved_weights_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        folder = tiny_folder(tmp_path / "model")
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {
        file.name: "0o640" for file in folder.iterdir()
    }


def test_selected_branches_share_their_modules_with_the_model():
    model = tiny_model()
    selected = select_branches(model, ["alignment"])
    assert selected.config.branches == ["alignment"] and model.config.branches[0] == "technical"
    assert selected.alignment_head is model.alignment_head and not hasattr(selected, "technical_head")
    assert all(not p.is_meta for p in selected.parameters())
    with pytest.raises(ValueError, match="has only"):
        select_branches(selected, ["technical"])


def test_scores_follow_the_scale_of_the_labels(data, model, processor, batch):
    model = tiny_model(dropout=False).eval()
    names = ["quality", "technical", "aesthetic", "alignment"]
    with torch.no_grad():
        before = score(model, batch, names)
        model.config.rescale(50.0, 15.0)
        after = score(model, batch, names)
        model.config.rescale(3.0, 1.0)
        again = score(model, batch, names)
    torch.testing.assert_close(after["quality"], 15 * before["quality"] + 50, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(after["alignment"], 15 * before["alignment"] + 50 / 3, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(again["quality"], before["quality"] + 3, rtol=1e-5, atol=1e-3)


def test_the_level_matches_mean_and_standard_deviation(batch):
    model = tiny_model(dropout=False).eval()
    names, mos = ["quality", "technical", "aesthetic", "alignment"], torch.linspace(20, 80, 8)
    with torch.no_grad():
        levelled, _ = set_level(model.config, score(model, batch, names), mos)
        scores = score(model, batch, names)
    for name in names:
        torch.testing.assert_close(levelled[name], scores[name], rtol=1e-4, atol=1e-3)
    assert scores["quality"].mean().item() == pytest.approx(50, abs=0.01)
    assert scores["quality"].std().item() == pytest.approx(mos.std().item(), rel=1e-3)
    assert scores["aesthetic"].mean().item() == pytest.approx(50 / 3, abs=0.01)


def test_training_stores_how_far_opinions_are_from_the_scores():
    """From validation to the config, and not for a sum with branches that did not train."""
    config = AIGCVQAConfig()
    noise = torch.linspace(-1, 1, 80)[torch.randperm(80, generator=torch.Generator().manual_seed(0))]
    scores = torch.linspace(-1, 1, 80)
    mos = 50 + 10 * scores + noise
    parts = dict.fromkeys(config.branches, scores / 3)
    levelled, _ = set_level(config, {"quality": scores, **parts}, mos)
    quality = levelled["quality"]
    set_interval(config, quality, mos, config.branches)
    assert config.interval["clips"] == 80
    assert config.interval["branches"] == config.branches
    inside = (mos - quality).abs() <= config.interval["half_width"]
    assert inside.sum() == math.ceil(81 * 0.9)
    set_interval(config, quality, mos, ["technical"])
    assert config.interval is None
    set_interval(config, quality[:49], mos[:49], config.branches)
    assert config.interval is None, "too few clips"


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3, 2.0, 20.0])
def test_the_level_of_weak_scores_is_bounded(spread):
    config, mos = AIGCVQAConfig(), torch.linspace(20, 80, 8)
    config.rescale(mos.mean().item(), mos.std().item())
    scale = config.technical_config.score_scale
    scores = 50 + spread * torch.linspace(-1, 1, 8)
    _, note = set_level(config, {"quality": scores, "technical": scores}, mos)
    factor = config.technical_config.score_scale / scale
    wanted = mos.std().item() / scores.std().item() if scores.std() else 1.0
    assert factor == pytest.approx(min(wanted, MAX_SCALE), rel=1e-3)
    assert (note is None) == (spread >= 1)
    for _ in range(2):  # later stages multiply no further
        set_level(config, {"quality": scores, "technical": scores}, mos)
    assert config.technical_config.score_scale <= MAX_SCALE * mos.std() * 1.001
    set_level(config, {"quality": scores, "technical": scores}, torch.full((8,), 50.0))
    assert config.technical_config.score_scale > 0, "equal labels give no scale"


def test_figures_of_constant_scores_are_undefined_and_the_worst():
    mos = torch.tensor([1.0, 2.0, 3.0, math.nan, 5.0])
    scores = {"quality": torch.tensor([2.0, 1.0, 3.0, 9.0, 4.0]), "technical": torch.full((5,), 7.0)}
    scores["aesthetic"] = scores["technical"] + 1e-6 * torch.arange(5)  # rounding
    metrics = validation_metrics(scores, dict.fromkeys(scores, mos))
    assert metrics["quality/srocc"] == pytest.approx(0.8)
    assert {metrics[f"{name}/{key}"] for name in ("technical", "aesthetic") for key in ("srocc", "rmse")} == {None}
    assert chosen_figures(["quality", "technical"], [None]) == ["quality"]
    assert selection_score(metrics, ["quality"]) == metrics["quality/main_score"]
    assert selection_score(metrics, ["technical"]) == -1
    assert selection_score(metrics | {"aesthetic/main_score": 0.5}, ["technical", "aesthetic"]) == -0.25
    constant = validation_metrics({"quality": torch.rand(4)}, {"quality": torch.full((4,), 50.0)})
    assert set(constant.values()) == {None}
    assert set(validation_metrics({"quality": torch.rand(2)}, {"quality": torch.rand(2)}).values()) == {None}


# --- arguments ---------------------------------------------------------------------------------------------------


def test_the_command_line_overrides_the_yaml_file(tmp_path):
    (tmp_path / "c.yaml").write_text("epochs: 7\nlearning_rate: 1.0e-4\nlabels: [technical=technical_mos]\ndata: d\n")
    found = parse_arguments(
        stage1.build_parser(), ["--config", str(tmp_path / "c.yaml"), "--epochs", "9", "--output", "o"]
    )
    assert (found.epochs, found.learning_rate, found.data) == (9, 1e-4, ["d"])
    assert found.label_columns(["technical", "quality"]) == {"technical": "technical_mos", "quality": "mos"}
    (tmp_path / "c.yaml").write_text("epoch: 7\n")
    with pytest.raises(SystemExit):
        parse_arguments(stage1.build_parser(), ["--config", str(tmp_path / "c.yaml"), "--data", "d", "--output", "o"])


def test_the_settings_of_the_paper():
    for stage, ratio in ((stage1, 1.0), (stage2, 0.7), (stage3, 0.3)):
        path = f"training/configs/{stage.STAGE.name}.yaml"
        found = parse_arguments(stage1.build_parser(), ["--config", path, "--data", "d", "--output", "o"])
        assert (found.epochs, found.batch_size, found.learning_rate) == (50, 8, 3e-5)
        assert stage.STAGE.unfixed_ratio == ratio and found.unfixed_ratio is None


def test_invalid_values_on_the_command_line_end_with_a_usage_message(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(stage1.build_parser(), ["--data", "d", "--output", "o", "--batch_size", "1"])
    assert "batch_size=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 1}, {"epochs": 0}, {"unfixed_ratio": 70}, {"ema_decay": 1.0}, {"labels": ["sharpness=mos"]}],
    ids=json.dumps,
)
def test_wrong_arguments_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        StageArguments(data="d", output="o", **change)


def test_bfloat16_needs_a_card_that_has_it(monkeypatch, tmp_path):
    """There is no such card here: what torch says about it is made up."""
    forget_accelerator()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    for name, value in (("is_available", True), ("get_device_capability", (7, 0)), ("get_device_name", "Tesla V100")):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    arguments = StageArguments(data="d", output=str(tmp_path), mixed_precision="bf16")
    with pytest.raises(ValueError, match=r"Tesla V100 has compute capability 7\.0.*choose fp16 or no"):
        make_accelerator(arguments)


def test_gradients_are_views_of_the_buffers_that_are_sent(monkeypatch, tmp_path):
    forget_accelerator()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    accelerator = make_accelerator(StageArguments(data="d", output=str(tmp_path)))
    assert accelerator.ddp_handler.gradient_as_bucket_view and tf32_text(accelerator.device) == "no TF32"


def test_workers_persist_and_follow_the_epoch(data, processor):
    sampler = MixedBatchSampler([Share(20)], 10, 0, 0, 1)
    dataset = ClipDataset(load_clips(str(data[0])), processor, {"quality": "mos"}, ["pixel_values_resized"], seed=0)
    loader = make_loader(Mixture([dataset]), sampler, num_workers=1)
    found, workers = [], set()
    for sampler.epoch in (0, 1):
        found.append([index for batch in loader for index in batch["index"].tolist()])
        workers |= {worker.pid for worker in loader._iterator._workers}
    assert found == [[i for b in order_of(epoch) for i in b] for epoch in (0, 1)] and len(workers) == 1


def order_of(epoch: int) -> list[list[int]]:
    sampler = MixedBatchSampler([Share(20)], 10, 0, 0, 1)
    sampler.epoch = epoch
    return [[index for _, _, index in batch] for batch in sampler]


def test_accumulation_by_accelerate_is_refused(accelerator, monkeypatch, tmp_path):
    forget_accelerator()
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ValueError, match="pass --gradient_accumulation_steps"):
        make_accelerator(StageArguments(data="d", output=str(tmp_path)))
