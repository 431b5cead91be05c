"""Manifests in every state that users have them in: each is read, or is one clear error with the file and the line."""

import json

import pytest

from modeling_aigcvqa.cli import main
from modeling_aigcvqa.common.manifests import read_manifest

ROWS = [{"file": "a.mp4", "prompt": "a dog"}, {"file": "b.mp4", "prompt": "a cat, sitting"}]
CSV = 'file,prompt\na.mp4,a dog\nb.mp4,"a cat, sitting"\n'
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)

READ = {
    "plain.csv": CSV,
    "plain.jsonl": JSONL,
    "byte order mark.csv": CSV.encode("utf-8-sig"),
    "UTF-16.csv": CSV.encode("utf-16"),
    "UTF-16.jsonl": JSONL.encode("utf-16"),
    "Windows line ends.csv": CSV.replace("\n", "\r\n"),
    "old line ends.csv": CSV.replace("\n", "\r"),
    "Windows line ends.jsonl": JSONL.replace("\n", "\r\n"),
    "no last line end.csv": CSV.rstrip("\n"),
    "blank lines.csv": CSV.replace("\n", "\n\n"),
    "blank lines.jsonl": JSONL.replace("\n", "\n  \n"),
    "spaces in the header.csv": 'file , prompt\na.mp4, a dog\nb.mp4, "a cat, sitting"\n',
    "commas at the ends.csv": 'file,prompt,,\na.mp4,a dog,,\nb.mp4,"a cat, sitting",,\n',
    "commas at the ends of rows.csv": 'file,prompt\na.mp4,a dog,,\nb.mp4,"a cat, sitting",\n',
}
REFUSED = {
    "cp1252.csv": ("file,prompt\na.mp4,ein Bär\n".encode("cp1252"), "line 2: 0xe4 is not utf-8"),
    "cp1252.jsonl": ('{"file": "a.mp4", "prompt": "Bär"}\n'.encode("cp1252"), "line 1: 0xe4 is not utf-8"),
    "no byte order mark.csv": (CSV.encode("utf-16-le"), "line 1 holds a NUL"),
    "unclosed quote.csv": (
        'file,prompt\na.mp4,a dog\nb.mp4,"a cat\nc.mp4,a cow\n',
        "line 3 is not CSV (a quote",
    ),
    "quote in a cell.csv": ('file,prompt\na.mp4,"a" dog\n', "line 2 is not CSV"),
    "duplicated column.csv": ("file,prompt,prompt\na.mp4,a,b\n", "the column 'prompt' twice"),
    "duplicated key.jsonl": (
        '{"file": "a.mp4", "file": "b.mp4"}\n',
        "line 1 is not JSON that can be used (the key",
    ),
    "too many values.csv": ("file,prompt\na.mp4,a cat, sitting\n", "line 2: more values than columns (' sitting')"),
    "unnamed column.csv": ("file,prompt,\na.mp4,a cat,sitting\n", "line 2: more values than columns"),
    "semicolons.csv": ("file;prompt\na.mp4;a dog\n", "Separate columns with commas"),
    "no file.csv": ("name,prompt\na.mp4,a\n", "line 2: no column 'file' (it has ['name', 'prompt'])"),
    "empty file.csv": ("file,prompt\na.mp4,a\n,b\n", "line 3: 'file' is empty"),
    "no file.jsonl": (JSONL + '{"clip": "c.mp4"}\n', "line 3: no column 'file'"),
    "number as file.jsonl": ('{"file": 5}\n', "line 1: 'file' is 5; expected the path"),
    "list.jsonl": ("[1, 2]\n", "line 1 is not a JSON object: '[1, 2]'"),
    "not JSON.jsonl": (JSONL + "{'file': 'a.mp4'}\n", "line 3 is not JSON"),
    "deep.jsonl": ('{"file": "a.mp4", "x": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "nested too deeply"),
    "huge number.jsonl": ('{"file": "a.mp4", "x": ' + "9" * 5000 + "}\n", "line 1 is not JSON"),
    "no rows.csv": ("file,prompt\n", "has no rows"),
    "empty.jsonl": ("", "has no rows"),
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", READ)
def test_it_is_read(tmp_path, name):
    assert read_manifest(write(tmp_path / name, READ[name])) == ROWS


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_one_error_before_anything_is_loaded(tmp_path, name, capsys):
    content, message = REFUSED[name]
    path = write(tmp_path / name, content)
    assert main(["score", "--manifest", str(path)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert str(path) in printed
    assert len(printed.splitlines()) == 1
    assert len(printed) < 500


def test_long_cells_are_read(tmp_path):
    prompt = "a dog " * 200_000
    assert read_manifest(write(tmp_path / "m.csv", f'file,prompt\na.mp4,"{prompt}"\n'))[0]["prompt"] == prompt


def test_rows_with_other_keys_and_a_number_as_prompt(tmp_path):
    rows = [{"file": "a.mp4", "prompt": 5}, {"file": "b.mp4", "seed": 7, "prompt": None}, {"file_name": "c.mp4"}]
    read = read_manifest(write(tmp_path / "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert read == [rows[0] | {"prompt": "5"}, *rows[1:]]
