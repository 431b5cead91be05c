"""The wheel, installed alone in a fresh environment and used away from the checkout: scores, explains, converts."""

import csv
import email
import email.policy
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import torch

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.conversion.formats import FAST_VQA
from tests.conftest import REPOSITORY, moving_gradient, write_video
from tests.modeling.conversion.published import published


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    environment = os.environ | {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "owner/name"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a program of an environment that has the wheel, and the dependencies of this one but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # A path alone: the .pth files in that folder, the checkout's among them, do not count.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True, capture_output=True)

    def call(program, *arguments, cwd):
        command = [str(binaries / program), *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return call


def test_it_holds_the_package_and_its_model_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {name.split("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"modeling_aigcvqa"}
    held = (
        "assets/small/model.safetensors",
        "assets/small/vocab.txt",
        "explain/page.html",
        "explain/page.css",
        "py.typed",
    )
    assert {f"modeling_aigcvqa/{name}" for name in held} <= set(names)
    assert wheel.stat().st_size < 12 * 2**20


def test_its_page_on_pypi_has_no_dead_links(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = email.message_from_bytes(archive.read(name), policy=email.policy.default)
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert urls["Changelog"] == "https://example.org/owner/name/blob/main/CHANGELOG.md"
    readme = metadata.get_content()
    assert "https://example.org/owner/name/blob/main/docs/scoring.md" in readme
    assert all(link.startswith(("https://", "#")) for link in re.findall(r"\]\(([^)]+)\)", readme))


@pytest.mark.slow
def test_it_scores_explains_and_converts(run, tmp_path):
    where = run("python", "-c", "import modeling_aigcvqa; print(modeling_aigcvqa.__file__)", cwd=tmp_path).strip()
    assert not Path(where).is_relative_to(REPOSITORY)
    write_video(tmp_path / "clip.mp4", moving_gradient(8, 96, 128))
    run("aigcvqa", "score", "clip.mp4", "--prompt", "a gradient", "--output", "scores.csv", cwd=tmp_path)
    (row,) = csv.DictReader((tmp_path / "scores.csv").open())
    assert float(row["quality_score"])
    run("aigcvqa", "explain", "clip.mp4", "--prompt", "a gradient", "--output", "report", cwd=tmp_path)
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    model = AIGCVQAModel(AIGCVQAConfig(branches=["technical"]))
    torch.save({"state_dict": published(model, FAST_VQA, ["technical"])}, tmp_path / "weights.pth")
    run("aigcvqa", "convert", "--technical", "weights.pth", "--output", "converted", cwd=tmp_path)
    printed = run("aigcvqa", "score", "clip.mp4", "--model", "converted", "--json", cwd=tmp_path)
    assert "technical_score" in json.loads(printed)["results"][0]
