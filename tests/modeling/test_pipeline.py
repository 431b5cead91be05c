from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from transformers import pipeline

from modeling_aigcvqa import AIGCVQAPipeline
from tests.barcodes import write_barcodes
from tests.conftest import moving_gradient

SCORES = {"quality_score", "technical_score", "aesthetic_score", "alignment_score"}


@pytest.fixture(scope="module")
def scorer(small_model, processor):
    return pipeline("video-quality-assessment", model=small_model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def items(clip):
    return [
        {"video": str(clip), "prompt": "a moving gradient"},
        {"video": moving_gradient(5, 100, 90), "prompt": "another one, much smaller than the first"},
        {"video": clip.read_bytes(), "prompt": "a moving gradient"},
    ]


@pytest.fixture(scope="module")
def expected(scorer, items):
    return [scorer(item) for item in items]


def close(results, expected):
    results = list(results)
    assert len(results) == len(expected)
    for result, other in zip(results, expected):
        assert result == {name: pytest.approx(value, abs=1e-5) for name, value in other.items()}


def test_one_item_gives_named_floats(scorer, small_model, processor, items):
    scores = scorer(items[0])
    assert set(scores) == SCORES
    with torch.no_grad():
        output = small_model(**processor(videos=items[0]["video"], text=items[0]["prompt"]))
    assert scores["quality_score"] == pytest.approx(output.quality_score.item(), abs=1e-5)


def test_the_installed_package_gives_its_own_class(scorer):
    assert isinstance(scorer, AIGCVQAPipeline)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_lists_generators_and_datasets(scorer, items, expected, batch_size):
    class Rows(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, index):
            return items[index]

    results = scorer(items, batch_size=batch_size)
    assert isinstance(results, list)
    close(results, expected)
    close(scorer((item for item in items), batch_size=batch_size), expected)
    close(scorer(Rows(), batch_size=batch_size), expected)


def test_a_datasets_dataset(scorer, items, expected):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"video": items[0]["video"], "prompt": items[0]["prompt"], "mos": 3.0}])
    close(scorer(rows), expected[:1])


def test_an_iterable_dataset(scorer, items, expected):
    datasets = pytest.importorskip("datasets")
    rows = datasets.IterableDataset.from_generator(lambda: iter(items[:2]))
    close(scorer(rows, batch_size=2), expected[:2])


def test_generators_are_consumed_lazily(scorer, items):
    seen = []

    def rows():
        for index, item in enumerate(items):
            seen.append(index)
            yield item

    results = scorer(rows())
    next(iter(results))
    assert seen == [0]


def test_worker_processes(scorer, items, expected):
    close(scorer(items, num_workers=2, batch_size=2), expected)


def test_bad_items_raise_by_default_and_come_back_as_errors_on_request(scorer, items, expected):
    bad = [items[0], {"video": "missing.mp4", "prompt": "a"}, items[1], {"video": items[0]["video"], "prompt": ""}, {}]
    with pytest.raises(ValueError, match=r"missing\.mp4"):
        scorer(bad)
    results = scorer(bad, on_error="return", batch_size=3)
    assert "missing.mp4" in results[1]["error"]
    assert "empty" in results[3]["error"]
    assert '"video"' in results[4]["error"]
    close([results[0], results[2]], expected[:2])


def test_a_batch_of_only_bad_items(scorer):
    assert "error" in scorer([{"video": "missing.mp4", "prompt": "a"}], on_error="return")[0]


def test_options_reach_the_processor(scorer, items):
    scores = scorer(items[0], num_frames=8)
    assert scores["quality_score"] != scorer(items[0])["quality_score"]


@pytest.mark.parametrize(
    ("item", "message"),
    [({"video": "x.mp4"}, "prompt"), ({"file": "x.mp4"}, "video"), ({"video": None, "prompt": "a"}, "not a video")],
)
def test_what_an_item_lacks_is_named(scorer, item, message):
    with pytest.raises((ValueError, TypeError), match=message):
        scorer(item)


def test_wrong_calls(scorer):
    with pytest.raises(ValueError, match="on_error"):
        scorer([], on_error="ignore")
    with pytest.raises(TypeError, match="int"):
        scorer(3)
    for alone in ("clip.mp4", b"mp4", Path("clip.mp4")):
        with pytest.raises(TypeError, match=r'expected \{"video"'):
            scorer(alone)
    assert scorer([]) == []


def test_damaged_clips_are_errors_or_scored_with_a_warning(scorer, tmp_path):
    whole = write_barcodes(tmp_path / "whole.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[:-600])
    items = [{"video": path, "prompt": "bars"} for path in (cut, whole)]
    refused, scored = scorer(items, on_error="return", batch_size=2)
    assert "damaged" in refused["error"]
    assert set(scored) == SCORES
    warned, again = scorer(items, on_damage="warn", batch_size=2)
    assert set(warned) == SCORES | {"warning"}
    assert "missing" in warned["warning"]
    close([again], [scored])
