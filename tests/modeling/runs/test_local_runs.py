"""`aigcvqa score --output DIR/` with one process: resumed, retried, repeated and refused runs."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.dataset as ds
import pytest

from modeling_aigcvqa.clip_scorer import ClipReader
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
)

pytestmark = pytest.mark.alone


@pytest.fixture
def read(monkeypatch):
    """The names of the clips that are really read."""
    names = []
    original = ClipReader.read

    def counted(self, video, prompt):
        names.append(os.path.basename(str(video)))
        if os.environ.get("INTERRUPT_AT") == names[-1]:
            raise KeyboardInterrupt
        return original(self, video, prompt)

    monkeypatch.setattr(ClipReader, "read", counted)
    return names


def test_every_clip_is_scored_or_in_the_ledger(manifest, tmp_path, capsys):
    assert run("--manifest", manifest, "--output", f"{tmp_path}/out/") == 0, "a clip that failed is accounted for"
    check_accounts(tmp_path / "out", COUNT)
    rows = scores(tmp_path / "out")
    assert [row["file"] for row in rows] == [f"{n}.mp4" for n in range(COUNT) if n != BROKEN]
    assert [row["prompt"] for row in rows] == [prompt for n, prompt in enumerate(PROMPTS) if n != BROKEN]
    assert rows[1]["mos"] == pytest.approx(1 / 3)
    assert rows[1]["manifest_id"] == "clip-1", "the manifest's own ids are kept"
    assert json.loads(rows[1]["tags"]) == ["a", "1"]
    assert rows[0]["model_revision"].startswith("sha256:") and len(rows[0]["options_fingerprint"]) == 32
    assert rows[0]["quality_score"] == pytest.approx(
        sum(rows[0][f"{name}_score"] for name in ("technical", "aesthetic", "alignment")), abs=1e-4
    )
    (failed,) = failures(tmp_path / "out")
    assert failed["file"] == f"{BROKEN}.mp4" and failed["attempts"] == 1
    assert f"{BROKEN}.mp4' cannot be decoded" in failed["reason"]
    printed = capsys.readouterr()
    assert f"{COUNT} clips: {COUNT - 1} scored, 1 failed" in printed.out
    assert "failures.parquet" in printed.err
    assert f"{COUNT} of {COUNT} clips" in (tmp_path / "out" / "log.txt").read_text()


def test_scores_are_those_of_the_pipeline(manifest, tmp_path):
    from modeling_aigcvqa import load_pipeline

    run("--manifest", manifest, "--output", f"{tmp_path}/out/")
    scorer = load_pipeline()
    for row in scores(tmp_path / "out"):
        expected = scorer({"video": str(manifest.parent / row["file"]), "prompt": row["prompt"]})
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("rows_per_shard", [2, 1000])
def test_an_interrupted_run_goes_on(manifest, tmp_path, monkeypatch, read, rows_per_shard, capsys):
    options = ["--manifest", manifest, "--decoders", 0, "--rows_per_shard", rows_per_shard]
    run(*options, "--output", f"{tmp_path}/whole/")
    read.clear()
    monkeypatch.setenv("INTERRUPT_AT", "3.mp4")
    assert run(*options, "--output", f"{tmp_path}/out/") == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.delenv("INTERRUPT_AT")
    assert run(*options, "--output", f"{tmp_path}/out/") == 0
    assert read == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "3.mp4", "4.mp4"]
    assert "starts with 3 clips done" in (tmp_path / "out" / "log.txt").read_text()
    assert not list((tmp_path / "out" / "fragments").iterdir())
    check_accounts(tmp_path / "out", COUNT)
    assert scores(tmp_path / "out") == scores(tmp_path / "whole")
    read.clear()
    assert run(*options, "--output", f"{tmp_path}/out/") == 0
    assert read == []
    assert summary(tmp_path / "out")["this_run"]["clips"] == 0


def test_a_killed_run_goes_on(clips, tmp_path):
    folder, rows = clips
    many = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(16) for row in rows]
    manifest = write_jsonl(folder / "many.jsonl", many)
    command = [sys.executable, "-m", "modeling_aigcvqa", "score", "--manifest", str(manifest)]
    command += ["--output", f"{tmp_path}/out/", "--rows_per_shard", "30"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("fragments/*/*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = sum(len(ds.dataset(file).to_table()) for file in (tmp_path / "out").glob("fragments/*/*.parquet"))
    assert 0 < kept < len(many)
    assert subprocess.run(command, capture_output=True).returncode == 0
    check_accounts(tmp_path / "out", len(many))
    assert summary(tmp_path / "out")["this_run"]["clips"] <= len(many) - kept


def test_failed_clips_are_scored_again(clips, tmp_path, read):
    folder, rows = clips
    late = folder / "late.mp4"
    manifest = write_jsonl(folder / "late.jsonl", [*rows, {"file": "late.mp4", "prompt": "late"}])
    options = ["--manifest", manifest, "--output", f"{tmp_path}/out/", "--decoders", 0, "--rows_per_shard", 4]
    run(*options)
    assert {row["file"]: row["attempts"] for row in failures(tmp_path / "out")} == {"2.mp4": 1, "late.mp4": 1}
    before = {row["id"]: row for row in scores(tmp_path / "out")}
    late.write_bytes((folder / "1.mp4").read_bytes())
    read.clear()
    assert run(*options, "--retry_failed") == 0
    assert sorted(read) == ["2.mp4", "late.mp4"]
    late.unlink()
    check_accounts(tmp_path / "out", COUNT + 1)
    assert [(row["file"], row["attempts"]) for row in failures(tmp_path / "out")] == [("2.mp4", 2)]
    after = {row["id"]: row for row in scores(tmp_path / "out")}
    assert len(after) == len(before) + 1
    assert {key: after[key] for key in before} == before
    read.clear()
    assert run(*options) == 0
    assert read == [], "a run without --retry_failed leaves the failed clips"


def test_an_interrupted_retry_goes_on(clips, tmp_path, read, monkeypatch):
    folder, rows = clips
    gone = [{"file": f"gone{n}.mp4", "prompt": "gone"} for n in range(3)]
    manifest = write_jsonl(folder / "gone.jsonl", [*rows, *gone])
    options = ["--manifest", manifest, "--output", f"{tmp_path}/out/", "--decoders", 0]
    run(*options)
    read.clear()
    monkeypatch.setenv("INTERRUPT_AT", "gone1.mp4")
    assert run(*options, "--retry_failed") == 130
    monkeypatch.delenv("INTERRUPT_AT")
    assert run(*options, "--retry_failed") == 0
    assert sorted(read) == ["2.mp4", "gone0.mp4", "gone1.mp4", "gone1.mp4", "gone2.mp4"]
    assert {row["attempts"] for row in failures(tmp_path / "out")} == {2}
    check_accounts(tmp_path / "out", COUNT + 3)


def test_a_repeated_clip_stands_once(clips, tmp_path, capsys):
    folder, rows = clips
    manifest = write_jsonl(folder / "twice.jsonl", [*rows, rows[0], *rows, {**rows[1], "prompt": "another"}])
    run("--manifest", manifest, "--output", f"{tmp_path}/out/", "--rows_per_shard", 4)
    check_accounts(tmp_path / "out", COUNT + 1)
    assert summary(tmp_path / "out")["repeated"] == COUNT + 1
    assert f"{COUNT + 1} rows repeat a clip" in capsys.readouterr().err
    run("--manifest", manifest, "--output", f"{tmp_path}/out/", "--rows_per_shard", 4, "--retry_failed")
    check_accounts(tmp_path / "out", COUNT + 1)


def test_failed_clips_are_scored_again_where_repeated_ones_have_left_the_unit(clips, tmp_path):
    folder, rows = clips
    manifest = write_jsonl(folder / "left.jsonl", [rows[0], rows[1], rows[0], {"file": "gone.mp4", "prompt": "x"}])
    options = ["--manifest", manifest, "--output", f"{tmp_path}/out/", "--rows_per_shard", 2]
    for attempts in (1, 2, 3):
        assert run(*options, *(["--retry_failed"] if attempts > 1 else [])) == 0
        check_accounts(tmp_path / "out", 3)
        assert [row["attempts"] for row in failures(tmp_path / "out")] == [attempts]
        assert summary(tmp_path / "out")["repeated"] == 1


def test_a_row_that_names_no_clip_or_has_a_strange_prompt_fails_alone(clips, tmp_path):
    folder, _ = clips
    odd = [
        {"file": "0.mp4", "prompt": None},
        {"file": "0.mp4", "prompt": ["a"]},
        {"file": "0.mp4", "prompt": "\ud800"},
        {"file": "0.mp4", "prompt": 7},
        {"file": "\ud800.mp4", "prompt": "a"},
    ]
    manifest = write_jsonl(folder / "odd.jsonl", odd)
    assert run("--manifest", manifest, "--output", f"{tmp_path}/out/") == 0
    check_accounts(tmp_path / "out", 5)
    assert [row["prompt"] for row in scores(tmp_path / "out")] == ["7"]


def test_another_run_is_not_mixed_in(clips, manifest, tmp_path, capsys):
    folder, rows = clips
    output = f"{tmp_path}/out/"
    run("--manifest", manifest, "--output", output)
    refused = {
        "branches": ["--manifest", manifest, "--branches", "technical"],
        "on_damage: raise there, warn now": ["--manifest", manifest, "--on_damage", "warn"],
        "rows_per_shard": ["--manifest", manifest, "--rows_per_shard", 3],
        "has changed, is new or is gone": ["--manifest", write_jsonl(folder / "other.jsonl", rows[:2])],
    }
    for message, options in refused.items():
        assert run(*options, "--output", output) == 2
        printed = capsys.readouterr().err
        assert message in printed and "--overwrite" in printed
    assert run(*refused["branches"], "--output", output, "--overwrite") == 0
    assert {row["quality_of"] for row in scores(output)} == {"technical"}
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert run("--manifest", manifest, "--output", foreign) == 2
    assert "holds other files ('thesis.txt'" in capsys.readouterr().err


def test_two_runs_at_once_are_refused(manifest, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run("--manifest", manifest, "--output", f"{tmp_path}/out/") == 2
    assert "being written by another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "DIR/"], "goes with --manifest"),
        (["--manifest", "M", "--output", "DIR/", "--prompt", "a"], "--prompt goes with VIDEO"),
        (["--manifest", "M", "--output", "scores.csv", "--engine", "ray"], "go with a folder"),
        (["--manifest", "M", "--engine", "local"], "go with a folder"),
        (["--manifest", "M", "--output", "DIR/", "--workers", "2"], "--workers goes with --engine ray"),
        (["--manifest", "M", "--output", "DIR/", "--num_workers", "2"], "--decoders"),
        (["--manifest", "M", "--output", "DIR/", "--decoders", "-1"], "--decoders -1"),
        (["--manifest", "M", "--output", "DIR/", "--rows_per_shard", "0"], "--rows_per_shard 0"),
        (["--manifest", "missing.csv", "--output", "DIR/"], "'missing.csv' does not exist"),
        (["--manifest", "nothere://a.csv", "--output", "DIR/"], "nothere"),
        (["--manifest", "M", "--output", "DIR/", "--engine", "ray", "--dtype", "auto"], "--dtype auto"),
    ],
)
def test_wrong_calls(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "M").write_text("")
    assert run(*options) == 2
    assert message in capsys.readouterr().err


def test_a_manifest_without_prompts_is_one_error(clips, tmp_path, capsys):
    folder, rows = clips
    manifest = write_jsonl(folder / "bare.jsonl", [{"file": row["file"]} for row in rows])
    assert run("--manifest", manifest, "--output", f"{tmp_path}/out/") == 2
    assert "needs the prompts, and there is none" in capsys.readouterr().err
    assert run("--manifest", manifest, "--output", f"{tmp_path}/out/", "--branches", "technical", "--overwrite") == 0


def test_what_is_left_in_a_fragment_and_in_a_shard_is_one_row(manifest, tmp_path):
    """A kill between the writing of a shard and the deleting of its fragments."""
    output = tmp_path / "out"
    run("--manifest", manifest, "--output", f"{output}/")
    whole = scores(output)
    from modeling_aigcvqa.runs.run_folder import FRAGMENT
    from modeling_aigcvqa.runs.store import Store

    row = dict.fromkeys(FRAGMENT.names) | {name: whole[0].get(name) for name in FRAGMENT.names} | {"unit": 0}
    import pyarrow as pa

    table = pa.Table.from_pylist([row | {"columns": "{}"}], FRAGMENT).replace_schema_metadata({"failed": "0"})
    Store(str(output)).write_table("fragments/000000/001-left.parquet", table)
    (output / "summary.json").unlink()
    assert run("--manifest", manifest, "--output", f"{output}/") == 0
    check_accounts(output, COUNT)
    assert [row["quality_score"] for row in scores(output)] == [row["quality_score"] for row in whole]
    assert not list((output / "fragments").iterdir())
