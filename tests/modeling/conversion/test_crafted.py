"""Crafted and damaged checkpoints: a clear error that names the file, no code that runs, nothing left behind."""

import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modeling_aigcvqa.cli import main as aigcvqa
from modeling_aigcvqa.conversion.formats import CONVNEXT, FAST_VQA, CheckpointError, convert_state
from modeling_aigcvqa.conversion.reading import read_checkpoint
from tests.conftest import REPOSITORY
from tests.modeling.conversion.published import published

FUZZ_SEED, FUZZ_MUTANTS = int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_MUTANTS", "400"))
STATE = {"a": torch.arange(4.0), "b": torch.ones(100, 7), "c": torch.arange(6).view(2, 3)}


class Call:
    """Pickles as a call that makes the file "ran"."""

    def __reduce__(self):
        return os.mknod, ("ran",)


def rezipped(path: Path, change=lambda name, data: data, compression: int = zipfile.ZIP_STORED) -> None:
    """Write the records of a torch file again: `change` gives the content of a record, or None to leave it out."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            data = change(name, data)
            if data is not None:
                archive.writestr(name, data)


def torch_zip(path: Path) -> None:
    torch.save(STATE, path)


def legacy(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


def zip_without(part: str):
    def craft(path: Path) -> None:
        torch_zip(path)
        rezipped(path, lambda name, data: None if part in name else data)

    return craft


def zip_with(part: str, change):
    def craft(path: Path) -> None:
        torch_zip(path)
        rezipped(path, lambda name, data: change(data) if name.endswith(part) else data)

    return craft


def replaced(old: bytes, new: bytes):
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return zip_with("data.pkl", change)


def cut(craft, share: float):
    def craft_and_cut(path: Path) -> None:
        craft(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return craft_and_cut


def safetensors(header: object, body: bytes = b"\0" * 64, length: int | None = None):
    def craft(path: Path) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)

    return craft


def pickled(content: object):
    return lambda path: path.write_bytes(pickle.dumps(content))


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "pickle")


def deflated(path: Path) -> None:
    torch.save({"a": torch.zeros(300_000)}, path)
    rezipped(path, compression=zipfile.ZIP_DEFLATED)


def overlapping_records(path: Path) -> None:
    """A zip in which two records have the same bytes, so that it is larger inside than outside."""
    torch.save({"a": torch.zeros(30_000), "b": torch.zeros(30_000)}, path)
    names = [b"data/0", b"data/1"]
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<II", data[end + 12 : end + 20])
    directory, offsets = bytearray(data[start : start + size]), []
    for name in names:
        entry = directory.index(name)
        entry = directory.rindex(b"PK\x01\x02", 0, entry)
        offsets.append(entry + 42)
    directory[offsets[1] : offsets[1] + 4] = directory[offsets[0] : offsets[0] + 4]
    local = struct.unpack("<I", directory[offsets[0] : offsets[0] + 4])[0]
    second = data.index(b"PK\x03\x04", local + 4)
    gone = data.index(b"PK\x03\x04", second + 4) - second  # take the second record's own bytes out
    rest = data[second + gone : start]
    for name in (b"version", b"serialization_id"):
        entry = directory.rindex(b"PK\x01\x02", 0, directory.index(name))
        (offset,) = struct.unpack("<I", directory[entry + 42 : entry + 46])
        if offset > second:
            directory[entry + 42 : entry + 46] = struct.pack("<I", offset - gone)
    trailer = data[end : end + 16] + struct.pack("<I", second + len(rest)) + data[end + 20 :]
    path.write_bytes(data[:second] + rest + bytes(directory) + trailer)


def nested(depth: int) -> dict:
    content: dict = {}
    for _ in range(depth):
        content = {"x": content}
    return content


def nested_pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".")


ENTRY = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
CRAFTED = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a checkpoint"),
    "numpy array": lambda path: np.save(path.open("wb"), np.ones(3)),
    "numpy archive": lambda path: np.savez(path.open("wb"), a=np.ones(3)),
    "numpy pickle": pickled(np.ones(3)),
    "tar": tar,
    "a number": lambda path: torch.save(3, path),
    "a list": lambda path: torch.save([torch.ones(2)], path),
    "keys that are numbers": lambda path: torch.save({1: torch.ones(2)}, path),
    "keys of several types": lambda path: torch.save({1: torch.ones(2), "a": torch.ones(2), None: 3}, path),
    "nested dicts": lambda path: torch.save(nested(20), path),
    "nested tuples": nested_pickle,
    "code": pickled({"a": Call()}),
    "code in a zip": lambda path: torch.save({"a": Call()}, path),
    "cut zip": cut(torch_zip, 0.6),
    "half a zip header": cut(torch_zip, 0.001),
    "cut legacy file": cut(legacy, 0.7),
    "legacy header alone": cut(legacy, 0.02),
    "no pickle": zip_without("data.pkl"),
    "no tensor data": zip_without("data/1"),
    "no records": zip_without(""),
    "short tensor data": zip_with("data/1", lambda data: data[:100]),
    "long tensor data": zip_with("data/0", lambda data: data * 50),
    "empty pickle": zip_with("data.pkl", lambda data: b""),
    "cut pickle": zip_with("data.pkl", lambda data: data[: len(data) // 2]),
    "byte order": zip_with("byteorder", lambda data: b"middle"),
    "a storage that is too large": replaced(b"K\x04tq", b"J\x00\x00\x00\x40tq"),
    "a storage and a tensor that are too large": lambda path: (
        torch_zip(path),
        rezipped(
            path,
            lambda name, data: (
                data.replace(b"K\x04tq", b"M\xe8\x03tq", 1).replace(b"K\x00K\x04\x85", b"K\x00M\xe8\x03\x85", 1)
                if name.endswith(".pkl")
                else data
            ),
        ),
    ),
    "an offset out of range": replaced(b"QK\x00K\x04", b"QJ\xff\xff\xff\x7fK\x04"),
    "a negative size": replaced(b"QK\x00K\x04", b"QK\x00J\xff\xff\xff\xff"),
    "a stride out of range": replaced(b"\x85q\x08K\x01\x85", b"\x85q\x08J\xff\xff\xff\x0f\x85"),
    "a sparse tensor": lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path),
    "a tensor without data": lambda path: torch.save({"a": torch.ones(3, device="meta")}, path),
    "deflated": deflated,
    "overlapping records": overlapping_records,
    "safetensors: not JSON": safetensors(b"{]"),
    "safetensors: deep": safetensors(b'{"a":' * 5000),
    "safetensors: a list": safetensors(b'{"a": [1, 2]}'),
    "safetensors: absurd length": safetensors({"a": ENTRY}, length=2**62),
    "safetensors: cut body": safetensors({"a": ENTRY}, b"\0" * 10),
    "safetensors: overlap": safetensors({"a": ENTRY, "b": ENTRY}),
    "safetensors: backwards": safetensors({"a": ENTRY | {"data_offsets": [64, 0]}}),
    "safetensors: shape overflows": safetensors({"a": ENTRY | {"shape": [2**40, 2**40]}}),
    "safetensors: negative shape": safetensors({"a": ENTRY | {"shape": [-16]}}),
    "safetensors: unknown dtype": safetensors({"a": ENTRY | {"dtype": "Q7"}}),
    "safetensors: no tensors": safetensors({}, b""),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_one_clear_error(tmp_path, monkeypatch, capsys, recwarn, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "crafted.pth"
    CRAFTED[name](path)
    with pytest.raises(CheckpointError, match=r"crafted\.pth"):
        read_checkpoint(path)
    assert aigcvqa(["convert", "--technical", str(path), "--output", "out"]) == 2
    printed = capsys.readouterr()
    assert "crafted.pth" in printed.err and printed.err.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["crafted.pth"], "nothing ran, nothing is left behind"
    assert not [str(warning.message) for warning in recwarn if "torch" in warning.filename]


@pytest.mark.parametrize("write", [torch_zip, legacy, lambda path: save_file(STATE, path)])
def test_whole_files_are_read(tmp_path, write):
    write(tmp_path / "whole.pth")
    state = read_checkpoint(tmp_path / "whole.pth")
    assert state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_numbers_of_numpy_beside_the_weights_are_left_out(tmp_path):
    torch.save({"state_dict": STATE, "best": np.float64(0.8), "more": [np.float32(1), np.dtype("f8")]}, tmp_path / "x")
    assert read_checkpoint(tmp_path / "x").keys() == STATE.keys()


def test_records_that_inflate_are_named(tmp_path):
    deflated(tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="inflates"):
        read_checkpoint(tmp_path / "x")


@pytest.fixture(scope="module")
def states(small_model):
    return {
        "technical": published(small_model, FAST_VQA, ["technical"]),
        "aesthetic": published(small_model, CONVNEXT, ["aesthetic"]),
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((1, 64, 1, 1, 1), float("nan")), "NaN"),
        (torch.full((1, 64, 1, 1, 1), float("-inf"), dtype=torch.float16), "infinite"),
        (torch.ones(1, 64, 1, 1, 1, dtype=torch.int64), "int64"),
        (torch.ones(1, 64, 1, 1, 1, dtype=torch.complex64), "complex64"),
        (torch.ones(1).expand(10**6, 10**6), "shape"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(small_model, states, value, message):
    state = states["technical"] | {"vqa_head.fc_last.weight": value}
    with pytest.raises(CheckpointError, match=rf"a\.pth.*vqa_head\.fc_last\.weight.*{message}"):
        convert_state(state, FAST_VQA, "technical", small_model.state_dict(), "a.pth")


def test_a_kernel_that_claims_to_be_huge_is_refused_before_it_is_inflated(small_model, states):
    state = states["aesthetic"] | {"stem.0.weight": torch.ones(1).expand(10**5, 10**5, 10, 10)}
    with pytest.raises(CheckpointError, match=r"stem\.0\.weight.*shape"):
        convert_state(state, CONVNEXT, "aesthetic", small_model.state_dict())


FUZZ = """
import random, sys
from pathlib import Path
import torch
from modeling_aigcvqa.conversion.formats import CheckpointError
from modeling_aigcvqa.conversion.reading import read_checkpoint
source, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data, rng = source.read_bytes(), random.Random(seed)
spots = [i for i in range(len(data)) if data[i]] or [0]
for _ in range(count):
    mutant = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        start = rng.choice(spots) % len(mutant)
        kind = rng.randrange(4)
        if kind == 0:
            mutant[start] = rng.randrange(256)
        elif kind == 1:
            del mutant[start : start + rng.randrange(1, 30)]
        elif kind == 2:
            mutant[start:start] = rng.randbytes(rng.randrange(1, 9))
        else:
            mutant[start] ^= 1 << rng.randrange(8)
        mutant = mutant or bytearray(b"x")
    path = source.with_name("mutant.pth")
    path.write_bytes(mutant)
    try:
        sum(float(tensor.double().sum()) for tensor in read_checkpoint(path).values() if not tensor.is_complex())
        print("read")
    except CheckpointError as error:
        print("refused" if "mutant.pth" in str(error) and "\\n" not in str(error) else "unclear: " + str(error))
    except Exception as error:
        print("wrong type: " + repr(error)[:300])
    sys.stdout.flush()
"""


@pytest.mark.slow
@pytest.mark.parametrize("write", [torch_zip, legacy, lambda path: save_file(STATE, path)], ids=["zip", "old", "safe"])
def test_mutants_are_refused_and_never_crash(tmp_path, capsys, write):
    write(tmp_path / "whole.pth")
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path / "whole.pth"), str(FUZZ_SEED), str(FUZZ_MUTANTS)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    outcomes = Counter(line[:120] for line in done.stdout.splitlines())
    with capsys.disabled():
        print(f"\n{dict(outcomes)}")
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert set(outcomes) <= {"read", "refused"}
