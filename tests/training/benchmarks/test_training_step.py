import json

import pytest

from tests.training.tiny import forget_accelerator
from training.benchmarks import training_step

ARGUMENTS = ["--model", "small", "--cpu", "--batch_size", "2", "--batches", "2", "--repeats", "1"]


@pytest.fixture(autouse=True)
def new_accelerator():
    forget_accelerator()
    yield
    forget_accelerator()


def rows_of(tmp_path, *arguments):
    output = tmp_path / "benchmark.json"
    assert training_step.main([*ARGUMENTS, *arguments, "--output", str(output)]) == 0
    return json.loads(output.read_text())["rows"]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_step_and_its_loader_are_timed_and_compared(tmp_path, workers, capsys):
    loader, step = rows_of(tmp_path, "--num_workers", workers, "--mixed_precision", "no")
    assert loader["part"] == f"loader, {workers} workers" and step["part"] == "step, technical, aesthetic, alignment"
    assert step["clips_per_second"] == pytest.approx(2 / step["seconds"])
    assert step["gflop_per_second"] == pytest.approx(step["gflop"] / step["seconds"])
    expected = max(0.0, 1 - loader["clips_per_second"] / step["clips_per_second"])
    assert step["data_wait_share"] == pytest.approx(expected)
    assert f"{expected:.1%} of a step" in capsys.readouterr().out


@pytest.mark.slow
def test_frozen_parameters_need_no_work_in_the_backward_pass(tmp_path):
    options = ["--num_workers", "0", "--branches", "alignment", "--mixed_precision", "no", "--cache", "--unfixed_ratio"]
    work = [rows_of(tmp_path, *options, ratio)[1]["gflop"] for ratio in ("0", "0.7", "1")]
    assert work[0] < work[1] < work[2] < 3.1 * work[0]


def test_a_batch_of_one_is_refused(capsys):
    with pytest.raises(SystemExit):
        training_step.main(["--model", "small", "--batch_size", "1"])
    assert "at least 2" in capsys.readouterr().err
