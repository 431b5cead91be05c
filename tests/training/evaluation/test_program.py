"""Tests of the evaluation: figures, interrupted runs, prediction files, intervals, synthetic benchmark, prompt swap."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from dataset_scripts.synthetic_failures import ALIGNMENT_COSTS
from tests.training.evaluation.evaluation_data import PROMPTS, make_data_set, make_rows
from training.common.clips import load_clips
from training.evaluate import main
from training.evaluation import program
from training.evaluation.figures import Bootstrap, all_figures, prompt_groups
from training.evaluation.scoring import Scorer, score_clips
from training.evaluation.synthetic import ALIGNMENT_FAILURES, latent_matrix, other_prompts, prompt_swap_figures

SCORES = ("quality_score", "technical_score", "aesthetic_score", "alignment_score")
BROKEN = "002-basalt"

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture
def rows():
    return pd.DataFrame(make_rows())


def read_metrics(output):
    return json.loads((output / "metrics.json").read_text())


# ------------------------------------------------------------------------------------------------------ whole program


@pytest.fixture(scope="module")
def evaluated(model_folder, tmp_path_factory):
    """Output folder and exit status of an evaluation of the small model on data with one unreadable clip."""
    folder = make_data_set(tmp_path_factory.mktemp("broken"), broken=BROKEN)
    output = tmp_path_factory.mktemp("evaluated")
    arguments = ["--model", str(model_folder), "--data", str(folder), "--output", str(output), "--device", "cpu"]
    return output, main([*arguments, "--num_bootstrap", "20", "--batch_size", "3", "--prompt_swap"])


def test_probes_and_the_interval_of_the_model_are_reported(data, model_folder, tmp_path, monkeypatch):
    """A model that states an interval far too wide, probed with three clips and a short ascent."""
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    config = json.loads((model / "config.json").read_text())
    interval = {"half_width": 1e3, "coverage": 0.9, "clips": 60, "branches": config["branches"]}
    (model / "config.json").write_text(json.dumps(config | {"interval": interval}))
    monkeypatch.setattr(program, "probe", functools.partial(program.probe, ascent_steps=1))
    output = tmp_path / "evaluated"
    call = ["--model", str(model), "--data", str(data), "--output", str(output), "--device", "cpu"]
    assert main([*call, "--num_bootstrap", "0", "--probes", "3"]) == 0
    result = read_metrics(output)
    assert result["interval"] == interval | {"measured_coverage": 1.0, "measured_clips": 8}
    assert result["probes"]["clips"] == 3
    report = (output / "report.md").read_text()
    assert "within 1000 of the quality score for 90% of clips. It does for 100.0% of these" in report
    assert report.count("| Blur |") == report.count("| Still image as video |") == 1
    assert (output / "probes" / "index.html").exists()
    with pytest.raises(SystemExit):
        main([*call, "--probes", "many"])
    assert main([*call[:2], "--baseline", "dover", *call[2:], "--probes"]) == 2


def test_figures_match_the_predictions(evaluated):
    output, _ = evaluated
    predictions, result = pd.read_csv(output / "predictions.csv"), read_metrics(output)
    scored = predictions.dropna(subset=list(SCORES))
    assert list(result["metrics"]) == list(SCORES)
    for score in SCORES:
        metrics = result["metrics"][score]
        assert metrics["srocc"]["value"] == pytest.approx(stats.spearmanr(scored[score], scored["mos"]).statistic)
        assert metrics["plcc"]["value"] == pytest.approx(stats.pearsonr(scored[score], scored["mos"]).statistic)
        assert metrics["krocc"]["value"] == pytest.approx(stats.kendalltau(scored[score], scored["mos"]).statistic)
    pd.testing.assert_frame_equal(pd.read_parquet(output / "predictions.parquet"), predictions, check_dtype=False)
    aurora = scored[scored["generator"] == "aurora"]
    group = result["by_generator"]["aurora"]
    assert group["num_clips"] == len(aurora) == 4
    expected = stats.spearmanr(aurora["quality_score"], aurora["mos"]).statistic
    assert group["metrics"]["quality_score"]["srocc"]["value"] == pytest.approx(expected)
    assert set(result["by_category"]) == {"animal", "object"}


def test_an_unreadable_clip_is_reported_and_left_out_of_all_figures(evaluated):
    output, code = evaluated
    result = read_metrics(output)
    assert code == 1
    assert (result["num_clips"], result["num_failed"], result["num_in_part"]) == (7, 1, 8)
    assert [row["id"] for row in result["failed"]] == [BROKEN]
    predictions = pd.read_csv(output / "predictions.csv").set_index("id")
    assert "2-basalt.mp4" in predictions["error"][BROKEN]
    assert predictions["error"].drop(BROKEN).isna().all()
    assert BROKEN in (output / "report.md").read_text()


def test_the_report_and_its_plots(evaluated):
    output, _ = evaluated
    report = (output / "report.md").read_text()
    for score in SCORES:
        assert f"![{score}](scatter_{score}.png)" in report
        assert Image.open(output / f"scatter_{score}.png").size == (845, 650)
    for heading in ("All clips", "noiseless latent", "right prompt", "By generator", "By category"):
        assert heading in report
    assert "untrained" in report, "the report shows the caveat about the weights"


def test_the_prompt_swap_compares_faithful_clips_with_another_prompt(evaluated):
    output, _ = evaluated
    swap, figures = pd.read_csv(output / "prompt_swap.csv"), read_metrics(output)["prompt_swap"]
    assert BROKEN not in set(swap["id"])
    assert figures["num_clips"] == len(swap) == 7, "the only clip with a wrong colour is the broken clip"
    assert (swap["prompt"] != swap["other_prompt"]).all()
    assert figures["share"]["value"] == pytest.approx((swap["alignment_score"] > swap["other_score"]).mean())
    assert (swap["alignment_score"] != swap["other_score"]).any(), "clips are scored with the other prompt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate"),
        (["--baseline", "dover"], "--model DIR"),
        (["--baseline", "dover", "--model", "small", "--branches", "technical"], "--branches technical needs --model"),
        (["--predictions", "a.csv", "--prompt_swap"], "pass --model"),
        (["--model", "small", "--num_bootstrap", "-1"], "--num_bootstrap -1"),
        (["--model", "small", "--branches", "technical", "--prompt_swap"], "depends on the prompt"),
        (["--predictions", "missing.csv"], "missing.csv"),
        (["--model", "small", "--part", "train"], "pass --split_file"),
    ],
)
def test_a_wrong_call_says_why(arguments, message, data, tmp_path, capsys):
    assert main([*arguments, "--data", str(data), "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt_swap"], r"--prompt_swap: part 'test' of .* 1 different prompts, .* leave --prompt_swap out"),
        (["--predictions", "missing.csv"], "'missing.csv' cannot be read"),
    ],
)
def test_a_run_that_cannot_finish_fails_before_scoring(arguments, message, data, tmp_path, monkeypatch, capsys):
    """The two clips have the same prompt, so neither can be scored with another prompt."""
    monkeypatch.setattr("training.evaluation.program.model_scorer", lambda *_, **__: pytest.fail("the model is loaded"))
    split = tmp_path / "split.csv"
    split.write_text("id,split\n000-aurora,test\n000-basalt,test\n")
    arguments = ["--model", "small", *arguments, "--data", str(data), "--split_file", str(split)]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


# ------------------------------------------------------------------------------------------------------------ scoring


def counting_scorer(calls, identity="one"):
    """A scorer that gives the length of the prompt as the score, and appends the id of each clip to `calls`."""

    def score(clips):
        for row in clips:
            calls.append(row["id"])
            yield {"score": float(len(row["prompt"]))}

    return Scorer(score=score, score_names=("score",), identity=identity)


@pytest.fixture
def console():
    return Console(quiet=True)


def test_an_interrupted_run_continues(data, tmp_path, console):
    clips, path, calls = load_clips(str(data), part="test"), tmp_path / "scores.jsonl", []
    whole = score_clips(counting_scorer(calls), clips, path, False, console)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:20])  # stopped while writing a line
    calls.clear()
    assert score_clips(counting_scorer(calls), clips, path, False, console) == whole
    assert calls == clips["id"][3:]
    assert len(path.read_text().splitlines()) == 1 + len(clips)


def test_scores_of_another_model_are_not_reused(data, tmp_path, console):
    clips, path, calls = load_clips(str(data), part="test"), tmp_path / "scores.jsonl", []
    score_clips(counting_scorer(calls), clips, path, False, console)
    with pytest.raises(ValueError, match=r"another model.*--overwrite"):
        score_clips(counting_scorer(calls, "two"), clips, path, False, console)
    calls.clear()
    score_clips(counting_scorer(calls, "two"), clips, path, True, console)
    assert calls == clips["id"]


def test_a_clip_that_changed_is_scored_again(tmp_path, console):
    data, calls = make_data_set(tmp_path / "data"), []
    clips, path = load_clips(str(data), part="test"), tmp_path / "scores.jsonl"
    score_clips(counting_scorer(calls), clips, path, False, console)
    calls.clear()
    shutil.copy(data / "data/test/3-basalt.mp4", data / "data/test/1-aurora.mp4")
    score_clips(counting_scorer(calls), clips, path, False, console)
    assert calls == ["001-aurora"]


def test_clips_that_failed_or_have_a_nan_score_are_tried_again(data, tmp_path, console):
    clips, path = load_clips(str(data), part="test").select([0, 1]), tmp_path / "scores.jsonl"
    results = iter([{"score": float("nan")}, {"error": "out of reach"}, {"score": 1.0}, {"score": 2.0}])
    scorer = Scorer(lambda clips: (next(results) for _ in clips), ("score",), "one")
    first = score_clips(scorer, clips, path, False, console)
    assert "nan" in first[0]["error"]
    assert first[1] == {"error": "out of reach"}
    assert score_clips(scorer, clips, path, False, console) == [{"score": 1.0}, {"score": 2.0}]


# --------------------------------------------------------------------------------------------------- prediction files


def run_predictions(data, tmp_path, files, *options):
    output = tmp_path / "out"
    arguments = ["--predictions", *map(str, files), "--data", str(data), "--output", str(output)]
    return main([*arguments, "--num_bootstrap", "0", *options]), output


def test_metrics_side_by_side(data, rows, tmp_path, capsys):
    """One file of each format: the MOS, the negative MOS, and two scores. Labels in a file are not scores."""
    rows[["id", "mos"]].assign(score=2 * rows["mos"] + 1).to_csv(tmp_path / "exact.csv", index=False)
    rows[["id"]].assign(distance=-rows["mos"]).to_parquet(tmp_path / "distance.parquet")
    two = rows[["id"]].assign(a=rows["technical"], b=rows["aesthetic"], generator="x")
    (tmp_path / "two.jsonl").write_text(two.to_json(orient="records", lines=True))
    files = [tmp_path / "exact.csv", f"far={tmp_path / 'distance.parquet'}", tmp_path / "two.jsonl"]
    code, output = run_predictions(data, tmp_path, files, "--lower_is_better", "distance")
    metrics = read_metrics(output)["metrics"]
    assert code == 0
    assert list(metrics) == ["exact", "far", "two a", "two b"]
    for name in ("exact", "far"):
        assert metrics[name]["srocc"]["value"] == pytest.approx(1)
        assert metrics[name]["rmse"]["value"] == pytest.approx(0, abs=1e-9)
    expected = stats.spearmanr(rows["aesthetic"], rows["mos"]).statistic
    assert metrics["two b"]["srocc"]["value"] == pytest.approx(expected)
    assert "| far | 1.0000 | 1.0000 | 1.0000 | 0.0000 |" in capsys.readouterr().out


def test_missing_scores_are_refused_or_left_out_everywhere(data, rows, tmp_path, capsys):
    whole = rows[["id"]].assign(score=rows["technical"])
    whole.to_csv(tmp_path / "whole.csv", index=False)
    whole.assign(score=whole["score"].mask(whole.index == 3)).drop(index=6).to_csv(tmp_path / "part.csv", index=False)
    files = [tmp_path / "whole.csv", tmp_path / "part.csv"]
    assert run_predictions(data, tmp_path, files)[0] == 2
    error = capsys.readouterr().err
    assert "2 of 8 clips" in error and "001-basalt" in error and "--allow_missing" in error
    code, output = run_predictions(data, tmp_path, files, "--allow_missing")
    result = read_metrics(output)
    assert (code, result["num_clips"], result["missing"]) == (0, 6, {"whole": 0, "part": 2})
    assert result["metrics"]["whole"] == result["metrics"]["part"], "both scores use the same clips"
    assert "part: 2 clips without a score" in (output / "report.md").read_text()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("id,score\nx,1\nx,2\n", [], "'x' more than once"),
        ("name,score\nx,1\n", [], "no id"),
        ("id,score\nx,high\n", [], "no column of numbers"),
        ("id,score\nx,1\n", ["--columns", "quality"], "['quality']"),
        ("id,score\nx,1\n", ["--lower_is_better", "niqe"], "no such score"),
        ("", [], "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(content, options, message, data, tmp_path, capsys):
    (tmp_path / "scores.csv").write_text(content)
    assert run_predictions(data, tmp_path, [tmp_path / "scores.csv"], *options)[0] == 2
    assert message in capsys.readouterr().err


def test_predictions_of_one_evaluation_are_input_of_the_next(evaluated, tmp_path, capsys):
    """A file predictions.csv is named after its folder."""
    output, _ = evaluated
    folder = json.loads((output / "metrics.json").read_text())["data"]
    again = tmp_path / "again"
    arguments = ["--predictions", str(output / "predictions.csv"), "--columns", "quality_score", "--allow_missing"]
    assert main([*arguments, "--data", folder, "--output", str(again), "--num_bootstrap", "0"]) == 0
    (name, metrics), *others = read_metrics(again)["metrics"].items()
    assert (name, others) == (output.name, [])
    assert metrics["srocc"]["value"] == read_metrics(output)["metrics"]["quality_score"]["srocc"]["value"]


# ---------------------------------------------------------------------------------------------------------- intervals


def make_table(num_prompts, clips_per_prompt, seed=0):
    """Clips whose score and MOS depend on the prompt alone, so that more clips per prompt add no information."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=num_prompts).repeat(clips_per_prompt)
    noise = rng.normal(size=num_prompts).repeat(clips_per_prompt)
    prompts = np.arange(num_prompts).repeat(clips_per_prompt)
    table = pd.DataFrame({"id": np.arange(len(prompts)).astype(str), "mos": 50 + 10 * quality, "prompt_id": prompts})
    return table.assign(prompt=table["prompt_id"].astype(str), score=quality + noise)


