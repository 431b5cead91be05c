"""Percentiles among reference clips, and curves to mean opinion scores."""

import copy
import csv
import json

import numpy as np
import pytest
import torch
from scipy import stats

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAPipeline, ClipScorer, load_model, load_pipeline
from modeling_aigcvqa.calibration.curve import fit_curve, isotonic_points
from modeling_aigcvqa.cli import main
from modeling_aigcvqa.names_aigcvqa import PERCENTILES, QUALITY_MOS, SCALE, SCORES
from modeling_aigcvqa.scale_aigcvqa import RANGES, calibrated, make_reference, on_scale, percentile, range_of
from tests.conftest import moving_gradient, write_video

ALL = ("technical", "aesthetic", "alignment")
RNG = np.random.default_rng(0)


def reference_of(values, branches=ALL):
    return make_reference("test clips", dict.fromkeys(SCORES, values), branches)


def test_percentiles_are_those_of_scipy():
    values = RNG.normal(50, 10, 2001)
    quantiles = reference_of(values)["quantiles"]["quality_score"]
    for value in RNG.normal(50, 12, 50):
        assert percentile(value, quantiles) == pytest.approx(stats.percentileofscore(values, value, "mean"), abs=0.3)


@pytest.mark.parametrize(
    ("value", "expected"), [(-1, 0), (0, 0), (5, 25), (10, 50), (20, 100), (21, 100), (12.5, 62.5)]
)
def test_percentiles_at_and_between_the_quantiles(value, expected):
    assert percentile(value, np.linspace(0, 20, 101).tolist()) == pytest.approx(expected)


def test_equal_reference_scores_count_half():
    values = [1.0] * 30 + [2.0] * 40 + [3.0] * 30
    quantiles = reference_of(values)["quantiles"]["quality_score"]
    assert percentile(2.0, quantiles) == pytest.approx(50, abs=1)
    assert percentile(1.0, quantiles) == pytest.approx(15, abs=1)
    assert percentile(1.5, quantiles) == pytest.approx(30, abs=1)


def test_each_word_is_a_fifth():
    words = [range_of(value) for value in np.arange(0.5, 100)]
    assert [words.count(name) for name in RANGES] == [20] * 5
    assert (range_of(0), range_of(100)) == (RANGES[0], RANGES[-1])


def test_quality_has_no_percentile_among_another_sum():
    reference = reference_of(RNG.normal(size=100), ("technical", "aesthetic"))
    scores = dict.fromkeys(SCORES, 0.0)
    assert set(on_scale(scores, reference, None, ALL)) == set(PERCENTILES) - {"quality_percentile"}
    assert set(on_scale(scores, reference, None, ("technical", "aesthetic"))) == set(PERCENTILES)
    assert on_scale({"error": "unreadable"}, reference, None, ALL) == {}


def test_with_other_frames_alignment_and_quality_have_no_percentile():
    """The scores of another number of frames are others; what was measured does not hold for them."""
    plain, fewer = (load_pipeline("small", alignment_num_frames=frames).model.config for frames in (4, 2))
    scores = dict.fromkeys(SCORES, 20.0)
    assert set(plain.on_scale(scores)) == set(PERCENTILES)
    assert plain.quality_interval is not None
    assert set(fewer.on_scale(scores)) == {"technical_percentile", "aesthetic_percentile"}
    assert fewer.quality_interval is None


def test_too_few_reference_clips_are_refused():
    with pytest.raises(ValueError, match=r"19 clips .* at least 20"):
        reference_of(range(19))


@pytest.mark.parametrize(
    "change",
    [
        {"quantiles": {"quality_score": [1.0] * 7}},
        {"quantiles": {"quality_score": list(range(101))[::-1]}},
        {"quantiles": {"quality_score": [float("nan")] * 101}},
        {"quantiles": {"beauty_score": [1.0] * 101}},
        {"branches": "technical"},
        {"of": None},
        {"clips": 0},
    ],
)
def test_a_config_refuses_a_reference_that_is_none(change):
    with pytest.raises(ValueError, match="reference"):
        AIGCVQAConfig(reference=reference_of(range(100)) | change)


def test_scores_on_another_scale_have_no_reference():
    config = AIGCVQAConfig(reference=reference_of(range(100)))
    config.rescale(50, 10)
    assert config.reference is None


