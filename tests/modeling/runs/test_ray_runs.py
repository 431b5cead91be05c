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

pytestmark = pytest.mark.alone

pytest.importorskip("ray", reason="needs ray: pip install 'aigcvqa[scale]'")
TIMEOUT_S = 300


def command(manifest, output, *options, workers=2):
    program = [sys.executable, "-m", "modeling_aigcvqa", "score", "--manifest", str(manifest)]
    ray = ["--engine", "ray", "--workers", str(workers), "--json"]
    return [*program, "--output", f"{output}/", *ray, *map(str, options)]


def comparable(output):
    """The scores without the positions, which depend on the size of the shards."""
    return [{name: value for name, value in row.items() if name != "position"} for row in scores(output)]


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
    many = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(60) for row in rows]
    manifest = write_jsonl(folder / "ray.jsonl", many)
    reference, output = tmp_path / "reference", tmp_path / "out"
    assert run("--manifest", manifest, "--output", f"{reference}/") == 0
    with (tmp_path / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(command(manifest, output, "--rows_per_shard", 120), stdout=-1, stderr=errors)
        kill_when_rows_are_there(process, output, 1, "actor")
        kill_when_rows_are_there(process, output, 100, "driver")
        process.wait()
        kept = rows_there(output)
        assert 0 < kept < len(many)
        done = subprocess.run(
            command(manifest, output, "--rows_per_shard", 120), stdout=-1, stderr=errors, timeout=TIMEOUT_S
        )
    assert done.returncode == 0, (tmp_path / "stderr.txt").read_text()[-2000:]
    accounts = json.loads(done.stdout)
    assert accounts == summary(output) and accounts["this_run"]["clips"] <= len(many) - kept
    check_accounts(output, len(many))
    assert comparable(output) == comparable(reference)
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
    done = subprocess.run(
        command(manifest, output, "--decoders", decoders), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check_accounts(output, COUNT + 1)
    reasons = {row["file"]: row["reason"] for row in failures(output)}
    assert set(reasons) == {"2.mp4", "crash://bomb.mp4"}
    assert "died each time" in reasons["crash://bomb.mp4"]


@pytest.mark.slow
def test_a_node_of_three_is_killed(clips, tmp_path):
    """A cluster of three nodes on this machine; one is killed with its worker in the middle of the run."""
    from ray.cluster_utils import Cluster

    folder, rows = clips
    many = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(160) for row in rows]
    manifest = write_jsonl(folder / "nodes.jsonl", many)
    reference, output = tmp_path / "reference", tmp_path / "out"
    assert run("--manifest", manifest, "--output", f"{reference}/") == 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        options = ["--rows_per_shard", 100, "--address", cluster.address]
        with (tmp_path / "stderr.txt").open("w") as errors:
            process = subprocess.Popen(command(manifest, output, *options, workers=3), stdout=-1, stderr=errors)
            deadline = time.monotonic() + TIMEOUT_S
            while rows_there(output) < 100 and time.monotonic() < deadline:
                assert process.poll() is None, (tmp_path / "stderr.txt").read_text()[-2000:]
                time.sleep(0.1)
            cluster.remove_node(nodes[1], allow_graceful=False)
            done = rows_there(output)
            process.communicate(timeout=TIMEOUT_S)
    finally:
        cluster.shutdown()
    assert done < len(many), "the node was killed before the end"
    assert process.returncode == 0, (tmp_path / "stderr.txt").read_text()[-2000:]
    check_accounts(output, len(many))
    assert comparable(output) == comparable(reference)


def test_the_pools_fit_the_cluster():
    from modeling_aigcvqa.runs.ray_engine import Pools, RayEngine

    assert RayEngine().pools({"CPU": 8}, 1) == Pools(7, 0, 0)
    assert RayEngine().pools({"CPU": 8}, 2) == Pools(3, 0, 0)
    assert RayEngine().pools({"CPU": 32, "GPU": 4}, 1) == Pools(4, 1, 27)
    assert RayEngine(gpus_per_worker=0.5).pools({"CPU": 32, "GPU": 1}, 1) == Pools(2, 0.5, 29)
    assert RayEngine(workers=3).pools({"CPU": 3}, 1, may_shrink=True) == Pools(2, 0, 0)
    assert RayEngine(workers=4, decoders=8).pools({"CPU": 8, "GPU": 2}, 1, may_shrink=True) == Pools(2, 1, 4)
    with pytest.raises(ValueError, match=r"--workers 3 .*need 3.25 cores, and the cluster has 3"):
        RayEngine(workers=3).pools({"CPU": 3}, 1)


def test_a_cluster_that_is_not_there_or_too_small(manifest, tmp_path, capsys):
    options = ["--manifest", manifest, "--output", f"{tmp_path}/out/", "--engine", "ray"]
    assert run(*options, "--address", "127.0.0.1:1") == 2
    assert "--address 127.0.0.1:1: no Ray cluster" in capsys.readouterr().err
    assert run(*options, "--workers", 1, "--gpus_per_worker", 1000) == 2
    assert "need 1000 GPUs, and the cluster has" in capsys.readouterr().err