def width(interval):
    return interval[1] - interval[0]


def test_intervals_by_prompt_do_not_shrink_with_more_clips_per_prompt():
    bootstrap = Bootstrap(num_bootstrap=300)
    single = all_figures(make_table(30, 1), ["score"], bootstrap)["metrics"]["score"]["srocc"]
    repeated = all_figures(make_table(30, 10), ["score"], bootstrap)["metrics"]["score"]["srocc"]
    assert repeated["value"] == pytest.approx(single["value"], abs=1e-9)
    assert single["by_prompt"] is None
    assert (single["low"], single["high"]) == tuple(single["by_clip"])
    assert (repeated["low"], repeated["high"]) == tuple(repeated["by_prompt"])
    assert width(repeated["by_prompt"]) == pytest.approx(width(single["by_clip"]), rel=0.25)
    assert width(repeated["by_clip"]) < 0.5 * width(repeated["by_prompt"])


def test_few_prompts_have_no_interval():
    metrics = all_figures(make_table(3, 5), ["score"], Bootstrap(50))["metrics"]["score"]
    assert metrics["srocc"]["value"] is not None
    assert (metrics["srocc"]["low"], metrics["srocc"]["by_prompt"]) == (None, None)


def test_constant_scores_have_no_figures():
    """A branch with an untrained head gives 0 for every clip."""
    table = make_table(6, 2).assign(score=0.0, generator="a", category="b")
    result = all_figures(table, ["score"], Bootstrap(10))
    assert {figure["value"] for figure in result["metrics"]["score"].values()} == {None}
    assert result["by_generator"]["a"]["metrics"]["score"]["srocc"]["value"] is None


