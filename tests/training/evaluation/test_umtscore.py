"""UMTScore against the outputs of its published code, and its published input."""

import importlib.util

import pytest
import torch
from datasets import Dataset

from modeling_aigcvqa.common.presets import default_tokenizer
from modeling_aigcvqa.conversion import CheckpointError
from tests.conftest import SHARED, moving_gradient
from training.evaluation.baselines import umtscore as module
from training.evaluation.baselines.umtscore import UMTScore, cleaned, frame_indices, sinusoids, token_ids
from training.evaluation.check_references import compared

REFERENCE = SHARED / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is not here")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file in the published layout with small networks."""
    spec = importlib.util.spec_from_file_location("recipe", REFERENCE / "recipe_umtscore.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    path = tmp_path_factory.mktemp("umtscore") / "ckpt_best.pth"
    positions = {"text_encoder.embeddings.position_ids": torch.arange(512)[None]}
    torch.save({"model": recipe.state_dict("umtscore_tiny", 3) | positions}, path)
    return path


@needs_reference
@pytest.mark.parametrize("name", ["umtscore_tiny", pytest.param("umtscore", marks=pytest.mark.slow)])
def test_the_published_code_gives_the_same(name):
    rows = list(compared(REFERENCE, name, 0, None))
    assert [row for row in rows if not row.is_met] == []
    assert len(rows) > 55


@needs_reference
def test_the_scorer_gives_the_logits(weights, monkeypatch):
    loaded = UMTScore.from_checkpoint.__func__
    small = classmethod(lambda cls, path: loaded(cls, path, 4, 4, 32))
    monkeypatch.setattr(UMTScore, "from_checkpoint", small)
    clips = [moving_gradient(16, 64, 80), moving_gradient(3, 64, 80)]
    rows = Dataset.from_dict({"id": ["a", "b", "c"], "prompt": ["a red cat", "two dogs", " "]})
    rows = [row | {"video": clip} for row, clip in zip(rows, [*clips, clips[0]])]
    scorer = module.umtscore_scorer(str(weights), "cpu", None, 2, 0)
    first, second, bare = scorer.score(rows)
    assert "no prompt" in bare["error"]
    model = UMTScore.from_checkpoint(weights)
    ids, mask = token_ids(default_tokenizer(), ["a red cat", "two dogs"])
    with torch.no_grad():
        frames = torch.stack([module.read_clip(row, 32)["frames"] for row in rows[:2]])
        expected = model(frames, ids, mask)["score"].diagonal().tolist()
    assert [first["umtscore"], second["umtscore"]] == pytest.approx(expected, abs=1e-5)


@needs_reference
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("itm_head.bias", r"lacks .*itm_head\.bias"),
        ("vision_encoder.encoder.patch_embed.proj.weight", r"it lacks .*patch_embed"),
        ("extra.weight", r"has .*extra\.weight"),
    ],
)
def test_files_of_another_model_are_refused(weights, tmp_path, key, message):
    state = torch.load(weights, weights_only=True)["model"]
    state = {name: value for name, value in state.items() if name != key}
    if key == "extra.weight":
        state[key] = torch.zeros(2)
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        UMTScore.from_checkpoint(tmp_path / "other.pth", 4, 4, 32)


def test_frames_are_from_the_middle_of_spans():
    assert frame_indices(24) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    assert frame_indices(3) == [0, 1, 2, *[2] * 9]
    assert frame_indices(12) == list(range(12))


def test_prompts_are_cleaned_and_have_no_sep():
    assert cleaned("  A Corgi's  house,\n in 24/25 fps (3D-printed)!! ") == "a corgis house in 24 25 fps 3d printed"
    ids, mask = token_ids(default_tokenizer(), ["a cat", "", "word " * 60])
    assert ids[0, :4].tolist()[0] == 101
    assert mask.sum(1).tolist() == [3, 1, 32]
    assert 102 not in ids


def test_positions_are_sines_and_cosines_in_turn():
    table = sinusoids(5, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert table[3, 2].item() == pytest.approx(torch.sin(torch.tensor(3 / 10000 ** (2 / 6))).item())
    assert table[3, 5].item() == pytest.approx(torch.cos(torch.tensor(3 / 10000 ** (4 / 6))).item())
