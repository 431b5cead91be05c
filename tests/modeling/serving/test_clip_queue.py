"""The queue of clips: batches across requests, order, deadlines, room. The scorer is a stand-in that claims a GPU."""

import asyncio
import time
from functools import partial
from types import SimpleNamespace

import pytest

from modeling_aigcvqa.clip_scorer import ScorerSettings
from modeling_aigcvqa.requests_aigcvqa import RequestLimits
from modeling_aigcvqa.serving.clip_queue import ClipQueue, Job, QueueFull
from modeling_aigcvqa.serving.devices import claimed_place
from modeling_aigcvqa.serving.metrics import Metrics
from modeling_aigcvqa.serving.settings import ServiceSettings


class Scorer:
    """Scores a clip, which is a number, with itself."""

    def __init__(self, device="cuda", seconds=0.02):
        self.pipeline = SimpleNamespace(device=SimpleNamespace(type=device))
        self.settings = ScorerSettings(batch_size=4)
        self.seconds, self.batches = seconds, []

    def score(self, inputs):
        time.sleep(self.seconds)
        self.batches.append([item["clip"] for item in inputs])
        return [{"quality_score": item["clip"]} for item in inputs]


def jobs(*clips, seconds=60.0):
    return [Job(partial(dict, clip=clip), time.monotonic() + seconds) for clip in clips]


def run(scorer, work, max_queue=64):
    async def started():
        queue = ClipQueue(lambda: scorer, max_wait=0.005, max_queue=max_queue, metrics=Metrics())
        await queue.start()
        try:
            return await work(queue)
        finally:
            await queue.stop()

    return asyncio.run(started())


def test_clips_of_several_requests_are_scored_together():
    scorer = Scorer()

    async def work(queue):
        return await asyncio.gather(*(queue.results(jobs(clip)) for clip in range(12)))

    assert run(scorer, work) == [[{"quality_score": clip}] for clip in range(12)]
    assert [clip for batch in scorer.batches for clip in batch] == list(range(12)), "in the order in which they came"
    assert max(map(len, scorer.batches)) == 4
    assert len(scorer.batches) <= 5


def test_on_a_cpu_each_clip_is_a_pass_of_its_own():
    scorer = Scorer("cpu")
    run(scorer, lambda queue: queue.results(jobs(*range(6))))
    assert scorer.batches == [[clip] for clip in range(6)]


def test_a_clip_that_waits_for_too_long_is_not_begun():
    """A few clips are prepared ahead; what is behind them and too late is answered without a pass of the model."""
    scorer = Scorer("cpu", seconds=0.1)

    async def work(queue):
        return await asyncio.gather(queue.results(jobs(*range(6))), queue.results(jobs(7, seconds=0.05)))

    first, late = run(scorer, work)
    assert [result["quality_score"] for result in first] == list(range(6))
    assert late == [{"error": RequestLimits.busy}]
    assert [7] not in scorer.batches


def test_an_error_of_one_clip_is_its_own():
    async def work(queue):
        broken = Job(lambda: {"error": "broken"}, time.monotonic() + 60)
        return await queue.results([*jobs(1), broken, *jobs(2)])

    assert run(Scorer(), work) == [{"quality_score": 1}, {"error": "broken"}, {"quality_score": 2}]


def test_beyond_its_room_requests_are_refused_whole():
    scorer = Scorer("cpu", seconds=0.1)

    async def work(queue):
        first = asyncio.create_task(queue.results(jobs(*range(3))))
        await asyncio.sleep(0.02)
        with pytest.raises(QueueFull, match=r"3 of 4 places are taken, too many for 2 clips more") as refused:
            await queue.results(jobs(7, 8))
        assert refused.value.retry_after >= 1
        second = await queue.results(jobs(9))
        return await first, second

    first, second = run(scorer, work, max_queue=4)
    assert [result["quality_score"] for result in (*first, *second)] == [0, 1, 2, 9]


def test_each_process_claims_a_place_of_its_own(tmp_path):
    assert [claimed_place(tmp_path, 2) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="all 2 places"):
        claimed_place(tmp_path, 2)


def test_settings_travel_through_the_environment(monkeypatch):
    monkeypatch.setenv("AIGCVQA_SERVICE", "")
    settings = ServiceSettings(ScorerSettings(branches=["technical"], threads=2), workers=3, max_wait=0.5)
    settings.to_environment()
    assert ServiceSettings.from_environment() == settings
    with pytest.raises(ValueError, match="max_queue=0"):
        ServiceSettings(ScorerSettings(), max_queue=0)
