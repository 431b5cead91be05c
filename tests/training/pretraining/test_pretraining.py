"""The pre-training programs: what they learn from, which weights they change, and what they refuse."""

import json
import re

import pytest
import torch
from datasets import Dataset
from torch import nn

from modeling_aigcvqa.loading import load_model
from tests.training.tiny import tiny_data, tiny_folder
from training.common.prompt_parts import NOTHING
from training.pretraining import alignment, failures, mismatches
from training.pretraining.alignment import WordTargets
from training.pretraining.mismatches import RIGHT, UNKNOWN, WRONG, Targets
from training.pretraining.whitening import patches_of, whiten


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The tiny data with every prompt in the train part, so that some words are in few prompts."""
    folder, split = tiny_data(tmp_path_factory.mktemp("clips"))
    header, *rows = split.read_text().split()
    parts = ["train", "train", "train", "validation", "test"] * 4
    split.write_text("\n".join([header, *(f"{row.split(',')[0]},{part}" for row, part in zip(rows, parts))]))
    return ["--data", str(folder), "--split_file", str(split), "--batch_size", "4", "--epochs", "2"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("start") / "model")


@pytest.mark.parametrize("channels", [4, 12, 40], ids=["fewer", "as many", "more"])
@pytest.mark.parametrize("constant", [True, False])
def test_a_whitened_embedding_gives_each_component_its_share(channels, constant):
    """The components of the patches differ in variance by up to a factor of ten thousand."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(4000, 12, generator=generator) * torch.logspace(1, -1, 12) + 5
    embedding = nn.Conv2d(3, channels, 2, stride=2)
    whiten(embedding, patches, generator, constant)
    outputs = torch.einsum("nk,ck->nc", patches, embedding.weight.flatten(1)) + embedding.bias
    varying = outputs[:, : channels - constant]
    torch.testing.assert_close(varying.mean(0), torch.zeros(varying.shape[1]), atol=1e-3, rtol=0)
    own = min(varying.shape[1] - round(0.25 * varying.shape[1]), 12)
    torch.testing.assert_close(torch.cov(varying[:, :own].T), torch.eye(own), atol=1e-3, rtol=0)
    if constant:
        torch.testing.assert_close(outputs[:, -1], torch.full((4000,), (channels - 1) ** 0.5))


def test_patches_are_laid_out_as_the_kernels_are():
    generator, video = torch.Generator().manual_seed(0), torch.randn(4, 3, 8, 8)
    embedding = nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4))
    patches = patches_of(video, embedding, 200, generator)
    by_patch = patches @ embedding.weight.flatten(1).T + embedding.bias
    by_convolution = embedding(video.transpose(0, 1)[None])[0].flatten(1).T
    nearest = torch.cdist(by_patch, by_convolution, compute_mode="donot_use_mm_for_euclid_dist")
    assert nearest.min(1).values.max() < 1e-4
    assert len(nearest.argmin(1).unique()) == 8, "every place of the grid"


def weights(folder):
    return load_model(str(folder))[0].state_dict()


