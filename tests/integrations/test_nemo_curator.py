"""The stage in NeMo Curator's own pipeline."""

import uuid

import pytest

from modeling_aigcvqa import load_pipeline
from tests.conftest import moving_gradient, write_video

pytest.importorskip("nemo_curator", reason="needs nemo-curator: make test-integrations")
from nemo_curator.pipeline import Pipeline
from nemo_curator.tasks.video import Clip, Video, VideoTask, _Window

from integrations.nemo_curator_stage import AIGCVQAStage


def task_of(tmp_path, contents, prompts):
    clips = []
    for content, prompt in zip(contents, prompts):
        window = _Window(0, 16, caption={} if prompt is None else {"qwen": prompt})
        clips.append(Clip(uuid.uuid4(), "video.mp4", (0.0, 1.0), buffer=content, windows=[window]))
    return VideoTask(dataset_name="test", data=Video(tmp_path / "video.mp4", clips=clips))


@pytest.fixture
def contents(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", moving_gradient(8, 64, 96)).read_bytes()
    return [clip, b"not a video", None, clip]


PROMPTS = ["a gradient", "a gradient", "a gradient", None]


def test_scores_are_those_of_the_pipeline_and_a_failed_clip_has_no_number(contents, tmp_path):
    stage = AIGCVQAStage()
    stage.setup_on_node()
    stage.setup()
    video = stage.process(task_of(tmp_path, contents, PROMPTS)).data
    first, *failed = video.clips
    assert first.aigcvqa == load_pipeline()({"video": contents[0], "prompt": "a gradient"})
    assert not first.errors
    for clip in failed:
        assert clip.aigcvqa is None
        assert clip.errors["aigcvqa"]
        assert clip.aesthetic_score is None


@pytest.mark.parametrize(("on_failed", "kept"), [("filter", 1), ("keep", 4)])
def test_a_failed_clip_does_not_pass_a_minimum(contents, tmp_path, on_failed, kept):
    stage = AIGCVQAStage(minimum=-1e6, on_failed=on_failed)
    stage.setup()
    video = stage.process(task_of(tmp_path, contents, PROMPTS)).data
    assert len(video.clips) == kept and len(video.filtered_clips) == 4 - kept


def test_in_a_pipeline(contents, tmp_path):
    pipeline = Pipeline(name="test", stages=[AIGCVQAStage(branches=("technical",), minimum=1e6)])
    from nemo_curator.backends.ray_data import RayDataExecutor

    (task,) = pipeline.run(RayDataExecutor(), initial_tasks=[task_of(tmp_path, contents[:2], PROMPTS[:2])])
    assert task.data.clips == []
    scored, failed = sorted(task.data.filtered_clips, key=lambda clip: clip.aigcvqa is None)
    assert set(scored.aigcvqa) == {"quality_score", "technical_score"} and failed.aigcvqa is None