def test_prompts_are_grouped_by_id_or_by_text():
    table = pd.DataFrame({"prompt": ["A red  dog", "a red dog", "", "", None]})
    assert len(set(prompt_groups(table)[:2])) == 1
    assert len(set(prompt_groups(table))) == 4, "clips without a prompt are not in one group"
    assert prompt_groups(table.assign(prompt_id=range(5))).tolist() == list("01234")


# -------------------------------------------------------------------------------------------------- synthetic benchmark


def test_each_branch_should_follow_its_own_latent(rows):
    table = rows.assign(
        technical_score=rows["technical"], aesthetic_score=-rows["aesthetic"], alignment_score=rows["technical"] + 1
    )
    matrix = latent_matrix(table, Bootstrap(0))
    assert matrix["srocc"]["technical_score"]["technical"]["value"] == pytest.approx(1)
    assert matrix["srocc"]["aesthetic_score"]["aesthetic"]["value"] == pytest.approx(-1)
    expected = stats.pearsonr(rows["technical"], rows["alignment"]).statistic
    assert matrix["plcc"]["alignment_score"]["alignment"]["value"] == pytest.approx(expected)
    assert matrix["own_latent_is_best"] == {"technical_score": True, "aesthetic_score": False, "alignment_score": False}
    assert matrix["own_score_is_best"]["technical"] is False, "the alignment score follows the latent equally well"
    assert latent_matrix(table.drop(columns="aesthetic"), Bootstrap(0)) is None


