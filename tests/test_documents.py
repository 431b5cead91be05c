"""What README.md, CONTRIBUTING.md, the model card and the pages in docs/ say works.

Python blocks run, the blocks of a document one after the other in one namespace, in a folder with stand-ins for the
files that they name. A text block is what the Python block before it prints. Commands pass the parsers of their
programs, and the quick ones run. A block that cannot run has the comment `<!-- not run: REASON -->` on the line before
it and stands in `NOT_RUN`; it is compiled or parsed all the same.
"""

import importlib
import importlib.metadata
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from accelerate.commands.launch import launch_command_parser
from mkdocs.commands.build import build
from mkdocs.config import load_config
from PIL import Image

from dataset_scripts import synthetic_pairs, synthetic_t2v
from tests.conftest import REPOSITORY, moving_gradient, write_video
from training import stage3

PAGES = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").glob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "model_card.md", *PAGES]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
NAMED_FILE = re.compile(r"`((?:modeling_aigcvqa|training|dataset_scripts|examples|space|docs|tests)/[\w./]*)`")
NOT_RUN = {  # document, first line
    ("docs/evaluation.md", "python -m training.evaluation.check_references --reference references --seed 0"),
    ("docs/many_clips.md", "aigcvqa score --manifest clips.jsonl --output scored/"),
    ("docs/many_clips.md", "python examples/slurm_array.py split manifest.jsonl parts/ --parts 64"),
    (
        "docs/probes.md",
        "python -m dataset_scripts.synthetic_t2v --output clips --num_prompts 150 --generators 8 --seed 5 "
        "--unlike_seeds 0 --size 128",
    ),
    (
        "docs/reading_scores.md",
        'aigcvqa calibrate --manifest clips.csv --output calibrated --of "clips of our generator, October"',
    ),
    ("docs/rewards.md", "from modeling_aigcvqa.serving.client import AIGCVQAClient"),
    (
        "docs/rewards.md",
        "python -m dataset_scripts.synthetic_t2v --output drawn --num_prompts 8 --generators 10 --size 64 "
        "--skip_baselines",
    ),
    ("docs/real_weights.md", 'aigcvqa score clip.mp4 --prompt "a corgi walking in the park" --model free'),
    ("docs/real_weights.md", "from modeling_aigcvqa import load_pipeline"),
    ("docs/real_weights.md", "aigcvqa convert --preset free --output models/free"),
}
QUICK = (["aigcvqa", "score"], ["python", "-m", "dataset_scripts.make_splits"])
SET_UP = ([".", ".venv/bin/activate"], ["python", "-m", "venv", ".venv"], ["python", "-m", "build"])
INSTALLABLE = {"build", "dist/aigcvqa-*.whl"}  # beside the checkout and its extras


class Block(NamedTuple):
    line: int  # of its first line of code, from 1
    language: str
    code: str
    reason: str | None  # why it does not run


def read(document: str) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


def blocks_of(text: str) -> list[Block]:
    return [
        Block(text[: match.start("code")].count("\n") + 1, match["language"], match["code"], match["reason"])
        for match in BLOCK.finditer(text)
    ]


