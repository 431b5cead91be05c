"""Publishing: the exported folder, its checks, its card, and the push to a local stand-in for the Hub."""

import base64
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, cached_assets_path, constants

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAPipeline
from modeling_aigcvqa.conversion.weight_sets import VERSION
from modeling_aigcvqa.loading.identity import digest_of_model
from modeling_aigcvqa.provenance_aigcvqa import Provenance, Run, Source
from tests.conftest import REPOSITORY, moving_gradient, write_video
from training.export_hub import main
from training.publishing.card import Facts, check_card, make_card
from training.publishing.checks import (
    ExportError,
    check_classes,
    check_files,
    check_in_fresh_process,
    disagreements,
    files_of,
)
from training.publishing.program import read_probes
from training.publishing.push import push
from training.publishing.repository import requirements, write_repository

SOURCES = [
    Source(
        branches=["technical"], name="DOVER", address="hub:teowu/DOVER@main/DOVER.pth", sha256="ab" * 32,
        license="S-Lab License 1.0 (non-commercial)", commercial_use=False,
    ),
    Source(
        branches=["alignment"], name="ImageReward", address="hub:THUDM/ImageReward/ImageReward.pt", sha256="cd" * 32,
        license="Apache-2.0",
    ),
    Source(branches=["aesthetic"], name="ConvNeXt-T", address="convnext.pth", license="MIT", sha256="ef" * 32),
]  # fmt: skip
RESULTS = {
    "model": "/home/somebody/models/mine",
    "data": "/home/somebody/data/t2vqa_db",
    "split_file": "/home/somebody/data/t2vqa_db/splits/random_00.csv",
    "part": "test",
    "num_clips": 2000,
    "metrics": {
        "quality_score": {
            "srocc": {"value": 0.81234, "low": 0.79, "high": 0.83},
            "plcc": {"value": 0.82, "low": None, "high": None},
            "rmse": {"value": 9.6},
            "krocc": {"value": None},
        },
        "technical_score": {"srocc": {"value": 0.5}},
    },
}


@pytest.fixture(scope="module")
def scorer(small_model, processor):
    return AIGCVQAPipeline(model=small_model, processor=processor)


