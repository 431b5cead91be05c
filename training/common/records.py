"""Record how a model was trained: the runs in its provenance, and the git commit of this code."""

import dataclasses
import subprocess
from pathlib import Path

from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.common.files import read_json, write_json
from modeling_aigcvqa.provenance_aigcvqa import Provenance, Run

from .clips import data_name, is_simulated

RECORD = "training.json"  # file beside the weights: arguments, commit, history


def add_run(
    config: AIGCVQAConfig,
    stage: str,
    branches: list[str],
    data: list[str],
    teacher: Provenance | None = None,
    **details,
) -> None:
    """Add a run to the provenance in a config.

    Args:
        data: folders or Hub ids of the data sets. Their names are recorded, and whether all cards say "synthetic".
        teacher: provenance of the model whose scores were the labels, which then becomes a part of this one's; None for
            labels of people.
        details: other fields of `Run`.
    """
    run = Run(
        stage=stage,
        branches=branches,
        data=" + ".join(map(data_name, data)),
        simulated=all(run.simulated for run in teacher.runs) if teacher else all(map(is_simulated, data)),
        commit=commit_of_this_code(),
        **details,
    )
    before = config.get_provenance()
    config.set_provenance((before.with_teacher(teacher) if teacher else before).with_run(run))


def describe_run(folder: Path, **details) -> None:
    """Change fields of the last run in the config.json of a model folder."""
    content = read_json(folder / "config.json")
    provenance = Provenance.from_dict(content["provenance"])
    *earlier, last = provenance.runs
    runs = [*earlier, dataclasses.replace(last, **details)]
    content["provenance"] = dataclasses.replace(provenance, runs=runs).to_dict()
    write_json(folder / "config.json", content)


def commit_of_this_code() -> str | None:
    """The git commit, with "-dirty" if files have changed since; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip() or None
