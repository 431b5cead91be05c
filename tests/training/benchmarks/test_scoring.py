import json

import pytest
import torch

from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from training.benchmarks import scoring, timing


def rows_of(tmp_path, *options) -> list[dict]:
    """The rows that the benchmark writes for the small model on the CPU."""
    output = tmp_path / "benchmark.json"
    assert (
        scoring.main(["--model", "small", "--device", "cpu", "--repeats", "1", *options, "--output", str(output)]) == 0
    )
    return json.loads(output.read_text())["rows"]


@pytest.mark.slow
def test_a_table_and_json_of_the_small_model(tmp_path, capsys):
    rows = {row["part"]: row for row in rows_of(tmp_path, "--num_frames", "4", "--compare")}
    assert set(rows) == {"decode", "decode and both views", *BRANCHES, "all branches"}
    for branch in BRANCHES:
        assert rows[branch]["oracle_difference"] < 1e-4, "the model and the reference implementation agree"
        assert rows[branch]["seconds"] > 0
        assert rows[branch]["gflop"] > 0
    assert rows["all branches"]["gflop"] == pytest.approx(sum(rows[branch]["gflop"] for branch in BRANCHES))
    at_peak = sum(rows[branch]["seconds"] * rows[branch]["share_of_peak"] for branch in BRANCHES)
    assert rows["all branches"]["share_of_peak"] == pytest.approx(at_peak / rows["all branches"]["seconds"])
    assert "technical" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [["--depthwise_2d", "--branches", "aesthetic"], pytest.param(["--compile"], marks=pytest.mark.slow)],
    ids=["depthwise convolutions in 2D", "compiled"],
)
def test_other_ways_to_compute_give_the_same_scores(tmp_path, options):
    rows = rows_of(tmp_path, "--num_frames", "4", "--compare", *options)
    differences = [row["oracle_difference"] for row in rows if "oracle_difference" in row]
    assert differences and max(differences) < 1e-4


def test_no_large_products_in_an_emulated_dtype(monkeypatch):
    monkeypatch.setattr(timing, "EMULATED_SECONDS", 0.0)
    monkeypatch.setattr(timing, "PEAK_SIZES", {"cpu": (32, 10**7)})  # the second does not fit into memory
    times, peak = timing.seconds_and_peak({"nothing": lambda: None}, torch.device("cpu"), torch.float32, 1)
    assert set(times) == {"nothing"} and peak > 0


def test_flops_are_counted_right():
    left, right = torch.randn(64, 32), torch.randn(32, 16)
    assert timing.count_gflop(lambda: left @ right) == pytest.approx(2 * 64 * 32 * 16 / 1e9)
    q = torch.randn(2, 3, 10, 8)
    attended = timing.count_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert attended == pytest.approx(2 * 2 * 2 * 3 * 10 * 10 * 8 / 1e9), "attention counts, on the CPU too"


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_stream_of_clips(tmp_path, workers):
    options = ["--stream", "4", "--batch_sizes", "2", "--num_frames", "2", "--num_workers", workers]
    (row,) = rows_of(tmp_path, *options)
    assert 0 < row["model_busy_share"] < 1
    assert row["clips_per_second"] == pytest.approx(4 / row["seconds"])
    assert len(row["memory_by_tenths_mib"]) == 4
    assert row["memory_growth_mib"] == pytest.approx(row["memory_by_tenths_mib"][-1] - row["memory_by_tenths_mib"][2])


def test_a_folder_without_clips_is_named(tmp_path, capsys):
    assert scoring.main(["--model", "small", "--device", "cpu", "--stream", "1", "--folder", str(tmp_path)]) == 2
    assert "has no .mp4 file" in capsys.readouterr().err


def test_zero_frames_for_the_alignment_branch_are_refused(capsys):
    with pytest.raises(SystemExit):
        scoring.main(["--model", "small", "--alignment_num_frames", "0"])
    assert "--alignment_num_frames 0: expected at least 1" in capsys.readouterr().err
