import json

import pytest

from tests.training.tiny import forget_accelerator
from training.benchmarks import loop

ARGUMENTS = ["--steps", "20", "--epochs", "2", "--num_workers", "0", "--step_ms", "1", "--host_ms", "0"]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget_accelerator()
    yield
    forget_accelerator()


def test_the_loop_waits_for_the_device_every_few_steps_only(tmp_path, monkeypatch, capsys):
    waits = []
    monkeypatch.setattr(loop.FakeDevice, "wait", lambda device: waits.append(device.worked))
    assert loop.main([*ARGUMENTS, "--output", str(tmp_path / "loop.json")]) == 0
    result = json.loads((tmp_path / "loop.json").read_text())
    assert result["device_seconds"] == pytest.approx(0.020)
    # twice within each epoch of 20 steps, and once by the benchmark after each
    assert len(waits) == 6, "log_steps is 10"
    assert "lost outside the network" in capsys.readouterr().out


def test_too_few_clips_are_refused(capsys):
    with pytest.raises(SystemExit):
        loop.main(["--steps", "1"])
    assert "at least 8 clips" in capsys.readouterr().err