@pytest.fixture
def repository(scorer, tmp_path):
    """An exported folder that is not checked yet."""
    write_repository(scorer, tmp_path / "repository", Facts())
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def inputs(model_folder, tmp_path_factory):
    """A model that a stage trained from a converted one, its results, and clips to ship."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(model_folder, folder / "model")
    config = AIGCVQAConfig.from_pretrained(folder / "model")
    run = Run(
        stage="stage3", branches=list(config.branches), data="t2vqa_db", epochs=50, best_epoch=31, num_clips=7000,
        labels={"quality": "mos"}, seconds=7200.0,
    )  # fmt: skip
    config.set_provenance(Provenance(sources=SOURCES).with_run(run))
    config.save_pretrained(folder / "model")
    conversion = [{"branch": "aesthetic", "source": "/home/somebody/convnext.pth", "used": {}}]
    (folder / "model" / "conversion.json").write_text(json.dumps(conversion))
    (folder / "metrics.json").write_text(json.dumps(RESULTS))
    write_video(folder / "corgi.mp4", moving_gradient(4, 64, 64))
    (folder / "examples.csv").write_text("file,prompt\ncorgi.mp4,a corgi in the park\n")
    return folder


def test_the_command_line_writes_and_checks_a_whole_repository(inputs, tmp_path, capsys, monkeypatch):
    """Of a model that the cache holds under its name; checked in a process that cannot import the package."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    cached = cached_assets_path("aigcvqa", "converted", f"dover-{VERSION}", assets_dir=tmp_path / "assets")
    shutil.copytree(inputs / "model", cached, dirs_exist_ok=True)
    arguments = [
        "--model", "dover", "--output", tmp_path / "out", "--results", inputs / "metrics.json",
        "--examples", inputs / "examples.csv", "--hardware", "1 GPU", "--watts", "300", "--grams_per_kwh", "400",
    ]  # fmt: skip
    assert main(list(map(str, arguments))) == 0
    assert "Nothing was pushed" in capsys.readouterr().out
    files = {str(file.relative_to(tmp_path / "out")) for file in files_of(tmp_path / "out")}
    assert files >= {
        "README.md", "LICENSE", "NOTICE", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json",
        "modeling_aigcvqa.py", "pipeline_aigcvqa.py", "handler.py", "requirements.txt", "conversion.json",
        "examples/corgi.mp4",
    }  # fmt: skip
    assert not any("pycache" in name for name in files)
    card = (tmp_path / "out" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert (metadata["license"], metadata["license_name"]) == ("other", "s-lab-1.0-non-commercial")
    assert metadata["base_model"] == ["THUDM/ImageReward", "teowu/DOVER"]
    assert metadata["co2_eq_emissions"]["emissions"] == 240.0  # 2 h x 300 W x 400 g/kWh
    assert metadata["widget"][0]["text"] == "a corgi in the park"
    assert metadata["widget"][0]["src"].endswith("/resolve/main/examples/corgi.mp4")
    assert "**Non-commercial**" in card
    assert "| stage3 | 50 epoch(s) on t2vqa_db, 7000 clips, the best was 31; 2.00 h |" in card
    assert "`convnext.pth`" in card
    for file in ("README.md", "conversion.json"):  # no path of the machine
        assert "somebody" not in (tmp_path / "out" / file).read_text()


def test_results_in_the_card(scorer, tmp_path):
    write_repository(scorer, tmp_path / "out", Facts(evaluations=[RESULTS]))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    found = {(r.metric_name, r.metric_type, r.metric_value) for r in card.data.eval_results}
    assert found == {
        ("SROCC of quality_score", "spearmanr", 0.8123),
        ("PLCC of quality_score", "pearsonr", 0.82),
        ("RMSE of quality_score", "rmse", 9.6),
        ("SROCC of technical_score", "spearmanr", 0.5),
    }
    first = card.data.eval_results[0]
    assert (first.dataset_name, first.dataset_config, first.dataset_split) == ("t2vqa_db", "random_00", "test")
    row = "| t2vqa_db, split random_00 | test | 2000 | quality_score | 0.8123 [0.790, 0.830] | 0.8200 | - | 9.6000 |"
    assert row in card.text
    assert check_card(str(card)) == []


def test_probes_in_the_card(scorer, model_folder, tmp_path, capsys):
    row = {"group": "tricks", "name": "still", "title": "Still image", "figures": {"lift_quality": 1.25}}
    probes = {"clips": 23, "rows": [row | {"verdict": "bad"}], "model_sha256": digest_of_model(str(model_folder))}
    file = tmp_path / "probes.json"
    file.write_text(json.dumps(probes))
    text = str(make_card(scorer, Facts(probes=read_probes(file, str(model_folder)))))
    assert "asked of 23 clips with `aigcvqa probe`" in text
    assert "| Still image | lifts quality by +1.25 deviations | bad |" in text
    assert "## Probes" not in str(make_card(scorer, Facts()))
    file.write_text(json.dumps(probes | {"model_sha256": "0"}))
    call = ["--model", str(model_folder), "--output", str(tmp_path / "out"), "--license", "mit", "--probes", str(file)]
    assert main(call) == 2
    assert "is of other weights" in capsys.readouterr().err


def test_results_of_another_model_are_refused(tmp_path, model_folder, capsys):
    for change, message in (
        ({"model": str(tmp_path)}, "not '"),
        ({"model": "small"}, "not '"),
        ({"baseline": "dover"}, "own scores"),
    ):
        (tmp_path / "metrics.json").write_text(json.dumps(RESULTS | change))
        arguments = ["--model", model_folder, "--output", tmp_path / "out", "--results", tmp_path / "metrics.json"]
        assert main(list(map(str, arguments))) == 2
        assert message in capsys.readouterr().err


def test_the_licence_is_known_or_stated(model_folder, tmp_path, capsys):
    """The sources of a model that somebody put together by hand are not known, so its publisher states the licence."""
    shutil.copytree(model_folder, tmp_path / "model")
    config = AIGCVQAConfig.from_pretrained(model_folder)
    config.set_provenance(Provenance())
    config.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "state it with --license" in capsys.readouterr().err
    assert main([*arguments, "--license", "mit"]) == 0
    assert yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])["license"] == "mit"
    assert AIGCVQAConfig.from_pretrained(tmp_path / "out").get_provenance().license == "mit", "kept for the next export"


def test_an_untrained_model_says_so_and_claims_nothing(repository, small_model):
    card = (repository / "README.md").read_text()
    assert small_model.config.weights_note in card
    assert "None measured with these weights." in card
    assert "model-index" not in card
    assert "co2" not in card.lower()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("library_name: transformers\n", "", "'library_name' is missing"),
        ("language: en", "lanugage: en", "'lanugage' is not a field"),
        ("license: apache-2.0", "license: other", "needs license_name"),
        ("- aigc\n", "- [aigc\n", "cannot be parsed"),
        ("tags:\n", "model-index: [{}]\ntags:\n", "cannot be parsed"),
        ("# AIGC-VQA\n", "# {{ name }}\n", "left unfilled"),
        ("---\n", "", "does not begin"),
    ],
)
def test_faults_of_a_card_are_found(repository, old, new, problem):
    card = (repository / "README.md").read_text()
    assert check_card(card) == []
    assert problem in "; ".join(check_card(card.replace(old, new)))


