"""Manifests of every format, on every kind of place, give the same scores."""

import json
import os
import subprocess
import sys
import time
import urllib.request

import datasets
import fsspec
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from modeling_aigcvqa.clip_scorer import ScorerIdentity, ScorerSettings
from modeling_aigcvqa.runs.inputs import inputs_of
from modeling_aigcvqa.runs.pending import pending_rows
from modeling_aigcvqa.runs.plan import planned
from modeling_aigcvqa.runs.store import Store
from tests.modeling.runs.run_data import (
    BROKEN,
    COUNT,
    PROMPTS,
    check_accounts,
    failures,
    run,
    scores,
    summary,
    write_jsonl,
    write_parquet,
    write_tar,
)

SCORES = ("quality_score", "technical_score", "aesthetic_score", "alignment_score")


@pytest.fixture(scope="module")
def expected(manifest, tmp_path_factory):
    """The scores by prompt."""
    output = tmp_path_factory.mktemp("expected")
    run("--manifest", manifest, "--output", output)
    return scores_by_prompt(output)


def scores_by_prompt(output):
    return {row["prompt"]: [row[name] for name in SCORES] for row in scores(output)}


def make_csv(folder, rows):
    import csv

    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "prompt", "mos"])
        writer.writerows([row["file"], row["prompt"], row["mos"]] for row in rows)
    return folder / "list.csv"


