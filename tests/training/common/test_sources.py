"""Several data sets in one run, with a MOS or with preferences: their batches, losses and figures."""

import json
import math
import os
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import Dataset

from dataset_scripts import make_splits, synthetic_pairs
from dataset_scripts.synthetic_t2v import make_benchmark
from modeling_aigcvqa.common.presets import default_processor
from modeling_aigcvqa.loss_aigcvqa import preference_loss
from tests.training.test_stages import Interrupted, assert_same_weights, launched, stop_after
from tests.training.tiny import forget_accelerator, tiny_folder, tiny_model
from training import stage2, stage3
from training.common import loop
from training.common.arguments import StageArguments, parse_arguments
from training.common.batches import ClipDataset, make_loader
from training.common.losses import DualLoss, PairLoss
from training.common.mixtures import MixedBatchSampler, Mixture, PairDataset, Share
from training.common.pairs import Pairs, load_pairs
from training.common.sources import Source
from training.common.validation import Scored, all_metrics, chosen_figures

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small benchmark with simulated preferences, and its split file."""
    folder = tmp_path_factory.mktemp("sources")
    make_benchmark(folder / "benchmark", num_prompts=6, generators=4, size=64)
    call = ["--source", str(folder / "benchmark"), "--output", str(folder / "pairs"), "--num_workers", "1"]
    assert synthetic_pairs.main([*call, "--pairs_per_prompt", "6"]) == 0
    options = ["--num_splits", "1", "--fractions", "0.5", "0.3", "0.2"]
    assert make_splits.main(["--data", str(folder / "pairs"), "--output", str(folder / "splits"), *options]) == 0
    return str(folder / "pairs"), str(folder / "splits" / "prompt_disjoint_00.csv")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("start"))


# --- batches -----------------------------------------------------------------------------------------------------


def test_every_batch_comes_from_one_data_set_and_weights_say_how_often():
    shares = [Share(40), Share(24, 2, 0.5), Share(10, 1, 2.4)]
    sampler = MixedBatchSampler(shares, 4, 7, 0, 1)
    batches = list(sampler)
    assert all(len({source for _, source, _ in batch}) == 1 and len(batch) == 4 for batch in batches)
    counts = Counter(batch[0][1] for batch in batches)
    assert counts == {0: 10, 1: 6, 2: 6} and sampler.batches_per_epoch == len(sampler) == 22
    assert [batch[0][1] for batch in batches] != sorted(batch[0][1] for batch in batches), "they take turns"
    pairs = [[index for _, _, index in batch] for batch in batches if batch[0][1] == 1]
    for batch in pairs:
        assert [index % 2 for index in batch] == [0, 1, 0, 1] and batch[0] // 2 == batch[1] // 2
    assert len({index for batch in pairs for index in batch}) == 24, "half of the 24 pairs, no one twice"
    often = Counter(index for batch in batches for _, source, index in batch if source == 2)
    assert set(often.values()) == {2, 3} and len(often) == 10


def test_the_batches_do_not_depend_on_the_number_of_processes_or_on_resuming():
    shares = [Share(20), Share(12, 2)]
    whole = MixedBatchSampler(shares, 4, 7, 0, 1)
    halves = [MixedBatchSampler(shares, 4, 7, rank, 2) for rank in range(2)]
    for sampler in (whole, *halves):
        sampler.epoch = 3
    assert list(whole) == [first + second for first, second in zip(*halves)]
    later = MixedBatchSampler(shares, 4, 7, 0, 1)
    later.epoch, later.start_batch = 3, 5
    assert list(later) == list(whole)[5:]


def test_over_the_epochs_every_item_of_a_light_data_set_is_seen():
    sampler, seen = MixedBatchSampler([Share(8), Share(40, 1, 0.25)], 4, 0, 0, 1), set()
    for sampler.epoch in range(30):
        seen |= {index for batch in sampler for _, source, index in batch if source == 1}
    assert len(seen) == 40


def test_samples_of_pairs(data, tmp_path):
    processor = default_processor(tiny_model().config, num_frames=2)
    pairs = load_pairs(*data, "train")
    columns = {"quality": "preference", "alignment": "preference_alignment"}
    clips = ClipDataset(pairs.clips, processor, {}, ["pixel_values_resized", "input_ids"], seed=1)
    loader = make_loader(Mixture([PairDataset(clips, pairs, columns)]), [[(0, 0, index) for index in range(6)]], 0)
    batch = next(iter(loader))
    assert batch["source"] == 0 and batch["index"].tolist() == pairs.places[:3].flatten().tolist()
    for name, column in columns.items():
        assert batch["labels"][name].tolist() == np.repeat(pairs.preferences[column][:3], 2).tolist()
    prompts = np.array(pairs.clips["prompt"])[pairs.places]
    assert (prompts[:, 0] == prompts[:, 1]).all(), "both clips of a pair have one prompt"


def test_a_pair_with_a_clip_that_cannot_be_read_does_not_count(data, tmp_path):
    processor = default_processor(tiny_model().config, num_frames=2)
    pairs = load_pairs(*data, "train")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"broken")
    videos = list(pairs.clips["video"])
    place = int(pairs.places[0, 1])
    videos[place] = {"bytes": None, "path": str(broken)}
    rows = Dataset.from_dict({**{name: pairs.clips[name] for name in ("id", "prompt")}, "video": videos})
    clips = ClipDataset(rows, processor, {}, ["pixel_values_resized"])
    dataset = PairDataset(clips, Pairs(rows, pairs.places, pairs.preferences), {"quality": "preference"})
    first, second = dataset[(0, 0)], dataset[(0, 1)]
    assert first["labels"]["quality"] == pairs.preferences["preference"][0] and not first["failed"]
    assert math.isnan(second["labels"]["quality"]) and rows["id"][place] in second["failed"][0]
    loss = PairLoss(1.0, 1.0, 1.0)
    scores = torch.tensor([1.0, 5.0, 2.0, 1.0])
    labels = torch.tensor([1.0, math.nan, 1.0, 1.0])
    assert loss(scores, labels) == pytest.approx(math.log(1 + math.exp(0.0)))


# --- losses ------------------------------------------------------------------------------------------------------


def test_the_loss_of_pairs():
    """Rao and Kupper with theta = e: A is preferred with probability 1 / (1 + exp(1 - d))."""
    scores, labels = torch.tensor([30.0, 10.0, 5.0, 5.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    won = math.log(1 + math.exp(1 - 2))
    tied = -math.log(1 - 2 / (1 + math.e))
    assert PairLoss(3.0, 10.0, 1.0)(scores, labels) == pytest.approx(3 * (won + tied) / 2, rel=1e-5)


def test_unknown_preferences_do_not_count():
    scores = torch.randn(4, requires_grad=True)
    known = torch.tensor([1.0, math.nan, 0.0, math.nan])
    loss = preference_loss(scores, torch.zeros(4), known)
    assert loss.item() == pytest.approx(preference_loss(scores[[0, 2]], torch.zeros(2), known[[0, 2]]).item())
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient[[1, 3]].tolist() == [0, 0] and gradient.isfinite().all()
    assert preference_loss(scores, torch.zeros(4), torch.full((4,), math.nan)) == 0


def test_labels_of_another_scale_give_the_same_loss():
    """A data set rated 1 to 5 teaches the same as with its ratings on 0 to 100."""
    scores, mos = 50 + 10 * torch.randn(8), 50 + 10 * torch.randn(8)
    stars = 1 + mos / 25
    whole, own = DualLoss(1.0, 1.0, 10.0, label_unit=10.0), DualLoss(1.0, 1.0, 10.0, label_unit=0.4)
    assert whole(scores, mos) == pytest.approx(own(scores, stars).item(), rel=1e-5)


# --- figures -----------------------------------------------------------------------------------------------------


def mos_source(name, mos):
    clips = Dataset.from_dict({"mos": mos})
    return Source(name, {"quality": "mos"}, {"train": clips, "validation": clips})


def pair_source(name, places, preferences):
    clips = Dataset.from_dict({"id": list(range(1 + max(map(max, places))))})
    pairs = Pairs(clips, np.array(places), {"preference": np.array(preferences, float)})
    return Source(
        name,
        {"quality": "preference"},
        dict.fromkeys(("train", "validation"), clips),
        dict.fromkeys(("train", "validation"), pairs),
    )


def scored(scores, labels=None):
    values = {"quality": torch.tensor(scores)}
    return Scored(list(range(len(scores))), values, {} if labels is None else {"quality": torch.tensor(labels)})


def test_figures_of_each_data_set_and_together():
    """On their own scales both sets are ranked perfectly; together their labels are first put on one scale."""
    hundred, stars = [10.0, 50.0, 90.0, 30.0], [1.0, 3.0, 5.0, 2.0]
    sources = [mos_source("hundred", hundred), mos_source("stars", stars)]
    row = all_metrics(sources, [scored(hundred, hundred), scored(hundred, stars)])
    assert row["quality@hundred/srocc"] == row["quality@stars/srocc"] == pytest.approx(1.0)
    assert row["quality/plcc"] == pytest.approx(1.0) and row["quality/rmse"] == pytest.approx(0.0, abs=1e-4)
    assert chosen_figures(["quality", "technical"], sources) == ["quality@hundred", "quality@stars"]
    alone = all_metrics(sources[:1], [scored(hundred, hundred)])
    assert "quality/srocc" in alone and not any("@" in key for key in alone)


def test_figures_of_pairs():
    """Of the four decided pairs one is wrong and one tied by the score; the human tie does not count."""
    source = pair_source("votes", [(0, 1), (2, 0), (1, 2), (0, 2), (3, 0)], [1, -1, 1, 0, 1])
    own = scored([3.0, 2.0, 1.0, 3.0])
    row = all_metrics([source], [own])
    assert row["quality/accuracy"] == pytest.approx(3.5 / 4)
    assert row["quality/main_score"] == pytest.approx(0.75)
    assert all_metrics([source], [scored([1.0] * 4)])["quality/accuracy"] is None
    mixed = all_metrics([mos_source("a", [1.0, 2.0, 3.0]), source], [scored([1.0, 3.0, 2.0], [1.0, 2.0, 3.0]), own])
    assert mixed["quality@votes/accuracy"] == mixed["quality/accuracy"] == pytest.approx(3.5 / 4)
    assert mixed["quality/srocc"] == mixed["quality@a/srocc"] == pytest.approx(0.5)
    missing = Scored([0, 1, 3], {"quality": torch.tensor([3.0, 2.0, 3.0])}, {})
    assert all_metrics([source], [missing])["quality/accuracy"] == pytest.approx(1.5 / 2), "clip 2 was not scored"


# --- runs --------------------------------------------------------------------------------------------------------


def run(stage, start, output, **changes):
    forget_accelerator()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    values = {"init_from": start, "output": output, "batch_size": 4, "learning_rate": 1e-3, "warmup_epochs": 0}
    values |= {"epochs": 2, "num_workers": 0} | changes
    words = []
    for name, value in values.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    stage.main(words)
    return json.loads((output / "training.json").read_text())


def test_a_run_on_pairs_alone(data, start, tmp_path):
    dimension = "alignment=preference_alignment"
    record = run(stage2, start, tmp_path / "out", preferences=data[0], split_file=data[1], labels=dimension)
    (*_, row) = record["history"]
    assert {"loss/alignment", "alignment/accuracy", "quality/accuracy", "alignment/main_score"} <= row.keys()
    assert "alignment/srocc" not in row and 0 <= row["alignment/accuracy"] <= 1
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["mos_std"] == json.loads((start / "config.json").read_text())["mos_std"], "pairs have no scale"
    *_, last = config["provenance"]["runs"]
    assert last["data"] == "pairs" and last["labels"] == {"alignment": "preference_alignment"} and last["simulated"]


def test_a_run_on_a_mos_and_pairs_resumes_to_the_same_weights(data, start, tmp_path, monkeypatch, capsys):
    both = {"data": data[0], "preferences": data[0], "split_file": [data[1], data[1]], "weights": [1, 0.5]}
    record = run(stage3, start, tmp_path / "whole", **both, checkpoint_steps=2)
    (*_, row) = record["history"]
    assert {"loss/quality@pairs-1", "loss/quality@pairs-2", "quality@pairs-1/srocc", "quality/srocc"} <= row.keys()
    assert record["best_score"] == pytest.approx(
        max((r["quality@pairs-1/main_score"] + r["quality@pairs-2/main_score"]) / 2 for r in record["history"])
    )
    assert "SROCC/PLCC quality" in capsys.readouterr().out

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "save_checkpoint", stop_after(4))
        run(stage3, start, tmp_path / "broken", **both, checkpoint_steps=2)
    with pytest.raises(ValueError, match=r"weights was \[1.0, 0.5\] and is \[1.0, 2.0\]"):
        run(stage3, start, tmp_path / "broken", **(both | {"weights": [1, 2]}), checkpoint_steps=2)
    assert run(stage3, start, tmp_path / "broken", **both, checkpoint_steps=2)["best_score"] == record["best_score"]
    whole, broken = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == broken


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no data set; pass --data"),
        (["--data", "a", "b", "--weights", "1"], "expected 2, one per data set"),
        (["--data", "a", "--weights", "0"], "expected numbers above 0"),
        (["--data", "a", "b", "--split_file", "s.csv"], "expected 2, one per data set"),
        (["--preferences", "a", "--batch_size", "5"], "needs an even number"),
        (["--preferences", "a", "--tie_margin", "0"], "expected a number above 0"),
    ],
)
def test_arguments_that_do_not_fit_each_other(options, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(stage3.build_parser(), ["--output", "o", *options])
    assert message in capsys.readouterr().err


def test_the_columns_of_scores():
    labels = ["technical=technical_mos", "technical=preference_VQ", "alignment=preference_TA"]
    arguments = StageArguments(output="o", data=["a"], preferences=["b"], labels=labels, split_file=["own", "s.csv"])
    scores = ["quality", "technical", "alignment"]
    assert list(arguments.label_columns(scores).values()) == ["mos", "technical_mos", "mos"]
    assert list(arguments.preference_columns(scores).values()) == ["preference", "preference_VQ", "preference_TA"]
    assert arguments.split_files == [None, "s.csv"]


def test_a_data_set_without_the_preferences_is_named(data, start, tmp_path):
    with pytest.raises(ValueError, match=r"no column 'preference_VQ' .*preference_technical"):
        run(stage2, start, tmp_path / "o", preferences=data[0], split_file=data[1], labels="alignment=preference_VQ")


@pytest.mark.slow
def test_two_processes_give_the_same_result_as_one(data, tmp_path):
    start = tiny_folder(tmp_path / "start", dropout=False)
    both = {"data": [data[0]], "preferences": [data[0]], "split_file": [data[1], data[1]], "unfixed_ratio": 1}
    run(stage3, start, tmp_path / "one", **both)
    words = []
    values = {"init_from": start, "output": tmp_path / "two", "batch_size": 4, "learning_rate": 1e-3, "epochs": 2}
    for name, value in (values | both | {"warmup_epochs": 0, "num_workers": 0}).items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    assert "2 processes x 2" in launched("stage3", 2, words)
    one, two = (json.loads((tmp_path / name / "training.json").read_text())["history"] for name in ("one", "two"))
    for alone, together in zip(one, two):
        for name, value in alone.items():
            if name.startswith("loss/"):
                assert together[name] == pytest.approx(value, abs=1e-4), name
    assert_same_weights(tmp_path / "two", tmp_path / "one")
