"""Experiment trackers, tried offline: what they get, and that a resumed run goes on in the same place."""

import json
import os
import sqlite3

import pytest

from tests.training.tiny import forget_accelerator, tiny_data, tiny_folder
from training import stage1
from training.common import checkpoints, loop

LOGGED = {"loss/technical", "learning_rate", "gradient_norm", "clips_per_second", "technical/srocc"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    data = tiny_data(tmp_path_factory.mktemp("data"))
    return data, tiny_folder(tmp_path_factory.mktemp("start"))


class Interrupted(Exception):
    pass


def run_twice(folders, output, tracker, monkeypatch):
    """A run that is interrupted after its first epoch and resumed."""
    (data, split_file), start = folders
    options = ["--data", str(data), "--split_file", str(split_file), "--init_from", str(start), "--epochs", "2"]
    options += ["--batch_size", "4", "--num_workers", "0", "--log_steps", "2", "--log_with", tracker]
    options += ["--output", str(output), "--branches", "technical", "--warmup_epochs", "0"]

    def save_and_stop(accelerator, folder, progress, kept):
        checkpoints.save_checkpoint(accelerator, folder, progress, kept)
        if progress.step == 3:
            for entry in accelerator.trackers:
                entry.finish()
            raise Interrupted

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget_accelerator()
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_checkpoint", save_and_stop)
        stage1.main(options)
    forget_accelerator()
    stage1.main(options)
    return json.loads((output / "tracker.json").read_text())["run"]


def test_tensorboard(folders, tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_twice(folders, tmp_path / "out", "tensorboard", monkeypatch)
    events = event_accumulator.EventAccumulator(str(tmp_path / "out" / "aigcvqa-stage1"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= LOGGED
    assert [event.step for event in events.Scalars("gradient_norm")] == [1, 2, 3, 4, 5, 6]
    assert all(event.value > 0 for event in events.Scalars("clips_per_second"))
    (first, *_) = (tmp_path / "out" / "aigcvqa-stage1").glob("*/hparams.yml")
    assert "batch_size: 4" in first.read_text() and "branches: technical" in first.read_text()


def test_wandb_offline(folders, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = run_twice(folders, tmp_path / "out", "wandb", monkeypatch)
    written = list((tmp_path / "out" / "wandb").glob(f"offline-run-*-{run}/run-{run}.wandb"))
    assert len(written) == 2, "both parts have the id of the run"
    content = b"".join(file.read_bytes() for file in written)
    assert all(name.encode() in content for name in LOGGED | {"batch_size"})


def test_trackio_offline(folders, tmp_path, monkeypatch):
    utils = pytest.importorskip("trackio.utils", reason="trackio is not installed")
    run = run_twice(folders, tmp_path / "out", "trackio", monkeypatch)
    with sqlite3.connect(utils.TRACKIO_DIR / "aigcvqa-stage1.db") as connection:
        name = (f"out-{run}",)
        rows = connection.execute("select step, metrics from metrics where run_name = ?", name).fetchall()
        (*_, (config,)) = connection.execute("select config from configs where run_name = ?", name).fetchall()
    assert {key for _, metrics in rows for key in json.loads(metrics)} >= LOGGED
    assert {step for step, _ in rows} >= {1, 2, 3, 4, 5, 6}
    assert json.loads(config)["batch_size"] == 4


def test_a_tracker_that_is_not_known_is_named(folders, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="banana"):
        run_twice(folders, tmp_path / "out", "banana", monkeypatch)


@pytest.mark.parametrize(("scores", "epochs"), [([0.5, 0.4, 0.3, 0.9], 3), ([0.1, 0.2, 0.1, 0.3], 4)])
def test_early_stopping(folders, tmp_path, monkeypatch, capsys, scores, epochs):
    (data, split_file), start = folders
    values = iter(scores)
    monkeypatch.setattr(loop, "selection_score", lambda row, figures: next(values))
    options = ["--data", str(data), "--split_file", str(split_file), "--init_from", str(start), "--epochs", "4"]
    options += ["--batch_size", "4", "--num_workers", "0", "--output", str(tmp_path / "out"), "--patience", "2"]
    os.environ["ACCELERATE_USE_CPU"] = "true"
    forget_accelerator()
    stage1.main([*options, "--branches", "technical"])
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["epoch"] == epochs and record["best_score"] == max(scores[:epochs])
    assert ("stops early: epoch 1 is the best for 2 validations" in capsys.readouterr().out) == (epochs == 3)
