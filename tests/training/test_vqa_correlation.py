"""The `evaluate` metric: compared with scipy and with hand-worked figures, and loaded by `evaluate`."""

import json
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy import stats

from training.vqa_correlation import correlations, logistic, resampling
from training.vqa_correlation import vqa_correlation as vqa
from training.vqa_correlation.correlations import CORRELATION_NAMES
from training.vqa_correlation.logistic import LOGISTIC_DETAILS, LOGISTIC_NAMES

FOLDER = Path(vqa.__file__).parent
GENERATORS = ["alpha", "beta", "gamma", "delta"]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that loads the metric by `evaluate.load`, with all caches in tmp_path."""
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load_metric(config_name=None, path=FOLDER, **kwargs):
        return evaluate.load(str(path), config_name, cache_dir=str(tmp_path / "metrics"), **kwargs)

    yield load_metric
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


def make_clips(num_samples=80, seed=0, noise=0.5):
    """Scores (N,), MOS (N,) with ties in both, generators and categories (N,)."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=num_samples)
    mos = np.clip(50 + 15 * quality, 0, 100).round(0)
    scores = (quality + noise * rng.normal(size=num_samples)).round(1)
    generators = [GENERATORS[index % 4] for index in range(num_samples)]
    categories = [["nature", "human"][index % 2] for index in range(num_samples)]
    return scores, mos, generators, categories


# ------------------------------------------------------------------------------------------------------------ figures


def test_hand_worked():
    result = vqa.correlation_metrics([1.0, 2.0, 4.0, 3.0], [10.0, 20.0, 30.0, 40.0])
    assert result["srocc"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert result["plcc"] == pytest.approx(0.8)
    assert result["krocc"] == pytest.approx(4 / 6)  # five concordant pairs, one discordant
    assert result["main_score"] == pytest.approx(0.8)
    # Matched scores are 10, 20, 40, 30 against 10, 20, 30, 40: two errors of 10.
    assert result["rmse"] == pytest.approx(np.sqrt(200 / 4))
    assert result["num_samples"] == 4
    assert result["rmse_logistic"] is None  # four parameters need five samples
    assert result["intervals"] == {}


@pytest.mark.parametrize("num_samples", [2, 3, 10, 500])
def test_equal_to_scipy(num_samples):
    rng = np.random.default_rng(4)
    scores, mos = rng.normal(size=num_samples).round(2), rng.uniform(0, 100, num_samples).round(0)
    result = vqa.correlation_metrics(scores, mos, logistic=False)
    assert result["srocc"] == pytest.approx(stats.spearmanr(scores, mos).statistic, abs=1e-12)
    assert result["plcc"] == pytest.approx(stats.pearsonr(scores, mos).statistic, abs=1e-12)
    assert result["krocc"] == pytest.approx(stats.kendalltau(scores, mos, variant="b").statistic, abs=1e-12)


def test_order_and_scale_change_nothing():
    scores, mos, generators, categories = make_clips()
    first = vqa.correlation_report(scores, mos, generators, categories, num_bootstrap=20)
    shuffled = np.random.default_rng(1).permutation(80)
    columns = [np.array(column)[shuffled] for column in (scores, mos, generators, categories)]
    assert vqa.correlation_report(*columns, num_bootstrap=20)["per_generator"] == first["per_generator"]
    assert vqa.correlation_metrics(*columns[:2], num_bootstrap=20)["intervals"] == first["intervals"]
    scaled = vqa.correlation_metrics(1000 * scores - 3, mos)
    assert scaled["rmse"] == pytest.approx(first["rmse"])
    assert scaled["rmse_logistic"] == pytest.approx(first["rmse_logistic"], rel=1e-6)


def test_sequences_and_tensors_are_taken():
    torch = pytest.importorskip("torch")
    scores, mos, *_ = make_clips()
    expected = vqa.correlation_metrics(scores, mos, logistic=False)
    tensor = torch.tensor(scores, requires_grad=True)
    assert vqa.correlation_metrics(tensor, list(mos), logistic=False) == expected
    half = torch.tensor(scores).bfloat16()
    assert vqa.correlation_metrics(half, mos, logistic=False)["num_samples"] == 80


# ---------------------------------------------------------------------------------------------------------- bootstrap


@pytest.mark.parametrize("matrix_limit", [correlations.MAX_CONCORDANCE_SAMPLES, 0])
@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_equal_the_metric_on_every_resample(monkeypatch, matrix_limit, clustered):
    """Draw the same samples or clusters and compute the metric on each resample; KROCC has two implementations."""
    monkeypatch.setattr(correlations, "MAX_CONCORDANCE_SAMPLES", matrix_limit)
    monkeypatch.setattr(resampling, "BLOCK_ELEMENTS", 1000)  # several blocks
    scores, mos, *_ = make_clips(40)
    order = np.lexsort((mos, scores))
    scores, mos = scores[order], mos[order]
    clusters, codes = None, np.arange(40)
    if clustered:
        clusters = [f"prompt {index % 7 if index < 30 else 7}" for index in range(40)]  # of different sizes
        codes = np.unique(clusters, return_inverse=True)[1]
    number = codes.max() + 1
    draws = np.random.default_rng(3).integers(0, number, (99, number))
    rows = [np.concatenate([np.flatnonzero(codes == code) for code in drawn]) for drawn in draws]
    expected = [vqa.correlation_metrics(scores[row], mos[row], logistic=False) for row in rows]
    settings = {"num_bootstrap": 99, "seed": 3}
    intervals = vqa.correlation_metrics(scores, mos, clusters=clusters, logistic=False, **settings)["intervals"]
    for name in CORRELATION_NAMES:
        values = [row[name] for row in expected]
        assert intervals[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-12), name
    means = [scores[row].mean() for row in rows]
    interval = resampling.mean_interval(scores, clusters, **settings)
    assert interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-12)