@pytest.fixture(scope="module")
def stand_ins(model_folder, tmp_path_factory) -> Path:
    """A folder with small files under the names that the documents use."""
    folder = tmp_path_factory.mktemp("documents")
    frames = moving_gradient(6, 96, 128)
    (folder / "clips").mkdir()
    for name in ("clip.mp4", "a.mp4", "clips/a.mp4"):
        write_video(folder / name, frames)
    for name in ("other.gif", "b.gif"):
        first, *rest = [Image.fromarray(frame) for frame in frames]
        first.save(folder / name, save_all=True, append_images=rest, duration=100)
    (folder / "manifest.csv").write_text("file,prompt\nclip.mp4,a corgi\nother.gif,a yacht\n")
    scores = [f"clip{number}.mp4,prompt {number // 2},{'AB'[number % 2]},{number}" for number in range(6)]
    (folder / "scored.csv").write_text("\n".join(["file,prompt,generator,quality_score", *scores]) + "\n")
    for name in ("path/or/hub-id", "OWNER/NAME"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to(model_folder)
    (folder / "training").symlink_to(REPOSITORY / "training")
    small = ["--num_prompts", "5", "--generators", "2", "--size", "64", "--num_workers", "1", "--skip_baselines"]
    source, pairs = str(folder / "data" / "t2vqa_db"), str(folder / "data" / "pairs")
    synthetic_t2v.main(["--output", source, *small])
    synthetic_pairs.main(["--source", source, "--output", pairs, "--num_workers", "1"])
    return folder


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document(document, stand_ins, monkeypatch, capsys):
    monkeypatch.chdir(stand_ins)
    text = read(document)
    blocks, namespace, printed = blocks_of(text), {"__name__": "document"}, ""
    assert len(re.findall("^ *```", text, re.M)) == 2 * len(blocks), "a fence is not closed, or is indented"
    assert [name for name in NAMED_FILE.findall(text) if not (REPOSITORY / name).exists()] == []
    for line, language, code, reason in blocks:
        match language:
            case "python":
                compiled = compile("\n" * (line - 1) + code, document, "exec")  # tracebacks give the document's line
                capsys.readouterr()
                if reason is None:
                    exec(compiled, namespace)
                printed = capsys.readouterr().out
            case "text":
                assert code == printed
            case "json":
                json.loads(code)
            case "bash":
                problems = {shlex.join(words): problem_of(words, reason is None) for words in commands_of(code)}
                assert not any(problems.values()), f"{document}, line {line}: {problems}"
            case _:
                pytest.fail(f"{document}, line {line}: a block of the language {language!r}")


def test_blocks_that_do_not_run_are_known():
    marked = [
        (name, block.code.splitlines()[0]) for name in DOCUMENTS for block in blocks_of(read(name)) if block.reason
    ]
    assert set(marked) == NOT_RUN


def test_readme_has_the_results_of_the_small_model():
    (table,) = re.findall(r"^\| score .+?(?=\n\n)", read("README.md"), re.M | re.S)
    assert table in read("docs/small_model.md")


def test_site_builds_without_a_warning(tmp_path):
    build(load_config(str(REPOSITORY / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))


def commands_of(code: str) -> list[list[str]]:
    """The single commands of a block, each as its words."""
    commands: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        commands.append([])
        for word in lexer:
            if word in ("&&", ";"):
                commands.append([])
            else:
                commands[-1].append(word)
    return [command for command in commands if command]


def problem_of(words: list[str], runs: bool = True) -> str | None:
    """What is wrong with a command, None if nothing is."""
    missing = [word for word in words if word.startswith("training/") and not (REPOSITORY / word).exists()]
    if missing:
        return f"{missing} do not exist"
    runs = runs and any(words[: len(quick)] == quick for quick in QUICK)
    match words:
        case _ if words in SET_UP:
            return None
        case ["make", *targets]:
            rules = re.findall(r"^([\w-]+):", read("Makefile"), re.M)
            return None if set(targets) <= set(rules) else f"the Makefile has {rules}"
        case ["pip", "install", "-e", target]:
            known = importlib.metadata.metadata("aigcvqa").get_all("Provides-Extra")
            extras = re.findall(r"[\w-]+", target)
            return None if set(extras) <= set(known) else f"the package has the extras {known}"
        case ["pip", "install", target]:
            return None if target in INSTALLABLE else f"expected -e '.[EXTRAS]' or one of {INSTALLABLE}"
        case ["aigcvqa", *arguments]:
            return problem_of_program("modeling_aigcvqa.cli", arguments, runs)
        case ["python", "-m", module, *arguments]:
            return problem_of_program(module, arguments, runs)
        case ["python", script, *arguments]:
            return problem_of_program(script, arguments)
        case ["sbatch", _, script, *_]:
            return None if (REPOSITORY / script).exists() else f"{script} does not exist"
        case ["accelerate", "launch", *arguments]:
            launched = launch_command_parser().parse_args(arguments)
            return problem_of_program(launched.training_script, launched.training_script_args)
    return "tests/test_documents.py does not know commands of this kind; add it there"


def problem_of_program(name: str, arguments: list[str], runs: bool = False) -> str | None:
    """Run a program (a module or a script), or parse its arguments; those after `--` are a stage's."""
    program = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    end = arguments.index("--") if "--" in arguments else len(arguments)
    of_stage = ["--data", "DATA", "--output", "OUTPUT", *arguments[end + 1 :]]
    try:
        if runs:
            status = program.main(arguments)
            return f"exit status {status}" if status else None
        program.build_parser().parse_args(arguments[:end])
        stage3.build_parser().parse_args(of_stage)
    except SystemExit as error:
        return f"its parser refuses it ({error})"
    return None


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make demon", "the Makefile has"),
        ("pip install -e '.[trian]'", "has the extras"),
        ("pip install aigcvqa", "expected -e"),
        ("aigcvqa init --preset huge --output x", "parser refuses"),
        ("aigcvqa score missing.mp4 --prompt x", "exit status 1"),
        ("python -m training.benchmarks.scoring --modle full", "parser refuses"),
        ("python examples/fine_tune.py --csv a --init_from b --output c -- --epohcs 3", "parser refuses"),
        ("accelerate launch training/stage3.py --data D", "parser refuses"),
        ("accelerate launch training/stage4.py --data D", "do not exist"),
        ("curl https://example.org", "not know"),
    ],
)
def test_wrong_commands_are_found(stand_ins, monkeypatch, command, problem):
    monkeypatch.chdir(stand_ins)
    (words,) = commands_of(command)
    assert problem in (problem_of(words) or "")


def test_blocks_and_commands_are_found():
    text = "# A\n\n```python\nx = 1\n```\n\n<!-- not run: needs a GPU -->\n```bash\nmake x && . y  # why\n```\n"
    python, bash = blocks_of(text)
    assert python == (4, "python", "x = 1\n", None) and bash == (9, "bash", "make x && . y  # why\n", "needs a GPU")
    assert commands_of(bash.code) == [["make", "x"], [".", "y"]]
