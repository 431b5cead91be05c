"""`aigcvqa score --engine ray` with two workers: processes that die cost nothing, or their clip alone."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pyarrow.dataset as ds
import pytest

from tests.modeling.runs.run_data import COUNT, check_accounts, failures, run, scores, summary, write_jsonl

pytest.importorskip("ray", reason="needs ray: pip install 'aigcvqa[scale]'")
TWO_WORKERS = ["--engine", "ray", "--workers", "2"]


def command(manifest, output, *options):
    program = [sys.executable, "-m", "modeling_aigcvqa", "score", "--manifest", str(manifest)]
    return [*program, "--output", f"{output}/", *TWO_WORKERS, "--json", *map(str, options)]


def rows_there(output):
    files = [*output.glob("fragments/*/*.parquet"), *output.glob("scores/*.parquet")]
    return sum(len(ds.dataset(file).to_table()) for file in files if file.exists())


def actors(process):
    """The processes that compute."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "_Scorer" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def kill_when_rows_are_there(process, output, least, victim):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it was killed"
        if rows_there(output) >= least and (pids := [process.pid] if victim == "driver" else actors(process)):
            os.kill(pids[0], signal.SIGKILL)
            return
        time.sleep(0.1)
    raise AssertionError("no rows came")


def test_a_killed_worker_and_a_killed_run(clips, tmp_path):
    """The scores are those of one local process, bit for bit."""
    folder, rows = clips
    many = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(160) for row in rows]
    manifest = write_jsonl(folder / "ray.jsonl", many)
    reference, output = tmp_path / "reference", tmp_path / "out"
    assert run("--manifest", manifest, "--output", reference) == 0 if reference.mkdir() is None else False
    with (tmp_path / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(command(manifest, output, "--rows_per_shard", 300), stdout=-1, stderr=errors)
        kill_when_rows_are_there(process, output, 1, "actor")
        kill_when_rows_are_there(process, output, 200, "driver")
        process.wait()
        kept = rows_there(output)
        assert 0 < kept < len(many)
        done = subprocess.run(command(manifest, output, "--rows_per_shard", 300), stdout=-1, stderr=errors)
    assert done.returncode == 0, (tmp_path / "stderr.txt").read_text()[-2000:]
    accounts = json.loads(done.stdout)
    assert accounts == summary(output) and accounts["this_run"]["clips"] <= len(many) - kept
    check_accounts(output, len(many))

    def comparable(rows):
        return [{name: value for name, value in row.items() if name != "position"} for row in rows]

    assert comparable(scores(output)) == comparable(scores(reference))
    assert {row["id"] for row in failures(output)} == {row["id"] for row in failures(reference)}


@pytest.mark.slow
@pytest.mark.parametrize("decoders", [0, 1])
def test_a_clip_that_kills_its_process_is_in_the_ledger_and_the_others_are_scored(
    clips, tmp_path, decoders, monkeypatch
):
    folder, rows = clips
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os, fsspec
            class Crash(fsspec.AbstractFileSystem):
                protocol = "crash"
                def size(self, path): return 1
                def cat_file(self, path, *_, **__): os.kill(os.getpid(), 9)
            fsspec.register_implementation("crash", Crash)
            """
        )
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    manifest = write_jsonl(folder / "crash.jsonl", [*rows, {"file": "crash://bomb.mp4", "prompt": "a bomb"}, *rows])
    output = tmp_path / "out"
    done = subprocess.run(command(manifest, output, "--decoders", decoders), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    check_accounts(output, COUNT + 1)
    reasons = {row["file"]: row["reason"] for row in failures(output)}
    assert set(reasons) == {"2.mp4", "crash://bomb.mp4"}
    assert "died each time" in reasons["crash://bomb.mp4"]


def test_a_cluster_that_is_not_there_or_too_small(manifest, tmp_path, capsys):
    options = ["--manifest", manifest, "--output", f"{tmp_path}/out/", "--engine", "ray"]
    assert run(*options, "--address", "127.0.0.1:1") == 2
    assert "--address 127.0.0.1:1: no Ray cluster" in capsys.readouterr().err
    assert run(*options, "--workers", 1, "--gpus_per_worker", 1000) == 2
    assert "need 1000 GPUs, and the cluster has" in capsys.readouterr().err
