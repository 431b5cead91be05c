"""Checks of an exported folder: its files, its card, its classes, and whether it loads without the package."""

import ast
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .card import check_card

FRESH_PROCESS_CHECK = Path(__file__).with_name("fresh_process_check.py")
SUFFIXES = {".json", ".py", ".md", ".txt", ".safetensors", ".mp4", ".gif", ""}
MAX_FILE_BYTES = 50 * 10**9  # the Hub's limit


class ExportError(ValueError):
    """A reason why a model cannot be published, with the remedy."""


def check_repository(folder: Path) -> list[str]:
    """The problems of an exported folder; an empty list if there are none. Needs no network."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    problems = check_card(card) + check_files(folder) + check_classes(folder)
    return problems or check_in_fresh_process(folder)


def check_files(folder: Path) -> list[str]:
    """Find files that do not belong in the repository, are empty or too large, or cannot be parsed."""
    problems = []
    for file in files_of(folder):
        name = file.relative_to(folder)
        if file.suffix not in SUFFIXES or file.name.startswith("."):
            problems.append(f"{name}: a file of this kind does not belong in the repository")
        if not 0 < file.stat().st_size <= MAX_FILE_BYTES:
            problems.append(f"{name}: {file.stat().st_size} bytes, outside 1..{MAX_FILE_BYTES}")
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".py":
                ast.parse(file.read_text(encoding="utf-8"))
        except (ValueError, SyntaxError) as error:
            problems.append(f"{name}: cannot be parsed ({error})")
    return problems


def check_classes(folder: Path) -> list[str]:
    """Find classes that `auto_map` or `custom_pipelines` names and the folder's code does not define."""
    named = []
    for file in ("config.json", "processor_config.json"):
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        if not content.get("auto_map"):
            return [f"{file}: has no auto_map, so the Auto classes find no code"]
        named += [(file, name) for name in content["auto_map"].values()]
        named += [(file, custom["impl"]) for custom in content.get("custom_pipelines", {}).values()]
    problems = []
    for file, name in named:
        module, _, class_name = name.rpartition(".")
        code = folder / f"{module}.py"
        body = ast.parse(code.read_text(encoding="utf-8")).body if code.is_file() else []
        if not any(isinstance(node, ast.ClassDef) and node.name == class_name for node in body):
            problems.append(f"{file}: names the class {name}, which the folder's code does not define")
    return problems


def check_in_fresh_process(folder: Path) -> list[str]:
    """Load and score in a process that can import the folder's code and the published libraries only."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AIGCVQA_"))}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": scratch}
        result = subprocess.run(
            [sys.executable, "-I", str(FRESH_PROCESS_CHECK), str(folder.resolve())],
            cwd=scratch, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    if result.returncode != 0:
        said = result.stderr.strip()[-2000:] or "no message; a negative status is the number of a signal"
        return [f"the folder does not load in a fresh process (exit status {result.returncode}): {said}"]
    found = json.loads(result.stdout.strip().splitlines()[-1])
    unused = sorted({file.stem for file in folder.glob("*.py")} - set(found["modules"]))
    problems = [f"{name}.py: no other file imports it" for name in unused]
    if found["wrong_keys"]:
        problems.append(f"weights: missing, unknown or of a wrong shape: {found['wrong_keys'][:3]}")
    return problems + disagreements(found["scores"])


def disagreements(scores: dict[str, dict[str, float]]) -> list[str]:
    """Ways of scoring whose scores differ from the first way's; `scores` is {way: {score: value}}."""
    first, *others = scores
    return [
        f"{other} gives {scores[other]}, {first} gives {scores[first]}"
        for other in others
        if scores[other].keys() != scores[first].keys()
        or any(not math.isclose(scores[other][n], v, rel_tol=1e-3, abs_tol=1e-3) for n, v in scores[first].items())
    ]


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
