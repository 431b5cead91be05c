"""Every code block of README.md and of the model card works.

Python blocks run, a document's blocks one after the other in one namespace, in a folder with stand-ins for the files
that they name. The commands of bash blocks run where that is quick (`RUN`), the others at least pass their own parser.
A block that can do neither is marked by a comment on the line before it, `<!-- not run: REASON -->`, and named in
`MARKED`.
"""

import argparse
import importlib
import importlib.metadata
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from dataset_scripts import synthetic_t2v
from modeling_aigcvqa import AIGCVQAPipeline
from tests.conftest import REPOSITORY, moving_gradient, write_video
from training.publishing.card import Facts, make_card

BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
MARKED: dict[str, list[str]] = {"README.md": [], "model_card.md": []}  # first lines of the blocks that are not run
RUN = ("modeling_aigcvqa.cli score", "dataset_scripts.make_splits")  # commands that are quick with the stand-ins


@dataclass
class Block:
    document: str
    line: int  # of its first line of code, from 1
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.document}, line {self.line}"


def blocks_of(document: str, text: str) -> list[Block]:
    return [
        Block(document, text[: match.start("code")].count("\n") + 1, match["language"], match["code"], match["reason"])
        for match in BLOCK.finditer(text)
    ]


@pytest.fixture(scope="module")
def documents(small_model, processor) -> dict[str, list[Block]]:
    card = make_card(AIGCVQAPipeline(model=small_model, processor=processor), Facts())
    texts = {"README.md": (REPOSITORY / "README.md").read_text(encoding="utf-8"), "model_card.md": str(card)}
    return {name: blocks_of(name, text) for name, text in texts.items()}


@pytest.fixture(scope="module")
def stand_ins(model_folder, tmp_path_factory) -> Path:
    """A folder with small files under the names that the documents use."""
    folder = tmp_path_factory.mktemp("documents")
    frames = moving_gradient(6, 96, 128)
    for name in ("clip.mp4", "a.mp4"):
        write_video(folder / name, frames)
    for name in ("other.gif", "b.gif"):
        first, *rest = [Image.fromarray(frame) for frame in frames]
        first.save(folder / name, save_all=True, append_images=rest, duration=100)
    (folder / "manifest.csv").write_text("file,prompt\nclip.mp4,a corgi\nother.gif,a yacht\n")
    (folder / "path" / "or").mkdir(parents=True)
    (folder / "path" / "or" / "hub-id").symlink_to(model_folder)
    (folder / "training").symlink_to(REPOSITORY / "training")
    small = ["--num_prompts", "5", "--generators", "2", "--size", "64", "--num_workers", "1", "--skip_baselines"]
    synthetic_t2v.main(["--output", str(folder / "data" / "t2vqa_db"), *small])
    return folder


@pytest.mark.parametrize("document", MARKED)
def test_every_block_is_run_or_marked(documents, document):
    blocks = documents[document]
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    assert blocks
    assert len(re.findall("^```", text, re.M)) == 2 * len(blocks), "a fence that is not closed, or indented"
    assert {block.language for block in blocks} <= {"python", "bash", "json"}
    assert [block.code.splitlines()[0] for block in blocks if block.reason] == MARKED[document]


@pytest.mark.parametrize("document", MARKED)
def test_python_and_json_blocks(documents, stand_ins, monkeypatch, document):
    monkeypatch.chdir(stand_ins)
    namespace = {"__name__": "document"}
    for block in documents[document]:
        if block.reason is None and block.language == "json":
            json.loads(block.code)
        elif block.reason is None and block.language == "python":
            placed = "\n" * (block.line - 1) + block.code  # so that a traceback names the document's line
            exec(compile(placed, block.document, "exec"), namespace)


@pytest.mark.parametrize("document", MARKED)
def test_bash_blocks(documents, stand_ins, monkeypatch, capsys, document):
    monkeypatch.chdir(stand_ins)
    for block in documents[document]:
        if block.reason is None and block.language == "bash":
            for command in commands_of(block.code):
                problem = check_command(command)
                assert problem is None, f"{block}: {shlex.join(command)}: {problem}"


def commands_of(code: str) -> list[list[str]]:
    """The single commands of a block, each as its words."""
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words = list(lexer)
        ends = [place for place, word in enumerate(words) if word in ("&&", ";")]
        for start, end in zip([-1, *ends], [*ends, len(words)]):
            if words[start + 1 : end]:
                commands.append(words[start + 1 : end])
    return commands


