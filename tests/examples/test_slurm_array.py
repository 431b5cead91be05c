"""A Slurm array without Slurm: its script runs as each of its jobs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from examples import slurm_array
from tests.conftest import REPOSITORY, moving_gradient, write_video


@pytest.fixture
def manifest(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = []
    for n in range(5):
        write_video(folder / f"{n}.mp4", moving_gradient(4, 64, 64 + 16 * n))
        rows.append({"file": f"{n}.mp4", "prompt": f"clip {n}"})
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "m.jsonl"


def test_the_jobs_score_every_part(manifest, tmp_path, capsys):
    parts, scored = tmp_path / "parts", tmp_path / "scored"
    assert slurm_array.main(["split", str(manifest), str(parts), "--parts", "2"]) == 0
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = REPOSITORY / "examples" / "slurm_array.sbatch"
    for number in range(2):
        assert slurm_array.main(["join", str(scored), "--parts", "2"]) == 1, "not all parts are there"
        command = ["bash", str(script), str(parts), str(scored), "--branches", "technical"]
        subprocess.run(command, env=environment | {"SLURM_ARRAY_TASK_ID": str(number)}, check=True, capture_output=True)
    capsys.readouterr()
    assert slurm_array.main(["join", str(scored), "--parts", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == {"in": 5, "scored": 5, "failed": 0, "repeated": 0, "missing": []}
    files = sorted(str(file) for file in scored.glob("*/scores/*.parquet"))
    assert sorted(ds.dataset(files).to_table().column("prompt").to_pylist()) == [f"clip {n}" for n in range(5)]


def test_wrong_calls(manifest, tmp_path, capsys):
    for parts, message in {"0": "--parts 0", "6": "has 5 rows only"}.items():
        assert slurm_array.main(["split", str(manifest), str(tmp_path / f"parts{parts}"), "--parts", parts]) == 2
        assert message in capsys.readouterr().err
