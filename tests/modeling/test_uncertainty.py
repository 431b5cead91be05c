"""Draws of fragments and frames, and intervals of opinions."""

import copy
import json
import math

import numpy as np
import pytest
import torch

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAPipeline
from modeling_aigcvqa.cli import main
from modeling_aigcvqa.names_aigcvqa import INTERVAL, SCORES, SPREADS
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.uncertainty_aigcvqa import conformal_half_width, draw_scores, frame_draws, interval_of
from tests.conftest import moving_gradient

PROMPT = "a moving gradient"


@pytest.fixture
def pipeline(small_model, processor):
    model = copy.copy(small_model)
    model.config = copy.deepcopy(small_model.config)
    return AIGCVQAPipeline(model=model, processor=processor, device=torch.device("cpu"))


def test_frames_are_drawn_one_from_each_part():
    draws = frame_draws(160, 16, 16, torch.Generator().manual_seed(0))
    assert len(draws) == 4
    assert len({tuple(draw) for draw in draws}) == 4
    for draw in draws:
        assert all(10 * part <= index < 10 * (part + 1) for part, index in enumerate(draw))


@pytest.mark.parametrize("total", [1, 5, 16])
def test_a_clip_that_is_seen_as_a_whole_has_one_draw_of_frames(total):
    assert frame_draws(total, 16, 9, torch.Generator()) == [sample_frame_indices(total, 16)]


def test_the_processor_adds_draws_that_repeat(processor, clip):
    plain = processor(videos=[clip], text=[PROMPT])
    first, again = (processor(videos=[clip], text=[PROMPT], uncertainty=5) for _ in range(2))
    assert first["draws_fragments"].shape == (1, 5, 16, 3, 112, 112)
    assert first["draws_resized"].shape == (1, 3, 16, 3, 112, 112)
    assert torch.equal(first["pixel_values_fragments"], plain["pixel_values_fragments"])
    for name in first:
        assert torch.equal(first[name], again[name])
    other = processor(videos=[clip], text=[PROMPT], uncertainty=5, seed=7)
    assert not torch.equal(other["draws_fragments"], first["draws_fragments"])
    fragments = first["draws_fragments"][0]
    assert not torch.equal(fragments[0], fragments[3]), "the same frames, other fragments"


def test_draws_are_the_scores_of_what_was_drawn(small_model, processor, clip):
    inputs = processor(videos=[clip], text=[PROMPT], uncertainty=4)
    with torch.no_grad():
        draws = draw_scores(small_model, inputs)
        for number in range(4):
            scores = small_model(
                inputs["draws_fragments"][:, number],
                inputs["draws_resized"][:, number % 2],
                inputs["input_ids"],
                inputs["attention_mask"],
            )
            for name in SCORES:
                values = draws[name.removesuffix("_score")]
                value = values[number % len(values)].item()
                assert value == pytest.approx(scores[name].item(), rel=1e-5, abs=1e-5)


def test_the_pipeline_gives_mean_and_deviation_beside_the_same_scores(pipeline, clip):
    item = {"video": clip, "prompt": PROMPT}
    plain, result = pipeline(item), pipeline(item, uncertainty=6)
    assert list(result) == [*SCORES, *SPREADS]
    assert {name: result[name] for name in SCORES} == plain
    assert all(result[f"{name}_std"] > 0 for name in SCORES)
    assert abs(result["quality_score_mean"] - plain["quality_score"]) < 5 * result["quality_score_std"] + 1e-3
    short = pipeline({"video": moving_gradient(16, 200, 200), "prompt": PROMPT}, uncertainty=6)
    assert short["aesthetic_score_std"] == short["alignment_score_std"] == 0
    assert short["aesthetic_score_mean"] == pytest.approx(short["aesthetic_score"], rel=1e-5, abs=1e-5)
    assert short["technical_score_std"] > 0


def test_clips_of_a_batch_do_not_share_their_draws(pipeline, clip):
    items = [{"video": clip, "prompt": PROMPT}, {"video": moving_gradient(40, 240, 240), "prompt": "another"}]
    together = pipeline(items, batch_size=2, uncertainty=3)
    for item, result in zip(items, together):
        alone = pipeline(item, uncertainty=3)
        assert result == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_branches_that_are_not_built_have_no_draws(small_model, processor, clip):
    config = AIGCVQAConfig(**{**small_model.config.to_dict(), "branches": ["aesthetic"]})
    model = type(small_model)(config).eval()
    result = AIGCVQAPipeline(model=model, processor=processor)({"video": clip, "prompt": PROMPT}, uncertainty=4)
    assert set(result) == {
        *("quality_score", "aesthetic_score", "quality_of"),
        *(f"{name}_score_{part}" for name in ("quality", "aesthetic") for part in ("mean", "std")),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [({"uncertainty": 1}, "expected 2 to 64"), ({"uncertainty": 4, "protocol": "dover"}, "protocol='aigcvqa'")],
)
def test_wrong_options(pipeline, clip, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline({"video": clip, "prompt": PROMPT}, **options)


def test_conformal_intervals_cover_new_clips():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        residuals = rng.standard_t(3, size=99)
        covered.append(np.mean(np.abs(rng.standard_t(3, size=200)) <= conformal_half_width(residuals, 0.9)))
    assert 0.895 <= np.mean(covered) <= 0.915
    assert conformal_half_width([3.0, -1.0, 2.0], 0.5) == 2.0
    assert conformal_half_width([1.0, 2.0], 0.9) is None


def test_the_interval_is_stated_with_the_scores(pipeline, clip):
    item = {"video": clip, "prompt": PROMPT}
    pipeline.model.config.interval = interval_of(torch.full((60,), 7.5), pipeline.model.config.branches)
    assert not set(INTERVAL) & set(pipeline(item)), "only with uncertainty"
    result = pipeline(item, uncertainty=2)
    assert result["quality_score_low"] == result["quality_score"] - 7.5
    assert result["quality_score_high"] == result["quality_score"] + 7.5
    pipeline.model.config.interval["branches"] = ["technical"]
    assert not set(INTERVAL) & set(pipeline(item, uncertainty=2)), "it is of another sum"


@pytest.mark.parametrize(
    "interval",
    [{"half_width": 1.0}, {"half_width": math.nan, "coverage": 0.9, "clips": 9, "branches": []}, {"half_width": "1"}],
)
def test_wrong_intervals_in_a_config_are_refused(interval):
    with pytest.raises(ValueError, match="interval="):
        AIGCVQAConfig(interval=interval)


def test_the_command_line_writes_and_says_it(model_folder, clip, tmp_path, capsys):
    manifest, output = tmp_path / "clips.jsonl", tmp_path / "scores.csv"
    manifest.write_text(json.dumps({"file": str(clip), "prompt": PROMPT}))
    command = ["score", "--model", str(model_folder), "--manifest", str(manifest), "--output", str(output)]
    assert main([*command, "--uncertainty", "3"]) == 0
    printed = capsys.readouterr()
    assert "There is no interval" in printed.err
    assert "quality std" in printed.out
    content = output.read_text()
    assert all(name in content for name in (*SCORES, *SPREADS, *INTERVAL))
    assert main([*command, "--uncertainty", "3"]) == 0
    assert output.read_text() == content
    assert main(command) == 2, "scores of another run"
    assert main([*command, "--uncertainty", "1"]) == 2
    assert main([*command[:-1], f"{tmp_path}/folder/", "--uncertainty", "3"]) == 2
