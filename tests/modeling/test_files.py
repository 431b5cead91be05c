"""Files and folders are written whole or not at all, also when the process is killed or the disk is full."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from dataset_scripts.synthetic_t2v import make_benchmark
from modeling_aigcvqa.cli import main
from modeling_aigcvqa.common import files
from modeling_aigcvqa.common.files import (
    recover_folder,
    replace_folder,
    sweep_folder,
    whole_file,
    whole_files,
    whole_folder,
    write_text,
)

WRITERS = {"file": (whole_file, "x.txt"), "folder": (whole_folder, "x"), "files": (whole_files, "x")}


def fill(partial, text="new"):
    (partial / "a.txt" if partial.is_dir() else partial).write_text(text)


def content(path):
    return (path / "a.txt" if path.is_dir() else path).read_text()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", WRITERS)
def test_it_is_there_when_it_is_complete_and_gone_after_an_error(tmp_path, kind):
    whole, name = WRITERS[kind]
    path = tmp_path / name
    for text in ("one", "two"):
        with whole(path) as partial:
            fill(partial, text)
            assert not path.exists() if text == "one" else content(path) == "one"
        assert names(tmp_path) == [name] and content(path) == text
    with pytest.raises(KeyboardInterrupt), whole(path) as partial:
        fill(partial)
        raise KeyboardInterrupt
    assert names(tmp_path) == [name] and content(path) == "two"


KILLED = """
import os, sys, time
from pathlib import Path
from modeling_aigcvqa.common import console, files
from modeling_aigcvqa.common.console import exits_with_status

@exits_with_status("program")
def main(argv=None):
    with getattr(files, sys.argv[1])(Path(sys.argv[2])) as partial:
        (partial / "a.txt" if partial.is_dir() else partial).write_text("begun")
        print("ready", flush=True)
        time.sleep(100)

sys.exit(main())
"""


def begin(kind, path):
    whole, _ = WRITERS[kind]
    process = subprocess.Popen([sys.executable, "-c", KILLED, whole.__name__, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("kind", WRITERS)
def test_termination_cleans_up(tmp_path, kind):
    process = begin(kind, tmp_path / WRITERS[kind][1])
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_kill_left_is_swept_by_the_next_run_but_not_while_it_is_written(tmp_path, kind):
    whole, name = WRITERS[kind]
    process = begin(kind, tmp_path / name)
    (left,) = names(tmp_path)
    with whole(tmp_path / name) as partial:
        fill(partial)
    assert names(tmp_path) == sorted([left, name]), "its writer is alive"
    process.kill()
    process.wait()
    if kind == "files":
        (tmp_path / name / left).mkdir()  # of a run into the folder that now exists
        (tmp_path / name / left).rename(tmp_path / name / ".files.0123456789ab")
    with whole(tmp_path / name) as partial:
        fill(partial)
    if kind != "files":
        assert names(tmp_path) == [name]
    else:
        assert names(tmp_path / name) == ["a.txt"]


def test_sweeping_a_folder(tmp_path):
    (tmp_path / ".clip.0123456789ab.npy").touch()
    (tmp_path / "clip.npy").touch()
    with whole_file(tmp_path / "other.npy", durable=False) as partial:
        sweep_folder(tmp_path)
        assert names(tmp_path) == sorted([partial.name, "clip.npy"])


@pytest.mark.parametrize("moment", ["after the old folder is set aside", "before the old folder is removed"])
def test_a_kill_while_a_folder_is_replaced_loses_nothing(tmp_path, moment, monkeypatch):
    path, partial = tmp_path / "best", tmp_path / "partial"
    for folder, text in ((path, "old"), (partial, "new")):
        folder.mkdir()
        fill(folder, text)

    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    rename = os.rename
    if moment.startswith("after"):
        monkeypatch.setattr(files.os, "rename", lambda a, b: rename(a, b) if a == path else kill())
    else:
        monkeypatch.setattr(files.shutil, "rmtree", kill)
    with pytest.raises(Killed):
        replace_folder(partial, path)
    monkeypatch.undo()
    recover_folder(path)
    assert content(path) == ("old" if moment.startswith("after") else "new")
    assert names(tmp_path) in (["best"], ["best", "partial"])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_error_and_nothing_is_left(tmp_path, kind):
    """A limit on the size of a file stands for the full disk."""
    whole, name = WRITERS[kind]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        message = f"{name}' cannot be written .File too large.; make room"
        with pytest.raises(OSError, match=message) as error, whole(tmp_path / name) as partial:
            fill(partial, "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(torch.zeros(100_000), path),
        lambda path: np.save(path, np.zeros(100_000)),
        lambda path: np.savez(path.open("wb"), np.zeros(100_000)),
        lambda path: save_file({"a": torch.zeros(100_000)}, path),
        lambda path: pyarrow.parquet.write_table(pyarrow.table({"a": np.random.default_rng(0).random(100_000)}), path),
    ],
    ids=["torch", "numpy", "numpy zip", "safetensors", "parquet"],
)
def test_every_library_says_the_same_of_a_full_disk(tmp_path, write):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with (
            pytest.raises(OSError, match=r"x.npy' cannot be written .*; make room"),
            whole_file(tmp_path / "x.npy") as p,
        ):
            write(p)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    """safetensors has an error type of its own."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert main(["init", "--preset", "small", "--output", str(tmp_path / "model")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    printed = capsys.readouterr().err.strip().splitlines()
    assert "model' cannot be written" in printed[-1] and "make room" in printed[-1]
    assert names(tmp_path) == []