def check_command(words: list[str]) -> str | None:
    """What is wrong with a command, None if nothing is."""
    match words:
        case ["make", *targets]:
            rules = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M)
            return None if set(targets) <= set(rules) else f"the Makefile has {rules}"
        case ["pip", "install", *arguments]:
            return check_installation(arguments)
        case [".", ".venv/bin/activate"] | ["python", "-m", "venv", ".venv"]:
            return None
        case ["aigcvqa", *arguments]:
            return check_program("modeling_aigcvqa.cli", arguments)
        case ["python", "-m", module, *arguments]:
            return check_program(module, arguments)
        case ["python", script, *arguments] if script.endswith(".py"):
            return check_program(module_of(script), arguments)
        case ["accelerate", "launch", *arguments]:
            place = next((place for place, word in enumerate(arguments) if word.endswith(".py")), None)
            return "no script" if place is None else check_program(module_of(arguments[place]), arguments[place + 1 :])
    return "a command of this kind is not known to tests/test_documents.py; add it there or mark the block"


def module_of(script: str) -> str:
    assert (REPOSITORY / script).is_file(), f"{script} does not exist"
    return script.removesuffix(".py").replace("/", ".")


def check_installation(arguments: list[str]) -> str | None:
    """`-e .` with extras that the package has."""
    match = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", arguments[-1])
    known = importlib.metadata.metadata("aigcvqa").get_all("Provides-Extra")
    if arguments[:-1] != ["-e"] or not match:
        return "expected pip install -e '.[EXTRAS]'"
    extras = match[1].split(",") if match[1] else []
    return None if set(extras) <= set(known) else f"the package has the extras {known}"


class Parsed(Exception):
    """A program got as far as to have parsed its arguments."""


def check_program(module: str, arguments: list[str]) -> str | None:
    """Run the program in this process or, where that takes long, up to the end of its parser."""
    program = importlib.import_module(module)
    try:
        if f"{module} {' '.join(arguments)}".startswith(RUN):
            status = program.main(arguments)
            return f"exit status {status}" if status else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop())
            program.main(arguments)
    except Parsed as parsed:
        return f"unknown arguments {parsed.args[0]}" if parsed.args[0] else None
    except SystemExit as error:
        return f"its parser refuses it ({error})"
    return "it did not parse its arguments"


def parse_and_stop():
    """An `ArgumentParser.parse_known_args` that parses, also with subcommands, and then raises `Parsed`."""
    original, running = argparse.ArgumentParser.parse_known_args, []

    def parse(self, *arguments, **options):
        running.append(self)
        try:
            values, unknown = original(self, *arguments, **options)
        finally:
            running.pop()
        if not running:
            raise Parsed(unknown)
        return values, unknown

    return parse


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make demon", "the Makefile has"),
        ("pip install -e '.[trian]'", "has the extras"),
        ("pip install aigcvqa", "expected pip install -e"),
        ("aigcvqa init --preset huge --output x", "parser refuses"),
        ("aigcvqa init", "parser refuses"),
        ("aigcvqa score missing.mp4 --prompt x", "exit status 1"),
        ("python -m training.benchmarks.scoring --modle full", "unknown arguments"),
        ("accelerate launch training/stage3.py --data D --output O --epoch 3 --epohcs 3", "unknown arguments"),
        ("accelerate launch training/stage3.py --data D", "parser refuses"),
        ("curl https://example.org", "not known"),
    ],
)
def test_wrong_commands_are_found(stand_ins, monkeypatch, capsys, command, problem):
    monkeypatch.chdir(stand_ins)
    (words,) = commands_of(command)
    assert problem in (check_command(words) or "")


def test_blocks_are_found_with_their_lines():
    text = "# A\n\n```python\nx = 1\n```\n\n<!-- not run: needs a GPU -->\n```bash\nmake x && . y  # why\n```\n"
    first, second = blocks_of("A.md", text)
    assert (first.line, first.language, first.code, first.reason) == (4, "python", "x = 1\n", None)
    assert (second.line, second.reason) == (9, "needs a GPU")
    assert commands_of(second.code) == [["make", "x"], [".", "y"]]
