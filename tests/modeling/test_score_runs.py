"""Runs of `aigcvqa score` that are interrupted, repeated or changed: every row is kept, and none is scored twice."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from PIL import Image

from modeling_aigcvqa.cli import main
from modeling_aigcvqa.common import console
from modeling_aigcvqa.pipeline_aigcvqa import AIGCVQAPipeline
from tests.conftest import moving_gradient, write_video

COUNT = 6
PROMPTS = ["one", "=two", "three, 'quoted' \"twice\"", "four\nlines", "five ü", "six"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for n in range(COUNT):
        write_video(folder / f"{n}.mp4", moving_gradient(4, 64 + 16 * n, 64))
    rows = [{"file": f"{n}.mp4", "prompt": PROMPTS[n], "mos": n / 3} for n in range(COUNT)]
    rows[2] |= {"file": "missing.mp4", "tags": ["a", 1]}
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def output(request, tmp_path):
    return tmp_path / f"scores.{request.param}"


@pytest.fixture
def scored(monkeypatch):
    """The names of the clips that are really scored."""
    names = []
    preprocess = AIGCVQAPipeline.preprocess

    def counted(self, item, **options):
        names.append(os.path.basename(item["video"]))
        if os.environ.get("INTERRUPT_AT") == names[-1]:
            raise KeyboardInterrupt
        return preprocess(self, item, **options)

    monkeypatch.setattr(AIGCVQAPipeline, "preprocess", counted)
    return names


def run(*arguments):
    return main(["score", *map(str, arguments)])


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    csv.field_size_limit(2**24)
    with path.open(newline="") as file:
        return list(csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file))


def test_an_interrupted_run_goes_on(manifest, output, scored, tmp_path, monkeypatch, capsys):
    whole = tmp_path / f"whole{output.suffix}"
    assert run("--manifest", manifest, "--output", whole) == 1
    assert len(read(whole)) == COUNT
    scored.clear()
    monkeypatch.setenv("INTERRUPT_AT", "4.mp4")
    assert run("--manifest", manifest, "--output", output) == console.INTERRUPTED
    printed = capsys.readouterr().err
    assert f"interrupted: 4 of {COUNT} videos are scored; they are in '{output}'" in printed
    monkeypatch.delenv("INTERRUPT_AT")
    assert run("--manifest", manifest, "--output", output) == 1, "the row that failed before counts"
    assert scored == [*(f"{n}.mp4" if n != 2 else "missing.mp4" for n in range(5)), "4.mp4", "5.mp4"]
    assert read(output) == read(whole)
    scored.clear()
    capsys.readouterr()
    assert run("--manifest", manifest, "--output", output, "--json") == 1
    assert scored == []
    printed = json.loads(capsys.readouterr().out)["results"]
    assert [row["file"] for row in printed] == [row["file"] for row in read(whole)]
    assert isinstance(printed[0]["quality_score"], float)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("cut", [1, 30])
def test_a_row_that_was_written_in_part_is_scored_again(manifest, tmp_path, kind, cut, scored):
    output = tmp_path / f"scores.{kind}"
    run("--manifest", manifest, "--output", output)
    whole = output.read_bytes()
    output.write_bytes(whole[:-cut])
    scored.clear()
    run("--manifest", manifest, "--output", output)
    assert scored == ["5.mp4"]
    assert output.read_bytes() == whole


def test_a_cut_inside_a_quoted_cell_with_lines(manifest, tmp_path, scored):
    output = tmp_path / "scores.csv"
    run("--manifest", manifest, "--output", output)
    whole = output.read_bytes()
    output.write_bytes(whole[: whole.index(b"lines")])
    scored.clear()
    run("--manifest", manifest, "--output", output)
    assert scored == ["3.mp4", "4.mp4", "5.mp4"]
    assert output.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--branches", "technical,aesthetic"], "branches: ['technical', 'aesthetic', 'alignment'] there"),
        (["--alignment_num_frames", "2"], "alignment_num_frames: None there, 2 now"),
        (["--dtype", "bfloat16"], "dtype: float32 there, bfloat16 now"),
        (["--on_damage", "warn"], "on_damage: raise there, warn now"),
    ],
)
def test_another_run_is_refused(manifest, tmp_path, change, message, capsys):
    output = tmp_path / "scores.jsonl"
    run("--manifest", manifest, "--output", output)
    before = output.read_bytes()
    assert run("--manifest", manifest, "--output", output, *change) == 2
    printed = capsys.readouterr().err
    assert message in printed and "--overwrite" in printed
    assert output.read_bytes() == before


def test_other_rows_another_model_and_other_files_are_refused_or_overwritten(manifest, tmp_path, model_folder, capsys):
    output, other = tmp_path / "scores.csv", manifest.with_name("other.jsonl")
    other.write_text(manifest.read_text().replace("six", "seven"))
    run("--manifest", manifest, "--output", output)
    assert run("--manifest", other, "--output", output) == 2
    assert "rows_sha256" in capsys.readouterr().err
    assert run("--manifest", manifest, "--output", output, "--model", model_folder) == 2
    assert "model: small there" in capsys.readouterr().err
    assert run("--manifest", manifest, "--output", output, "--model", model_folder, "--overwrite") == 1
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("my,notes\n")
    assert run("--manifest", manifest, "--output", foreign) == 2
    assert "says what made it" in capsys.readouterr().err
    assert foreign.read_text() == "my,notes\n"


def start(*arguments, **options):
    command = [sys.executable, "-m", "modeling_aigcvqa", "score", *map(str, arguments)]
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    # Tests that a shell has started in the background ignore Ctrl-C, and so would their children.
    return subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def wait_for_rows(path, count):
    deadline = time.monotonic() + 100
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_killed_process_loses_no_row(manifest, tmp_path, number, capsys):
    """With workers: Ctrl-C reaches them too. While it runs, a second process is refused."""
    long = manifest.with_name("long.jsonl")
    long.write_text((json.dumps({"file": "0.mp4", "prompt": "one"}) + "\n") * 4000)
    output = tmp_path / "scores.jsonl"
    process = start("--manifest", long, "--output", output, "--num_workers", 2)
    wait_for_rows(output, 1)
    for option in ([], ["--overwrite"]):
        assert run("--manifest", long, "--output", output, *option) == 2
        assert "written by another process" in capsys.readouterr().err
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    kept = output.read_bytes().count(b"\n")
    assert 1 <= kept < 4000
    if number == signal.SIGINT:
        assert process.returncode == console.INTERRUPTED
        there = f"they are in '{output}', and the same command goes on after them."
        *progress, last = err.splitlines()
        assert last == f"interrupted: {kept} of 4000 videos are scored; {there}"
        assert all(line.startswith("scoring: ") for line in progress)
        assert out == ""


def test_a_closed_pipe_is_quiet():
    program = (
        "import sys; from modeling_aigcvqa.common.console import exits_with_status\n"
        "sys.exit(exits_with_status('program')(lambda argv: print('text ' * 100_000))())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == console.CLOSED_PIPE


def test_a_full_disk_is_one_error_and_the_run_goes_on(manifest, tmp_path, capsys):
    """A limit on the size of a file stands for the full disk."""
    output, limits = tmp_path / "scores.csv", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))
    try:
        assert run("--manifest", manifest, "--output", output) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"--output '{output}' cannot be written (File too large); " in capsys.readouterr().err
    rows = read(output)
    assert 0 < len(rows) < COUNT
    assert run("--manifest", manifest, "--output", output) == 1
    assert len(read(output)) == COUNT
    assert read(output)[: len(rows)] == rows


def test_progress_without_a_terminal_is_lines(manifest, monkeypatch, capsys):
    monkeypatch.setattr(console, "FIRST_LINE_S", 0.0)
    run("--manifest", manifest)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scoring: ")]
    assert lines[0].startswith(f"scoring: 1 of {COUNT}, ")
    assert lines[0].endswith(" min left")


def test_a_folder_of_clips(manifest, tmp_path, capsys):
    folder = tmp_path / "clips"
    (folder / "more" / "frames").mkdir(parents=True)
    for name in ("b.mp4", "a.mp4", ".hidden.mp4", "more/c.mp4"):
        (folder / name).write_bytes(manifest.with_name("0.mp4").read_bytes())
    (folder / "notes.txt").touch()
    Image.new("RGB", (64, 64)).save(folder / "more" / "frames" / "1.png")
    assert run(folder, "--prompt", "a", "--json") == 0
    files = [row["file"] for row in json.loads(capsys.readouterr().out)["results"]]
    assert files == [str(folder / name) for name in ("a.mp4", "b.mp4", "more/c.mp4", "more/frames")]
    Image.new("RGB", (64, 64)).save(folder / "poster.png")
    assert run(folder, "--prompt", "a") == 2
    assert "holds videos ('a.mp4', ...) and images ('poster.png', ...)" in capsys.readouterr().err


def test_no_prompt_at_all_is_one_error(manifest, capsys):
    assert run(manifest.with_name("0.mp4")) == 2
    assert "--branches technical,aesthetic" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        *("--help", "score --help", "score", "score x.mp4 --batch_size 0", "score --manifest none.csv", "score a --no"),
        *("score a --branches x", "score a --output a.xls", "explain a", "convert --out x", "merge --output x", "init"),
    ],
)
def test_wrong_arguments_are_answered_without_torch(arguments):
    """Its import takes seconds."""
    program = (
        "import sys; from modeling_aigcvqa.cli import main\n"
        "try: status = main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "assert status in (0, 2) and not {'torch', 'transformers'} & set(sys.modules), sys.modules.keys()"
    )
    command = [sys.executable, "-c", program, *arguments.split()]
    subprocess.run(command, check=True, capture_output=True)


def test_a_bad_row_costs_itself_alone(manifest, output, tmp_path, capsys):
    """And what is printed about it stays short."""
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    good = {"file": str(manifest.with_name("0.mp4")), "prompt": "a dog"}
    bad = [
        ({"file": "x" * 1_000_000}, "xxx' cannot be opened (File name too long)"),
        ({"prompt": "a \ud800 dog"}, "half of a surrogate pair"),
        ({"file": "a\0b.mp4"}, "does not exist"),
        ({"prompt": ["a"]}, "the prompt is ['a'] (list); pass text"),
        ({"prompt": True}, "the prompt is True (bool); pass text"),
        ({"prompt": None}, 'no "prompt"'),
        ({"file": str(pipe)}, "is neither a file nor a folder"),
        ({"file": "caf\udce9.mp4"}, "does not exist"),
    ]
    rows = [good, *(good | row for row, _ in bad), good | {"note": "\udce9 and \0"}]
    other = tmp_path / "rows.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("--manifest", other, "--output", output) == 1
    scored = read(output)
    assert [bool(row.get("error")) for row in scored] == [False, *[True] * len(bad), False]
    for row, (_, message) in zip(scored[1:], bad):
        assert message in row["error"]
        assert len(row["error"]) < 600
    printed = capsys.readouterr()
    assert len(printed.out + printed.err) < 20_000
    assert run("--manifest", other, "--output", output) == 1, "what was written can be read again"
