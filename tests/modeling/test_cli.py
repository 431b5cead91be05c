"""The commands `aigcvqa score` and `aigcvqa init`: output, exit statuses and messages."""

import copy
import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.cli import main
from modeling_aigcvqa.common.presets import default_processor
from modeling_aigcvqa.loading import dtypes, load, load_pipeline
from tests.barcodes import write_barcodes
from tests.conftest import moving_gradient, save_model_folder, write_video


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, size in (("a.mp4", 128), ("b.mp4", 256)):
        write_video(folder / name, moving_gradient(8, size, size))
    return folder


def score(*arguments):
    return main(["score", *map(str, arguments)])


def scored_as_json(capsys, *arguments):
    assert score(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def write_manifest(path, rows):
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file))


def test_videos_with_a_prompt(clips, model_folder, capsys):
    assert score(clips / "a.mp4", "--prompt", "a gradient", "--model", model_folder) == 0
    printed = capsys.readouterr().out
    for word in ("quality", "technical", "aesthetic", "alignment", "untrained"):
        assert word in printed


def test_json(clips, capsys):
    printed = scored_as_json(capsys, clips / "a.mp4", clips / "b.mp4", "--prompt", "a gradient")
    assert printed["note"] == load_pipeline().model.config.weights_note
    assert [row["file"] for row in printed["results"]] == [str(clips / "a.mp4"), str(clips / "b.mp4")]
    assert all(isinstance(row["quality_score"], float) for row in printed["results"])


def test_fewer_frames_for_the_alignment_branch(clips, capsys):
    call = (clips / "a.mp4", "--prompt", "a gradient")
    options = ([], *(["--alignment_num_frames", frames] for frames in (1, 2, 16)))
    rows = [scored_as_json(capsys, *call, *option)["results"][0] for option in options]
    assert len({row["alignment_score"] for row in rows}) == 4, "the small model's own number is 4"
    assert len({(row["technical_score"], row["aesthetic_score"]) for row in rows}) == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_manifest_with_a_bad_row(clips, tmp_path, kind, capsys):
    rows = [
        {"file": "a.mp4", "prompt": "a gradient, with a comma", "generator": "x"},
        {"file": "missing.mp4", "prompt": "gone", "generator": "y"},
        {"file": "b.mp4", "prompt": "", "generator": "z"},
        {"file": "b.mp4", "prompt": "a gradient", "generator": "ü"},
    ]
    manifest, output = write_manifest(clips / f"manifest.{kind}", rows), tmp_path / f"scores.{kind}"
    assert score("--manifest", manifest, "--output", output, "--batch_size", 3) == 1
    scored = read(output)
    assert [row["file"] for row in scored] == [row["file"] for row in rows], "no row is lost"
    assert [row["generator"] for row in scored] == ["x", "y", "z", "ü"], "other columns are kept"
    assert [bool(row.get("error")) for row in scored] == [False, True, True, False]
    assert "missing.mp4" in scored[1]["error"]
    assert float(scored[3]["quality_score"])
    failures = capsys.readouterr().err
    assert "missing.mp4" in failures
    assert "2 of 4" in failures


def test_metadata_of_a_videofolder_is_a_manifest_too(clips, tmp_path):
    manifest = write_manifest(clips / "metadata.jsonl", [{"file_name": "a.mp4", "prompt": "a gradient"}])
    assert score("--manifest", manifest, "--output", tmp_path / "scores.jsonl") == 0
    assert read(tmp_path / "scores.jsonl")[0]["file_name"] == "a.mp4"


def test_two_runs_give_the_same_numbers(clips, tmp_path):
    rows = [{"file": "a.mp4", "prompt": "one"}, {"file": "b.mp4", "prompt": "one two"}]
    manifest, outputs = write_manifest(clips / "manifest.csv", rows), []
    for batch_size in (1, 1, 2):
        options = ("--output", tmp_path / "out.csv", "--overwrite", "--batch_size", batch_size)
        assert score("--manifest", manifest, *options) == 0
        outputs.append(read(tmp_path / "out.csv"))
    assert outputs[0] == outputs[1]
    for row, other in zip(outputs[0], outputs[2]):
        assert float(row["quality_score"]) == pytest.approx(float(other["quality_score"]), abs=1e-5)


