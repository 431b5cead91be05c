"""A saved folder loads through the Auto classes in a fresh process, elsewhere, with the package not importable."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch

PREAMBLE = """
import json, sys
sys.modules["modeling_aigcvqa"] = None  # importing it raises ImportError, as if it were not installed
folder, clip = sys.argv[1:]
"""


def run(code, folder, clip, cwd, cache):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "PATH": "/usr/bin:/bin", "HOME": str(cache)}
    result = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), str(folder), str(clip)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def expected(small_model, processor, clip):
    with torch.no_grad():
        return small_model(**processor(videos=clip, text="a prompt")).quality_score.item()


def test_auto_classes(model_folder, clip, expected, tmp_path):
    code = """
    import torch
    from transformers import AutoConfig, AutoModel, AutoProcessor, AutoVideoProcessor
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    views = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)(clip)
    inputs = processor(videos=clip, text="a prompt")
    assert torch.equal(views["pixel_values_fragments"], inputs["pixel_values_fragments"])
    with torch.no_grad():
        score = model(**inputs).quality_score.item()
    print(json.dumps([config.model_type, type(model).__module__.split(".")[0], score]))
    """
    model_type, module, score = run(code, model_folder, clip, tmp_path, tmp_path / "cache")
    assert (model_type, module) == ("aigcvqa", "transformers_modules")
    assert score == pytest.approx(expected, abs=1e-5)


def test_pipeline_and_saving_again(model_folder, clip, expected, tmp_path):
    code = """
    from transformers import pipeline
    scorer = pipeline("video-quality-assessment", model=folder, trust_remote_code=True, device="cpu")
    scorer.save_pretrained("again")
    print(json.dumps(scorer({"video": clip, "prompt": "a prompt"})["quality_score"]))
    """
    assert run(code, model_folder, clip, tmp_path, tmp_path / "cache") == pytest.approx(expected, abs=1e-5)
    saved, again = ({file.name for file in folder.iterdir()} for folder in (model_folder, tmp_path / "again"))
    assert saved == again
    assert run(code, tmp_path / "again", clip, tmp_path, tmp_path / "cache2") == pytest.approx(expected, abs=1e-5)


def test_only_what_belongs_to_the_model_is_shipped(model_folder):
    code = {file.name for file in model_folder.glob("*.py")}
    assert "modeling_aigcvqa.py" in code
    assert "pipeline_aigcvqa.py" in code
    assert not code & {"__init__.py", "cli.py", "loading.py", "presets.py", "_version.py"}
    config = json.loads((model_folder / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_aigcvqa.AIGCVQAModel"
    assert "video-quality-assessment" in config["custom_pipelines"]
