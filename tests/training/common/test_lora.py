"""LoRA adapters: they change nothing at first, train alone, and merge into the plain model."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from modeling_aigcvqa.loading import load_model
from tests.training.tiny import forget_accelerator, tiny_data, tiny_folder, tiny_model
from training import stage2, stage3
from training.common.arguments import parse_arguments
from training.common.lora import add_lora, merged
from training.common.parameters import encoder_counts, encoders, unfix

ALL = ["technical", "aesthetic", "alignment vision", "alignment text"]


def inputs(size=224):
    generator = torch.Generator().manual_seed(0)
    views = {
        f"pixel_values_{name}": torch.randn(2, 4, 3, size, size, generator=generator)
        for name in ("fragments", "resized")
    }
    ids = torch.randint(5, 100, (2, 3), generator=generator)  # short, so that scoring takes the shortcut of attention
    return {**views, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def scores(model):
    outputs = model.eval()(**inputs())
    return torch.stack([outputs.technical_score, outputs.aesthetic_score, outputs.alignment_score])


@torch.no_grad()
def trained(model):
    """Adapters away from their start at zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            parameter.normal_(0, 0.5, generator=generator)
    return model


@pytest.mark.parametrize("grad", [False, True], ids=["scoring", "training"])
def test_merged_weights_give_the_same_scores(grad):
    """Also where a layer computes GELU itself, and where attention takes a shortcut with the bare weight."""
    model, names = tiny_model(dropout=False), set(tiny_model(dropout=False).state_dict())
    with torch.set_grad_enabled(grad):
        before = scores(model)
        add_lora(model, ALL, rank=2, factor=1.5, seed=0)
        torch.testing.assert_close(scores(model), before, rtol=1e-5, atol=1e-6)
        after = scores(trained(model))
        plain = tiny_model(dropout=False)
        state = merged(model.state_dict(), 1.5)
        assert set(state) == names
        plain.load_state_dict(state)
        assert ((after - before).abs().amax(1) > 1e-4).all(), "every branch changed"
        torch.testing.assert_close(scores(plain), after, rtol=1e-4, atol=1e-5)


def test_the_adapters_do_not_depend_on_the_global_random_state():
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = tiny_model()
        add_lora(model, ALL, rank=2, factor=1.0, seed=0)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] if "lora_A" in name)


def test_what_trains():
    model = tiny_model()
    add_lora(model, ["alignment text"], rank=2, factor=1.0, seed=0)
    unfix(model, 0.3)
    for name, encoder in encoders(model).items():
        trains = {n for n, p in encoder.named_parameters() if p.requires_grad}
        assert (
            trains == {n for n, _ in encoder.named_parameters() if "lora_" in n} if name == "alignment text" else trains
        )
        assert trains and not (name != "alignment text" and any("lora_" in n for n in trains))
    assert all(p.requires_grad for n, p in model.named_parameters() if "_head." in n or "adapter." in n)
    number, total = encoder_counts(model)["alignment text"]
    assert 0 < number < total / 3


def test_an_encoder_that_does_not_train_is_named():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"have the encoders technical, .*, not audio"):
        add_lora(model, ["audio"], 2, 1.0, 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("stage", [stage2, stage3])
def test_a_run_writes_a_plain_model_and_resumes(data, tmp_path, stage, capsys):
    start = tiny_folder(tmp_path / "start")
    forget_accelerator()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    options = ["--data", str(data[0]), "--split_file", str(data[1]), "--init_from", str(start), "--batch_size", "4"]
    options += ["--epochs", "1", "--num_workers", "0", "--learning_rate", "1e-2", "--lora_rank", "2"]
    options += ["--warmup_epochs", "0", "--ema_decay", "0.5"] * (stage is stage3)
    stage.main([*options, "--output", str(tmp_path / "out")])
    assert "LoRA of rank 2" in capsys.readouterr().err
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    encoder = {name for name in changed if name.startswith("alignment_backbone.text_encoder")}
    assert encoder and all(
        name.endswith("weight") and "embeddings" not in name and "LayerNorm" not in name for name in encoder
    )
    model, _ = load_model(str(tmp_path / "out"))
    assert model.config.get_provenance().runs[-1].lora_rank == 2
    history = json.loads((tmp_path / "out" / "training.json").read_text())["history"]
    assert history[0]["alignment/srocc"] is not None


def test_arguments(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(stage3.build_parser(), ["--output", "o", "--data", "d", "--lora_encoders", "audio"])
    assert "lora_encoders=['audio']: expected some of ['technical'," in capsys.readouterr().err