def test_faults_of_a_folder_are_found(repository):
    assert check_files(repository) + check_classes(repository) == []
    (repository / "optimizer.pt").write_bytes(b"1")
    (repository / "empty.json").write_text("")
    config = json.loads((repository / "config.json").read_text())
    config["auto_map"]["AutoModel"] = "modeling_aigcvqa.AnotherModel"
    (repository / "config.json").write_text(json.dumps(config))
    problems = "; ".join(check_files(repository) + check_classes(repository))
    for expected in ("optimizer.pt: a file of this kind", "empty.json: 0 bytes", "empty.json: cannot be parsed"):
        assert expected in problems
    assert "names the class modeling_aigcvqa.AnotherModel" in problems


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("loss_aigcvqa.py", "import torch\n", "import torch\nimport training.benchmarks.oracle\n", "does not load"),
        ("handler.py", "import torch\n", "import torch\nimport modeling_aigcvqa\n", "does not load"),
        ("config.json", '"text_num_hidden_layers": 3', '"text_num_hidden_layers": 2', "weights: missing, unknown"),
        ("stray.py", None, "import torch\n", "stray.py: no other file imports it"),
    ],
)
def test_faults_that_show_in_a_fresh_process(repository, file, old, new, problem):
    text = (repository / file).read_text() if old else ""
    assert not old or old in text
    (repository / file).write_text(text.replace(old, new) if old else new)
    assert problem in "; ".join(check_in_fresh_process(repository))


def test_ways_of_scoring_that_disagree_are_named():
    same = {"quality_score": 50.0, "technical_score": 20.0}
    assert disagreements({"AutoModel": same, "pipeline": dict(same), "handler": same | {"quality_score": 50.001}}) == []
    (problem,) = disagreements({"AutoModel": same, "pipeline": same | {"technical_score": 21.0}})
    assert problem.startswith("pipeline gives")
    assert len(disagreements({"AutoModel": same, "pipeline": {"quality_score": 50.0}})) == 1


def test_the_shipped_model_s_repository(tmp_path, capsys):
    """It passes every check, and `model_card.md` is its card with the measured figures."""
    assert main(["--output", str(tmp_path / "out")]) == 0
    assert "Nothing was pushed" in capsys.readouterr().out
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert {r.metric_name for r in card.data.eval_results} >= {"SROCC of quality_score", "PLCC of quality_score"}
    assert "not human opinion" in " ".join(card.text.split())
    mismatches = [f"pre-training, mismatches{number}" for number in ("", " (2)", " (3)")]
    for stage in (*mismatches, "stage1", "stage2", "stage3"):
        assert f"| {stage} |" in card.text
    assert "Quality is on the scale of the training labels, whose mean is 60" in " ".join(card.text.split())
    committed = (REPOSITORY / "model_card.md").read_text(encoding="utf-8")
    assert committed == (tmp_path / "out" / "README.md").read_text(encoding="utf-8"), (
        "model_card.md is the shipped model's card: python -m training.export_hub --output DIR writes it as README.md"
    )