def test_alignment_failures_match_the_benchmark():
    assert set(ALIGNMENT_COSTS) == ALIGNMENT_FAILURES


def test_the_other_prompt_is_of_the_same_category_and_fixed_by_the_seed(rows):
    others = other_prompts(rows, seed=0)
    assert list(others.index) == [clip_id for clip_id in rows["id"] if clip_id != "002-basalt"], "it is not faithful"
    pairs = {0: PROMPTS[2], 1: PROMPTS[3], 2: PROMPTS[0], 3: PROMPTS[1]}
    assert all(others[clip_id] == pairs[int(clip_id[2])] for clip_id in others.index)
    wide = rows.drop(columns=["category", "failures"])
    assert other_prompts(wide, 1).equals(other_prompts(wide.iloc[::-1], 1)[wide["id"]])
    assert not other_prompts(wide, 1).equals(other_prompts(wide, 2))
    assert len(other_prompts(wide, 1)) == len(wide)


def test_the_share_of_right_prompts():
    right, wrong = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 2.0, -1.0])
    figures = prompt_swap_figures(right, wrong, np.array(["a", "b", "c", "d"]), Bootstrap(200))
    assert figures["share"]["value"] == 0.5, "equal scores are not a win"
    assert 0 <= figures["share"]["low"] < 0.5 < figures["share"]["high"] <= 1
    with pytest.raises(ValueError, match="--prompt_swap: 0 clips"):
        prompt_swap_figures([], [], np.array([]), Bootstrap(0))


