"""ViCLIP against the outputs of its published code, and its published file format."""

import gzip
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from modeling_aigcvqa.conversion import CheckpointError
from tests.conftest import SHARED, moving_gradient
from training.evaluation.baselines import baseline_scorer
from training.evaluation.baselines.clip_tokenizer import VOCABULARY, cleaned, tokenizer_of
from training.evaluation.baselines.viclip import END, START, ViCLIP, frame_indices, normalised, token_ids
from training.evaluation.check_references import compared, find_vocabulary, main

REFERENCE = SHARED / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is not here")


def published_state(width=64, text_width=64, joint=16, layers=2, patch=8, side=32):
    """Random tensors under the names and in the shapes of the published file."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "temp": (),
        "vision_encoder.class_embedding": (width,),
        "vision_encoder.positional_embedding": ((side // patch) ** 2 + 1, width),
        "vision_encoder.temporal_positional_embedding": (1, 8, width),
        "vision_encoder.conv1.weight": (width, 3, 1, patch, patch),
        "vision_encoder.proj": (width, joint),
        "text_encoder.token_embedding.weight": (49408, text_width),
        "text_encoder.positional_embedding": (32, text_width),
        "text_encoder.text_projection": (text_width, joint),
    }
    norms = {"vision_encoder.ln_pre": width, "vision_encoder.ln_post": width, "text_encoder.ln_final": text_width}
    for encoder, size in (("vision_encoder", width), ("text_encoder", text_width)):
        for layer in range(layers):
            block = f"{encoder}.transformer.resblocks.{layer}"
            norms |= {f"{block}.ln_1": size, f"{block}.ln_2": size}
            linear = {"attn.in_proj_": (3, 1), "attn.out_proj.": (1, 1), "mlp.c_fc.": (4, 1), "mlp.c_proj.": (1, 4)}
            for name, (out, into) in linear.items():
                shapes |= {f"{block}.{name}weight": (out * size, into * size), f"{block}.{name}bias": (out * size,)}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A published file, and a small vocabulary beside it."""
    folder = tmp_path_factory.mktemp("viclip")
    torch.save({"model": published_state()}, folder / "viclip.pth")
    with gzip.open(folder / VOCABULARY, "wt", encoding="utf-8") as file:
        file.write("#version\nr e\nre d</w>\nc a\nca t</w>\n")
    return folder / "viclip.pth"


@needs_reference
@pytest.mark.parametrize(
    "name", ["viclip_tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in ("viclip_b16", "viclip_l14"))]
)
def test_the_published_code_gives_the_same(name):
    vocabulary = find_vocabulary(None)
    rows = list(compared(REFERENCE, name, 0, vocabulary))
    missed = [row for row in rows if not row.is_met and (vocabulary or "prompt" not in row.array)]
    assert missed == []
    assert len(rows) > 50


def test_a_wrong_network_is_found(monkeypatch, tmp_path):
    """The comparison fails where an epsilon differs, which changes the fourth digit."""
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is not here")
    loaded = ViCLIP.from_checkpoint.__func__

    def other(cls, *arguments):
        model = loaded(cls, *arguments)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-6
        return model

    monkeypatch.setattr(ViCLIP, "from_checkpoint", classmethod(other))
    assert main(["--reference", str(REFERENCE), "--names", "viclip_tiny"]) == 1


def test_other_references_are_named_and_missing_ones_refused(tmp_path, capsys):
    np.savez(tmp_path / "nobody_seed3.npz", a=np.zeros(2))
    assert main(["--reference", str(tmp_path), "--seed", "3", "--names", "nobody"]) == 1
    assert "not built here: nobody" in capsys.readouterr().out
    assert main(["--reference", str(tmp_path), "--seed", "4"]) == 2
    assert main(["--reference", str(tmp_path), "--seed", "3", "--names", "viclip_b16"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_encoder.ln_pre.bias": None}, r"lacks .*pre_layrnorm\.bias"),
        ({"vision_encoder.extra": torch.zeros(2)}, r"has .*extra"),
        ({"text_encoder.ln_final.weight": torch.zeros(3)}, "other shapes"),
        ({"vision_encoder.conv1.weight": None}, r"it lacks .vision_encoder\.conv1\.weight"),
    ],
)
def test_files_of_another_model_are_refused(change, message, tmp_path):
    state = {key: value for key, value in (published_state() | change).items() if value is not None}
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        ViCLIP.from_checkpoint(tmp_path / "other.pth")


def test_frames_are_taken_from_the_start_a_whole_number_apart():
    assert frame_indices(15) == list(range(8))
    assert frame_indices(100) == [0, 12, 24, 36, 48, 60, 72, 84]
    assert frame_indices(8) == list(range(8))
    assert frame_indices(3) == [0, 0, 1, 1, 1, 1, 2, 2], "the published code has no answer"


def test_frames_are_resized_straight_and_without_antialiasing():
    frames = torch.from_numpy(moving_gradient(2, 96, 128))
    values = normalised(frames)
    assert values.shape == (2, 3, 224, 224)
    expected = F.interpolate(frames.permute(0, 3, 1, 2).float(), size=(224, 224), mode="bilinear") / 255
    torch.testing.assert_close(values[:, 1] * 0.224 + 0.456, expected[:, 1])


def test_prompts_are_cut_and_end_with_the_end_token(weights):
    tokenizer = tokenizer_of(weights.with_name(VOCABULARY))
    ids = token_ids(tokenizer, ["red  CAT\n", "", "x " * 60])
    assert ids.shape == (3, 32)
    assert ids[0, :4].tolist() == [START, 512 + 1, 512 + 3, END], "the merged tokens of the vocabulary"
    assert ids[1, :3].tolist() == [START, END, 0]
    assert (ids[2, 0], ids[2, 31]) == (START, END)
    assert cleaned("Tom &amp;amp; Jerry") == "Tom & Jerry"


def test_the_scorer_gives_the_cosines_and_counts_short_clips(weights):
    clips = [moving_gradient(16, 64, 80), moving_gradient(3, 64, 80), moving_gradient(16, 64, 80)]
    prompts = ["red cat", "red", " "]
    rows = Dataset.from_dict({"id": ["a", "b", "c"], "prompt": prompts})
    rows = [row | {"video": clip} for row, clip in zip(rows, clips)]
    scorer = baseline_scorer("viclip", str(weights), device="cpu", batch_size=2)
    first, short, bare = scorer.score(rows)
    assert re.search("no prompt", bare["error"])
    assert short["extended"] is True
    assert "extended" not in first
    model, tokenizer = ViCLIP.from_checkpoint(weights), tokenizer_of(weights.with_name(VOCABULARY))
    with torch.no_grad():
        frames = normalised(torch.from_numpy(clips[0][frame_indices(16)]), 32)[None]
        expected = model(frames, token_ids(tokenizer, prompts[:1]))["cosine"].item()
    assert first["viclip"] == pytest.approx(expected, abs=1e-6)