def test_branches(clips, model_folder, capsys):
    """No prompt is needed without the alignment branch."""
    call = (clips / "a.mp4", "--model", model_folder, "--branches", "technical")
    row = scored_as_json(capsys, *call)["results"][0]
    assert "technical_score" in row
    assert "alignment_score" not in row


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "auto"])
def test_dtypes(clips, dtype):
    assert score(clips / "a.mp4", "--prompt", "a", "--dtype", dtype, "--device", "cpu") == 0


@pytest.mark.parametrize("ratio", [0.5, 40.0])
def test_a_slow_dtype_is_warned_of(ratio, small_model, processor, tmp_path, monkeypatch):
    """Both if it is requested and if it is the dtype of the weights."""
    model = copy.deepcopy(small_model).to(torch.bfloat16)
    folder = str(save_model_folder(model, processor, tmp_path))
    warnings = []
    for module in (dtypes, load):
        monkeypatch.setattr(module.logger, "warning", warnings.append)
    monkeypatch.setattr(dtypes, "time_against_float32", lambda *_: ratio)
    for options in ({}, {"dtype": "bfloat16"}):
        warnings.clear()
        assert load_pipeline(folder, device="cpu", **options).model.dtype == torch.bfloat16
        if ratio > 1:
            (warning,) = warnings
            assert "bfloat16: a matrix product takes 40 times as long as in float32" in warning
        else:
            assert not warnings
    warnings.clear()
    load_pipeline(folder, device="cpu", dtype="float32")
    assert not warnings
    chosen = load_pipeline(folder, device="cpu", dtype="auto").model.dtype
    assert chosen == (torch.float32 if ratio > 1 else torch.bfloat16)
    assert len(warnings) == 1, "the choice and its reason"


