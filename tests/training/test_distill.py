"""Distillation: the student gets what the teacher gives, agrees with it more and more, and resumes."""

import csv
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dataset_scripts.synthetic_baselines import read_rows
from modeling_aigcvqa.loading import load_model
from modeling_aigcvqa.provenance_aigcvqa import Provenance, Run, Source
from tests.training.test_stages import Interrupted, stop_after
from tests.training.tiny import forget_accelerator, tiny_data, tiny_folder, tiny_model
from training import distill
from training.common import loop
from training.common.losses import DistillLoss, DualLoss
from training.common.records import add_run
from training.distill import build_parser, load_unrated, main


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A manifest of twenty clips and one that cannot be read, without any MOS."""
    folder = tmp_path_factory.mktemp("clips")
    data, _ = tiny_data(folder)
    (folder / "broken.mp4").write_bytes(b"broken")
    rows = [{"file": str(data / "data/train" / row["file_name"]), "prompt": row["prompt"]} for row in read_rows(data)]
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "prompt"])
        writer.writeheader()
        writer.writerows([*rows, {"file": "broken.mp4", "prompt": "a broken clip"}])
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tiny_folder(tmp_path_factory.mktemp("teacher"), dropout=False)
    path = folder / "model.safetensors"
    state = load_file(path)
    generator = torch.Generator().manual_seed(5)
    for name, value in state.items():  # other weights than the student's
        if "head" in name:
            value.normal_(0, 0.5, generator=generator)
    save_file(state, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("student"), dropout=False)


def words(clips, teacher, student, output, **changes):
    values = {"teacher": teacher, "data": clips, "init_from": student, "output": output, "epochs": 2, "batch_size": 4}
    values |= {"learning_rate": 3e-3, "warmup_epochs": 0, "num_workers": 0, "validation_share": 0.3} | changes
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def run(*arguments, **changes):
    os.environ["ACCELERATE_USE_CPU"] = "true"
    forget_accelerator()
    main(words(*arguments, **changes))
    return json.loads((arguments[3] / "training.json").read_text())


def test_the_student_comes_nearer_to_the_teacher(clips, teacher, student, tmp_path, capsys):
    output = tmp_path / "out"
    record = run(clips, teacher, student, output, epochs=8)
    printed = capsys.readouterr().out
    assert "left out: " in printed and "broken.mp4" in printed
    first, last = record["history"][0], record["history"][-1]
    for name in ("loss/quality", "loss/technical", "loss/technical_map", "loss/aesthetic_map"):
        assert last[name] < first[name], name
    assert "loss/alignment_map" not in last and last["quality/srocc"] is not None
    model, _ = load_model(str(output))
    assert f"It learned from the scores of {teacher.name}, not from people" in model.config.weights_note
    *_, last_run = model.config.get_provenance().runs
    assert (last_run.stage, last_run.data) == ("distill", "clips.csv")
    assert last_run.labels == {name: f"teacher_{name}" for name in ("quality", "technical", "aesthetic", "alignment")}


def test_what_is_known_of_the_teacher_holds_for_the_student():
    """Weights that may not be used commercially, and opinions that were simulated."""
    source = Source(
        name="X", branches=["technical"], license="CC-BY-NC-4.0", address="a", sha256="0", commercial_use=False
    )
    taught = Run(stage="stage3", branches=["technical"], data="synthetic", simulated=True)
    config = tiny_model().config
    teacher = Provenance(sources=[source], runs=[taught])
    add_run(config, "distill", ["technical"], ["clips.csv"], teacher=teacher)
    found = config.get_provenance()
    assert not found.commercial_use and [run.stage for run in found.runs] == ["stage3", "distill"]
    assert found.runs[-1].simulated and "simulated raters" in found.note(["technical"])


def test_the_labels_are_those_of_the_teacher(clips, teacher, student, tmp_path):
    run(clips, teacher, student, tmp_path / "out", epochs=1)
    files = sorted((tmp_path / "out" / "teacher").glob("*.npz"))
    assert len(files) == 20
    model, processor = load_model(str(teacher))
    options = distill.with_caveat(
        distill.arguments.parse_arguments(build_parser(), words(clips, teacher, student, "o"), distill.DistillArguments)
    )
    parts = load_unrated(options)
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 15, "validation": 6}
    row = next(row for row in parts["train"] if "broken" not in row["id"])
    with torch.no_grad():
        outputs = model(**processor(videos=[row["video"]["path"]], text=[row["prompt"]]))
    found = [dict(np.load(file)) for file in files]
    (match,) = [entry for entry in found if abs(entry["quality_score"] - outputs.quality_score.item()) < 1e-5]
    np.testing.assert_allclose(match["technical_map"], outputs.technical_map[0], atol=1e-5)


def test_an_interrupted_distillation_asks_the_teacher_no_clip_twice(clips, teacher, student, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    run(clips, teacher, student, whole, checkpoint_steps=2)

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_checkpoint", stop_after(2))
        run(clips, teacher, student, broken, checkpoint_steps=2)
    before = {file.name: file.stat().st_mtime_ns for file in (broken / "teacher").iterdir()}
    run(clips, teacher, student, broken, checkpoint_steps=2)
    assert {file.name: file.stat().st_mtime_ns for file in (broken / "teacher").iterdir()} == before
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()


def test_the_loss_of_maps():
    loss = DistillLoss(DualLoss(1.0, 1.0, 10.0), map_weight=3.0)
    taught, learned = torch.zeros(2, 2, 7, 7), torch.full((2, 2, 7, 7), 5.0)
    assert loss(learned, taught) == pytest.approx(3 * 0.25)
    scores = torch.tensor([1.0, 2.0, 4.0])
    assert loss(scores, scores.flip(0)) == loss.dual(scores, scores.flip(0))
    with pytest.raises(ValueError, match=r"the student's maps are \(2, 7, 7\), the teacher's \(4, 7, 7\)"):
        loss(learned, torch.zeros(2, 4, 7, 7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "d"], "no teacher; pass --teacher"),
        (["--data", "d", "e", "--teacher", "t"], "takes one --data"),
        (["--data", "d", "--teacher", "t", "--map_weight", "-1"], "expected at least 0"),
        (["--data", "d", "--teacher", "t", "--validation_share", "1"], "between 0 and 1"),
    ],
)
def test_wrong_arguments(options, message, capsys):
    with pytest.raises(SystemExit):
        main(["--output", "o", *options])
    assert message in capsys.readouterr().err