def test_interval_against_scipy_stats_bootstrap():
    scores, mos, *_ = make_clips(40)
    order = np.lexsort((mos, scores))
    scores, mos = scores[order], mos[order]
    expected = stats.bootstrap(
        (np.arange(40),),
        lambda index: stats.spearmanr(scores[index], mos[index]).statistic,
        vectorized=False,
        method="percentile",
        n_resamples=60,
        random_state=np.random.default_rng(5),
    ).confidence_interval
    interval = vqa.correlation_metrics(scores, mos, num_bootstrap=60, seed=5, logistic=False)["intervals"]["srocc"]
    assert interval == pytest.approx(list(expected), abs=1e-12)


def test_intervals_are_ordered_repeatable_and_hold_the_figure():
    scores, mos, *_ = make_clips(150)
    result = vqa.correlation_metrics(scores, mos, num_bootstrap=200, seed=1)
    assert set(result["intervals"]) == {*CORRELATION_NAMES, *LOGISTIC_NAMES}
    for name, (low, high) in result["intervals"].items():
        assert low < result[name] < high, name
    assert vqa.correlation_metrics(scores, mos, num_bootstrap=200, seed=1) == result
    assert vqa.correlation_metrics(scores, mos, num_bootstrap=200, seed=2)["intervals"] != result["intervals"]
    narrow = vqa.correlation_metrics(scores, mos, num_bootstrap=200, seed=1, confidence_level=0.5, logistic=False)
    assert np.ptp(narrow["intervals"]["srocc"]) < np.ptp(result["intervals"]["srocc"])


