"""Tests of the three stages: their output, and that interruptions and the number of processes do not change it."""

import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from modeling_aigcvqa.common import files
from modeling_aigcvqa.loading import load_model
from tests.conftest import REPOSITORY
from tests.training.tiny import forget_accelerator, tiny_data, tiny_folder
from training import stage1, stage2, stage3
from training.common import checkpoints, locks, loop
from training.common.arguments import parse_arguments

STAGES = {"stage1": stage1, "stage2": stage2, "stage3": stage3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("start"))


def options(data, init_from, output, **changes) -> list[str]:
    values = {
        "data": data[0],
        "split_file": data[1],
        "init_from": init_from,
        "output": output,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_epochs": 0,
        "num_workers": 0,
        **changes,
    }
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def run(stage: str, *arguments, **changes) -> Path:
    """Run a stage in this process, on the CPU; returns its output folder."""
    forget_accelerator()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    STAGES[stage].main(options(*arguments, **changes))
    return Path(arguments[2])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_each_stage_starts_from_the_previous_one(data, start, tmp_path, capsys):
    first = run("stage1", data, start, tmp_path / "1", max_steps=2)
    second = run("stage2", data, first, tmp_path / "2", max_steps=2, prompt_negatives=1)
    labels = "technical=technical_mos"
    loss_weights = {"plcc_weight": 0.5, "rank_weight": 2.0}
    third = run("stage3", data, second, tmp_path / "3", max_steps=2, labels=labels, **loss_weights)
    assert "technical trains" in capsys.readouterr().err
    before, after = weights(start), [weights(folder) for folder in (first, second, third)]
    for name in before:
        changed = [not torch.equal(a[name], b[name]) for a, b in zip([before, *after], after)]
        branch = name.split("_")[0]
        assert not changed[1 if branch != "alignment" else 0], f"{name} changed in a stage that does not train it"
        if "head" in name and name.endswith("weight"):
            assert changed == ([True, False, True] if branch != "alignment" else [False, True, True]), name
    record = json.loads((third / "training.json").read_text())
    assert record["step"] == 2 and record["stage"] == "stage3" and len(record["history"]) == 1
    assert {"loss/quality", "quality/srocc", "alignment/plcc", "data_wait_share"} <= record["history"][0].keys()
    assert (third / "curves.png").stat().st_size > 1000
    model, processor = load_model(str(third))
    assert processor.video_processor.num_frames == 4 and model.config.mos_std > 1
    assert processor.requires_prompt, "stage 1 reads no prompts, but the model still has the alignment branch"
    assert (model.config.plcc_loss_weight, model.config.rank_loss_weight) == (0.5, 2.0)
    *_, last = model.config.get_provenance().runs
    assert [run.stage for run in model.config.get_provenance().runs] == ["stage1", "stage2", "stage3"]
    assert last.data == "data" and last.simulated is False and last.num_clips == 12 and last.seconds > 0
    assert last.labels["technical"] == "technical_mos" and last.unfixed_ratio == 0.3 and last.best_epoch == 1


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_trained_branches_have_the_scale_of_the_labels(data, start, tmp_path, stage):
    arguments = parse_arguments(STAGES[stage].build_parser(), options(data, start, tmp_path / "run"))
    run = loop.set_up(STAGES[stage].STAGE, arguments)
    whole, trains = run.model.config, run.selected.config
    assert whole.mos_std == pytest.approx(run.sources[0].mos.std().item()) and whole.mos_std > 1
    assert trains.to_dict() == whole.to_dict() | {"branches": list(STAGES[stage].STAGE.branches)}
    assert run.losses[0].unit == run.losses[0].label_unit == whole.mos_std


class Interrupted(Exception):
    pass


def stop_after(step: int):
    """`save_checkpoint` that ends the run after the checkpoint of a step."""
    save = checkpoints.save_checkpoint

    def save_and_stop(accelerator, output, progress, kept):
        save(accelerator, output, progress, kept)
        if progress.step == step:
            raise Interrupted

    return save_and_stop


