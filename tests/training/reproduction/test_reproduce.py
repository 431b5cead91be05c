"""Tests of training/reproduce.py: the runs of each table, that each runs once, resuming, and the report."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch

from modeling_aigcvqa.loading import load_model
from tests.training.tiny import tiny_data, tiny_folder
from training.reproduce import LAUNCHER, main
from training.reproduction import runs
from training.reproduction.figures import mean_text
from training.reproduction.runs import write_without_adapter
from training.reproduction.tables import TABLES, TRAININGS


def option(command, name):
    return command[command.index(name) + 1]


class Machine:
    """Replaces the processes: records the commands and writes the files of a finished command."""

    def __init__(self):
        self.commands, self.fail_on = [], None

    def run(self, command, env):
        self.commands.append(command)
        output = Path(option(command, "--output"))
        if self.fail_on and str(output).endswith(self.fail_on):
            return 1
        output.mkdir(parents=True, exist_ok=True)
        if "training.evaluate" in command:
            number = int(output.parts[-3].removeprefix("random_"))
            figures = {name: {"value": 0.5 + 0.1 * number} for name in ("srocc", "plcc", "krocc", "rmse", "main_score")}
            (output / "metrics.json").write_text(json.dumps({"metrics": {"quality_score": figures}}))
        else:
            (output / "checkpoints" / "step-1").mkdir(parents=True)
            (output / "training.json").write_text("{}")
            (output / "model.safetensors").write_text("weights")
        return 0

    def outputs(self):
        return [Path(option(command, "--output")).relative_to(self.root).as_posix() for command in self.commands]


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine()
    machine.root = tmp_path / "out"
    monkeypatch.setattr(runs, "run_child", machine.run)
    splits = tmp_path / "data" / "splits"
    splits.mkdir(parents=True)
    for number in range(3):
        (splits / f"random_{number:02d}.csv").write_text("id,split\n")
    return machine


def call(tmp_path, *options):
    common = ["--data", str(tmp_path / "data"), "--init_from", "small", "--output", str(tmp_path / "out")]
    return main([*common, *options])


def test_every_run_is_made_once_for_all_tables(machine, tmp_path):
    assert call(tmp_path, "--num_splits", "1", "--table", "2", "4", "5", "6") == 0
    outputs = machine.outputs()
    assert max(Counter(outputs).values()) == 1
    assert {name.split("/")[1] for name in outputs if "/test/" not in name} == set(TRAININGS)
    evaluations = {row.evaluation for table in TABLES.values() for row in table.rows}
    assert {name.split("/")[2] for name in outputs if "/test/" in name} == evaluations


def test_the_stages_start_from_each_other_as_in_the_paper(machine, tmp_path):
    assert call(tmp_path, "--num_splits", "1", "--table", "6", "--", "--epochs", "2") == 0
    assert machine.outputs() == [
        "random_00/stage1",
        "random_00/test/stage1-technical-aesthetic",
        "random_00/stage2",
        "random_00/test/stage2-alignment",
        "random_00/test/stage2-technical-aesthetic-alignment",
        "random_00/stage3",
        "random_00/test/stage3-technical-aesthetic-alignment",
    ]
    stages = [command for command in machine.commands if "training.evaluate" not in command]
    folder = str(tmp_path / "out" / "random_00")
    assert [option(command, "--init_from") for command in stages] == ["small", f"{folder}/stage1", f"{folder}/stage2"]
    for number, command in enumerate(stages, 1):
        assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
        assert Path(command[3]).name == f"stage{number}.py" and Path(command[3]).is_file()
        assert Path(option(command, "--config")).is_file()
        assert command[-2:] == ["--epochs", "2"]
        assert not (Path(option(command, "--output")) / "checkpoints").exists()
    tests = [command for command in machine.commands if "training.evaluate" in command]
    assert option(tests[1], "--branches") == "alignment"
    assert all("--part" not in command for command in tests), "the test part is the default"


def test_the_options_of_a_row(machine, tmp_path):
    call(tmp_path, "--num_splits", "1", "--table", "2", "4", "5")
    commands = dict(zip(machine.outputs(), machine.commands))
    assert option(commands["random_00/stage2_unfixed_40"], "--unfixed_ratio") == "0.4"
    assert option(commands["random_00/stage1_technical"], "--branches") == "technical"
    start = Path(option(commands["random_00/stage2_no_adapter"], "--init_from"))
    model, _ = load_model(str(start))
    assert model.config.alignment_config.adapter is None
    assert not [name for name in model.state_dict() if "adapter" in name]


def test_a_failure_is_named_and_the_next_call_continues(machine, tmp_path, capsys):
    machine.fail_on = "random_01/stage2"
    assert call(tmp_path, "--num_splits", "2", "--table", "6") == 1
    captured = capsys.readouterr()
    assert "random_01/stage2" in captured.err
    assert "| 1 | 0.7623 | 0.5500 ± 0.0707 |" in captured.out, "the mean of two splits"
    assert "| 2 | 0.8096 | 0.5000 |" in captured.out, "one split so far"
    machine.fail_on = None
    machine.commands.clear()
    assert call(tmp_path, "--num_splits", "2", "--table", "6") == 0
    assert machine.outputs()[0] == "random_01/stage2"
    assert len(machine.outputs()) == 5, "only the rest of split 01"
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| 1+2+3 | 0.8241 | 0.5500 ± 0.0707 | 0.8352 | 0.5500 ± 0.0707 |" in report


def test_runs_of_other_settings_are_not_mixed(machine, tmp_path, capsys):
    call(tmp_path, "--num_splits", "1", "--table", "6")
    assert call(tmp_path, "--num_splits", "1", "--table", "6", "--", "--epochs", "1") == 2
    assert "stage_options was []" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_splits", "4", "--table", "6"], "holds 3 files"),
        (["--kind", "prompt_disjoint", "--table", "6"], "holds 0 files"),
        (["--table", "6", "--", "--unfixed_ratio=0.1"], "are set by reproduce"),
    ],
)
def test_invalid_arguments_are_named(options, message, machine, tmp_path, capsys):
    assert call(tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not machine.commands


def test_a_dry_run_only_prints_the_commands(machine, tmp_path, capsys):
    assert call(tmp_path, "--num_splits", "1", "--table", "5", "--dry_run") == 0
    assert "stage2.py" in capsys.readouterr().out
    assert not machine.commands
    assert not (tmp_path / "out").exists()


def test_mean_and_standard_deviation():
    assert mean_text([{"srocc": 0.8}, {"srocc": 0.82}], "srocc") == "0.8100 ± 0.0141"
    assert mean_text([{"srocc": 0.8}], "srocc") == "0.8000"
    assert mean_text([{"srocc": None}], "srocc") == mean_text([], "srocc") == "-"


def test_a_model_without_adapter_keeps_all_other_weights(tmp_path):
    folder = tiny_folder(tmp_path / "whole")
    write_without_adapter(str(folder), tmp_path / "plain")
    whole, plain = (load_model(str(path))[0].state_dict() for path in (folder, tmp_path / "plain"))
    assert {name for name in whole if ".adapter." not in name} == set(plain)
    assert all(torch.equal(whole[name], value) for name, value in plain.items())


@pytest.mark.slow
def test_table_6_with_the_real_stages(tmp_path, capsys):
    """Two steps of every stage on a tiny model, in separate processes, with evaluation. A second call runs nothing."""
    data, split = tiny_data(tmp_path)
    (tmp_path / "splits").mkdir()
    split.rename(tmp_path / "splits" / "random_00.csv")
    arguments = ["--table", "5", "6", "--data", str(data), "--init_from", str(tiny_folder(tmp_path / "model"))]
    arguments += ["--output", str(tmp_path / "out"), "--split_folder", str(tmp_path / "splits"), "--num_splits", "1"]
    arguments += ["--launcher", f"{LAUNCHER} --cpu", "--num_workers", "0"]
    arguments += ["--", "--max_steps", "2", "--batch_size", "4", "--num_workers", "0", "--mixed_precision", "no"]
    assert main(arguments) == 0
    assert "## Table 6, stages" in capsys.readouterr().out
    results = sorted(path.parent.name for path in (tmp_path / "out" / "random_00" / "test").glob("*/metrics.json"))
    assert results == sorted({row.evaluation for table in ("5", "6") for row in TABLES[table].rows})
    assert main(arguments) == 0
    assert "stage1.py" not in capsys.readouterr().out, "everything is finished"


def test_the_disk_holds_the_models_of_one_split_at_a_time(machine, tmp_path):
    """A table that is asked for later trains again what it needs and what was deleted."""
    assert call(tmp_path, "--num_splits", "2", "--table", "6") == 0
    assert not list((tmp_path / "out").glob("random_*/*/model.safetensors"))
    made = len(machine.commands)
    assert call(tmp_path, "--num_splits", "2", "--table", "6") == 0
    assert len(machine.commands) == made, "what was measured is not measured again"
    assert call(tmp_path, "--splits", "0", "--table", "5", "6", "--keep_models") == 0
    later = [name for name in machine.outputs()[made:] if "/test/" not in name]
    assert later == ["random_00/stage2_no_adapter"]
    assert call(tmp_path, "--splits", "0", "--table", "2", "--keep_models") == 0
    assert {path.parent.name for path in (tmp_path / "out" / "random_00").glob("*/model.safetensors")} == {
        *("stage1", "stage1_technical", "stage1_aesthetic", "stage2", "stage2_no_adapter", "stage3_technical_alignment")
    }, "stage 1 and 2 again, for the row that starts from them"


def test_single_splits_may_run_apart(machine, tmp_path, capsys):
    assert call(tmp_path, "--splits", "2", "0", "--table", "6") == 0
    assert {output.split("/")[0] for output in machine.outputs()} == {"random_00", "random_02"}
    made = len(machine.commands)
    assert call(tmp_path, "--num_splits", "3", "--table", "6") == 0
    assert {output.split("/")[0] for output in machine.outputs()[made:]} == {"random_01"}
    assert call(tmp_path, "--splits", "7", "--table", "6") == 2
    assert "has no random_07.csv" in capsys.readouterr().err


STAGE = """
import os, sys, time
from modeling_aigcvqa.common.signals import unwinding
if len(sys.argv) > 2:  # the launcher, which starts the stage and hands no signal on
    import subprocess
    sys.exit(subprocess.run([sys.executable, __file__]).returncode)
with unwinding():
    print("pids", os.getppid(), os.getpid(), flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_trainer_ends_with_reproduce(tmp_path, number):
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "data" / "splits").mkdir(parents=True)
    (tmp_path / "data" / "splits" / "random_00.csv").write_text("id,split\n")
    command = [sys.executable, "-m", "training.reproduce", "--table", "6", "--data", str(tmp_path / "data")]
    command += ["--init_from", "small", "--output", str(tmp_path / "out"), "--num_splits", "1"]
    command += ["--launcher", f"{sys.executable} {tmp_path / 'stage.py'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = next(line for line in process.stdout if line.startswith("pids"))
    trainers = [psutil.Process(int(pid)) for pid in line.split()[1:]]
    process.send_signal(number)
    process.wait(timeout=30)
    assert psutil.wait_procs(trainers, timeout=20)[1] == []
