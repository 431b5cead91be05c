"""The examples work with the small model and with clips of the synthetic benchmark."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from dataset_scripts.synthetic_baselines import read_rows
from dataset_scripts.synthetic_t2v import make_benchmark
from examples import filter_clips, fine_tune, tune_generator
from modeling_aigcvqa import cli
from modeling_aigcvqa.loading import load_pipeline
from training import evaluate, stage3


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """The folder with metadata.jsonl of a benchmark with six prompts and three generators, 64 x 64."""
    output = tmp_path_factory.mktemp("benchmark") / "synthetic"
    make_benchmark(output, num_prompts=6, generators=3, seed=1, size=64)
    return output / "data" / "train"


def test_tune_generator(benchmark, model_folder, tmp_path, capsys):
    """Each way of tuning runs, is judged, and moves the generator."""
    output = tmp_path / "tuned"
    arguments = ["--data", str(benchmark.parents[1]), "--judge", str(model_folder), "--output", str(output)]
    assert tune_generator.main([*arguments, "--learn_steps", "3", "--steps", "2"]) == 0
    curves = read_csv(output / "curves.csv")
    methods = ["gradient", "gradient with anchor", "groups"]
    assert [(row["method"], row["step"]) for row in curves] == [(method, step) for method in methods for step in "02"]
    assert len({row["reward"] for row in curves}) == 4, "equal at the start, different after it"
    assert len({row["judge"] for row in curves}) == 4
    sheets = {file.name for file in output.glob("*.png")}
    assert sheets == {"curves.png", "before.png", *(f"after_{method.replace(' ', '_')}.png" for method in methods)}
    assert tune_generator.main([*arguments, "--steps", "1"]) == 2, "the folder exists"


def write_csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_compare_generators(benchmark, tmp_path, capsys):
    rows = read_rows(benchmark.parents[1])[:9]
    manifest = [
        {"file": str(benchmark / row["file_name"]), "prompt": row["prompt"], "generator": row["generator"]}
        for row in rows
    ]
    scores = tmp_path / "scores.csv"
    arguments = ["--manifest", str(write_csv(tmp_path / "clips.csv", manifest)), "--output", str(scores)]
    assert cli.main(["score", *arguments]) == 0
    script = Path(filter_clips.__file__).with_name("compare_generators.py")
    command = [sys.executable, str(script), str(scores)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    mean = np.mean([float(row["quality_score"]) for row in read_csv(scores) if row["generator"] == "aurora"])
    assert f"  aurora: {mean:.2f} (group a)" in printed
    assert "share only 3 prompts" in printed
    refused = subprocess.run([*command[:-1], str(tmp_path / "clips.csv")], capture_output=True, text=True)
    assert "holds no scores; `aigcvqa score` writes them" in refused.stderr


def test_filter_clips(benchmark, tmp_path, capsys):
    """Prompts are in files beside the clips. Of six clips, one is broken, one has no prompt, two are kept."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, row in enumerate(read_rows(benchmark.parents[1])[:5]):
        shutil.copyfile(benchmark / row["file_name"], folder / f"{number}.mp4")
        if number:
            (folder / f"{number}.txt").write_text(f"{row['prompt']}\n")
    (folder / "broken.gif").write_bytes(b"GIF89a broken")
    (folder / "broken.txt").write_text("a prompt")
    output = tmp_path / "out"
    assert filter_clips.main([str(folder), "--keep_share", "0.5", "--output", str(output), "--copy"]) == 1
    assert "kept 2, rejected 4 (2 could not be scored)" in capsys.readouterr().out
    kept, rejected = read_csv(output / "kept.csv"), read_csv(output / "rejected.csv")
    scores = {row["file"]: float(row["quality_score"]) for row in [*kept, *rejected] if row["quality_score"]}
    assert {row["file"] for row in kept} == set(sorted(scores, key=scores.get)[-2:])
    assert {file.name for file in (output / "clips").iterdir()} == {row["file"] for row in kept}
    reasons = {row["file"]: row["reason"] for row in rejected}
    assert reasons["broken.gif"].startswith("cannot be scored:")
    assert "prompt" in reasons["0.mp4"]
    assert sum(reason == "not among the best 50% by quality_score" for reason in reasons.values()) == 2


