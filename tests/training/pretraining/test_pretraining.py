"""What comes before the three stages where nothing published can be started from: the small model's pre-training."""

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
from training.pretraining.mismatches import RIGHT, UNKNOWN, WRONG, Targets
from training.pretraining.whitening import patches_of, whiten


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("start") / "model")


@pytest.mark.parametrize("channels", [4, 12, 40], ids=["fewer", "as many", "more"])
@pytest.mark.parametrize("constant", [True, False])
def test_a_whitened_embedding_gives_each_component_its_share(channels, constant):
    """Of patches in which one component has a ten-thousandth of the others' variance."""
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


@pytest.mark.parametrize("branch", ["technical", "aesthetic"])
def test_failures_teach_one_branch_and_leave_the_others(branch, data, start, tmp_path, capsys):
    folder, split = data
    arguments = ["--branch", branch, "--data", str(folder), "--split_file", str(split), "--init_from", str(start)]
    arguments += ["--batch_size", "4", "--epochs", "2", "--num_frames", "4", "--report_steps", "3"]
    failures.main([*arguments, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "12 clips to train on, 4 to validate" in printed
    assert re.search(r"step 6/6: label \d\.\d+, failures \d\.\d+; validation SROCC with the label", printed)
    before, after = load_model(str(start))[0].state_dict(), load_model(str(tmp_path / "out"))[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(branch) for name in changed)
    failures.main([*arguments, "--output", str(tmp_path / "again")])
    again = load_model(str(tmp_path / "again"))[0].state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after), "the seed alone decides"
    more = ["--init_from", str(tmp_path / "out"), "--no-whiten", "--learning_rate", "1e-12", "--weight_decay", "0"]
    failures.main([*arguments, *more, "--output", str(tmp_path / "more")])
    more = load_model(str(tmp_path / "more"))[0].state_dict()
    for name in after:
        torch.testing.assert_close(more[name], after[name], msg=f"{name}: it did not go on from where it was")


def test_failures_that_no_clip_names_are_refused(data, start, tmp_path, capsys):
    folder, split = data
    arguments = ["--branch", "technical", "--data", str(folder), "--split_file", str(split), "--init_from", str(start)]
    assert failures.main([*arguments, "--failures", "noize", "--output", str(tmp_path / "out")]) == 2
    assert "noize" in capsys.readouterr().err


def test_words_teach_the_alignment_branch_alone(data, start, tmp_path, capsys):
    folder, split = data
    arguments = ["--data", str(folder), "--split_file", str(split), "--init_from", str(start), "--whiten"]
    arguments += ["--min_label", "0", "--batch_size", "4", "--epochs", "2", "--output", str(tmp_path / "out")]
    alignment.main(arguments)
    assert "validation wrong prompts below the right one" in capsys.readouterr().out
    before, after = load_model(str(start))[0].state_dict(), load_model(str(tmp_path / "out"))[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("patch_embed" in name for name in changed)
    assert all(name.startswith("alignment") for name in changed)


def test_mismatches_teach_the_alignment_branch_alone(data, start, tmp_path, capsys):
    folder, split = data
    arguments = ["--data", str(folder), "--split_file", str(split), "--init_from", str(start), "--batch_size", "4"]
    mismatches.main([*arguments, "--epochs", "2", "--output", str(tmp_path / "out")])
    assert re.search(r"step 6/6: label \d\.\d+, words \d\.\d+; validation SROCC", capsys.readouterr().out)
    before, after = load_model(str(start))[0].state_dict(), load_model(str(tmp_path / "out"))[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("alignment") for name in changed)


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
    assert [word for word in words if seen[1][word] == WRONG] == ["green"], "the wall's red is a background's"
    assert seen[2]["green"] == seen[2]["wall"] == WRONG and seen[2]["two"] == seen[2]["rotating"] == UNKNOWN
    torch.testing.assert_close(targets.label, torch.tensor([1.0, 0.0, -1.0]))


@pytest.mark.parametrize("module", [failures, alignment, mismatches])
def test_help_is_printed_and_wrong_calls_end_with_the_reason(module, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("epoch: 3\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    data = ["--data", "d", "--init_from", "i"]
    data += ["--branch", "technical"] if module is failures else []
    calls = {
        r"keys \['epoch'\]": ["--config", str(tmp_path / "c.yaml")],
        "required: .*--init_from": ["--data", "d", "--output", str(tmp_path / "new")],
        "is not an empty folder": [*data, "--output", str(tmp_path / "full")],
    }
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    capsys.readouterr()
    for reason, call in calls.items():
        try:
            assert module.main(call) == 2
        except SystemExit as error:
            assert error.code == 2
        assert re.search(reason, capsys.readouterr().err)