def test_isotonic_points_rise_and_average_ties():
    scores, mos = isotonic_points(np.array([1.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 5.0, 3.0, 9.0]))
    assert scores.tolist() == [1.0, 2.5, 4.0]
    assert mos.tolist() == [1.0, 4.0, 9.0]


def test_the_measured_error_is_that_of_new_clips():
    """Curves are fitted to 200 clips each; their stated error must be what 2,000 other clips show."""
    rng = np.random.default_rng(1)

    def sample(number):
        quality = rng.normal(50, 10, number)
        return quality, 60 / (1 + np.exp(-(quality - 55) / 6)) + rng.normal(0, 5, number)

    stated, shown, covered = [], [], []
    for _ in range(10):
        curve = fit_curve(*sample(200), [None] * 200)
        stored = curve.to_config("clips", ALL)
        new, opinions = sample(2000)
        estimates = np.array([calibrated(value, stored) for value in new])
        assert curve.is_useful
        assert (np.diff(estimates[np.argsort(new)]) >= 0).all(), "monotone"
        stated.append(curve.error)
        shown.append(np.abs(estimates - opinions).mean())
        covered.append((np.abs(estimates - opinions) <= curve.half_width).mean())
    assert np.mean(shown) == pytest.approx(np.mean(stated), rel=0.05)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_a_mos_that_quality_does_not_tell_of_is_not_fitted():
    rng = np.random.default_rng(2)
    assert not fit_curve(rng.normal(size=60), rng.normal(size=60), [None] * 60).is_useful
    quality = rng.normal(size=60)
    assert not fit_curve(quality, -quality, [None] * 60).is_useful, "it falls"
    assert not fit_curve([1.0] * 30, rng.normal(size=30), [None] * 30).is_useful


def test_clips_of_a_prompt_are_in_one_fold():
    """The MOS is that of the prompt, and quality says nothing: only a leak could make the curve useful."""
    rng = np.random.default_rng(3)
    prompts = [f"prompt {number % 20}" for number in range(200)]
    mos = rng.normal(size=20)[np.arange(200) % 20]
    quality = np.arange(200) % 20 + 0.001 * rng.normal(size=200)
    found = fit_curve(quality, mos, prompts)
    assert found.folds_by == "prompt"
    assert not found.is_useful


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """24 clips, the later the noisier, with a MOS that falls with the noise."""
    folder = tmp_path_factory.mktemp("rated")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        clean = moving_gradient(16, 96, 128).astype(np.float64)
        frames = (clean + 4 * number * rng.standard_normal(clean.shape)).clip(0, 255).astype(np.uint8)
        write_video(folder / f"{number}.mp4", frames)
        rows.append({"file": f"{number}.mp4", "prompt": f"a gradient, take {number}", "mos": 90 - 3 * number})
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def calibrated_model(rated):
    assert main(["calibrate", "--manifest", str(rated / "clips.csv"), "--output", str(rated / "model")]) in (0, 1)
    return rated / "model"


def test_a_calibrated_model_gives_the_same_scores_and_their_percentiles(rated, calibrated_model, capsys):
    output, again = rated / "scores.csv", rated / "again.csv"
    arguments = ["score", "--manifest", str(rated / "clips.csv")]
    assert main([*arguments, "--model", str(calibrated_model), "--scale", "--output", str(output)]) == 0
    shown = capsys.readouterr()
    assert "the clips of clips.csv (24 clips)" in " ".join(shown.err.split())
    assert main([*arguments, "--output", str(again)]) == 0
    with output.open() as file, again.open() as other:
        rows, plain = list(csv.DictReader(file)), list(csv.DictReader(other))
    assert not set(SCALE) & set(plain[0]), "the default output is as before"
    for row, same in zip(rows, plain, strict=True):
        assert [row[name] for name in SCORES] == [same[name] for name in SCORES]
    order = np.argsort([float(row["quality_score"]) for row in rows])
    percentiles = np.array([float(row["quality_percentile"]) for row in rows])[order]
    assert (np.diff(percentiles) >= 0).all()
    assert (percentiles[0], percentiles[-1]) == (0, 100)