def test_thresholds_are_applied_before_the_share():
    rows = [{"file": str(n), "quality_score": n / 10, "alignment_score": float(n % 2)} for n in range(8)]
    rows.append({"file": "bad", "error": "damaged"})
    filter_clips.judge(rows, {"alignment_score": 0.5, "quality_score": 0.3}, keep_share=0.25, by="quality_score")
    assert [row["file"] for row in rows if not row["reason"]] == [
        "5",
        "7",
    ]  # the best 2 of the 3 clips that pass; 2 is the share of 8
    assert rows[0]["reason"] == "alignment_score 0.0000 < 0.5; quality_score 0.0000 < 0.3"
    assert rows[3]["reason"] == "not among the best 25% by quality_score"
    assert rows[-1]["reason"] == "cannot be scored: damaged"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no filter was given"),
        (["--keep_share", "30"], "expected a share"),
        (["--minimum", "alignment_score=0", "--branches", "technical"], "has no ['alignment_score']"),
    ],
)
def test_filter_clips_refuses(benchmark, tmp_path, capsys, arguments, message):
    assert filter_clips.main([str(benchmark), "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def ratings(benchmark, tmp_path):
    """A user's CSV beside the clips, of which one is damaged and one is missing."""
    folder = tmp_path / "ratings"
    shutil.copytree(benchmark / "clips", folder / "clips")
    rows = [
        {"file": row["file_name"], "prompt": row["prompt"], "mos": row["mos"], "generator": row["generator"]}
        for row in read_rows(benchmark.parents[1])
    ]
    (folder / "clips" / "damaged.mp4").write_bytes(b"damaged")
    rows += [{**rows[0], "file": "clips/damaged.mp4"}, {**rows[0], "file": "clips/missing.mp4"}]
    return write_csv(folder / "mos.csv", rows)


OPTIONS = ["--epochs", "1", "--batch_size", "4", "--max_steps", "2", "--mixed_precision", "no", "--num_workers", "0"]


def check_fine_tuned(output: Path, clip: Path) -> None:
    scores = load_pipeline(str(output / "model"))({"video": str(clip), "prompt": "a prompt"})
    assert np.isfinite(list(scores.values())).all()
    for name in ("evaluation_before", "evaluation"):
        assert json.loads((output / name / "metrics.json").read_text())["num_clips"] > 0
    found = {problem["subject"] for problem in json.loads((output / "data" / "report.json").read_text())["problems"]}
    assert found == {"clips/damaged", "clips/missing"}


def test_fine_tune(ratings, model_folder, tmp_path, monkeypatch, capsys):
    """All steps. Training and evaluation run in this process because new processes take seconds to start."""

    def run(*command):
        parts = {"training/stage3.py": stage3.main, "training.evaluate": evaluate.main}
        place = next(place for place, part in enumerate(command) if part in parts)
        return parts[command[place]](list(command[place + 1 :])) or 0

    monkeypatch.setattr(fine_tune, "run", run)
    monkeypatch.chdir(fine_tune.REPOSITORY)
    arguments = ["--csv", str(ratings), "--init_from", str(model_folder), "--output", str(tmp_path / "tuned")]
    assert fine_tune.main([*arguments, "--", *OPTIONS]) == 0
    assert "quality_score: SROCC on the test part" in capsys.readouterr().out
    check_fine_tuned(tmp_path / "tuned", next(ratings.parent.glob("clips/*/*.mp4")))
    assert fine_tune.main([*arguments, "--", *OPTIONS]) == 0
    assert "is already trained" in capsys.readouterr().out


@pytest.mark.slow
def test_fine_tune_in_processes(ratings, model_folder, tmp_path):
    arguments = ["--csv", str(ratings), "--init_from", str(model_folder), "--output", str(tmp_path / "tuned")]
    assert fine_tune.main([*arguments, "--", *OPTIONS]) == 0
    check_fine_tuned(tmp_path / "tuned", next(ratings.parent.glob("clips/*/*.mp4")))
    assert fine_tune.main([*arguments[:-1], str(tmp_path / "again"), "--", "--epochs", "-1"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_trainer_ends_with_fine_tune(ratings, model_folder, tmp_path, number):
    command = [sys.executable, "-m", "examples.fine_tune", "--csv", str(ratings), "--init_from", str(model_folder)]
    command += ["--output", str(tmp_path / "tuned"), "--", *OPTIONS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert any("stage3.py" in line for line in process.stdout)
    deadline = time.monotonic() + 30
    while len(trainers := psutil.Process(process.pid).children(recursive=True)) < 2:  # the launcher and the stage
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) == (143 if number == signal.SIGTERM else -9)
    assert psutil.wait_procs(trainers, timeout=30)[1] == []


def test_fine_tune_refuses_a_csv_of_another_kind(ratings, model_folder, tmp_path, capsys):
    write_csv(ratings, [{"file": "clips/a.mp4", "rating": "3"}])
    arguments = ["--csv", str(ratings), "--init_from", str(model_folder), "--output", str(tmp_path / "tuned")]
    assert fine_tune.main(arguments) == 2
    assert "no column ['prompt', 'mos']" in capsys.readouterr().err