def test_requirements_are_the_packages_without_extras_and_command_line():
    names = [line.split(">")[0] for line in requirements()]
    assert {"torch", "transformers", "timm", "einops", "av"} <= set(names)
    assert "accelerate" in names, "the Hub's snippet with device_map needs it"
    assert not {"rich", "pytest", "datasets"} & set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--private"], "go with --push_to"),
        (["--push_to", "name"], "expected owner/name"),
        (["--push_to", "owner/na me"], "owner/na me"),
        (["--push_to", "owner/name", "--update", "--private"], "--private is for a new repository"),
        (["--watts", "300"], "go together"),
        (["--watts", "300", "--grams_per_kwh", "400"], "names no training runs"),
        (["--results", "missing.json"], "missing.json"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_wrong_calls_write_nothing(tmp_path, model_folder, capsys, arguments, message):
    defaults = ["--output", str(tmp_path / "out"), "--model", str(model_folder)]
    assert main([*defaults, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Hub:
    """The endpoints of the Hub that a push calls, in memory. Large files arrive through LFS, others in the commit."""

    def __init__(self):
        self.repositories, self.files, self.blobs, self.branches = {}, {}, {}, []
        hub = self

        class Answer(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, content = hub.answer(self.command, self.path.partition("?")[0], body, self.headers)
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method, path, body, headers):
        if path.startswith("/blob/"):
            self.blobs[path.rpartition("/")[2]] = body
            return 200, {}
        if headers["Authorization"] != "Bearer hf_right":
            return (403 if headers["Authorization"] == "Bearer hf_reads" else 401), {"error": "no"}
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if name in self.repositories:
                return 409, {"error": "You already created this model repo"}
            self.repositories[name] = wanted
            return 200, {"url": f"{self.address}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        name = "/".join(path.removeprefix("/api/models/").removeprefix("/").split("/")[:2]).removesuffix(".git")
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        return 200, self.answer_repository(path, body)

    def answer_repository(self, path, body):
        if "/branch/" in path:
            self.branches.append(path.rpartition("/")[2])
            return {}
        if "/preupload/" in path:
            return {"files": [self.upload_mode(file["path"]) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return {"objects": [self.upload_action(entry) for entry in json.loads(body)["objects"]]}
        if "/commit/" in path:
            for line in body.decode().splitlines():
                self.commit(**json.loads(line))
            return {"commitUrl": f"{self.address}/owner/name/commit/1", "commitOid": "1" * 40}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": 1, "oid": "1"} for name in self.files]
        return {"id": "owner/name", "sha": "1" * 40, "siblings": [{"rfilename": name} for name in self.files]}

    def upload_mode(self, path):
        mode = "lfs" if path.endswith((".safetensors", ".mp4")) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def upload_action(self, entry):
        action = {"upload": {"href": f"{self.address}/blob/{entry['oid']}"}}
        return {"oid": entry["oid"], "size": entry["size"], "actions": action}

    def commit(self, key, value):
        if key == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.files[value["path"]] = self.blobs[value["oid"]]
            assert hashlib.sha256(self.blobs[value["oid"]]).hexdigest() == value["oid"]
        elif key == "deletedFile":
            del self.files[value["path"]]


@pytest.fixture
def hub(monkeypatch):
    """A Hub on 127.0.0.1 that knows two tokens. The client's own storage protocol (xet) is turned off."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small folder with the kinds of files that an export has."""
    folder = tmp_path / "export"
    (folder / "examples").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# AIGC-VQA\n")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (folder / "examples" / "clip.mp4").write_bytes(b"clip")
    return folder


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in files_of(folder)}


def test_push_makes_a_private_repository_and_uploads_every_file(hub, folder):
    url = push(folder, "owner/name", private=True, revision="v1", endpoint=hub.address)
    assert url == f"{hub.address}/owner/name/commit/1"
    assert hub.repositories["owner/name"]["visibility"] == "private"
    assert hub.branches == ["v1"]
    assert hub.files == contents(folder)


def test_a_repository_that_exists_is_only_changed_when_that_is_asked_for(hub, folder):
    push(folder, "owner/name", endpoint=hub.address)
    (folder / "config.json").rename(folder / "config2.json")
    with pytest.raises(ExportError, match="'owner/name' exists already; pass --update"):
        push(folder, "owner/name", endpoint=hub.address)
    hub.files["notes.txt"] = b"of somebody else"
    push(folder, "owner/name", update=True, endpoint=hub.address)
    assert hub.files == {**contents(folder), "notes.txt": b"of somebody else"}
    with pytest.raises(ExportError, match="no repository 'owner/other'"):
        push(folder, "owner/other", update=True, endpoint=hub.address)


@pytest.mark.parametrize(
    ("token", "message"), [("hf_wrong", "does not know the token"), ("hf_reads", "may not write to 'owner/name'")]
)
def test_a_token_that_will_not_do(hub, folder, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ExportError, match=message):
        push(folder, "owner/name", endpoint=hub.address)


def test_no_token(hub, folder, monkeypatch):
    monkeypatch.setattr("training.publishing.push.get_token", lambda: None)
    with pytest.raises(ExportError, match="no Hub token; run `hf auth login`"):
        push(folder, "owner/name", endpoint=hub.address)


def test_no_network(hub, folder, monkeypatch):
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(ExportError, match=f"Hub at {hub.address} cannot be reached"):
        push(folder, "owner/name", endpoint=hub.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match="HF_HUB_OFFLINE forbids the network"):
        push(folder, "owner/name", endpoint=hub.address)
