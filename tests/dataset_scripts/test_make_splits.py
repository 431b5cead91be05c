"""The sizes, generator shares and prompts of splits, their repeatability, and the check for leakage."""

import csv
import json
import random
import shutil
from collections import Counter

import pytest

from dataset_scripts import make_splits as ms
from dataset_scripts import prepare_t2vqa_db

FRACTIONS = (0.7, 0.1, 0.2)


@pytest.fixture(scope="module")
def regular():
    """200 prompts with a clip of each of 5 generators, as in T2VQA-DB."""
    return [ms.Item(f"{p}-{g}", f"prompt {p}", f"g{g}", f"{p}{g}") for p in range(200) for g in range(5)]


@pytest.fixture(scope="module")
def irregular():
    """Some generators skip prompts or repeat them."""
    draw = random.Random(0)
    return [
        ms.Item(f"{p}-{g}-{k}", f"prompt {p}", f"g{g}", f"{p}{g}{k}")
        for p in range(300)
        for g in draw.sample(range(7), draw.randint(1, 7))
        for k in range(draw.randint(1, 3))
    ]


def splits(items, seed=0, number=3):
    return dict(ms.make_splits(items, number, seed, FRACTIONS))


def test_regular_splits_are_exact(regular):
    for name, assigned in splits(regular).items():
        found = ms.leakage(regular, assigned)
        assert found["clips"] == {"train": 700, "validation": 100, "test": 200}, name
        counts = {part: set(generators.values()) for part, generators in found["generators"].items()}
        assert counts == {"train": {140}, "validation": {20}, "test": {40}}


def test_irregular_shares(irregular):
    """The share of every generator is exact to one clip in splits by clip, and to 2 % in splits by prompt."""
    totals = Counter(item.generator for item in irregular)
    for name, assigned in splits(irregular).items():
        for part, fraction in zip(ms.PARTS, FRACTIONS, strict=True):
            counts = ms.leakage(irregular, assigned)["generators"][part]
            off = {g: abs(counts.get(g, 0) - total * fraction) for g, total in totals.items()}
            limit = 1.0 if name.startswith("random") else max(3.0, 0.02 * max(totals.values()))
            assert max(off.values()) <= limit, (name, part, off)
            assert abs(sum(counts.values()) - len(irregular) * fraction) <= 3


def test_prompt_disjoint_and_leakage(regular):
    made = splits(regular)
    assert set(ms.leakage(regular, made["prompt_disjoint_00"])["prompts_shared"].values()) == {0}
    random_leak = ms.leakage(regular, made["random_00"])
    assert random_leak["prompts_shared"]["train/test"] > 100
    assert random_leak["test_clips_with_a_prompt_seen_before"] > 190
    assert set(random_leak["contents_shared"].values()) == {0}


def test_leakage_finds_equal_clips():
    items = [ms.Item("a", "p", "g", "same"), ms.Item("b", "q", "g", "same"), ms.Item("c", "r", "g", "other")]
    found = ms.leakage(items, {"a": "train", "b": "test", "c": "validation"})
    assert found["contents_shared"] == {"train/validation": 0, "train/test": 1, "validation/test": 0}
    assert "LEAK" in ms.summary("x", found)


def test_same_seed_same_bytes_whatever_the_order(irregular):
    shuffled = random.Random(1).sample(irregular, len(irregular))
    first, second, other = splits(irregular), splits(shuffled), splits(irregular, seed=1)
    assert {n: ms.split_csv(a) for n, a in first.items()} == {n: ms.split_csv(a) for n, a in second.items()}
    texts = [ms.split_csv(assigned) for made in (first, other) for assigned in made.values()]
    assert len(set(texts)) == len(texts) == 12


def test_splits_do_not_change_between_releases(regular):
    """Published results name a seed, so this line may only change with a note in the CHANGELOG."""
    made = splits(regular)
    digests = [ms.hash_key(ms.split_csv(made[name]))[:8] for name in ("random_00", "prompt_disjoint_00")]
    assert digests == ["589ba979", "ba28d9ea"]