# ----------------------------------------------------------------------------------------------------- many processes


@pytest.mark.slow
def test_two_processes_give_the_same_files_and_go_on_for_each_other(data, model_folder, tmp_path):
    """A run of two processes that was stopped goes on with one, and the scores are the same."""
    one, two = tmp_path / "one", tmp_path / "two"
    call = ["--model", str(model_folder), "--data", str(data), "--num_bootstrap", "0", "--prompt_swap"]
    assert main([*call, "--device", "cpu", "--output", str(one)]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "training.evaluate", *call, "--output", str(two)]
    subprocess.run(command, env=os.environ | {"ACCELERATE_USE_CPU": "true"}, check=True, timeout=200)
    assert len((two / "scores.jsonl").read_text().splitlines()) == 1 + 4, "half of the clips"
    assert len((two / "scores.process1.jsonl").read_text().splitlines()) == 1 + 4
    tables = [pd.read_csv(folder / "predictions.csv") for folder in (one, two)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)
    assert read_metrics(two)["prompt_swap"]["num_clips"] == read_metrics(one)["prompt_swap"]["num_clips"]
    lines = (two / "scores.process1.jsonl").read_text().splitlines()
    (two / "scores.process1.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    assert main([*call, "--device", "cpu", "--output", str(two)]) == 0
    assert not list(two.glob("*process*")), "their scores are in scores.jsonl now"
    pd.testing.assert_frame_equal(tables[0], pd.read_csv(two / "predictions.csv"), rtol=1e-6)
