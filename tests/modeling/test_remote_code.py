"""A saved folder loads through the Auto classes in a fresh process, elsewhere, with the package not importable."""

import json
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file

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


@pytest.mark.slow
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


def test_the_snippets_that_the_hub_prints(model_folder, clip, expected, tmp_path):
    """As printed by @huggingface/tasks 0.21.54 for a card with library_name transformers, pipeline_tag
    video-classification and the tag custom_code, with the folder as "owner/name"."""
    code = """
    owner_name = folder
    # Use a pipeline as a high-level helper
    from transformers import pipeline

    pipe = pipeline("video-classification", model=owner_name, trust_remote_code=True)
    # Load model directly
    from transformers import AutoProcessor, AutoModel

    processor = AutoProcessor.from_pretrained(owner_name, trust_remote_code=True)
    model = AutoModel.from_pretrained(owner_name, trust_remote_code=True, device_map="auto")
    # The end of what is printed.
    model = AutoModel.from_pretrained(owner_name, trust_remote_code=True, dtype="auto").to(model.device)
    inferred = pipeline(model=owner_name, trust_remote_code=True)
    pipe.save_pretrained("again")
    saved = json.load(open("again/config.json"))["custom_pipelines"]
    scores = [scorer({"video": clip, "prompt": "a prompt"})["quality_score"] for scorer in (pipe, inferred)]
    inputs = processor(videos=clip, text="a prompt").to(model.device)
    scores.append(model(**inputs).quality_score.item())
    print(json.dumps([sorted(saved), inferred.task, scores]))
    """
    saved, task, scores = run(code, model_folder, clip, tmp_path, tmp_path / "cache")
    assert saved == ["video-classification", "video-quality-assessment"] and task == "video-quality-assessment"
    assert scores == [pytest.approx(expected, abs=1e-4)] * 3


def test_broken_weights_are_refused(model_folder, clip, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    state["technical_head.fc_last.bias"][0] = float("nan")
    save_file(state, folder / "model.safetensors")
    code = """
    from transformers import AutoModel
    try:
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    except ValueError as error:
        print(json.dumps(str(error)))
    """
    message = run(code, folder, clip, tmp_path, tmp_path / "cache")
    assert "technical_head.fc_last.bias" in message and str(folder) in message


def test_only_what_belongs_to_the_model_is_shipped(model_folder):
    code = {file.name for file in model_folder.glob("*.py")}
    assert "modeling_aigcvqa.py" in code
    assert "pipeline_aigcvqa.py" in code
    assert not code & {"__init__.py", "cli.py", "loading.py", "presets.py", "_version.py"}
    config = json.loads((model_folder / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_aigcvqa.AIGCVQAModel"
    assert "video-quality-assessment" in config["custom_pipelines"]
