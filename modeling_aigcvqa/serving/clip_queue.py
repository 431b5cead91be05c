"""The clips of all requests, prepared and scored in the order in which they came, in batches on a GPU."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..clip_scorer import ClipScorer
from ..requests_aigcvqa import RequestLimits
from .metrics import Metrics

SLOWEST_RETRY, FIRST_SECONDS = 60, 1.0  # seconds
logger = logging.getLogger("uvicorn.error")


class QueueFull(Exception):
    """There is no room for the clips of a request."""

    def __init__(self, message: str, retry_after: int):
        super().__init__(message)
        self.retry_after = retry_after


@dataclass
class Job:
    """A clip that is to be scored.

    Attributes:
        prepare: gives the inputs of the model, or `{"error"}`.
        deadline: value of `time.monotonic()` after which it is not begun.
    """

    prepare: Callable[[], dict[str, Any]]
    deadline: float


class ClipQueue:
    """Scores clips with one model, one batch at a time.

    One thread computes, because every thread that computes starts a team of OpenMP threads of its own, and tokenizers
    are not thread-safe. On a GPU a second thread prepares the clips of the next batch.

    Args:
        load: gives the scorer; called in the thread that computes.
        max_wait: seconds that a clip waits for others to be scored with it, on a GPU.
        max_queue: clips that may wait.
    """

    def __init__(self, load: Callable[[], ClipScorer], max_wait: float, max_queue: int, metrics: Metrics):
        self.load, self.max_wait, self.max_queue, self.metrics = load, max_wait, max_queue, metrics
        self.waiting = 0
        self.seconds_per_clip = FIRST_SECONDS

    async def start(self) -> None:
        """Load the model."""
        loop = asyncio.get_running_loop()
        computing = ThreadPoolExecutor(1, "computes")
        self.scorer: ClipScorer = await loop.run_in_executor(computing, self.load)
        on_cpu = self.scorer.pipeline.device.type == "cpu"
        self.batch_size = 1 if on_cpu else self.scorer.settings.batch_size
        self.to_prepare: asyncio.Queue = asyncio.Queue()
        self.to_score: asyncio.Queue = asyncio.Queue(2 * self.batch_size)  # prepared clips are large
        preparing = computing if on_cpu else ThreadPoolExecutor(1, "prepares")
        self.tasks = [
            asyncio.create_task(self._ends_the_process_if_it_fails(self._prepares(preparing))),
            asyncio.create_task(self._ends_the_process_if_it_fails(self._scores(computing))),
        ]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def results(self, jobs: list[Job]) -> list[dict[str, Any]]:
        """Per clip the scores, or `{"error"}`.

        Raises:
            QueueFull: if there is no room for all of them now.
            ValueError: if there never will be.
        """
        self.check_room(len(jobs))
        self._count(len(jobs))
        futures = [asyncio.get_running_loop().create_future() for _ in jobs]
        for job, future in zip(jobs, futures):
            self.to_prepare.put_nowait((job, future))
        return await asyncio.gather(*futures)

    def check_room(self, clips: int) -> None:
        """Raise QueueFull if there is no room for so many clips, or ValueError if there never will be."""
        if clips > self.max_queue:
            raise ValueError(f"{clips} clips exceed the {self.max_queue} places of this service; send fewer at once.")
        if self.waiting + clips > self.max_queue:
            self.metrics.clips.labels("refused").inc(clips)
            seconds = min(max(1, round(self.waiting * self.seconds_per_clip / 2)), SLOWEST_RETRY)
            raise QueueFull(
                f"{self.waiting} of {self.max_queue} places are taken, too many for {clips} clips more; send them "
                f"again in {seconds} s.",
                seconds,
            )

    def _count(self, clips: int) -> None:
        self.waiting += clips
        self.metrics.waiting.set(self.waiting)

    def _finish(self, future: asyncio.Future, result: dict[str, Any]) -> None:
        self._count(-1)
        self.metrics.clips.labels("failed" if "error" in result else "scored").inc()
        if not future.done():  # its client has gone
            future.set_result(result)

    async def _prepares(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job, future = await self.to_prepare.get()
            if future.cancelled() or time.monotonic() > job.deadline:
                self._finish(future, {"error": RequestLimits.busy})
                continue
            inputs = await loop.run_in_executor(thread, job.prepare)
            if "error" in inputs:
                self._finish(future, inputs)
            else:
                await self.to_score.put((inputs, future))

    async def _scores(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.to_score.get()]
            if self.to_score.qsize() < self.batch_size - 1:
                await asyncio.sleep(self.max_wait)
            while len(batch) < self.batch_size and not self.to_score.empty():
                batch.append(self.to_score.get_nowait())
            start = time.monotonic()
            results = await loop.run_in_executor(thread, self.scorer.score, [inputs for inputs, _ in batch])
            self.metrics.batch_clips.observe(len(batch))
            seconds = (time.monotonic() - start) / len(batch)
            self.seconds_per_clip += (seconds - self.seconds_per_clip) / 8  # a moving average
            for (_, future), result in zip(batch, results):
                self._finish(future, result)

    async def _ends_the_process_if_it_fails(self, work: Any) -> None:
        """A GPU that is lost is lost for the whole process. The service starts another one in its place."""
        try:
            await work
        except Exception:
            logger.exception("the scoring has failed, this process ends")
            os._exit(1)
