"""The scorer of batches: the pipeline's scores, and never an exception for a clip."""

import pickle

import datasets
import numpy as np
import pytest

from modeling_aigcvqa import ClipScorer, ScorerSettings, load_pipeline
from modeling_aigcvqa.clip_scorer import ClipReader, ScorerIdentity
from tests.conftest import moving_gradient

SCORES = ("quality_score", "technical_score", "aesthetic_score", "alignment_score")


@pytest.fixture(scope="module")
def scorer():
    return ClipScorer(model="small")


@pytest.fixture
def columns(clip):
    return {
        "video": [str(clip), moving_gradient(8, 64, 64), b"nothing", str(clip), clip.read_bytes(), str(clip)],
        "prompt": ["a gradient", "colours", "x", None, "a gradient", ""],
        "n": [0, 1, 2, 3, 4, 5],
    }


def test_scores_are_those_of_the_pipeline(scorer, columns):
    scored = scorer(columns)
    pipeline = load_pipeline()
    items = [{"video": video, "prompt": prompt} for video, prompt in zip(columns["video"], columns["prompt"])]
    for number, expected in enumerate(pipeline(items, on_error="return")):
        assert scored["error"][number] == expected.get("error")
        assert [scored[name][number] for name in SCORES] == [expected.get(name) for name in SCORES]
    assert scored["error"][2] and scored["error"][3] and scored["error"][5]
    assert scored["n"] == columns["n"] and scored["video"] is columns["video"]
    assert set(scored["model_revision"]) == {scorer.identity.model_revision}
    assert set(scored["options_fingerprint"]) == {scorer.identity.options_fingerprint}


def test_reading_apart_gives_the_same(scorer, columns):
    read = ClipReader(scorer.settings)(columns)
    assert scorer(read)["quality_score"] == scorer(columns)["quality_score"]
    assert "inputs" not in scorer(read)


def test_a_batch_of_arrays_and_a_file_column(scorer, clip):
    batch = {"file": np.array([str(clip), "missing.mp4"]), "prompt": np.array(["a gradient", "x"])}
    scored = scorer(batch)
    assert scored["quality_score"][0] == scorer({"video": [clip], "prompt": ["a gradient"]})["quality_score"][0]
    assert scored["quality_score"][1] is None and "'missing.mp4' does not exist" in scored["error"][1]
    with pytest.raises(ValueError, match="no column 'video' or 'file'"):
        scorer({"path": ["a"]})


def test_branches_that_are_not_built_have_no_number(clip):
    scored = ClipScorer(branches=["technical"])({"video": [clip]})
    assert scored["alignment_score"] == [None] and scored["quality_of"] == ["technical"]
    assert scored["quality_score"] == scored["technical_score"]


def test_a_failing_forward_pass_costs_its_clip_alone(scorer, columns, monkeypatch):
    forward = scorer.pipeline.forward

    def failing(inputs):
        if any(item["name"].startswith("<ndarray") for item in inputs if "name" in item):
            raise RuntimeError("too large")
        return forward(inputs)

    monkeypatch.setattr(scorer.pipeline, "forward", failing)
    inputs = scorer.read(columns)["inputs"]
    results = scorer._results(inputs)  # as one batch, which a GPU takes
    assert "cannot be scored (RuntimeError: too large)" in results[1]["error"]
    assert [results[number] for number in (0, 2, 3, 4, 5)] == [scorer.score([inputs[n]])[0] for n in (0, 2, 3, 4, 5)]


def test_any_exception_of_a_decoder_is_the_clips_error(scorer, columns, monkeypatch):
    def broken(item, **_):
        raise MemoryError("no room")

    monkeypatch.setattr(scorer.read, "prepare", broken)
    assert all("MemoryError: no room" in error for error in scorer(columns)["error"])


def test_settings_are_checked_and_can_be_sent(tmp_path):
    settings = ScorerSettings(branches=["technical"], threads=1)
    assert pickle.loads(pickle.dumps(settings)) == settings and hash(settings) == hash(
        pickle.loads(pickle.dumps(settings))
    )
    for wrong in ({"batch_size": 0}, {"threads": 0}, {"on_damage": "ignore"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ScorerSettings(**wrong)
    with pytest.raises(ValueError, match="not both"):
        ClipScorer(settings, model="small")
    with pytest.raises(ValueError, match="not a model"):
        ClipScorer(model=str(tmp_path))


def test_the_identity_of_a_model_in_the_hubs_cache(model_folder, tmp_path, monkeypatch):
    """A cache as the Hub's library writes it: the revision is the commit, and the weights count."""
    import shutil

    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--someone--model"
    shutil.copytree(model_folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    from modeling_aigcvqa.loading.identity import digest_of_model, revision_of_model

    digest = digest_of_model("someone/model")
    assert digest == digest_of_model(str(model_folder))
    assert revision_of_model("someone/model", digest) == commit
    assert revision_of_model(str(model_folder), digest) == f"sha256:{digest}"


def test_identities_differ_with_what_scores_depend_on():
    settings = [
        {},
        {"branches": ("technical",)},
        {"dtype": "float32"},
        {"on_damage": "warn"},
        {"alignment_num_frames": 2},
    ]
    prints = {ScorerIdentity.of(ScorerSettings(**fields)).options_fingerprint for fields in settings}
    assert len(prints) == len(settings)
    same = ScorerIdentity.of(ScorerSettings(batch_size=4, threads=1, device="cpu"))
    assert same.options_fingerprint == ScorerIdentity.of(ScorerSettings()).options_fingerprint


def test_map_of_datasets(clip, tmp_path):
    from examples.score_data_set import score

    data = datasets.Dataset.from_dict(
        {"video": [{"path": str(tmp_path / "gone.mp4"), "bytes": None}] * 2 + [{"path": str(clip), "bytes": None}]}
        | {"prompt": ["x", "y", "a gradient"]}
    ).cast_column("video", datasets.Video(decode=False))
    scored = score(data, ScorerSettings(threads=1), batch_size=2)
    assert scored["quality_score"][:2] == [None, None] and isinstance(scored["quality_score"][2], float)
    assert scored["error"][2] is None and "gone.mp4" in scored["error"][0]
    with pytest.raises(ValueError, match="no column 'video'"):
        score(data.remove_columns("video"), ScorerSettings())
