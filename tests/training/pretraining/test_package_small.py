"""The small model: how it is packaged, and what the packaged one must do."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dataset_scripts.synthetic_t2v import make_benchmark
from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.common.choices import SHIPPED_FOLDER
from modeling_aigcvqa.common.presets import untrained_model
from modeling_aigcvqa.loading import load_model, load_pipeline
from modeling_aigcvqa.pipeline_aigcvqa import SCORES
from modeling_aigcvqa.provenance_aigcvqa import Provenance, Run
from tests.conftest import REPOSITORY
from tests.training.tiny import tiny_folder
from training.pretraining.package_small import MAX_BYTES, main, results_table

PROCESSOR_FILES = {"processor_config.json", "tokenizer_config.json", "vocab.txt"}


def test_weights_go_in_as_bfloat16_and_heads_as_they_are(tmp_path, capsys):
    folder = tiny_folder(tmp_path / "model")
    assert main(["--model", str(folder), "--output", str(tmp_path / "out")]) == 2
    assert "no training runs" in capsys.readouterr().err
    config = AIGCVQAConfig.from_pretrained(folder)
    run = Run(stage="stage3", branches=list(config.branches), data="synthetic", seconds=60.0)
    config.set_provenance(Provenance(runs=[run]))
    config.save_pretrained(folder)
    assert main(["--model", str(folder), "--output", str(tmp_path / "out")]) == 0
    before, after = load_model(str(folder))[0], load_file(tmp_path / "out" / "model.safetensors")
    for name, value in before.state_dict().items():
        kept = name.split(".")[0].endswith("_head")
        stored = after[name]
        assert stored.dtype == (torch.float32 if kept else torch.bfloat16), name
        assert torch.equal(stored, value if kept else value.bfloat16()), name
    packaged = AIGCVQAConfig.from_pretrained(tmp_path / "out")
    assert packaged.get_provenance().runs == [run]
    assert "auto_map" not in (tmp_path / "out" / "config.json").read_text(), "its code is the package"
    assert load_model(str(tmp_path / "out"))[0].dtype == torch.float32, "computed in float32"
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (SHIPPED_FOLDER / "vocab.txt").read_bytes()
    item = {"video": torch.rand(4, 64, 64, 3), "prompt": "a corgi"}
    assert set(load_pipeline(str(tmp_path / "out"))(item)) == set(SCORES)


def test_what_ships_fits_and_says_what_it_is():
    size = (SHIPPED_FOLDER / "model.safetensors").stat().st_size
    assert size <= MAX_BYTES
    model, processor = load_model("small")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert "not human opinion" in " ".join(model.config.weights_note.split())
    runs = model.config.get_provenance().runs
    assert [run.stage for run in runs][-3:] == ["stage1", "stage2", "stage3"]
    assert all(run.simulated for run in runs)
    files = {file.name for file in SHIPPED_FOLDER.iterdir()}
    assert files == {"config.json", "metrics.json", "probes.json", "model.safetensors", *PROCESSOR_FILES}
    fresh = untrained_model("small")
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in fresh.state_dict().items()
    }, "the preset is the shipped model's architecture"
    assert processor.video_processor.num_frames == 16


def test_some_branches_of_it_alone(clip):
    whole, technical = load_pipeline("small"), load_pipeline("small", ["technical"])
    item = {"video": str(clip), "prompt": "a moving gradient"}
    assert technical(item)["technical_score"] == pytest.approx(whole(item)["technical_score"], abs=1e-4)
    assert set(technical(item)) == {"quality_score", "technical_score", "quality_of"}


def test_its_figures_are_of_this_model_and_stand_in_the_documentation():
    figures = json.loads((SHIPPED_FOLDER / "metrics.json").read_text(encoding="utf-8"))
    assert figures["model"] == "small" and figures["part"] == "test"
    assert set(figures["metrics"]) == set(SCORES) and figures["num_failed"] == 0
    for name in ("data", "split_file"):
        assert not figures[name].startswith("/"), "no path of a machine"
    assert results_table(figures) in (REPOSITORY / "docs" / "small_model.md").read_text(encoding="utf-8")


def test_it_still_tells_good_from_bad(tmp_path):
    """Score thirty new clips of unseen prompts. The limit is far below the measured figures but above chance."""
    rows = make_benchmark(tmp_path / "data", num_prompts=6, generators=5, seed=77, size=256)
    items = [{"video": str(tmp_path / "data/data/train" / r["file_name"]), "prompt": r["prompt"]} for r in rows]
    scores = torch.tensor([result["quality_score"] for result in load_pipeline("small")(items)])
    mos = torch.tensor([row["mos"] for row in rows])
    assert torch.corrcoef(torch.stack([scores, mos]))[0, 1] > 0.4