WRONG_MODELS = {  # name of a folder -> its config.json
    "EMPTY": None,
    "OTHER": '{"model_type": "bert"}',
    "BROKEN": "{",
    "INVALID": '{"model_type": "aigcvqa", "mos_std": -1.0}',
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "nothing to score"),
        ("CLIP --manifest m.csv", "not both"),
        ("--manifest m.csv --prompt a", "--prompt goes with"),
        ("--manifest m.csv", "m.csv"),
        ("--manifest m.txt", ".csv or .jsonl"),
        ("CLIP --prompt a --branches sharpness", "sharpness"),
        ("CLIP --prompt a --output scores.xlsx", ".csv or .jsonl"),
        ("CLIP --prompt a --output nowhere/scores.csv", "nowhere"),
        ("CLIP --prompt a --batch_size 0", "--batch_size 0"),
        ("CLIP --prompt a --alignment_num_frames 0", "'alignment_num_frames': ValueError: expected a number above 0"),
        ("CLIP --alignment_num_frames 2 --branches technical", "no alignment branch"),
        ("CLIP --prompt a --model EMPTY", "no config.json"),
        ("CLIP --prompt a --model OTHER", "'bert'"),
        ("CLIP --prompt a --model BROKEN", "cannot be read as JSON"),
        ("CLIP --prompt a --model INVALID", "'mos_std': ValueError: expected a number above 0 (got -1.0)"),
        ("CLIP --prompt a --model CLIP", "is a file"),
    ],
)
def test_wrong_calls_say_what_to_do(clips, tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, config in WRONG_MODELS.items():
        (tmp_path / name).mkdir()
        if config:
            (tmp_path / name / "config.json").write_text(config)
            (tmp_path / name / "model.safetensors").touch()
    assert score(*arguments.replace("CLIP", "clips/a.mp4").split()) == 2
    assert message in capsys.readouterr().err


def test_a_branch_that_the_model_lacks(clips, tmp_path, capsys):
    config = AIGCVQAConfig.small(branches=["technical"])
    folder = save_model_folder(AIGCVQAModel(config), default_processor(config), tmp_path / "model")
    assert score(clips / "a.mp4", "--model", folder) == 0
    assert score(clips / "a.mp4", "--model", folder, "--branches", "aesthetic") == 2
    assert "no branch ['aesthetic']" in capsys.readouterr().err


def test_missing_weights_are_not_made_up(clips, model_folder, tmp_path, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["technical_head.fc_last.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert score(clips / "a.mp4", "--prompt", "a", "--model", folder) == 2
    assert "technical_head.fc_last.weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("prompt\na\n", "no column 'file'"), ("file,prompt\n", "no rows"), ("file,prompt\na.mp4,one, two\n", "quote")],
)
def test_manifests_that_cannot_be_read(tmp_path, text, message, capsys):
    (tmp_path / "m.csv").write_text(text)
    assert score("--manifest", tmp_path / "m.csv") == 2
    assert message in capsys.readouterr().err


def test_the_output_may_not_be_the_manifest(clips):
    rows = [{"file": "a.mp4", "prompt": "a"}]
    manifest = write_manifest(clips / "manifest.csv", rows)
    assert score("--manifest", manifest, "--output", manifest) == 2
    assert read(manifest) == rows


def test_init_writes_a_model_that_scores(clips, tmp_path):
    folder = str(tmp_path / "new")
    assert main(["init", "--preset", "small", "--output", folder]) == 0
    assert score(clips / "a.mp4", "--prompt", "a", "--model", folder) == 0
    assert main(["init", "--preset", "small", "--output", folder]) == 2


def test_python_m(clips):
    command = [sys.executable, "-m", "modeling_aigcvqa", "score", str(clips / "a.mp4"), "--prompt", "a", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["results"][0]["file"].endswith("a.mp4")


def test_damaged_videos(clips, tmp_path, capsys):
    whole = write_barcodes(tmp_path / "whole.mkv")
    (clips / "cut.mkv").write_bytes(whole.read_bytes()[:-600])
    manifest = write_manifest(clips / "manifest.csv", [{"file": name, "prompt": "a"} for name in ("cut.mkv", "a.mp4")])
    output = tmp_path / "scores.csv"
    assert score("--manifest", manifest, "--output", output) == 1
    assert "damaged" in read(output)[0]["error"]
    assert score("--manifest", manifest, "--output", output, "--on_damage", "warn", "--overwrite") == 0
    damaged, whole = read(output)
    assert damaged["quality_score"] and "missing" in damaged["warning"]
    assert not whole["warning"]
    assert "damaged: cut.mkv" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_output_of_a_run_is_a_manifest(clips, tmp_path, kind):
    """To score failed rows again, or with another model: old results are replaced, and cells keep their text."""
    rows = [{"file": "a.mp4", "prompt": "=1+1"}, {"file": "late.mp4", "prompt": "- [b]bold[/b]"}]
    manifest, output = write_manifest(clips / f"manifest.{kind}", rows), clips / f"scores.{kind}"
    assert score("--manifest", manifest, "--output", output) == 1
    first = read(output)
    if kind == "csv":
        assert [row["prompt"] for row in first] == ["'=1+1", "'- [b]bold[/b]"], "a spreadsheet runs nothing"
    shutil.copy(clips / "b.mp4", clips / "late.mp4")
    again = tmp_path / f"again.{kind}"
    assert score("--manifest", output, "--output", again) == 0
    second = read(again)
    assert not any(row.get("error") for row in second)
    assert second[1]["quality_score"]
    assert (second[0]["quality_score"], second[0]["prompt"]) == (first[0]["quality_score"], first[0]["prompt"])
    assert list(second[0]).count("quality_score") == 1


def test_square_brackets_in_names_are_text(clips, capsys):
    shutil.copy(clips / "a.mp4", clips / "[bold]a[ü].mp4")
    assert score(clips / "[bold]a[ü].mp4", "--prompt", "a") == 0
    assert "[bold]a[ü].mp4" in re.sub(r"[\s│]", "", capsys.readouterr().out), "a long path is folded"