def test_an_interrupted_run_with_scale_goes_on(rated, calibrated_model):
    output = rated / "part.csv"
    arguments = ["score", "--manifest", str(rated / "clips.csv"), "--model", str(calibrated_model), "--scale"]
    assert main([*arguments, "--output", str(output)]) == 0
    whole = output.read_bytes()
    output.write_bytes(b"\n".join(whole.split(b"\n")[:9])[:-5])
    assert main([*arguments, "--output", str(output)]) == 0
    assert output.read_bytes() == whole


def test_calibrating_from_a_file_of_scores_gives_the_same_model(rated, calibrated_model, capsys):
    scores = rated / "for_calibration.jsonl"
    assert main(["score", "--manifest", str(rated / "clips.csv"), "--output", str(scores)]) == 0
    made = rated / "from_scores"
    main(["calibrate", "--manifest", str(scores), "--of", "the clips of clips.csv", "--output", str(made)])
    for name in ("reference", "calibration"):
        before, after = (json.loads((folder / "config.json").read_text())[name] for folder in (calibrated_model, made))
        assert before == after
    capsys.readouterr()
    other = ["--model", str(calibrated_model), "--output", str(rated / "other")]
    assert main(["calibrate", "--manifest", str(scores), *other]) == 2
    assert "holds scores of another model ('small')" in capsys.readouterr().err
    (rated / "for_calibration.jsonl.run.json").unlink()
    assert main(["calibrate", "--manifest", str(scores), "--output", str(rated / "other")]) == 2
    assert "no record beside it says of which model" in capsys.readouterr().err


def test_a_folder_run_has_percentiles_on_request(rated, calibrated_model):
    import pyarrow.parquet as pq

    folder = rated / "run"
    arguments = ["score", "--manifest", str(rated / "clips.csv"), "--model", str(calibrated_model), "--decoders", "0"]
    assert main([*arguments, "--scale", "--output", f"{folder}/"]) == 0
    rows = pq.read_table(folder / "scores").to_pylist()
    assert all(0 <= row["quality_percentile"] <= 100 for row in rows)
    assert main([*arguments, "--output", f"{rated / 'plain_run'}/"]) == 0
    assert "quality_percentile" not in pq.read_table(rated / "plain_run" / "scores").column_names


def test_pipeline_and_scorer_give_percentiles_on_request(rated, calibrated_model):
    item = {"video": str(rated / "3.mp4"), "prompt": "a gradient, take 3"}
    scorer = ClipScorer(model=str(calibrated_model), scale=True)
    plain, scaled = scorer.pipeline(item), scorer.pipeline(item, scale=True)
    assert set(scaled) - set(plain) <= set(SCALE)
    assert set(PERCENTILES) <= set(scaled)
    batch = scorer({"video": [item["video"]], "prompt": [item["prompt"]]})
    assert {name: batch[name][0] for name in PERCENTILES} == {name: scaled[name] for name in PERCENTILES}
    assert (batch[QUALITY_MOS][0] is None) == (QUALITY_MOS not in scaled)
    with pytest.raises(ValueError, match="scale='yes'"):
        scorer.pipeline(item, scale="yes")


def test_a_model_without_a_scale_says_what_to_do(rated, small_model, processor, capsys):
    model = copy.copy(small_model)
    model.config = copy.deepcopy(small_model.config)
    model.config.forget_scale()
    pipeline = AIGCVQAPipeline(model=model, processor=processor, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"no scale.*aigcvqa calibrate"):
        pipeline({"video": str(rated / "3.mp4"), "prompt": "a gradient"}, scale=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mos": "good"}, r"mos is 'good'; expected a number"),
        ({"mos": "nan"}, r"mos is 'nan'; expected a number"),
    ],
)
def test_a_mos_that_is_no_number_is_named(rated, change, message, tmp_path, capsys):
    with (rated / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows[5] |= change
    path = tmp_path / "bad.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "file": str(rated / row["file"])} for row in rows)
    assert main(["calibrate", "--manifest", str(path), "--output", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "5.mp4" in error
    assert not (tmp_path / "model").exists()


def test_the_calibrated_model_loads_as_any_other(calibrated_model):
    model, _ = load_model(str(calibrated_model))
    assert model.config.reference["clips"] == 24
    assert "24 clips" in model.config.about_scale
