"""Evaluation against preferences: data as the preparers write it, end to end by one command."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_scripts import make_splits, prepare_genai_bench
from tests.conftest import moving_gradient, write_video
from training.common.clips import PARTS
from training.common.pairs import has_pairs, load_pairs
from training.evaluate import main

VOTES = ["leftvote", "rightvote", "tievote", "leftvote", "bothbad_vote", "rightvote"]

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three prompts with two clips and two votes each."""
    folder = tmp_path_factory.mktemp("genai")
    rows = []
    for number, vote in enumerate(VOTES):
        prompt = number // 2
        for side in ("left", "right"):
            path = folder / f"source/videos/{side}{prompt}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, moving_gradient(4, 64 + 32 * prompt, 64 if side == "left" else 128))
        videos = {f"{side}_video": f"https://host/{side}{prompt}.mp4" for side in ("left", "right")}
        rows.append({"prompt": f"prompt {prompt}", "left_model": "x", "right_model": "y", "vote_type": vote, **videos})
    labels = folder / "source/video_generation/test-0.parquet"
    labels.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), labels)
    prepare_genai_bench.main(["--source", str(folder / "source"), "--output", str(folder / "data")])
    return folder / "data"


@pytest.fixture
def expected():
    return np.array([1, -1, 0, 1, 0, -1])


def test_pairs_are_loaded(data, expected, tmp_path):
    assert has_pairs(str(data))
    pairs = load_pairs(str(data), part="test")
    assert pairs.preferences["preference"].tolist() == expected.tolist()
    ids = np.array(pairs.clips["id"])[pairs.places]
    assert ids.tolist() == [[f"left{n // 2}", f"right{n // 2}"] for n in range(6)]
    split = tmp_path / "split.csv"
    split.write_text("id,split\nleft0,test\nright0,test\nleft1,train\nright1,test\nleft2,train\nright2,train\n")
    assert len(load_pairs(str(data), split, "test")) == 2
    assert len(load_pairs(str(data), split, "train")) == 2
    split.write_text("id,split\nleft0,test\nright0,train\n")
    with pytest.raises(ValueError, match="no preference between two clips of part 'test'"):
        load_pairs(str(data), split, "test")


def test_clips_that_only_occur_in_pairs_are_split(data, tmp_path):
    """No clip of GenAI-Bench has a MOS."""
    options = ["--num_splits", "1", "--fractions", "0.34", "0.33", "0.33"]
    assert make_splits.main(["--data", str(data), "--output", str(tmp_path / "splits"), *options]) == 0
    parts = [load_pairs(str(data), tmp_path / "splits" / "prompt_disjoint_00.csv", part) for part in PARTS]
    assert [len(pairs) for pairs in parts] == [2, 2, 2]


def test_one_command_gives_the_accuracies(data, expected, model_folder, tmp_path, capsys):
    output = tmp_path / "output"
    call = ["--model", str(model_folder), "--data", str(data), "--output", str(output), "--device", "cpu"]
    assert main([*call, "--num_bootstrap", "50"]) == 0
    assert "accuracy without ties" in capsys.readouterr().out
    table = pd.read_csv(output / "pairs.csv")
    metrics = json.loads((output / "metrics.json").read_text())
    for score, figures in metrics["preferences"]["preference"].items():
        difference = (table[f"{score}_a"] - table[f"{score}_b"]).to_numpy()
        decided = expected != 0
        agreed = np.mean(np.sign(difference[decided]) == expected[decided])
        assert figures["accuracy_without_ties"]["value"] == pytest.approx(agreed)
        assert figures["accuracy_with_ties"]["value"] >= max(agreed * 4 / 6, 2 / 6)
        assert figures["accuracy_without_ties"]["low"] is None, "three prompts are too few for an interval"
    assert metrics["num_pairs"] == 6 and metrics["num_clips"] == 6 and metrics["num_prompts"] == 3
    assert "Deutsch" in (output / "report.md").read_text()


def test_predictions_of_another_metric(data, expected, tmp_path):
    scores = pd.DataFrame({"id": [f"{side}{n}" for n in range(3) for side in ("left", "right")]})
    scores["metric"] = [3.0, 1.0, 2.0, 1.5, 0.0, 0.1]  # A, A, B for the three prompts
    scores.to_csv(tmp_path / "metric.csv", index=False)
    call = ["--predictions", str(tmp_path / "metric.csv"), "--data", str(data), "--output", str(tmp_path / "output")]
    assert main([*call, "--num_bootstrap", "0"]) == 0
    figures = json.loads((tmp_path / "output/metrics.json").read_text())["preferences"]["preference"]["metric"]
    assert figures["accuracy_without_ties"]["value"] == pytest.approx(3 / 4), "votes A, B, A, B against A, A, A, B"
    assert figures["num_human_ties"] == 2
    scores[:-1].to_csv(tmp_path / "metric.csv", index=False)
    assert main(call) == 2, "a clip without a score"


def test_intervals_resample_prompts():
    from training.evaluation.figures import Bootstrap
    from training.evaluation.preferences import accuracy

    generator = np.random.default_rng(0)
    right = np.repeat(generator.random(20) < 0.7, 10)  # all ten pairs of a prompt are right, or all are wrong
    table = pd.DataFrame({"prompt": [f"p{n // 10}" for n in range(200)], "preference": 1.0})
    table["s_a"], table["s_b"] = np.where(right, 1.0, 0.0), np.where(right, 0.0, 1.0)
    by_prompt = accuracy(table, "s", "preference", Bootstrap(500))["accuracy_without_ties"]
    single = accuracy(table.assign(prompt=[f"p{n}" for n in range(200)]), "s", "preference", Bootstrap(500))
    single = single["accuracy_without_ties"]
    assert by_prompt["value"] == single["value"] == right.mean()
    assert by_prompt["high"] - by_prompt["low"] > 2 * (single["high"] - single["low"])