MAKERS = {
    "csv": make_csv,
    "parquet of names": lambda folder, rows: write_parquet(folder / "names.parquet", rows),
    "parquet of bytes": lambda folder, rows: write_parquet(folder / "bytes.parquet", rows, "bytes"),
    "parquet of structs": lambda folder, rows: write_parquet(folder / "structs.parquet", rows, "struct"),
    "tar": lambda folder, rows: write_tar(folder / "samples.tar", rows),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format(clips, expected, tmp_path, kind):
    manifest = MAKERS[kind](*clips)
    assert run("--manifest", manifest, "--output", f"{tmp_path}/out/", "--rows_per_shard", 2) == 0
    check_accounts(tmp_path / "out", COUNT)
    assert scores_by_prompt(tmp_path / "out") == expected
    (failed,) = failures(tmp_path / "out")
    assert failed["prompt"] == PROMPTS[BROKEN]
    row = scores(tmp_path / "out")[1]
    assert float(json.loads(row["json"])["mos"] if kind == "tar" else row["mos"]) == pytest.approx(1 / 3)
    assert "video" not in row, "bytes are not copied into the output"


def test_a_folder_of_all_formats(clips, expected, tmp_path):
    folder, rows = clips
    inputs = tmp_path / "inputs"
    (inputs / "deeper").mkdir(parents=True)
    for row in rows:
        os.link(folder / row["file"], inputs / row["file"])
        os.link(folder / row["file"], inputs / "deeper" / row["file"])
    write_jsonl(inputs / "a.jsonl", rows[:2])
    write_parquet(inputs / "b.parquet", rows[2:4], "bytes")
    write_tar(inputs / "deeper" / "c.tar", rows[4:])
    write_jsonl(inputs / "deeper" / "d.jsonl", rows[:1])
    (inputs / ".hidden.jsonl").write_text("not a manifest")
    (inputs / "notes.txt").write_text("not a manifest")
    assert run("--manifest", inputs, "--output", f"{tmp_path}/out/") == 0
    check_accounts(tmp_path / "out", COUNT + 1)
    assert scores_by_prompt(tmp_path / "out") == expected
    names = [row["file"] for row in scores(tmp_path / "out")]
    assert names.count("0.mp4") == 2, "files of the same name in two folders are two clips"
    assert ds.dataset(tmp_path / "out" / "scores").schema.field("mos").type == "double"


def test_an_empty_folder_and_a_file_of_no_format(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (tmp_path / "bare.csv").write_text("file,prompt\n")
    for name, message in {
        "empty": "has no file that ends in .csv",
        "clip.mp4": "expected a name that ends in",
        "bare.csv": "has no rows",
    }.items():
        assert run("--manifest", tmp_path / name, "--output", f"{tmp_path}/out-{name}/") == 2
        assert message in capsys.readouterr().err


def test_a_parquet_file_without_clips_or_that_is_damaged(tmp_path, capsys):
    import pyarrow as pa

    pq.write_table(pa.table({"url": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert run("--manifest", tmp_path / "a.parquet", "--output", f"{tmp_path}/out/") == 2
    assert "no column that names the clips" in capsys.readouterr().err
    assert run("--manifest", tmp_path / "b.parquet", "--output", f"{tmp_path}/out2/") == 2
    assert "cannot be read as parquet" in capsys.readouterr().err


def test_columns_of_any_type_are_kept(clips, tmp_path):
    import datetime

    import pyarrow as pa

    folder, rows = clips
    columns = {
        "file": pa.array([rows[0]["file"], rows[1]["file"]]),
        "prompt": pa.array(["a", "b"]),
        "large": pa.array([2**64 - 1, 0], pa.uint64()),
        "small": pa.array([1, None], pa.int8()),
        "flag": pa.array([True, None]),
        "day": pa.array([datetime.date(2026, 1, 2), None]),
        "nested": pa.array([{"a": [1]}, None]),
        "thumbnail": pa.array([b"bytes", None]),
        "unit": pa.array(["s", "m"]),
        "position": pa.array([7, 8]),
    }
    pq.write_table(pa.table(columns), folder / "types.parquet")
    assert run("--manifest", folder / "types.parquet", "--output", f"{tmp_path}/out/") == 0
    row, other = scores(tmp_path / "out")
    assert (row["large"], row["small"], row["flag"], row["day"]) == (str(2**64 - 1), 1, True, "2026-01-02")
    assert json.loads(row["nested"]) == {"a": [1]} and "thumbnail" not in row
    assert (row["unit"], row["manifest_position"], row["position"]) == ("s", 7, 0)
    assert (other["small"], other["flag"], other["nested"]) == (None, None, None)


def test_a_damaged_archive_is_said_and_its_whole_samples_are_scored(clips, tmp_path, capsys):
    folder, rows = clips
    whole = write_tar(folder / "cut.tar", rows).read_bytes()
    (folder / "cut.tar").write_bytes(whole[: len(whole) // 2])
    options = ["--manifest", folder / "cut.tar", "--output", f"{tmp_path}/out/"]
    assert run(*options) == 1
    assert "cannot be read to its end" in capsys.readouterr().err
    accounts = summary(tmp_path / "out")
    assert not accounts["complete"] and accounts["unreadable_inputs"][0]["place"].endswith("cut.tar")
    assert len(scores(tmp_path / "out")) >= 1
    assert run(*options, "--json") == 1
    assert json.loads(capsys.readouterr().out)["this_run"]["clips"] == 0, "nothing is scored twice"


def test_a_place_in_memory(clips, expected, tmp_path):
    folder, rows = clips
    system = fsspec.filesystem("memory")
    for row in rows:
        system.pipe_file(f"/data/{row['file']}", (folder / row["file"]).read_bytes())
    system.pipe_file("/data/m.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    try:
        # Decoders are processes of their own; a memory:// place is one process's.
        options = ["--manifest", "memory://data/m.jsonl", "--decoders", 0]
        assert run(*options, "--output", f"{tmp_path}/out/") == 0
        assert scores_by_prompt(tmp_path / "out") == expected
        absolute = write_jsonl(folder / "m2.jsonl", [{**row, "file": f"memory://data/{row['file']}"} for row in rows])
        assert run("--manifest", absolute, "--decoders", 0, "--output", f"{tmp_path}/out2/") == 0
        assert scores_by_prompt(tmp_path / "out2") == expected
        assert run(*options, "--output", "memory://results") == 0
        accounts = json.loads(system.cat_file("/results/summary.json"))
        assert accounts["complete"] and accounts["in"] == COUNT
        assert run(*options, "--output", "memory://results/", "--retry_failed") == 0
        with system.open("/results/failures.parquet") as file:
            assert pq.read_table(file).column("attempts").to_pylist() == [2]
    finally:
        system.rm("/data", recursive=True)
        if system.exists("/results"):
            system.rm("/results", recursive=True)


@pytest.fixture
def s3(monkeypatch):
    """An S3 server on this machine, and the settings that reach it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command[-1] = str(port)
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    system = fsspec.filesystem("s3")
    system.mkdir("bucket")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.terminate()
    server.wait()


def test_an_object_store(clips, expected, s3):
    folder, rows = clips
    for row in rows:
        s3.pipe_file(f"bucket/data/{row['file']}", (folder / row["file"]).read_bytes())
    rows = [*rows, {"file": "gone.mp4", "prompt": "gone"}]
    s3.pipe_file("bucket/data/m.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    options = ["--manifest", "s3://bucket/data/m.jsonl", "--output", "s3://bucket/out/", "--rows_per_shard", 4]
    assert run(*options) == 0
    with s3.open("bucket/out/summary.json") as file:
        accounts = json.load(file)
    assert accounts["complete"] and (accounts["scored"], accounts["failed"]) == (COUNT - 1, 2)
    table = ds.dataset("bucket/out/scores", filesystem=s3).to_table().to_pylist()
    assert {row["prompt"]: [row[name] for name in SCORES] for row in table} == expected
    with s3.open("bucket/out/failures.parquet") as file:
        reasons = pq.read_table(file).column("reason").to_pylist()
    assert any("'s3://bucket/data/gone.mp4' does not exist" in reason for reason in reasons)
    assert run(*options) == 0
    assert run(*options, "--branches", "technical") == 2, "another run"
    assert run(*options, "--branches", "technical", "--overwrite") == 0


def test_a_data_set_of_the_hub(clips, expected, tmp_path, monkeypatch, capsys):
    """The only part that is not real is the place: the Hub's id stands for a folder on this machine."""
    folder, rows = clips
    local = tmp_path / "data"
    local.mkdir()
    for name, part in {"train-00000-of-00002": rows[:3], "train-00001-of-00002": rows[3:]}.items():
        write_parquet(folder / f"{name}.parquet", part, "struct").rename(local / f"{name}.parquet")
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: load(str(local), **options))
    assert run("--manifest", "someone/clips", "--output", f"{tmp_path}/out/", "--decoders", 0) == 0
    check_accounts(tmp_path / "out", COUNT)
    assert summary(tmp_path / "out")["units"] == 2, "each file is a unit of work"
    assert scores_by_prompt(tmp_path / "out") == expected
    assert run("--manifest", "someone/clips:test", "--output", f"{tmp_path}/out2/") == 2
    assert "someone/clips:test" in capsys.readouterr().err


def test_ids_depend_on_clip_prompt_model_and_options(clips, tmp_path):
    folder, rows = clips
    identity = ScorerIdentity.of(ScorerSettings())

    def ids(rows, identity, name="ids.jsonl"):
        store = Store(str(tmp_path / name))
        plan = planned(inputs_of(str(write_jsonl(folder / name, rows))), store, 1000, print)
        return [row["id"] for unit in plan.units for row in pending_rows(store, unit, identity, 1)]

    assert len(set(ids(rows, identity))) == COUNT
    assert ids(rows, identity) == ids([row | {"mos": 1, "extra": "x"} for row in rows], identity, "again.jsonl")
    assert not set(ids(rows, identity)) & set(ids([row | {"prompt": "x"} for row in rows], identity, "x.jsonl"))
    other = ScorerIdentity.of(ScorerSettings(branches=("technical",)))
    assert not set(ids(rows, identity)) & set(ids(rows, other, "other.jsonl"))


def test_a_plan_of_many_rows_takes_little_memory(tmp_path):
    """100,000 rows: the peak of planning, reading and counting does not grow with them."""
    program = """
import json, resource, sys
from modeling_aigcvqa.clip_scorer import ScorerIdentity, ScorerSettings
from modeling_aigcvqa.runs.inputs import inputs_of
from modeling_aigcvqa.runs.pending import pending_rows
from modeling_aigcvqa.runs.plan import planned
from modeling_aigcvqa.runs.store import Store
identity = ScorerIdentity.of(ScorerSettings())
peaks = []
for count in (1000, 100_000):
    manifest = f"{sys.argv[1]}/{count}.jsonl"
    with open(manifest, "w") as file:
        for n in range(count):
            file.write(json.dumps({"file": f"{n}.mp4", "prompt": f"prompt {n} " * 20}) + "\\n")
    store = Store(f"{sys.argv[1]}/plan{count}")
    plan = planned(inputs_of(manifest), store, 1000, print)
    assert sum(1 for unit in plan.units for _ in pending_rows(store, unit, identity, 1)) == count
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(json.dumps(peaks))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    small, large = json.loads(done.stdout.splitlines()[-1])
    assert large - small < 60, "MiB"
