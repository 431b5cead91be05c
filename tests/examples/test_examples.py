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
from training.common.clips import load_splits


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """The folder with metadata.jsonl of a benchmark with six prompts and three generators, 64 x 64."""
    output = tmp_path_factory.mktemp("benchmark") / "synthetic"
    make_benchmark(output, num_prompts=6, generators=3, seed=1, size=64)
    return output / "data" / "train"


@pytest.mark.slow
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


def fine_tuned(ratings, output, *options):
    """The status of a fine-tuning that ends before its training."""
    return fine_tune.main(["--csv", str(ratings), "--init_from", "small", "--output", str(output), "--", *options])


def test_clips_may_lie_anywhere_and_the_output_beside_them(ratings, tmp_path, monkeypatch):
    """Absolute paths, names without their ending, and an output folder in the folder of the CSV."""
    trained = []
    monkeypatch.setattr(fine_tune, "train", lambda *arguments: trained.append(arguments))
    rows = read_csv(ratings)
    relative = write_csv(ratings.with_name("relative.csv"), rows)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = [row | {"file": str(ratings.parent / row["file"]).removesuffix(".mp4")} for row in rows]
    absolute = write_csv(elsewhere / "absolute.csv", rows)
    found = []
    for table in (relative, absolute):
        output = table.parent / "tuned"
        options = ["--csv", str(table), "--init_from", "small", "--output", str(output), "--no_evaluation"]
        assert fine_tune.main([*options, "--", "--batch_size", "4"]) == 0
        assert [path.name for path in output.iterdir()] == ["data"], "nothing is left of the gathering"
        kept = load_splits(str(output / "data"))["train"].remove_columns("video")
        found.append(sorted((row["prompt"], row["mos"], row["generator"]) for row in kept))
    assert len(trained) == 2
    assert found[0] == found[1]
    assert len(found[0]) == len(rows) - 2, "without the damaged and the missing clip"


def test_too_few_clips_are_refused_before_anything_runs(ratings, tmp_path, capsys):
    write_csv(ratings, read_csv(ratings)[:9])
    assert fine_tuned(ratings, tmp_path / "tuned") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "has 9 clips with a file and a MOS" in message
    assert "needs at least 14 (a batch of 8, 3 to validate and 3 to test)" in message
    assert not (tmp_path / "tuned").exists()
    write_csv(ratings, [row | {"prompt": "one prompt"} for row in read_csv(ratings)])
    assert fine_tuned(ratings, tmp_path / "tuned", "--batch_size", "3") == 2
    assert "too few clips for a split" in " ".join(capsys.readouterr().err.split())


def test_prompts_that_are_too_few_for_a_split_by_prompt(tmp_path, capsys):
    """Then the split is by clip; the split files are as `make_splits` writes them."""

    def splits(name, train, validation, test):
        parts = ["train"] * train + ["validation"] * validation + ["test"] * test
        write_csv(tmp_path / name, [{"id": str(number), "split": part} for number, part in enumerate(parts)])

    splits("prompt_disjoint_00.csv", 30, 0, 30)
    splits("random_00.csv", 42, 6, 12)
    assert fine_tune.split(tmp_path, tmp_path, 0, 8).name == "random_00.csv"
    assert "'prompt_disjoint_00.csv' is not used: 30 in train (at least 8), 0 in val" in capsys.readouterr().out
    splits("prompt_disjoint_00.csv", 42, 6, 12)
    assert fine_tune.split(tmp_path, tmp_path, 0, 8).name == "prompt_disjoint_00.csv"
    with pytest.raises(ValueError, match=r"too few clips for a split: 42 in train \(at least 64\)"):
        fine_tune.split(tmp_path, tmp_path, 0, 64)


def test_files_that_are_not_there_and_wrong_options_are_named_at_once(ratings, tmp_path, capsys):
    with pytest.raises(SystemExit):
        fine_tuned(ratings, tmp_path / "tuned", "--epochz", "3")
    assert "--epochz" in capsys.readouterr().err
    write_csv(ratings, [row | {"file": f"nowhere/{row['file']}"} for row in read_csv(ratings)])
    assert fine_tuned(ratings, tmp_path / "tuned") == 2
    assert "none of the 20 files" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "tuned").exists()


def test_fine_tune_refuses_a_csv_of_another_kind(ratings, model_folder, tmp_path, capsys):
    write_csv(ratings, [{"file": "clips/a.mp4", "rating": "3"}])
    arguments = ["--csv", str(ratings), "--init_from", str(model_folder), "--output", str(tmp_path / "tuned")]
    assert fine_tune.main(arguments) == 2
    assert "no column ['prompt', 'mos']" in capsys.readouterr().err