@pytest.mark.parametrize("at", [2, 3], ids=["mid-epoch", "epoch boundary"])
def test_an_interrupted_run_gives_the_same_result(data, start, tmp_path, monkeypatch, at):
    changes = {"checkpoint_steps": 2, "ema_decay": 0.5, "epochs": 2}
    whole = run("stage3", data, start, tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stop_after(at))
        with pytest.raises(Interrupted):
            run("stage3", data, start, tmp_path / "broken", **changes)
    resumed = run("stage3", data, start, tmp_path / "broken", **changes)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    histories = [json.loads((folder / "training.json").read_text())["history"] for folder in (whole, resumed)]
    timing = ("seconds", "data_wait_share")
    plain, broken = ([{k: v for k, v in row.items() if k not in timing} for row in rows] for rows in histories)
    assert plain == broken


def test_an_incomplete_checkpoint_is_ignored(data, start, tmp_path, monkeypatch):
    def stop(*_):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "replace_folder", stop)  # all files are written, the folder is not renamed
        with pytest.raises(Interrupted):
            run("stage1", data, start, tmp_path / "run", epochs=1)
    assert checkpoints.find_checkpoints(str(tmp_path / "run")) == []
    finished = run("stage1", data, start, tmp_path / "run", epochs=1)
    assert len(checkpoints.find_checkpoints(str(finished))) == 1


@pytest.mark.slow
def test_a_compiled_run_validates_is_saved_and_resumes(data, start, tmp_path, monkeypatch):
    changes = {"epochs": 2, "branches": "technical", "checkpoint_steps": 2}
    whole = run("stage1", data, start, tmp_path / "plain", **changes)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stop_after(3))
        with pytest.raises(Interrupted):
            run("stage1", data, start, tmp_path / "compiled", **changes)
    compiled = run("stage1", data, start, tmp_path / "compiled", **changes)
    assert weights(whole).keys() == weights(compiled).keys()
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(compiled)[name], rtol=1e-4, atol=1e-5, msg=name)
    last = checkpoints.find_checkpoints(str(compiled))[-1]
    assert load_file(last / "model.safetensors").keys() == {n for n in weights(whole) if n.startswith("technical")}


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "corrupt": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "progress.json", "manifest.json"])
def test_an_older_checkpoint_replaces_a_damaged_one(interrupted_twice, data, start, tmp_path, capsys, name, kind):
    output = tmp_path / "run"
    shutil.copytree(interrupted_twice, output)
    DAMAGES[kind](output / "checkpoints" / "step-000002" / name)
    checkpoints.set_damaged_aside(str(output))
    assert [folder.name for folder in checkpoints.find_checkpoints(str(output))] == ["step-000001"]
    assert "step-000002' is damaged" in capsys.readouterr().out
    DAMAGES[kind](output / "checkpoints" / "step-000001" / name)
    with pytest.raises(ValueError, match="no checkpoint is whole"):
        checkpoints.set_damaged_aside(str(output))


def test_a_run_goes_on_from_the_older_checkpoint(interrupted_twice, data, start, tmp_path):
    whole = run("stage2", data, start, tmp_path / "whole", epochs=1)
    output = tmp_path / "run"
    shutil.copytree(interrupted_twice, output)
    DAMAGES["cut"](output / "checkpoints" / "step-000002" / "optimizer.bin")
    run("stage2", data, start, output, epochs=1, checkpoints_kept=1)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(output)[name]), name