def test_interval_covers_the_true_correlation():
    """About 95 % of the intervals contain the true PLCC of a bivariate normal distribution."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 100).T
        low, high = vqa.correlation_metrics(x, y, num_bootstrap=200, logistic=False)["intervals"]["plcc"]
        covered += low <= 0.6 <= high
    assert 51 <= covered <= 60


def test_interval_is_null_where_most_resamples_are_constant():
    result = vqa.correlation_metrics([0.0] * 29 + [1.0], np.arange(30.0), num_bootstrap=100, logistic=False)
    assert result["intervals"]["srocc"] is not None  # constant in a third of the resamples
    result = vqa.correlation_metrics([1.0, 2.0], [1.0, 2.0], num_bootstrap=101, seed=1, logistic=False)
    assert result["intervals"]["srocc"] in (None, [1.0, 1.0])


# ----------------------------------------------------------------------------------------------------------- logistic


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
def test_fit_recovers_a_known_logistic(direction, scale):
    scores = np.linspace(-4, 4, 60) * scale
    upper, lower = (90.0, 20.0) if direction > 0 else (20.0, 90.0)
    mos = vqa.logistic_curve(scores, upper, lower, 0.5 * scale, 0.8 * scale)
    parameters, converged = vqa.fit_logistic(scores, mos)
    assert parameters == pytest.approx([upper, lower, 0.5 * scale, 0.8 * scale], rel=1e-5)
    assert converged
    result = vqa.correlation_metrics(scores, mos)
    assert result["rmse_logistic"] == pytest.approx(0, abs=1e-4)
    assert result["plcc_logistic"] == pytest.approx(1)
    assert result["plcc"] * direction < 0.99


@pytest.mark.parametrize("shape", ["line", "exponential", "step", "noise"])
def test_fit_is_never_worse_than_a_line(shape):
    rng = np.random.default_rng(2)
    x = rng.normal(size=200)
    y = {"line": 3 * x + 1, "exponential": np.exp(x), "step": (x > 0.3) * 10.0, "noise": rng.normal(size=200)}[shape]
    result = vqa.correlation_metrics(x, y)
    line = y.std() * np.sqrt(1 - result["plcc"] ** 2)
    assert result["rmse_logistic"] <= line * 1.001 + 1e-3
    assert abs(result["plcc_logistic"]) <= 1 + 1e-12


def test_fit_that_does_not_converge_says_so(monkeypatch):
    x = np.random.default_rng(0).normal(size=50)
    monkeypatch.setattr(logistic, "MAX_FIT_EVALUATIONS", 3)
    result = vqa.correlation_metrics(x, np.exp(x), num_bootstrap=5)
    assert result["logistic_converged"] is False
    assert np.isfinite(result["plcc_logistic"])
    assert result["plcc_logistic"] >= result["plcc"] - 1e-3


def test_no_fit_gives_nulls():
    result = vqa.correlation_metrics([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0], num_bootstrap=10)
    assert [result[name] for name in (*LOGISTIC_NAMES, *LOGISTIC_DETAILS)] == [None] * 4
    assert result["intervals"]["rmse_logistic"] is None
    assert "rmse_logistic" not in vqa.correlation_metrics(*make_clips()[:2], logistic=False)


# ------------------------------------------------------------------------------------------------------------- groups


def test_groups_equal_the_metric_on_each():
    scores, mos, generators, categories = make_clips()
    report = vqa.correlation_report(scores, mos, generators, categories, num_bootstrap=20)
    assert sorted(report["per_generator"]) == sorted(GENERATORS)
    assert sorted(report["per_category"]) == ["human", "nature"]
    rows = np.array(generators) == "beta"
    assert report["per_generator"]["beta"] == vqa.correlation_metrics(scores[rows], mos[rows], num_bootstrap=20)
    means = {name: mos[np.array(generators) == name].mean() for name in sorted(GENERATORS)}
    assert report["generator_means"]["mean_mos"] == pytest.approx(means)
    scores_of = [scores[np.array(generators) == name].mean() for name in sorted(GENERATORS)]
    expected = stats.pearsonr(scores_of, list(means.values())).statistic
    assert report["generator_means"]["plcc"] == pytest.approx(expected)
    low, high = report["generator_means"]["intervals"]["srocc"]
    assert -1 <= low <= high <= 1


def test_small_constant_and_absent_groups():
    scores = np.array([1.0, 2.0, 3.0, 5.0, 5.0, 5.0, 1.0, 2.0, 9.0])
    mos = np.array([1.0, 3.0, 2.0, 1.0, 2.0, 3.0, 1.0, 2.0, 4.0])
    groups = ["a"] * 3 + ["flat"] * 3 + ["two"] * 2 + [""]
    report = vqa.correlation_report(scores, mos, groups)
    assert list(report["per_generator"]) == ["a", "flat", "two"]
    assert report["per_generator"]["a"]["srocc"] == pytest.approx(0.5)
    for name, size in (("flat", 3), ("two", 2)):
        group = report["per_generator"][name]
        assert group["num_samples"] == size
        assert [group[key] for key in (*CORRELATION_NAMES, *LOGISTIC_NAMES)] == [None] * 7
    assert report["num_samples"] == 9
    pair = vqa.grouped_metrics(scores, mos, groups, min_group_size=2)["two"]
    assert pair["srocc"] == pytest.approx(1)


def test_generator_means_need_three():
    result = vqa.group_mean_metrics([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"], num_bootstrap=5)
    assert result["num_groups"] == 2
    assert result["srocc"] is None and result["plcc"] is None and result["intervals"] == {}
    result = vqa.group_mean_metrics([1.0, 3.0, 2.0], [10.0, 20.0, 30.0], ["a", "b", "c"])
    assert result["srocc"] == pytest.approx(0.5)


# -------------------------------------------------------------------------------------------------------------- pairs

# Differences 0.5, -0.1, 0.2, -0.4, 0.0; people: A, tie, B, B, tie.
PAIRS = ([1.0, 0.4, 0.7, 0.1, 0.3], [0.5, 0.5, 0.5, 0.5, 0.3], ["A", "same", "B", "B", "tie"])


def test_pairs_hand_worked():
    result = vqa.pairwise_accuracy(*PAIRS)
    assert result["accuracy_without_ties"] == pytest.approx(2 / 3)  # A and the second B of three human preferences
    # Threshold 0.1: ties at 0.0 and -0.1 (both right), 0.5 and -0.4 right, 0.2 wrong.
    assert result["accuracy_with_ties"] == pytest.approx(4 / 5)
    assert result["tie_threshold"] == pytest.approx(0.1)
    assert (result["num_pairs"], result["num_human_ties"], result["num_model_ties"]) == (5, 2, 2)


def test_pairs_with_a_given_threshold():
    assert vqa.pairwise_accuracy(*PAIRS, tie_threshold=0.0)["accuracy_with_ties"] == pytest.approx(3 / 5)
    assert vqa.pairwise_accuracy(*PAIRS, tie_threshold=0.45)["accuracy_with_ties"] == pytest.approx(3 / 5)
    assert vqa.pairwise_accuracy(*PAIRS, tie_threshold=9)["accuracy_with_ties"] == pytest.approx(2 / 5)
    assert vqa.pairwise_accuracy(*PAIRS, tie_threshold=9)["accuracy_without_ties"] == pytest.approx(2 / 3)


def test_equal_scores_are_wrong_without_ties_and_numbers_name_preferences():
    result = vqa.pairwise_accuracy([1.0, 1.0, 2.0], [1.0, 0.0, 3.0], [1, 1.0, -1])
    assert result["accuracy_without_ties"] == pytest.approx(2 / 3)
    assert result["accuracy_with_ties"] == pytest.approx(2 / 3)
    assert result["tie_threshold"] == 0.0
    every = vqa.pairwise_accuracy([1.0, 2.0], [2.0, 1.0], [0, 0], num_bootstrap=10)
    assert every["accuracy_without_ties"] is None and every["intervals"]["accuracy_without_ties"] is None
    assert every["accuracy_with_ties"] == 1.0


def test_calibration_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    scores_a, scores_b = rng.normal(size=60).round(1), rng.normal(size=60).round(1)
    preferences = rng.integers(-1, 2, 60)
    result = vqa.pairwise_accuracy(scores_a, scores_b, preferences, num_bootstrap=50)
    candidates = [0.0, *np.abs(scores_a - scores_b)]
    brute = []
    for threshold in candidates:
        difference = scores_a - scores_b
        label = np.where(np.abs(difference) <= threshold, 0, np.sign(difference))
        brute.append((label == preferences).mean())
    assert result["accuracy_with_ties"] == pytest.approx(max(brute))
    fixed = vqa.pairwise_accuracy(scores_a, scores_b, preferences, tie_threshold=result["tie_threshold"])
    assert fixed["accuracy_with_ties"] == pytest.approx(max(brute))
    for low, high in result["intervals"].values():
        assert 0 <= low < high <= 1
    decided = preferences != 0
    expected = (np.sign(scores_a - scores_b) == preferences)[decided].mean()
    assert result["accuracy_without_ties"] == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------------- errors

GOOD = [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("scores", "mos", "message"),
    [
        ([0.5, 0.5, 0.5], GOOD, r"scores is constant \(all 3 values are 0.5\).*weights are loaded"),
        (GOOD, [7, 7, 7], "mos is constant"),
        ([0.1 + 1e-17] * 2 + [0.1], GOOD, "scores is constant"),
        ([1.0, float("nan"), 2.0], GOOD, r"scores holds 1 NaN or infinite values \(first: nan at index 1\)"),
        (GOOD, [1.0, 2.0, float("inf")], "mos holds 1 NaN or infinite values"),
        ([1.0, None, 2.0], GOOD, "scores holds 1 NaN"),
        ([1.0], [2.0], "scores has 1 samples; pass at least 2"),
        ([], [], "scores has 0 samples"),
        (GOOD, [1.0, 2.0], "scores has 3 samples but mos has 2"),
        (np.ones((3, 1)), GOOD, r"scores has shape \(3, 1\).*squeeze"),
        (GOOD, np.ones((1, 3)), r"mos has shape \(1, 3\)"),
        (2.0, GOOD, r"scores has shape \(\)"),
        (["a", "b", "c"], GOOD, "scores must be a 1-D array"),
        (None, GOOD, "scores is missing"),
    ],
)
def test_errors_name_the_argument(scores, mos, message):
    with pytest.raises(ValueError, match=message):
        vqa.correlation_metrics(scores, mos)


def test_errors_of_settings_groups_and_pairs():
    with pytest.raises(ValueError, match="num_bootstrap=-1"):
        vqa.correlation_metrics(GOOD, GOOD, num_bootstrap=-1)
    with pytest.raises(ValueError, match="confidence_level=95"):
        vqa.correlation_metrics(GOOD, GOOD, confidence_level=95)
    with pytest.raises(ValueError, match=r"generators has 2 samples but predictions has 3.*grouped"):
        vqa.correlation_report(GOOD, GOOD, ["a", "b"])
    with pytest.raises(TypeError, match="categories='abc' is one string"):
        vqa.correlation_report(GOOD, GOOD, categories="abc")
    with pytest.raises(ValueError, match="preferences holds 'left' at index 1"):
        vqa.pairwise_accuracy(GOOD, [3.0, 2.0, 1.0], ["A", "left", "B"])
    with pytest.raises(ValueError, match="tie_threshold=-1"):
        vqa.pairwise_accuracy(GOOD, [3.0, 2.0, 1.0], ["A", "A", "B"], tie_threshold=-1)
    with pytest.raises(ValueError, match="scores_a with scores_b is constant"):
        vqa.pairwise_accuracy([1.0, 1.0], [1.0, 1.0], ["A", "B"])


# ----------------------------------------------------------------------------------------------- through `evaluate`


def test_load_by_folder_and_by_file(load):
    scores, mos, *_ = make_clips()
    results = [
        load(path=path).compute(predictions=scores, references=mos, num_bootstrap=10) for path in (FOLDER, vqa.__file__)
    ]
    assert results[0] == results[1] == vqa.correlation_metrics(scores, mos, num_bootstrap=10)
    assert json.loads(json.dumps(results[0])) == results[0]
    assert load().name == "vqa_correlation"


def test_add_and_add_batch(load):
    scores, mos, generators, categories = make_clips()
    metric = load("grouped")
    for start in range(0, 70, 30):
        rows = slice(start, min(start + 30, 70))
        metric.add_batch(
            predictions=scores[rows], references=mos[rows], generators=generators[rows], categories=categories[rows]
        )
    for row in range(70, 80):
        metric.add(prediction=scores[row], reference=mos[row], generators=generators[row], categories=categories[row])
    expected = vqa.correlation_report(scores, mos, generators, categories, num_bootstrap=10)
    assert metric.compute(num_bootstrap=10) == expected
    # The same lists at compute time, in the default configuration.
    result = load().compute(
        predictions=scores, references=mos, generators=generators, categories=categories, num_bootstrap=10
    )
    assert result == expected


def test_one_group_column(load):
    scores, mos, generators, _ = make_clips()
    result = load("generators").compute(predictions=scores, references=mos, generators=generators, num_bootstrap=0)
    assert "per_generator" in result and "per_category" not in result


def test_pairs_through_evaluate(load):
    scores_a, scores_b, preferences = PAIRS
    metric = load("pairs")
    metric.add_batch(predictions_a=scores_a[:3], predictions_b=scores_b[:3], preferences=preferences[:3])
    metric.add(predictions_a=scores_a[3], predictions_b=scores_b[3], preferences=preferences[3])
    metric.add_batch(predictions_a=scores_a[4:], predictions_b=scores_b[4:], preferences=[0])
    assert metric.compute(num_bootstrap=20) == vqa.pairwise_accuracy(*PAIRS, num_bootstrap=20)
    with pytest.raises(ValueError, match="predictions_a has 2 samples but preferences has 1"):
        metric.compute(predictions_a=[1.0, 2.0], predictions_b=[2.0, 1.0], preferences=["A"])


def test_errors_through_evaluate_leave_it_usable(load):
    metric = load()
    with pytest.raises(ValueError, match="predictions has 2 samples but references has 1"):
        metric.compute(predictions=[1.0, 2.0], references=[1.0])
    with pytest.raises(ValueError, match=r"predictions has shape \(3, 1\)"):
        metric.add_batch(predictions=np.ones((3, 1)), references=GOOD)
    with pytest.raises(ValueError, match="references is missing"):
        metric.add_batch(predictions=GOOD)
    with pytest.raises(ValueError, match="predictions is constant"):
        metric.compute(predictions=[1.0, 1.0], references=[1.0, 2.0])
    with pytest.raises(ValueError, match="predictions holds 1 NaN"):
        metric.compute(predictions=[1.0, float("nan"), 1.0], references=GOOD)
    with pytest.raises(ValueError, match="predictions has 1 samples"):
        metric.compute(predictions=[1.0], references=[1.0])
    with pytest.raises(TypeError, match="bootstraps"):
        metric.compute(predictions=GOOD, references=GOOD, bootstraps=3)
    assert metric.compute(predictions=GOOD, references=[2.0, 3.0, 1.0], num_bootstrap=0)["srocc"] == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="generators is missing"):
        load("generators").add_batch(predictions=GOOD, references=GOOD)
    with pytest.raises(ValueError, match=r"config_name='paris' is unknown.*'pairs'"):
        load("paris")


def test_combine(load):
    scores, mos, generators, _ = make_clips()
    combined = evaluate.combine({"overall": load(), "by_generator": load("generators", experiment_id="second")})
    combined.add_batch(predictions=scores[:50], references=mos[:50], generators=generators[:50])
    combined.add_batch(predictions=scores[50:], references=mos[50:], generators=generators[50:])
    result = combined.compute(num_bootstrap=0)
    assert result["overall_srocc"] == result["by_generator_srocc"] == vqa.correlation_metrics(scores, mos)["srocc"]
    assert sorted(result["per_generator"]) == sorted(GENERATORS)
    alone = evaluate.combine([load()])
    assert "srocc" in alone.compute(predictions=scores, references=mos, num_bootstrap=0)


WORKER = """
import json, sys
sys.modules["transformers"] = None  # evaluate does not need it, and starts four times as fast without it
import evaluate
del sys.modules["transformers"]
folder, cache, rank, share = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
processes = {"num_process": 2, "process_id": rank, "experiment_id": "two", "timeout": 60}
metric = evaluate.load(folder, "generators", cache_dir=cache, **processes)
for start in range(0, len(share["predictions"]), 16):
    metric.add_batch(**{name: values[start:start + 16] for name, values in share.items()})
print(json.dumps(metric.compute(num_bootstrap=20)))
"""


def test_two_processes(tmp_path):
    scores, mos, generators, _ = make_clips()
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "", "USE_TORCH": "0"}
    processes = []
    for rank in range(2):
        share = {
            "predictions": scores[rank::2].tolist(),
            "references": mos[rank::2].tolist(),
            "generators": generators[rank::2],
        }
        command = [sys.executable, "-c", WORKER, str(FOLDER), str(tmp_path / "metrics"), str(rank), json.dumps(share)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    answers = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        answers.append(json.loads(stdout))
    assert answers[1] is None
    expected = vqa.correlation_report(scores, mos, generators, num_bootstrap=20)
    assert answers[0]["num_samples"] == 80
    assert answers[0] == json.loads(json.dumps(expected))
