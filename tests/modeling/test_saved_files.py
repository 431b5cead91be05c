"""Damaged or wrong files of a saved model: one clear error each, which names the file and the field or tensor."""

import copy
import json
import os
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, pipeline

from modeling_aigcvqa import AIGCVQAModel, load_model, load_pipeline
from modeling_aigcvqa.cli import main
from tests.conftest import write_video
from tests.training.tiny import tiny_folder

NAN, INF = float("nan"), float("inf")
HEAD = "technical_head.fc_last.bias"
FILES = ("config.json", "processor_config.json", "model.safetensors")
FUZZ_SEED, FUZZ_MUTANTS = int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_MUTANTS", "150"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tiny, tmp_path):
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames)


def set_field(folder: Path, file: str, field: str, value: object) -> None:
    """Set a field, "part.field" for one in an object, of a JSON file."""
    content = json.loads((folder / file).read_text())
    *parts, name = field.split(".")
    inner = content
    for part in parts:
        inner = inner[part]
    inner[name] = value
    (folder / file).write_text(json.dumps(content))


def tensors(change):
    """A change to the tensors of model.safetensors."""

    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return apply


def header(change):
    """A change to the header of model.safetensors, with the length of it left right."""

    def apply(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        text = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return apply


def content(change):
    """A change to the bytes of model.safetensors."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


def with_entry(**fields):
    return header(lambda entries: entries | {HEAD: entries[HEAD] | fields})


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


WEIGHTS = {
    "NaN": (tensors(lambda state: state[HEAD].fill_(NAN)), HEAD),
    "infinite": (tensors(lambda state: state["aesthetic_backbone.norm.weight"].fill_(-INF)), "aesthetic_backbone.norm"),
    "missing": (tensors(lambda state: state.pop(HEAD)), HEAD),
    "unknown": (tensors(lambda state: state.update({"technical_head.extra": torch.ones(2)})), "technical_head.extra"),
    "other shape": (tensors(lambda state: state.update({HEAD: torch.ones(3)})), f"{HEAD} has the shape (3,)"),
    "integers": (tensors(lambda state: state.update({HEAD: torch.ones(1, dtype=torch.int32)})), "I32"),
    "cut header": (content(lambda data: data[:100]), "model.safetensors' is damaged"),
    "cut body": (content(lambda data: data[:-50]), "model.safetensors' is damaged"),
    "empty": (content(lambda data: b""), "model.safetensors' is damaged"),
    "absurd header": (content(lambda data: b"\xff" * 7 + b"\0" + data[8:]), "model.safetensors' is damaged"),
    "wrong header length": (content(lambda data: struct.pack("<Q", 40) + data[8:]), "model.safetensors' is damaged"),
    "bytes that are left over": (content(lambda data: data + b"\0" * 64), "model.safetensors' is damaged"),
    "unknown dtype": (with_entry(dtype="Q7"), "model.safetensors' is damaged"),
    "overlapping offsets": (with_entry(data_offsets=[0, 4]), "model.safetensors' is damaged"),
    "offsets backwards": (with_entry(data_offsets=[8, 4]), "model.safetensors' is damaged"),
    "header is a list": (header(lambda entries: [1]), "model.safetensors' is damaged"),
    "only a pickle": (only_pickle, "'pytorch_model.bin' is not loaded"),
}
CONFIG = {
    "technical_config": ([1, 2], "technical_config"),
    "technical_config.embed_dim": ("8", "embed_dim"),
    "technical_config.depths": ({}, "depths"),
    "technical_config.num_heads": ([1, 0, 1], "num_heads"),
    "technical_config.window_size": ([9999, 9999, 9999], "window_size"),
    "technical_config.score_scale": (NAN, "score_scale"),
    "technical_config.score_shift": (-INF, "score_shift"),
    "aesthetic_config.depths": ([10**9, 1, 1], "depths"),
    "aesthetic_config.hidden_sizes": ([8, 8, 10**12], "hidden_sizes"),
    "aesthetic_config.layer_scale_init_value": (INF, "layer_scale_init_value"),
    "alignment_config.adapter_activation": ("banana", "adapter_activation='banana'"),
    "alignment_config.pad_token_id": (-1, "pad_token_id=-1"),
    "alignment_config.vocab_size": (100, "word_embeddings.weight has the shape (30524, 16)"),
    "alignment_config.max_position_embeddings": (None, "max_position_embeddings"),
    "alignment_config.text_num_hidden_layers": (10**9, "text_num_hidden_layers"),
    "alignment_config.colour": ("red", "colour"),
    "alignment_config.to_dict": (3, "to_dict"),
    "branches": (["sharpness"], "sharpness"),
    "mos_std": ("1", "mos_std"),
    "mos_mean": (INF, "mos_mean"),
    "dtype": ("banana", "dtype='banana'"),
    "bananas": (3, "bananas"),
    "transformers_weights": ("pytorch_model.bin", "transformers_weights"),
    "provenance": ({"runs": 3}, "provenance"),
    "model_type": (7, "of type 7"),
}
PROCESSOR = {
    "video_processor.num_frames": ("16", "num_frames"),
    "video_processor.fragment_grid": (0, "fragment_grid=0"),
    "video_processor.fragment_size": (10**6, "fragment_size=1000000"),
    "video_processor.size": ({"height": 112, "width": 112}, "image_size=224"),
    "video_processor.image_mean": ([0.5, 0.5], "image_mean"),
    "video_processor.image_std": ([1.0, 0.0, 1.0], "image_std"),
    "video_processor.resample": (77, "resample=77"),
    "video_processor.protocol": ("banana", "banana"),
    "video_processor.views": (["sideways"], "sideways"),
    "video_processor.bananas": (3, "bananas"),
    "video_processor": ([1], "processor_config.json"),
    "requires_prompt": ("yes", "requires_prompt='yes'"),
}
JSON_TEXTS = {
    "a list": b"[1]",
    "empty": b"",
    "cut": b'{"branches": ["tech',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "deep": b"[" * 100_000,
}


def refused(folder: Path, message: str, clip: Path, capsys) -> None:
    """The library raises a ValueError, and the command line prints one line, both with the message."""
    with pytest.raises(ValueError) as raised:
        load_pipeline(str(folder), device="cpu")
    assert message in str(raised.value) and "\n" not in str(raised.value)
    capsys.readouterr()
    assert main(["score", str(clip), "--prompt", "a", "--device", "cpu", "--model", str(folder)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(folder, clip, capsys, name):
    change, message = WEIGHTS[name]
    change(folder)
    refused(folder, message, clip, capsys)
    with pytest.raises(ValueError) as raised:
        AutoModel.from_pretrained(folder)
    assert message in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize("field", CONFIG)
def test_config(folder, clip, capsys, field):
    value, message = CONFIG[field]
    set_field(folder, "config.json", field, value)
    refused(folder, message, clip, capsys)


@pytest.mark.parametrize("field", PROCESSOR)
def test_processor(folder, clip, capsys, field):
    value, message = PROCESSOR[field]
    set_field(folder, "processor_config.json", field, value)
    refused(folder, message, clip, capsys)


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", JSON_TEXTS)
def test_files_that_are_no_json_objects(folder, clip, capsys, file, text):
    (folder / file).write_bytes(JSON_TEXTS[text])
    refused(folder, "the tokenizer" if file == "tokenizer.json" else file, clip, capsys)


@pytest.mark.parametrize("file", [*FILES, "tokenizer.json"])
def test_missing_files(folder, clip, capsys, file):
    (folder / file).unlink()
    refused(folder, file, clip, capsys)


def test_a_tokenizer_without_words_is_refused(folder):
    (folder / "tokenizer.json").unlink()  # transformers then makes an empty one
    with pytest.raises(ValueError, match="tokenizer"):
        pipeline("video-quality-assessment", model=str(folder), trust_remote_code=True)


def test_a_pickle_beside_the_weights_is_not_read(folder):
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert load_model(str(folder))[0].config.branches


def test_a_float16_model_whose_weights_do_not_fit_is_refused(folder):
    tensors(lambda state: state[HEAD].fill_(1e6))(folder)
    load_pipeline(str(folder), device="cpu")
    with pytest.raises(ValueError, match=r"technical_head\.fc_last\.bias.*float16"):
        load_pipeline(str(folder), device="cpu", dtype="float16")


def test_a_part_of_the_weights_may_be_replaced_on_request(folder):
    tensors(lambda state: state.update({HEAD: torch.ones(3)}))(folder)
    model, info = AIGCVQAModel.from_pretrained(folder, ignore_mismatched_sizes=True, output_loading_info=True)
    assert len(info["mismatched_keys"]) == 1 and model.technical_head.fc_last.bias.shape == (1,)


def test_branches_may_be_left_out(folder):
    assert load_model(str(folder), ["technical"])[0].config.branches == ["technical"]


def test_a_score_that_is_not_finite_is_the_error_of_its_clip(tiny, clip, capsys, monkeypatch):
    scorer = load_pipeline(str(tiny), device="cpu")
    forward = scorer.model.forward

    def infinite_for_one(**inputs):
        outputs = forward(**inputs)
        outputs.aesthetic_score[0] = NAN
        outputs.quality_score[0] = INF
        return outputs

    monkeypatch.setattr(scorer.model, "forward", infinite_for_one)
    items = [{"video": str(clip), "prompt": prompt} for prompt in ("a", "b")]
    bad, good = scorer(items, on_error="return", batch_size=2)
    assert set(bad) == {"error"} and "aesthetic_score" in bad["error"] and clip.name in bad["error"]
    assert "quality_score" in good
    with pytest.raises(ValueError, match=clip.name):
        scorer(items)
    monkeypatch.setattr("modeling_aigcvqa.loading.load_pipeline", lambda *_: scorer)
    assert main(["score", str(clip), "--prompt", "a", "--model", str(tiny), "--json"]) == 1
    printed = capsys.readouterr()
    assert "failed" in printed.err and "NaN" not in printed.out


@pytest.mark.parametrize("device", ["banana", "cuda:99", "mps", "meta", "cpu:banana", "", "-1", "xpu:3"])
def test_devices_that_are_not_here(tiny, clip, capsys, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    call = ["score", str(clip), "--prompt", "a", "--model", str(tiny), "--device", device]
    assert main(call) == 2
    printed = capsys.readouterr().err
    assert f"device={device!r}" in printed and "'cpu'" in printed and printed.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu(tiny, clip, capsys):
    assert main(["score", str(clip), "--prompt", "a", "--model", str(tiny), "--device", "cuda"]) == 2
    assert "device='cuda'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("branches", "parts"), [("technical", "technical"), ("technical,alignment", "technical + alignment")]
)
def test_quality_of_some_branches_says_so(tiny, clip, tmp_path, capsys, branches, parts):
    call = ["score", str(clip), "--prompt", "a", "--model", str(tiny), "--branches", branches]
    assert main([*call, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["results"][0]["quality_of"] == parts and f"Quality is {parts} alone" in printed["note"]
    assert main(call) == 0
    assert f"quality ({parts.split()[0]}" in capsys.readouterr().out
    output = tmp_path / "scores.jsonl"
    for _ in range(2):  # the file of a run is taken up again
        assert main([*call, "--output", str(output)]) == 0
    capsys.readouterr()
    assert json.loads(output.read_text())["quality_of"] == parts
    assert main(["score", "--manifest", str(output), "--model", str(tiny), "--json"]) == 0
    assert "quality_of" not in capsys.readouterr().out, "an old result does not stand beside new ones"


def mutated_value(rng: random.Random, value: object) -> object:
    return rng.choice(
        [None, -1, 0, 1e30, NAN, INF, "", "x", [], {}, [value], {"a": value}, 10**12, True, str(value), [[]] * 3]
    )


def mutate(folder: Path, rng: random.Random) -> str:
    """Change one file of a model folder; returns what was changed."""
    file = rng.choice(FILES)
    path = folder / file
    if file.endswith(".json") and rng.random() < 0.7:
        values = json.loads(path.read_text())
        inner = values
        while True:
            key = rng.choice(sorted(inner))
            if not isinstance(inner[key], dict) or not inner[key] or rng.random() < 0.2:
                break
            inner = inner[key]
        inner[key] = mutated_value(rng, copy.deepcopy(inner[key]))
        path.write_text(json.dumps(values))
        return f"{file}: {key} = {str(inner[key])[:60]}"
    data = bytearray(path.read_bytes())
    end = min(len(data), 30_000) if rng.random() < 0.8 else len(data)  # mostly the header
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(end)
        kind = rng.randrange(3)
        if kind == 0:
            data[start] = rng.randrange(256)
        elif kind == 1:
            del data[start : start + rng.randrange(1, 50)]
        else:
            data[start:start] = rng.randbytes(rng.randrange(1, 20))
    path.write_bytes(data)
    return f"{file}: bytes"


@pytest.mark.slow
def test_mutants_are_refused_or_scored_but_never_crash(tiny, clip, tmp_path, capsys):
    rng = random.Random(FUZZ_SEED)
    statuses, wrong = {}, []
    for number in range(FUZZ_MUTANTS):
        folder = Path(shutil.copytree(tiny, tmp_path / str(number)))
        change = mutate(folder, rng)
        try:
            status = main(["score", str(clip), "--prompt", "a", "--device", "cpu", "--model", str(folder), "--json"])
            printed = capsys.readouterr()
            if status == 2 and printed.err.count("\n") != 1:
                wrong.append((change, printed.err))
            if any(word in printed.out for word in ("NaN", "Infinity")):
                wrong.append((change, printed.out))
        except Exception as error:  # the fault that is looked for
            status = type(error).__name__
            wrong.append((change, f"{status}: {error}"))
        statuses[status] = statuses.get(status, 0) + 1
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\nexit statuses of {FUZZ_MUTANTS} mutants: {statuses}")
    assert wrong == []