def test_a_lost_best_model_is_noticed_when_the_run_resumes(data, start, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_checkpoint", stop_after(3))
        run("stage1", data, start, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "best")
    with pytest.raises(ValueError, match="lost the folder 'best' with the model of epoch 1"):
        run("stage1", data, start, tmp_path / "run")


def test_a_lock_ends_with_its_process(tmp_path):
    """The second process waits for as long as its forked worker lives; the worker holds no lock."""
    code = (
        "import os, sys, time; from training.common.locks import lock_run; lock = lock_run(sys.argv[1]); "
        "time.sleep(60) if os.fork() == 0 else (print('locked', flush=True), time.sleep(60))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    try:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(ValueError, match=f"is used by process {holder.pid} on {socket.gethostname()}"):
            locks.lock_run(tmp_path)
        workers = psutil.Process(holder.pid).children()
        holder.kill()
        holder.wait()
        assert workers[0].is_running()
        locks.lock_run(tmp_path).close()
    finally:
        kill(holder) if holder.poll() is None else [worker.kill() for worker in workers]


def test_two_runs_in_one_folder_are_told_apart(data, start, tmp_path, capsys):
    arguments = parse_arguments(STAGES["stage1"].build_parser(), options(data, start, tmp_path / "run", max_steps=1))
    first = loop.set_up(STAGES["stage1"].STAGE, arguments)
    with pytest.raises(ValueError, match=f"is used by process {os.getpid()} on "):
        run("stage1", data, start, tmp_path / "run", max_steps=1)
    first.lock.close()
    assert (run("stage1", data, start, tmp_path / "run", max_steps=1) / "training.json").exists()


def test_a_kill_while_the_best_model_is_replaced_loses_nothing(data, start, tmp_path, monkeypatch):
    """The next epochs may bring no better one."""
    rename = os.rename
    replaced = []

    def kill(source, target):
        if str(target).endswith("best") and replaced:
            raise Interrupted
        rename(source, target)
        replaced.extend([target] if str(target).endswith("best") else [])

    rising = itertools.count()
    monkeypatch.setattr("training.common.loop.selection_score", lambda row, figures: next(rising))
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "rename", kill)
        with pytest.raises(Interrupted):
            run("stage1", data, start, tmp_path / "run", epochs=3)
    assert not (tmp_path / "run" / "best").exists(), "the old one is set aside"
    monkeypatch.setattr("training.common.loop.selection_score", lambda row, figures: -1.0)
    assert "technical_head.fc_last.weight" in weights(run("stage1", data, start, tmp_path / "run", epochs=3))


def test_old_checkpoints_are_deleted(data, start, tmp_path):
    output = run("stage1", data, start, tmp_path / "run", epochs=1, checkpoint_steps=1, checkpoints_kept=2)
    assert [folder.name for folder in checkpoints.find_checkpoints(str(output))] == ["step-000002", "step-000003"]


def test_other_output_folders_are_refused(data, start, tmp_path):
    output = run("stage1", data, start, tmp_path / "run", max_steps=1)
    with pytest.raises(ValueError, match="finished run"):
        run("stage1", data, start, output, max_steps=1)
    (output / "training.json").unlink()
    with pytest.raises(ValueError, match=r"learning_rate was 0.001 and is 0.01"):
        run("stage1", data, start, output, max_steps=1, learning_rate=1e-2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        run("stage1", data, start, tmp_path / "full", max_steps=1)


@pytest.fixture(scope="module")
def interrupted(data, start, tmp_path_factory):
    """The output folder of a run of stage 2 that ended after its first checkpoint."""
    output = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_checkpoint", stop_after(1))
        run("stage2", data, start, output, epochs=1, checkpoint_steps=1)
    return output


@pytest.fixture(scope="module")
def interrupted_twice(data, start, tmp_path_factory):
    """The output folder of a run of stage 2 that ended after its second checkpoint."""
    output = tmp_path_factory.mktemp("twice") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_checkpoint", stop_after(2))
        run("stage2", data, start, output, epochs=1, checkpoint_steps=1)
    return output


def resumed(interrupted, data, start, folder: Path, **changes) -> Path:
    """Resume a copy of the interrupted run."""
    shutil.copytree(interrupted, folder)
    return run("stage2", data, start, folder, epochs=1, **changes)


def test_what_does_not_change_the_result_may_change(interrupted, data, start, tmp_path):
    """After running out of memory, on another disk, with another spelling."""
    moved, model = tmp_path / "moved", tmp_path / "model"
    shutil.copytree(data[0], moved)
    shutil.copytree(start, model)
    rows = data[1].read_text().splitlines()
    (tmp_path / "other.csv").write_text(
        "\n".join([rows[0], *(f"{row},note" for row in rows[1:])]).replace("id,split", "id,split,remark")
    )
    changes = {"gradient_accumulation_steps": 4, "eval_batch_size": 1, "num_workers": 1, "gradient_checkpointing": True}
    changes |= {"branches": "alignment", "labels": "alignment=mos", "unfixed_ratio": 0.7, "checkpoint_steps": 2}
    output = resumed(interrupted, (moved, tmp_path / "other.csv"), model, tmp_path / "run", **changes)
    assert json.loads((output / "training.json").read_text())["step"] == 3


def swapped(split_file: Path, folder: Path) -> Path:
    """A split file in which a clip of the train part and one of the validation part have changed places."""
    lines = split_file.read_text().splitlines()
    lines[12], lines[13] = (
        f"{lines[place].split(',')[0]},{part}" for place, part in ((12, "validation"), (13, "train"))
    )
    (folder / split_file.name).write_text("\n".join(lines))
    return folder / split_file.name


def test_another_split_is_refused(interrupted, data, start, tmp_path):
    split = swapped(data[1], tmp_path)
    with pytest.raises(
        ValueError, match=r"clips of the train part was '12 clips, \w+' and is '12 clips, \w+'; .* valid"
    ):
        resumed(interrupted, (data[0], split), start, tmp_path / "run")


def test_other_data_or_another_model_is_refused(interrupted, data, start, tmp_path):
    labels = relabelled(data, tmp_path / "labels", mos=lambda number, mos: mos + (number == 3))
    with pytest.raises(ValueError, match=r"result: labels of the train part was '\w+' and is '\w+'\. Start with"):
        resumed(interrupted, labels, start, tmp_path / "a")
    prompts = relabelled(data, tmp_path / "prompts", prompt=lambda number, prompt: prompt + "!" * (number == 13))
    with pytest.raises(ValueError, match=r"result: prompts of the validation part was"):
        resumed(interrupted, prompts, start, tmp_path / "b")
    clips = relabelled(data, tmp_path / "clips")
    videos = sorted((tmp_path / "clips").rglob("*.mp4"))
    shutil.copyfile(videos[1], videos[0])
    with pytest.raises(ValueError, match=r"result: videos of the train part was"):
        resumed(interrupted, clips, start, tmp_path / "c")
    other = tiny_folder(tmp_path / "other", initializer_range=0.2)
    with pytest.raises(ValueError, match="initial weights was"):
        resumed(interrupted, data, other, tmp_path / "d")
    with pytest.raises(ValueError, match=r"plcc_weight was 1.0 and is 0.5; seed was 0 and is 1\."):
        resumed(interrupted, data, start, tmp_path / "e", plcc_weight=0.5, seed=1)
    with pytest.raises(ValueError, match=r"mixed_precision was 'no' and is 'bf16'"):
        resumed(interrupted, data, start, tmp_path / "f", mixed_precision="bf16")


def test_parts_that_are_too_small_are_refused(data, start, tmp_path):
    with pytest.raises(ValueError, match="12 clips in the train part, which needs at least 16"):
        run("stage1", data, start, tmp_path / "a", batch_size=16)


def relabelled(data, folder: Path, **columns) -> tuple[Path, Path]:
    """A copy of the data with other labels: name=(function of row number and label)."""
    shutil.copytree(data[0], folder)
    metadata = folder / "data" / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {name: change(number, row[name]) for name, change in columns.items()}
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, data[1]


def test_equal_labels_at_validation_leave_the_figures_undefined(data, start, tmp_path, capsys):
    equal = relabelled(data, tmp_path / "data", mos=lambda number, mos: 50.0 if 12 <= number < 16 else mos)
    output = run("stage1", equal, start, tmp_path / "run")
    record = json.loads((output / "training.json").read_text(), parse_constant=pytest.fail)
    assert [row["technical/srocc"] for row in record["history"]] == [None, None] and record["best_epoch"] == 2
    printed = capsys.readouterr().out
    assert printed.count("are undefined") == 1 and "chosen without a validation figure" in printed
    assert weights(output)


def test_a_run_with_undefined_figures_resumes(data, start, tmp_path, monkeypatch, capsys):
    equal = relabelled(data, tmp_path / "data", mos=lambda number, mos: 50.0 if 12 <= number < 16 else mos)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_checkpoint", stop_after(3))
        run("stage1", equal, start, tmp_path / "run")
    output = run("stage1", equal, start, tmp_path / "run")
    record = json.loads((output / "training.json").read_text())
    assert len(record["history"]) == 2 and capsys.readouterr().out.count("are undefined") == 1


def test_a_branch_may_have_labels_on_some_clips(data, start, tmp_path, capsys):
    some = relabelled(data, tmp_path / "data", technical_mos=lambda number, mos: mos if number % 3 else None)
    output = run("stage1", some, start, tmp_path / "run", labels="technical=technical_mos", batch_size=2)
    record = json.loads((output / "training.json").read_text())
    assert "none on 4 of 12 clips" in capsys.readouterr().err
    assert all(math.isfinite(row["loss/technical"]) for row in record["history"])


def test_labels_are_checked_before_the_first_step(data, start, tmp_path):
    wrong = relabelled(data, tmp_path / "data", technical_mos=lambda number, mos: math.nan if number == 5 else mos)
    with pytest.raises(ValueError, match=r"1 labels are no finite numbers: \S+ \(nan\)"):
        run("stage1", wrong, start, tmp_path / "a", labels="technical=technical_mos")
    missing = relabelled(data, tmp_path / "other", mos=lambda number, mos: None if number == 5 else mos)
    with pytest.raises(ValueError, match="1 clips have no label"):
        run("stage1", missing, start, tmp_path / "b")


def test_clips_without_a_mos_are_left_out_of_the_splits_of_the_data(data, start, tmp_path, capsys):
    """A split file names the clips that are wanted; a data set may hold others."""
    folder, _ = relabelled(data, tmp_path / "data", mos=lambda number, mos: None if number == 5 else mos)
    rows = (folder / "data" / "train" / "metadata.jsonl").read_text().splitlines()
    missing = json.loads(rows[5])["id"]
    shutil.copytree(folder / "data" / "train", folder / "data" / "validation")
    for part, lines in (("train", rows[:16]), ("validation", rows[16:])):
        (folder / "data" / part / "metadata.jsonl").write_text("\n".join(lines))
    arguments = options((folder, ""), start, tmp_path / "run", max_steps=1)
    place = arguments.index("--split_file")
    forget_accelerator()
    stage1.main(arguments[:place] + arguments[place + 2 :])
    assert f"1 of 16 clips of the train part have no MOS: {missing}" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run(data, start, tmp_path):
    with pytest.raises(FloatingPointError, match="not finite"):
        run("stage1", data, start, tmp_path / "run", learning_rate=1e30, epochs=3)


def test_an_unreadable_clip_is_reported_and_replaced(data, start, tmp_path, capsys):
    broken = tiny_data(tmp_path / "source")
    rows = (broken[0] / "data" / "train" / "metadata.jsonl").read_text().splitlines()
    clip = broken[0] / "data" / "train" / json.loads(rows[0])["file_name"]
    clip.write_bytes(b"no video")
    output = run("stage1", broken, start, tmp_path / "run", epochs=1)
    record = json.loads((output / "training.json").read_text())
    assert len(record["failed"]) == 1 and clip.stem in record["failed"][0]
    assert "another clip takes its place" in capsys.readouterr().out
    with pytest.raises(ValueError, match="max_failed_clips=0"):
        run("stage1", broken, start, tmp_path / "strict", epochs=1, max_failed_clips=0)


def launch(stage: str, processes: int, arguments: list[str], config: Path | None = None) -> list[str]:
    """The command that starts a stage on CPU processes."""
    many = ["--config_file", str(config)] if config else ["--multi_gpu"] if processes > 1 else ["--cpu"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *many, "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "--num_cpu_threads_per_process", "1"]
    return [*command, str(REPOSITORY / "training" / f"{stage}.py"), *arguments]


def launched(stage: str, processes: int, arguments: list[str], config: Path | None = None, **environment) -> str:
    done = subprocess.run(
        launch(stage, processes, arguments, config),
        env=os.environ | {"ACCELERATE_USE_CPU": "true"} | environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


# A shift of all scores does not change the losses, so the gradients of these biases are only rounding errors.
UNSEEN = r"(head\.fc_last|alignment_head\.\d|text_encoder\.encoder\.layer\.1\.output\.LayerNorm)\.bias"


def assert_same_weights(folder: Path, other: Path) -> None:
    """Compare weights; the order of summation may change them a little in every step."""
    found, wanted = (
        {name: value for name, value in weights(model).items() if not re.search(UNSEEN, name)}
        for model in (folder, other)
    )
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)  # names the entry that differs


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(STAGES))
def test_two_processes_give_the_same_result_as_one(data, tmp_path, stage):
    start = tiny_folder(tmp_path / "start", dropout=False)
    changes = {"epochs": 2, "prompt_negatives": 1 if stage == "stage2" else 0, "unfixed_ratio": 1}
    one = run(stage, data, start, tmp_path / "one", **changes)
    printed = launched(stage, 2, options(data, start, tmp_path / "two", **changes))
    assert "2 processes x 2" in printed
    histories = [json.loads((tmp_path / name / "training.json").read_text())["history"] for name in ("one", "two")]
    for alone, together in zip(*histories):
        for name, value in alone.items():
            if name.startswith("loss/"):
                assert together[name] == pytest.approx(value, abs=1e-4), name
    assert_same_weights(tmp_path / "two", one)


def kill(process: subprocess.Popen) -> None:
    """Kill the launcher and its workers, which run in their own sessions."""
    launcher = psutil.Process(process.pid)
    family = [launcher, *launcher.children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family)


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(STAGES))
def test_two_processes_killed_and_resumed(data, start, tmp_path, stage):
    changes = {"epochs": 3, "checkpoint_steps": 2}
    launched(stage, 2, options(data, start, tmp_path / "whole", **changes))
    command = launch(stage, 2, options(data, start, tmp_path / "broken", **changes))
    process = subprocess.Popen(
        command,
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not checkpoints.find_checkpoints(str(tmp_path / "broken")) and time.monotonic() < deadline:
        time.sleep(0.05)
    kill(process)
    assert not (tmp_path / "broken" / "training.json").exists(), "the run finished before it could be killed"
    launched(stage, 2, options(data, start, tmp_path / "broken", **changes))
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "broken")[name], value, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"unfixed_ratio": 1}, {"lora_rank": 2}], ids=["all", "LoRA"])
def test_fsdp_on_two_processes(data, tmp_path, changes):
    start = tiny_folder(tmp_path / "start", dropout=False)
    one = run("stage3", data, start, tmp_path / "one", max_steps=2, **changes)
    config = REPOSITORY / "training" / "configs" / "accelerate_fsdp.yaml"
    launched("stage3", 2, options(data, start, tmp_path / "two", max_steps=2, **changes), config)
    assert_same_weights(tmp_path / "two", one)


@pytest.mark.slow
def test_deepspeed_on_one_process(data, tmp_path):
    """On a CPU, Accelerate runs every DeepSpeed process as if it were the only one, so two cannot be tested."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    start = tiny_folder(tmp_path / "start", dropout=False)
    one = run("stage3", data, start, tmp_path / "one", max_steps=3)
    config = REPOSITORY / "training" / "configs" / "accelerate_deepspeed.yaml"
    environment = {"ACCELERATE_USE_CPU": "false", "DS_ACCELERATOR": "cpu"}
    printed = launched("stage3", 1, options(data, start, tmp_path / "two", max_steps=3), config, **environment)
    assert "DEEPSPEED" in printed
    assert_same_weights(tmp_path / "two", one)