def test_allocation():
    """All clips are used, and every share and every total is within one clip of the exact value."""
    counts = {f"g{n}": n for n in range(1, 40)}
    sizes = ms.allocate(counts, FRACTIONS)
    assert all(sum(sizes[name]) == count for name, count in counts.items())
    assert all(abs(s - count * f) < 1 for n, count in counts.items() for s, f in zip(sizes[n], FRACTIONS, strict=True))
    totals = [sum(column) for column in zip(*sizes.values(), strict=True)]
    assert all(abs(t - sum(counts.values()) * f) <= 1 for t, f in zip(totals, FRACTIONS, strict=True))


def test_normalised_prompts_count_as_one():
    prompts = ["A cat  runs.", "a cat runs", "\uff21 cat runs!"]
    assert len({ms.normalise_prompt(prompt) for prompt in prompts}) == 1


def test_no_prompts_no_prompt_splits():
    """LSVQ has no prompts."""
    items = [ms.Item(str(i), "", "", str(i)) for i in range(10)]
    assert list(splits(items)) == ["random_00", "random_01", "random_02"]


@pytest.fixture
def prepared(tmp_path, clip):
    """Six prompts by two generators and an unlabelled clip, prepared in both formats."""
    lines = []
    for number in range(12):
        name = f"{'ab'[number % 2]}_{number // 2}.mp4"
        clip(tmp_path / "source" / name, number)
        lines.append(f"{name}|prompt {number // 2}|{number}")
    clip(tmp_path / "source/a_9.mp4", 99)
    (tmp_path / "source/info.txt").write_text("\n".join(lines))
    (tmp_path / "source/test.txt").write_text("a_9.mp4|prompt 9")
    for fmt in ("videofolder", "parquet"):
        arguments = ["--source", tmp_path / "source", "--output", tmp_path / fmt, "--format", fmt]
        arguments += ["--labels", tmp_path / "source/info.txt", tmp_path / "source/test.txt"]
        arguments += ["--generator_from", "(?P<generator>[ab])_"]
        assert prepare_t2vqa_db.main([str(argument) for argument in arguments]) == 0
    return tmp_path


def run(prepared, fmt, *options):
    return ms.main(["--data", str(prepared / fmt), "--output", str(prepared / fmt / "splits"), *map(str, options)])


def test_command(prepared, capsys):
    """Both formats give the same files, byte for byte. The folder can still be loaded with the splits inside it."""
    for fmt in ("videofolder", "parquet"):
        assert run(prepared, fmt, "--num_splits", 2, "--fractions", 0.5, 0.0, 0.5) == 0
    names = ["leakage.json", *(f"{kind}_0{n}.csv" for kind in ("prompt_disjoint", "random") for n in range(2))]
    assert sorted(path.name for path in (prepared / "parquet/splits").iterdir()) == names
    for name in names:
        contents = {(prepared / fmt / "splits" / name).read_bytes() for fmt in ("videofolder", "parquet")}
        assert len(contents) == 1, name
    found = json.loads((prepared / "parquet/splits/leakage.json").read_text())
    assert found["clips"] == 12 and found["clips_without_mos_left_out"] == 1
    generators = found["splits"]["random_00"]["generators"]
    assert generators == {"train": {"a": 3, "b": 3}, "validation": {}, "test": {"a": 3, "b": 3}}
    with open(prepared / "parquet/splits/prompt_disjoint_00.csv", newline="") as lines:
        split = {row["id"]: row["split"] for row in csv.DictReader(lines)}
    assert split["a_0"] == split["b_0"] and len(split) == 12
    assert "random_00: 6/0/6 clips" in capsys.readouterr().out
    assert len(ms.load_items(prepared / "videofolder")[0]) == 12


def test_refusals(prepared, capsys):
    assert run(prepared, "parquet", "--fractions", 0.5, 0.5, 0.5) == 2
    assert "the sum must be 1" in capsys.readouterr().err
    assert run(prepared, "parquet", "--num_splits", 1) == 0
    assert run(prepared, "parquet") == 2
    assert "exists" in capsys.readouterr().err
    shutil.rmtree(prepared / "parquet")
    assert run(prepared, "parquet") == 2
