import copy
import csv
import json
import shutil
import subprocess
import sys

import pytest
import torch

from modeling_aigcvqa.cli import main
from modeling_aigcvqa.loading import dtypes, load, load_pipeline
from tests.conftest import moving_gradient, save_model_folder, write_video


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, size in (("a.mp4", 128), ("b.mp4", 256)):
        write_video(folder / name, moving_gradient(8, size, size))
    return folder


def write_manifest(folder, rows, name="manifest.csv"):
    path = folder / name
    if name.endswith(".csv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_videos_with_a_prompt(clips, model_folder, capsys):
    assert main(["score", str(clips / "a.mp4"), "--prompt", "a gradient", "--model", str(model_folder)]) == 0
    printed = capsys.readouterr().out
    for word in ("quality", "technical", "aesthetic", "alignment", "untrained"):
        assert word in printed


def test_json(clips, capsys):
    assert main(["score", str(clips / "a.mp4"), str(clips / "b.mp4"), "--prompt", "a gradient", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["note"] == load_pipeline().model.config.weights_note
    assert [row["file"] for row in printed["results"]] == [str(clips / "a.mp4"), str(clips / "b.mp4")]
    assert all(isinstance(row["quality_score"], float) for row in printed["results"])


def test_fewer_frames_for_the_alignment_branch(clips, capsys):
    call = ["score", str(clips / "a.mp4"), "--prompt", "a gradient", "--json"]
    scores = {}
    for frames in (None, 1, 2, 16):
        assert main([*call, *(["--alignment_num_frames", str(frames)] if frames else [])]) == 0
        scores[frames] = json.loads(capsys.readouterr().out)["results"][0]
    assert len({row["alignment_score"] for row in scores.values()}) == 4, "the small model's own number is 4"
    assert len({(row["technical_score"], row["aesthetic_score"]) for row in scores.values()}) == 1
    wrong = {
        "'alignment_num_frames': ValueError: expected a number above 0 (got 0)": ["0"],
        "no alignment branch": ["2", "--branches", "technical"],
    }
    for reason, values in wrong.items():
        assert main([*call, "--alignment_num_frames", *values]) == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_manifest_with_a_bad_row(clips, tmp_path, kind, capsys):
    rows = [
        {"file": "a.mp4", "prompt": "a gradient, with a comma", "generator": "x"},
        {"file": "missing.mp4", "prompt": "gone", "generator": "y"},
        {"file": "b.mp4", "prompt": "", "generator": "z"},
        {"file": "b.mp4", "prompt": "a gradient", "generator": "ü"},
    ]
    manifest, output = write_manifest(clips, rows, f"manifest.{kind}"), tmp_path / f"scores.{kind}"
    assert main(["score", "--manifest", str(manifest), "--output", str(output), "--batch_size", "3"]) == 1
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
    manifest = write_manifest(clips, [{"file_name": "a.mp4", "prompt": "a gradient"}], "metadata.jsonl")
    output = tmp_path / "scores.jsonl"
    assert main(["score", "--manifest", str(manifest), "--output", str(output)]) == 0
    assert read(output)[0]["file_name"] == "a.mp4"


def test_two_runs_give_the_same_numbers(clips, tmp_path):
    manifest = write_manifest(clips, [{"file": "a.mp4", "prompt": "one"}, {"file": "b.mp4", "prompt": "one two"}])
    outputs = []
    for batch_size in ("1", "1", "2"):
        output = tmp_path / f"{len(outputs)}.csv"
        assert main(["score", "--manifest", str(manifest), "--output", str(output), "--batch_size", batch_size]) == 0
        outputs.append(read(output))
    assert outputs[0] == outputs[1]
    for row, other in zip(outputs[0], outputs[2]):
        assert float(row["quality_score"]) == pytest.approx(float(other["quality_score"]), abs=1e-5)


def test_branches(clips, model_folder, capsys):
    arguments = ["score", str(clips / "a.mp4"), "--model", str(model_folder), "--branches", "technical", "--json"]
    assert main(arguments) == 0, "no prompt is needed without the alignment branch"
    row = json.loads(capsys.readouterr().out)["results"][0]
    assert "technical_score" in row
    assert "alignment_score" not in row


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "auto"])
def test_dtypes(clips, dtype, capsys):
    assert main(["score", str(clips / "a.mp4"), "--prompt", "a", "--dtype", dtype, "--device", "cpu"]) == 0


@pytest.mark.parametrize("ratio", [0.5, 40.0])
def test_a_dtype_that_this_processor_emulates_is_warned_of(ratio, small_model, processor, tmp_path, monkeypatch):
    """Asked for, or that of the weights: float32 would be many times faster, and nothing else says so."""
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
    assert len(warnings) == 1, "what was chosen, and why"


def no_model(folder, kind):
    folder.mkdir()
    if kind == "other":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    if kind == "broken":
        (folder / "config.json").write_text("{")
    if kind == "invalid":
        (folder / "config.json").write_text('{"model_type": "aigcvqa", "mos_std": -1.0}')
        (folder / "model.safetensors").write_text("")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score"], "nothing to score"),
        (["score", "CLIP", "--manifest", "m.csv"], "not both"),
        (["score", "--manifest", "m.csv", "--prompt", "a"], "--prompt goes with"),
        (["score", "--manifest", "m.csv"], "m.csv"),
        (["score", "--manifest", "m.txt"], ".csv or .jsonl"),
        (["score", "CLIP", "--prompt", "a", "--branches", "sharpness"], "sharpness"),
        (["score", "CLIP", "--prompt", "a", "--output", "scores.xlsx"], ".csv or .jsonl"),
        (["score", "CLIP", "--prompt", "a", "--output", "nowhere/scores.csv"], "nowhere"),
        (["score", "CLIP", "--prompt", "a", "--batch_size", "0"], "--batch_size 0"),
        (["score", "CLIP", "--prompt", "a", "--model", "EMPTY"], "no config.json"),
        (["score", "CLIP", "--prompt", "a", "--model", "OTHER"], "'bert'"),
        (["score", "CLIP", "--prompt", "a", "--model", "BROKEN"], "cannot be read as JSON"),
        (
            ["score", "CLIP", "--prompt", "a", "--model", "INVALID"],
            "'mos_std': ValueError: expected a number above 0 (got -1.0)",
        ),
        (["score", "CLIP", "--prompt", "a", "--model", "CLIP"], "is a file"),
    ],
)
def test_wrong_calls_say_what_to_do(clips, tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"CLIP": str(clips / "a.mp4")}
    words |= {kind.upper(): str(no_model(tmp_path / kind, kind)) for kind in ("empty", "other", "broken", "invalid")}
    assert main([words.get(word, word) for word in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_branch_that_the_model_lacks(clips, small_model, tmp_path, capsys):
    from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
    from modeling_aigcvqa.common.presets import default_processor, save_model_folder

    config = AIGCVQAConfig.small(branches=["technical"])
    save_model_folder(AIGCVQAModel(config), default_processor(config), tmp_path / "model")
    arguments = ["score", str(clips / "a.mp4"), "--model", str(tmp_path / "model")]
    assert main(arguments) == 0
    assert main([*arguments, "--branches", "aesthetic"]) == 2
    assert "no branch ['aesthetic']" in capsys.readouterr().err


def test_missing_weights_are_not_made_up(clips, model_folder, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["technical_head.fc_last.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(["score", str(clips / "a.mp4"), "--prompt", "a", "--model", str(folder)]) == 2
    assert "technical_head.fc_last.weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("prompt\na\n", "no column 'file'"), ("file,prompt\n", "no rows"), ("file,prompt\na.mp4,one, two\n", "quote")],
)
def test_manifests_that_cannot_be_read(tmp_path, text, message, capsys):
    (tmp_path / "m.csv").write_text(text)
    assert main(["score", "--manifest", str(tmp_path / "m.csv")]) == 2
    assert message in capsys.readouterr().err


def test_the_output_may_not_be_the_manifest(clips, capsys):
    manifest = write_manifest(clips, [{"file": "a.mp4", "prompt": "a"}])
    assert main(["score", "--manifest", str(manifest), "--output", str(manifest)]) == 2
    assert read(manifest) == [{"file": "a.mp4", "prompt": "a"}]


def test_init_writes_a_model_that_scores(clips, tmp_path, capsys):
    folder = tmp_path / "new"
    assert main(["init", "--preset", "small", "--output", str(folder)]) == 0
    assert main(["score", str(clips / "a.mp4"), "--prompt", "a", "--model", str(folder)]) == 0
    assert main(["init", "--preset", "small", "--output", str(folder)]) == 2


def test_python_m(clips):
    command = [sys.executable, "-m", "modeling_aigcvqa", "score", str(clips / "a.mp4"), "--prompt", "a", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["results"][0]["file"].endswith("a.mp4")
