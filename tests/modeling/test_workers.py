"""Worker processes: order, errors, and workers that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_aigcvqa import VideoReadError, workers_aigcvqa
from modeling_aigcvqa.workers_aigcvqa import SMALL, results_in_order

pytestmark = pytest.mark.alone


def act(task):
    """Returns a tensor for a number, or does what a text says."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(3)
    if task == "raise":
        raise VideoReadError("'a.mp4' is damaged.")
    if isinstance(task, str) and task.startswith("once "):  # dies the first time
        marker = task.removeprefix("once ")
        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"
    return torch.full((1000,), float(len(task) if isinstance(task, bytes) else task))


def stay(task):
    """A worker that a signal does not end, as one that is stuck in a lock."""
    if task:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    return task


def draw(_):
    return torch.rand(())


def died(task, error):
    return f"{task}: {error}"


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_order(num_workers):
    results = results_in_order(act, range(20), num_workers, died)
    assert [int(result[0]) for result in results] == list(range(20))


def test_large_tasks_do_not_block():
    tasks = [bytes(10 * SMALL * (1 + n % 3)) for n in range(12)]
    results = list(results_in_order(act, iter(tasks), 2, died))
    assert [int(result[0]) for result in results] == [len(task) for task in tasks]


def test_a_worker_that_is_stuck_holds_nobody(monkeypatch):
    monkeypatch.setattr(workers_aigcvqa, "PATIENCE_S", 0.5)
    results = results_in_order(stay, [0, 1, 2, 3], 2, died)
    assert next(results) == 0
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 30


def test_the_task_that_kills_its_worker_is_known_and_the_others_are_done():
    tasks = [*range(5), "die", *range(5, 9), "exit", "die", 9]
    results = list(results_in_order(act, tasks, 2, died))
    numbers = [int(result[0]) for result in results if isinstance(result, torch.Tensor)]
    assert numbers == list(range(10))
    assert [tasks[n] for n, result in enumerate(results) if isinstance(result, str)] == ["die", "exit", "die"]
    assert "killed by the signal SIGKILL, 2 times" in results[5]
    assert "ended with status 3" in results[10]


def test_a_task_is_tried_twice(tmp_path):
    """A worker may be killed because others took the memory."""
    assert list(results_in_order(act, [f"once {tmp_path / 'marker'}"], 1, died)) == ["survived"]


def test_errors_keep_their_type_and_the_traceback_of_the_worker():
    results = results_in_order(act, [1, "raise", 2], 2, died)
    next(results)
    with pytest.raises(VideoReadError, match="is damaged") as error:
        next(results)
    assert "in act" in str(error.value.__cause__)


def test_tasks_are_taken_as_they_are_needed():
    taken = []
    results = results_in_order(act, (taken.append(n) or n for n in range(100)), 2, died)
    next(results)
    assert len(taken) < 10
    results.close()


def test_the_seed_decides_about_random_numbers():
    def draws():
        torch.manual_seed(5)
        return [result.item() for result in results_in_order(draw, range(4), 1, died)]

    first, second = draws(), draws()
    assert first == second
    assert len(set(first)) == 4


ORPHANS = """
import os, sys, time
from modeling_aigcvqa.workers_aigcvqa import results_in_order

def work(task):
    os.write(1, f"{os.getpid()}\\n".encode())
    return task

results = results_in_order(work, range(100), 3, None)
for _ in range(6):
    next(results)
time.sleep(100)
"""


def test_workers_end_with_their_parent(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    workers = {int(process.stdout.readline()) for _ in range(6)}
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Clips:
    """Two clips, and one between them that kills the process that reads it."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        video = np.full((4, 64, 64, 3), 50 * index, np.uint8)
        return {"video": video if index != 1 else Deadly(), "prompt": "a"}


class Deadly:
    @property
    def ndim(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_pipeline_scores_the_other_clips(small_model, processor, monkeypatch):
    from modeling_aigcvqa import AIGCVQAPipeline

    scorer = AIGCVQAPipeline(model=small_model, processor=processor)
    monkeypatch.setattr(type(scorer), "preprocess", deadly_preprocess(type(scorer).preprocess))
    results = list(scorer(Clips(), num_workers=2, on_error="return"))
    assert ["error" in result for result in results] == [False, True, False]
    assert "<Deadly> cannot be read: the process that read it was killed by the signal SIGKILL" in results[1]["error"]
    with pytest.raises(VideoReadError, match="SIGKILL"):
        list(scorer(Clips(), num_workers=2))


def deadly_preprocess(preprocess):
    def call(self, item, **options):
        if isinstance(item["video"], Deadly):
            os.kill(os.getpid(), signal.SIGKILL)
        return preprocess(self, item, **options)

    return call


def test_a_task_is_not_blamed_for_the_next_one_that_kills_its_worker(monkeypatch):
    """Its tensors die with the worker if they are not taken over at once, as on a busy machine."""
    receive = workers_aigcvqa._Worker.receive

    def late(worker):
        time.sleep(0.1)
        return receive(worker)

    monkeypatch.setattr(workers_aigcvqa._Worker, "receive", late)
    results = list(results_in_order(act, [0, "die", 1, "exit", 2, 3], 1, died))
    assert [int(result[0]) for result in results if isinstance(result, torch.Tensor)] == [0, 1, 2, 3]
    assert [result.split(":")[0] for result in results if isinstance(result, str)] == ["die", "exit"]
