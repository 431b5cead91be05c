"""Real checkpoint layouts in real files, converted to folders that load."""

import collections
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, load_model
from modeling_aigcvqa.cli import main as aigcvqa
from modeling_aigcvqa.common.presets import untrained_model
from modeling_aigcvqa.conversion import assemble, weight_sets
from modeling_aigcvqa.conversion.formats import (
    BLIP,
    CONVNEXT,
    DOVER,
    FAST_VQA,
    IMAGE_REWARD,
    VIDEO_SWIN,
    CheckpointError,
    convert_state,
)
from modeling_aigcvqa.conversion.reading import read_checkpoint
from modeling_aigcvqa.conversion.sources import Address, fetch_all, sha256_of
from tests.modeling.conversion.published import published, published_name
from training.convert_checkpoints import main


@pytest.fixture(scope="module")
def small():
    model = untrained_model("small", seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


CASES = [
    (DOVER, "technical"),
    (DOVER, "aesthetic"),
    (FAST_VQA, "technical"),
    (VIDEO_SWIN, "technical"),
    (CONVNEXT, "aesthetic"),
    (BLIP, "alignment"),
    (IMAGE_REWARD, "alignment"),
]
NAMES = [f"{checkpoint_format.name}-{branch}" for checkpoint_format, branch in CASES]


@pytest.mark.parametrize(("checkpoint_format", "branch"), CASES, ids=NAMES)
def test_every_key_is_used_or_left_with_a_reason_and_comes_back(small, checkpoint_format, branch):
    state = published(small, checkpoint_format, checkpoint_format.prefixes)
    conversion = convert_state(state, checkpoint_format, branch, small.state_dict())
    assert set(conversion.used) | set(conversion.unused) == set(state)
    assert not set(conversion.used) & set(conversion.unused)
    assert all(conversion.unused.values())
    ours = {key: value for key, value in small.state_dict().items() if key.startswith(branch)}
    assert set(conversion.tensors) | set(conversion.untrained) == set(ours)
    for key, name in conversion.used.items():
        assert published_name(name, checkpoint_format, branch) == key, "published key -> ours -> published key"
        tensor = conversion.tensors[name]
        if checkpoint_format.inflate and tensor.ndim == 5:
            torch.testing.assert_close(tensor.sum(2), state[key], atol=1e-6, rtol=1e-6)
        else:
            assert torch.equal(tensor, state[key]), key
    if checkpoint_format.name in ("DOVER", "FAST-VQA", "ImageReward"):
        for key, tensor in conversion.tensors.items():
            assert torch.equal(tensor, ours[key]), key


def test_video_swin_s_relative_tables_become_the_fragment_tables(small):
    conversion = convert_state(published(small, VIDEO_SWIN, ["technical"]), VIDEO_SWIN, "technical", small.state_dict())
    tables = [key for key in conversion.tensors if "fragment_position" in key]
    assert len(tables) == 2  # one a block of the stages that have them
    for key in tables:
        relative = key.replace("fragment_position", "relative_position")
        assert torch.equal(conversion.tensors[key], conversion.tensors[relative])


def test_an_inflated_network_sees_a_still_clip_as_the_2d_network_sees_the_frame(small):
    """Kernels divided by their length: on equal frames a 3D kernel gives what the 2D one gives (away from the ends)."""
    conversion = convert_state(published(small, CONVNEXT, ["aesthetic"]), CONVNEXT, "aesthetic", small.state_dict())
    stem = conversion.tensors["aesthetic_backbone.downsample_layers.0.0.weight"]
    assert stem.shape[2] == 2
    assert torch.equal(stem[:, :, 0], stem[:, :, 1])
    kernels = [value for key, value in conversion.tensors.items() if key.endswith("stages.0.1.dwconv.weight")]
    assert kernels[0].shape[2:] == (3, 7, 7)
    torch.testing.assert_close(kernels[0][:, :, 0], kernels[0][:, :, 2])


@pytest.mark.parametrize(("checkpoint_format", "branch"), CASES, ids=NAMES)
def test_missing_misshapen_and_unknown_keys_are_named(small, checkpoint_format, branch):
    whole = published(small, checkpoint_format, checkpoint_format.prefixes)
    used = convert_state(whole, checkpoint_format, branch, small.state_dict()).used
    victim = sorted(used)[len(used) // 2]
    without = {key: value for key, value in whole.items() if key != victim}
    for state, name in ((without, used[victim]), (whole | {victim: torch.zeros(3, 5)}, victim)):
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            convert_state(state, checkpoint_format, branch, small.state_dict())
    with pytest.raises(CheckpointError, match="something_new"):
        convert_state(whole | {"something_new.weight": torch.zeros(2)}, checkpoint_format, branch, small.state_dict())


# ---- files and folders, at full size for the two branches that are quick ---------------------------------------------


@pytest.fixture(scope="module")
def full():
    model = AIGCVQAModel(AIGCVQAConfig(branches=["technical", "aesthetic"])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    return model


@pytest.fixture(scope="module")
def files(full, tmp_path_factory):
    """Published layouts in files as they are published, names that say nothing."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(published(full, DOVER, ["technical", "aesthetic"]), folder / "a.pth")
    # FAST-VQA keeps its best results as numpy numbers beside the weights.
    results = {"validation_results": [np.float64(0.87), np.float32(0.5)]}
    fast_vqa = {"state_dict": collections.OrderedDict(published(full, FAST_VQA, ["technical"]))} | results
    torch.save(fast_vqa, folder / "b.bin")
    swin = published(full, VIDEO_SWIN, ["technical"])
    torch.save({"meta": {"epoch": 30}, "state_dict": {f"module.{k}": v for k, v in swin.items()}}, folder / "c")
    convnext = {key: value.contiguous() for key, value in published(full, CONVNEXT, ["aesthetic"]).items()}
    save_file(convnext, folder / "d.safetensors")
    return {
        "dover": folder / "a.pth",
        "fast_vqa": folder / "b.bin",
        "swin": folder / "c",
        "convnext": folder / "d.safetensors",
    }


@pytest.mark.slow
def test_a_folder_that_loads_elsewhere(files, full, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["--technical", str(files["dover"]), "--aesthetic", str(files["dover"]), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "NON-COMMERCIAL" in printed
    card = (out / "README.md").read_text()
    assert "S-Lab" in card
    assert "NON-COMMERCIAL" in card
    report = json.loads((out / "conversion.json").read_text())
    assert [source["sha256"] for source in report] == [sha256_of(files["dover"])] * 2
    assert report[0]["sha256"] in card
    assert not list(tmp_path.glob(".model*")), "no temporary folder is left"
    code = """
import sys, torch
sys.modules["modeling_aigcvqa"] = None
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
with torch.no_grad():
    output = model(**processor(videos=torch.zeros(4, 224, 224, 3, dtype=torch.uint8), text=""))
print(output.technical_score.item(), output.aesthetic_score.item(), output.alignment_score)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    technical, aesthetic, alignment = result.stdout.split()
    with torch.no_grad():
        frames = torch.zeros(1, 16, 3, 224, 224) - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        frames = frames / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        raw = full(pixel_values_fragments=frames, pixel_values_resized=frames)
    assert alignment == "None"
    # DOVER's fusion, term by term (evaluate_one_video.py).
    assert float(technical) == pytest.approx(0.6104 * (raw.technical_score.item() - 0.1107) / 0.07355, abs=1e-3)
    assert float(aesthetic) == pytest.approx(0.3896 * (raw.aesthetic_score.item() + 0.08285) / 0.03774, abs=1e-3)


def test_free_sources_and_heads_that_nobody_trained(files, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["--technical", str(files["fast_vqa"]), "--aesthetic", str(files["convnext"]), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "NON-COMMERCIAL" not in printed
    assert "Head not trained yet, so that the score says nothing: aesthetic." in printed
    model = AIGCVQAModel.from_pretrained(out)
    assert model.config.weights_note in printed
    with torch.no_grad():
        output = model(
            pixel_values_fragments=torch.randn(1, 2, 3, 224, 224), pixel_values_resized=torch.randn(1, 2, 3, 224, 224)
        )
    assert output.aesthetic_score.item() == 0
    assert output.quality_score.item() == pytest.approx(output.technical_score.item())


def test_video_swin_from_a_data_parallel_file(files, tmp_path):
    assert main(["--technical", str(files["swin"]), "--out", str(tmp_path / "model")]) == 0
    report = json.loads((tmp_path / "model" / "conversion.json").read_text())[0]
    assert report["format"] == "Video-Swin-T"
    assert report["unused"]["cls_head.fc_cls.weight"] == "classifier of the pre-training task"
    assert any(key.startswith("technical_head") for key in report["untrained"])


class Malicious:
    def __reduce__(self):
        return (print, ("this code was executed",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, files: path.write_bytes(files["dover"].read_bytes()[:100_000]), "truncated"),
        (lambda path, files: path.write_bytes(files["convnext"].read_bytes()[:100_000]), "truncated"),
        (lambda path, files: path.write_bytes(b""), "not a checkpoint"),
        (lambda path, files: path.write_text("hello"), "not a checkpoint"),
        (lambda path, files: torch.save({"weights": Malicious()}, path), "wants to run code"),
        (lambda path, files: torch.save({"layer.weight": torch.zeros(2)}, path), "not a known checkpoint"),
        (lambda path, files: torch.save([1, 2], path), "does not hold a state dict"),
        (lambda path, files: torch.save({"epoch": 3}, path), "'epoch' is not a tensor"),
        (lambda path, files: None, "is not a file"),
    ],
)
def test_bad_files_are_refused_and_nothing_is_written(files, tmp_path, make, message, capsys):
    make(tmp_path / "bad.pth", files)
    assert main(["--technical", str(tmp_path / "bad.pth"), "--out", str(tmp_path / "model")]) == 2
    output = capsys.readouterr()
    assert re.search(message, output.err), output.err
    assert "bad.pth" in output.err
    assert "executed" not in output.out
    assert [path.name for path in tmp_path.iterdir()] in ([], ["bad.pth"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to convert"),
        (["--aesthetic", "fast_vqa"], "holds the technical branch and not the aesthetic"),
        (["--technical", "hub:nothing"], "hub:owner/name"),
        (["--technical", "hub:owner/name@main/file.pth"], "could not be fetched from the Hub"),
        (["--technical", "https://127.0.0.1:9/x.pth"], "not in the cache and HF_HUB_OFFLINE forbids"),
    ],
)
def test_wrong_calls_say_what_to_do(files, tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = [str(files.get(word, word)) for word in arguments]
    assert main([*arguments, "--out", str(tmp_path / "model")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_an_existing_folder_is_not_touched(files, tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("kept")
    assert main(["--technical", str(files["dover"]), "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_failure_while_writing_leaves_nothing(files, tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "card", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["--technical", str(files["fast_vqa"]), "--out", str(tmp_path / "model")])
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_remembered_by_its_hash(files, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    downloads = []

    def download(url, target, *_, **__):
        downloads.append(url)
        shutil.copy(files["fast_vqa"], target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)  # the network alone is replaced
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    url = "https://example.org/releases/weights.pth"
    path = Address(url).fetch()
    assert Address(url).fetch() == path
    assert downloads == [url]
    assert "fragments_backbone.norm.weight" in read_checkpoint(path)
    with path.open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(CheckpointError, match="has changed"):
        Address(url).fetch()
    path.unlink()
    monkeypatch.setattr(Address, "remote_size", lambda _: files["fast_vqa"].stat().st_size + 1)
    with pytest.raises(CheckpointError, match=r"bytes arrived; run the command again"):
        Address(url).fetch()
    assert not path.exists()


@pytest.mark.slow  # half a minute, in which huggingface_hub tries again
def test_no_network(tmp_path):
    """In a process of its own, because huggingface_hub reads its variables once."""
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "https://localhost:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "modeling_aigcvqa", "convert", "--preset", "dover", "--output", "model"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "to fetch: hub:teowu/DOVER/DOVER.pth (size not known), licence: " in done.stdout
    assert done.stderr.splitlines()[-1].startswith("aigcvqa: 'hub:teowu/DOVER/DOVER.pth' could not be fetched")
    assert not (tmp_path / "model").exists()


# ---- named weights, provenance, merging ------------------------------------------------------------------------------


@pytest.fixture
def weight_set(files, tmp_path, monkeypatch):
    """The set "free" with the technical and the aesthetic branch from local files, and a cache of its own."""
    sources = {"technical": str(files["fast_vqa"]), "aesthetic": str(files["convnext"])}
    monkeypatch.setitem(weight_sets.WEIGHT_SETS, "free", sources)
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets"


def test_a_named_set_is_converted_once(weight_set, monkeypatch, capsys):
    model, processor = load_model("free")
    assert model.config.branches == ["technical", "aesthetic"]
    assert not processor.requires_prompt
    monkeypatch.setattr(weight_sets, "convert", lambda *_, **__: 1 / 0)  # not again
    assert load_model("free", branches=["technical"])[0].config.branches == ["technical"]


def test_a_set_that_cannot_be_fetched_says_why(weight_set, tmp_path, monkeypatch):
    monkeypatch.setitem(weight_sets.WEIGHT_SETS, "free", {"technical": "hub:owner/name/file.pth"})
    with pytest.raises(CheckpointError, match=r"model 'free': 'hub:owner/name/file.pth' could not be fetched"):
        load_model("free")
    monkeypatch.setitem(weight_sets.WEIGHT_SETS, "free", {"technical": "https://example.org/weights.pth"})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(Address, "remote_size", lambda _: 10**18)
    with pytest.raises(CheckpointError, match=r"1,000,000,000,000 MB are to be fetched and the disk .* make room"):
        load_model("free")
    assert not list(weight_set.rglob("config.json"))


def test_licences_and_sizes_are_said_before_anything_is_fetched(monkeypatch):
    order = []
    monkeypatch.setattr(Address, "remote_size", lambda _: 3_000_000)
    monkeypatch.setattr(Address, "fetch", lambda self: order.append(f"fetch {self.text[-5:]}"))
    urls = ["https://example.org/a.pth", "https://example.org/b.pth"]
    fetch_all(urls, {urls[0]: "MIT"}, order.append)
    assert order == [
        "to fetch: https://example.org/a.pth (3 MB), licence: MIT",
        "to fetch: https://example.org/b.pth (3 MB), licence: known once the file is read",
        "fetching 1 of 2 (6 MB still to come): https://example.org/a.pth",
        "fetch a.pth",
        "fetching 2 of 2 (3 MB still to come): https://example.org/b.pth",
        "fetch b.pth",
    ]


def test_a_restriction_survives_a_merge(files, tmp_path, capsys):
    """Branches of three models, whose scores keep their places; what is known of the weights comes along."""
    dover, free = str(tmp_path / "dover"), str(tmp_path / "free")
    assert main(["--technical", str(files["dover"]), "--aesthetic", str(files["dover"]), "--output", dover]) == 0
    assert main(["--technical", str(files["fast_vqa"]), "--aesthetic", str(files["convnext"]), "--output", free]) == 0
    merged = str(tmp_path / "merged")
    assert aigcvqa(["merge", "--technical", dover, "--aesthetic", free, "--output", merged]) == 0
    assert "NON-COMMERCIAL" in capsys.readouterr().out
    models = {name: load_model(str(tmp_path / name))[0] for name in ("dover", "free", "merged")}
    provenance = models["merged"].config.get_provenance()
    assert [(source.branches, source.commercial_use) for source in provenance.sources] == [
        (["technical"], False),
        (["aesthetic"], True),
    ]
    assert provenance.untrained == ["aesthetic_head"]
    view = torch.randn(1, 2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = {name: model(view, view) for name, model in models.items()}
    assert torch.equal(outputs["merged"].technical_score, outputs["dover"].technical_score)
    assert torch.equal(outputs["merged"].aesthetic_score, outputs["free"].aesthetic_score)
    other = str(tmp_path / "other")
    assert aigcvqa(["merge", "--technical", free, "--aesthetic", free, "--output", other]) == 0
    assert "NON-COMMERCIAL" not in capsys.readouterr().out


def test_wrong_merges_are_refused(files, tmp_path, capsys):
    technical = str(tmp_path / "technical")
    assert main(["--technical", str(files["fast_vqa"]), "--output", technical]) == 0
    for arguments, message in (
        ([], "nothing to merge"),
        (["--aesthetic", technical], "has only ['technical']"),
        (["--technical", technical, "--aesthetic", "small"], "processors differ"),
    ):
        assert aigcvqa(["merge", *arguments, "--output", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