def test_everyone_may_read_what_the_umask_allows(tmp_path):
    with whole_folder(tmp_path / "x") as partial:
        fill(partial)
        (partial / "a.txt").chmod(0o600)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "x" / "a.txt").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(("kind", "mode"), [("file", 0o600), ("file", 0o664), ("folder", 0o700)])
def test_what_is_replaced_keeps_its_permissions(tmp_path, kind, mode):
    whole, name = WRITERS[kind]
    for _ in range(2):
        with whole(tmp_path / name) as partial:
            fill(partial)
        (tmp_path / name).chmod(mode)
    with whole(tmp_path / name) as partial:
        fill(partial)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_the_permissions_of_linked_files_stay(tmp_path):
    """A prepared folder holds hard links to the clips of its source."""
    (tmp_path / "source.mp4").touch(mode=0o600)
    with whole_folder(tmp_path / "x") as partial:
        os.link(tmp_path / "source.mp4", partial / "clip.mp4")
    assert stat.S_IMODE((tmp_path / "source.mp4").stat().st_mode) == 0o600


def test_unusual_targets(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    long = tmp_path / ("ü" * 125 + ".txt")
    write_text(long, "new")
    assert long.read_text() == "new"
    folder = tmp_path / ("ö" * 125)
    for text in ("one", "two"):
        with whole_folder(folder) as partial:
            fill(partial, text)
    assert content(folder) == "two"
    with pytest.raises(FileExistsError, match="it is a folder or a device"):
        write_text("/dev/null", "new")
    with pytest.raises(FileExistsError, match="it is a file"), whole_folder(tmp_path / "real.txt"):
        pass
    assert (tmp_path / "real.txt").read_text() == "new"
    with pytest.raises(FileNotFoundError, match=r"the folder '.*nowhere' does not exist"):
        write_text(tmp_path / "nowhere" / "x.txt", "new")


def test_long_names_with_one_beginning_are_told_apart(tmp_path):
    """A folder that was set aside never comes back under the name of another."""
    first, second = (tmp_path / ("x" * 240 + end) for end in "12")
    first.mkdir()
    fill(first, "first")
    (tmp_path / "partial").mkdir()

    class Killed(BaseException):
        pass

    rename, seen = os.rename, []

    def killed(a, b):
        if seen:
            raise Killed
        seen.append(b)
        rename(a, b)

    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "rename", killed)
        replace_folder(tmp_path / "partial", first)
    recover_folder(second)
    assert not second.exists() and not first.exists()
    recover_folder(first)
    assert content(first) == "first"


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refused(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(files.Path, "touch", refused)
    with pytest.raises(PermissionError, match=r"'.*x.txt' cannot be written .Permission denied.; name another"):
        write_text(tmp_path / "x.txt", "new")


def test_a_mount_point_stays(tmp_path, monkeypatch):
    """It cannot be renamed, as the folder that a container is given for its output."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "lost+found").mkdir()
    before = (tmp_path / "x").stat().st_ino
    monkeypatch.setattr(files.os.path, "ismount", lambda path: path == tmp_path / "x")
    with whole_folder(tmp_path / "x") as partial:
        fill(partial)
    assert content(tmp_path / "x") == "new" and (tmp_path / "x").stat().st_ino == before
    assert names(tmp_path / "x") == ["a.txt", "lost+found"]


RACE = """
import sys
from pathlib import Path
from modeling_aigcvqa.common.files import recover_folder, whole_file, whole_folder

path = Path(sys.argv[2])
for number in range(200):
    if sys.argv[1] == "folder":
        with whole_folder(path) as partial:
            (partial / "a.txt").write_text(str(number))
    elif sys.argv[1] == "file":
        with whole_file(path) as partial:
            partial.write_text(str(number))
    else:
        recover_folder(path)
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_writers_of_one_name_do_not_disturb_each_other(tmp_path, kind):
    """They sweep and recover while the others write and rename."""
    what = [kind, kind, "recover"]
    processes = [subprocess.Popen([sys.executable, "-c", RACE, name, str(tmp_path / "x")]) for name in what]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert names(tmp_path) == ["x"] and content(tmp_path / "x") == "199"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_benchmark_leaves_nothing_for_long(tmp_path, number):
    """Its workers end with it, and the next run removes what a SIGKILL left."""
    command = [sys.executable, "-m", "dataset_scripts.synthetic_t2v", "--output", str(tmp_path / "set")]
    command += ["--num_prompts", "400", "--size", "64", "--num_workers", "2", "--skip_baselines"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".set.*/data/train/clips/*/*.mp4")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(number)
    assert process.wait(timeout=30) == (143 if number == signal.SIGTERM else -9)
    assert number == signal.SIGKILL or "Traceback" not in process.stderr.read()
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < deadline + 30
        time.sleep(0.05)
    if number == signal.SIGKILL:
        assert len(names(tmp_path)) == 1
        with whole_folder(tmp_path / "set"):
            pass
        assert names(tmp_path) == ["set"]
    else:
        assert names(tmp_path) == []


PROGRAMS = {
    "init": ["modeling_aigcvqa", "init", "--preset", "full"],
    "explain": ["modeling_aigcvqa", "explain", "CLIP", "--prompt", "a gradient"],
    "make_splits": ["dataset_scripts.make_splits", "--data", "DATA", "--num_splits", "2000"],
    "evaluate": ["training.evaluate", "--data", "DATA", "--model", "small", "--part", "all", "--num_bootstrap", "0"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_benchmark(folder, num_prompts=8, generators=3, seed=0, size=64)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_killed_program_leaves_nothing_for_long(tmp_path, clip, data, program, number):
    """It is killed as soon as it has begun to write. `evaluate` keeps the scores that it has and goes on from there."""
    values = {"CLIP": str(clip), "DATA": str(data)}
    command = [sys.executable, "-m", *(values.get(word, word) for word in PROGRAMS[program])]
    command += ["--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (list(tmp_path.glob("out/scores.jsonl")) if program == "evaluate" else names(tmp_path)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    assert process.wait(timeout=60) == (143 if number == signal.SIGTERM else -9)
    assert number == signal.SIGKILL or "Traceback" not in process.stderr.read()
    assert bool(names(tmp_path)) == (program == "evaluate" or number == signal.SIGKILL)
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert names(tmp_path) == ["out"]
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]


def children(pid):
    return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]
