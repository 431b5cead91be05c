"""The operator in Data-Juicer's own data set."""

import json

import numpy as np
import pytest

from modeling_aigcvqa import load_pipeline
from tests.conftest import REPOSITORY, moving_gradient, write_video

pytest.importorskip("data_juicer", reason="needs py-data-juicer: make test-integrations")
from data_juicer.config.config import load_custom_operators
from data_juicer.core.data import NestedDataset
from data_juicer.ops import load_ops
from data_juicer.utils.constant import Fields


@pytest.fixture(scope="module", autouse=True)
def registered():
    load_custom_operators([str(REPOSITORY / "integrations" / "data_juicer_filter.py")])


@pytest.fixture
def samples(tmp_path):
    clip = str(write_video(tmp_path / "clip.mp4", moving_gradient(8, 64, 96)))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    return [
        {"text": "<__dj__video> a gradient <|__dj__eoc|>", "videos": [clip]},
        {"text": "a gradient", "videos": [str(broken)]},
        {"text": "a gradient", "videos": [clip, str(broken)]},
        {"text": "no videos", "videos": []},
    ]


def run(samples, num_proc=1, **options):
    (operator,) = load_ops([{"aigcvqa_filter": {"accelerator": "cpu", **options}}])
    data = NestedDataset.from_list([sample | {Fields.stats: {}} for sample in samples])
    data = data.map(operator.compute_stats, num_proc=num_proc)
    return data.to_list(), data.filter(operator.process).to_list()


def test_scores_are_those_of_the_pipeline_and_a_failed_clip_has_no_number(samples):
    scored, _ = run(samples)
    stats = [sample[Fields.stats] for sample in scored]
    expected = load_pipeline()({"video": samples[0]["videos"][0], "prompt": "a gradient"})
    for name, value in expected.items():
        assert stats[0][f"aigcvqa_{name}"] == pytest.approx([value], abs=1e-4)
        assert np.isnan(stats[1][f"aigcvqa_{name}"]).tolist() == [True]
        assert stats[2][f"aigcvqa_{name}"][0] == pytest.approx(value, abs=1e-4) and np.isnan(
            stats[2][f"aigcvqa_{name}"][1]
        )
        assert stats[3][f"aigcvqa_{name}"] == []
    assert [json.loads(stat["aigcvqa_error"])[:1] for stat in (stats[0], stats[2], stats[3])] == [[None], [None], []]
    assert "broken.mp4" in json.loads(stats[1]["aigcvqa_error"])[0]
    backwards, _ = run(samples[::-1])
    assert [sample["videos"] for sample in backwards] == [sample["videos"] for sample in samples[::-1]]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"min_score": -1e6}, [0, 2, 3]),
        ({"min_score": -1e6, "any_or_all": "all"}, [0, 3]),
        ({"min_score": -1e6, "on_failed": "keep", "any_or_all": "all"}, [0, 1, 2, 3]),
        ({"max_score": -1e6}, [3]),
        ({"min_score": -1e6, "num_proc": 2}, [0, 2, 3]),
    ],
)
def test_a_failed_clip_does_not_pass(samples, options, kept):
    _, passed = run(samples, **options)
    assert [sample["videos"] for sample in passed] == [samples[number]["videos"] for number in kept]


def test_wrong_options():
    for options in ({"any_or_all": "most"}, {"on_failed": "zero"}):
        with pytest.raises(ValueError, match="expected"):
            run([], **options)