@pytest.mark.parametrize(
    ("program", "branch", "options", "printed"),
    [
        (failures, "technical", ["--branch", "technical", "--num_frames", "4"], "SROCC with the label"),
        (failures, "aesthetic", ["--branch", "aesthetic", "--num_frames", "4"], "SROCC with the label"),
        (alignment, "alignment", ["--whiten", "--min_label", "0"], "wrong prompts below the right one"),
        (mismatches, "alignment", [], "SROCC with the label"),
    ],
    ids=["failures, technical", "failures, aesthetic", "alignment", "mismatches"],
)
def test_one_branch_learns_and_the_others_stay(program, branch, options, printed, data, start, tmp_path, capsys):
    assert program.main([*data, *options, "--init_from", str(start), "--output", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "12 clips to train on, 4 to validate" in output
    assert re.search(rf"step 6/6: (\w+ \d+\.\d+(, )?)+; validation {printed} -?\d\.\d+", output)
    before, after = weights(start), weights(tmp_path / "out")
    assert all(value.isfinite().all() for value in after.values())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("patch_embed" in name or "downsample_layers.0" in name for name in changed)
    assert all(name.startswith(branch) for name in changed)


def test_the_seed_decides_and_training_goes_on_from_a_folder(data, start, tmp_path):
    def run(output, *options):
        arguments = [*data, "--branch", "technical", "--num_frames", "4", "--output", str(tmp_path / output)]
        failures.main([*arguments, *map(str, options)])
        return weights(tmp_path / output)

    first, again = (run(name, "--init_from", start) for name in ("first", "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    no_step = ["--no-whiten", "--learning_rate", 1e-12, "--weight_decay", 0]
    continued = run("continued", "--init_from", tmp_path / "first", *no_step)
    for name in first:
        torch.testing.assert_close(continued[name], first[name], msg=f"{name}: did not start from the folder's value")


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        (failures, ["--branch", "technical", "--failures", "noize"], r"--failures \['noize'\]: no clip"),
        (failures, ["--branch", "technical", "--label", "mosss"], r"has no column \['mosss'\]"),
        (alignment, ["--label", "mosss"], r"has no column \['mosss'\]"),
        (alignment, ["--min_label", "1000"], r"--min_label 1000.0: 0 clips"),
        (mismatches, ["--label", "mosss"], r"has no column \['mosss'\]"),
    ],
)
def test_data_that_cannot_teach_is_refused(program, options, message, data, start, tmp_path, capsys):
    assert program.main([*data, *options, "--init_from", str(start), "--output", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_prompts_that_share_all_their_words_are_refused(start):
    processor = load_model(str(start))[1]
    with pytest.raises(ValueError, match="every word is in over 30% of the training prompts"):
        WordTargets(processor, ["a red cube", "a red cube"])


def test_words_of_wrong_parts_are_not_to_be_seen(start):
    prompt = "By a red brick wall, two green mugs are rotating."
    stretches = {"By a red brick wall": "background", "two": "count", "green": "colour", "mugs": "subject"}
    parts = [
        (prompt.index(words), prompt.index(words) + len(words), part)
        for words, part in (stretches | {"rotating": "motion"}).items()
    ]
    clips = Dataset.from_dict(
        {
            "prompt": [prompt] * 3,
            "prompt_parts": [json.dumps(parts)] * 3,
            "alignment_mos": [90.0, 50.0, 10.0],
            "failures": [json.dumps(wrong) for wrong in ({"blur": 0.5}, {"wrong_colour": 0.5}, {NOTHING: 0.95})],
        }
    )
    processor = load_model(str(start))[1]
    targets = Targets(clips, processor, "alignment_mos")
    words = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer(prompt)["input_ids"])
    seen = [dict(zip(words, row)) for row in targets.words.tolist()]
    assert {word for word, value in seen[0].items() if value == RIGHT} >= {"green", "two", "wall", "mug", "rotating"}
    assert {seen[0][word] for word in ("[CLS]", "by", "a", "are", ".", "[SEP]")} == {UNKNOWN}
    assert [word for word in words if seen[1][word] == WRONG] == ["green"], "the wall's red belongs to the background"
    assert seen[2]["green"] == seen[2]["wall"] == WRONG and seen[2]["two"] == seen[2]["rotating"] == UNKNOWN
    torch.testing.assert_close(targets.label, torch.tensor([1.0, 0.0, -1.0]))


@pytest.mark.parametrize("program", [failures, alignment, mismatches])
def test_help_is_printed_and_wrong_calls_end_with_the_reason(program, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("epoch: 3\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    data = ["--data", "d", "--init_from", "i"]
    data += ["--branch", "technical"] if program is failures else []
    calls = {
        r"keys \['epoch'\]": ["--config", str(tmp_path / "c.yaml")],
        "required: .*--init_from": ["--data", "d", "--output", str(tmp_path / "new")],
        "is not an empty folder": [*data, "--output", str(tmp_path / "full")],
    }
    with pytest.raises(SystemExit, match="0"):
        program.main(["--help"])
    capsys.readouterr()
    for reason, call in calls.items():
        try:
            assert program.main(call) == 2
        except SystemExit as error:
            assert error.code == 2
        assert re.search(reason, capsys.readouterr().err)
