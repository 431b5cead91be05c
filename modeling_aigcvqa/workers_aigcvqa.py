"""Worker processes that prepare clips in the order of the clips. A worker that dies costs its clip alone.

`torch.utils.data.DataLoader` ends the run when a worker is killed, by a decoder that crashes or by a system out of
memory, and does not tell which clip it was working on.
"""

import contextlib
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize, get_temp_dir
from typing import Any

import torch
import torch.multiprocessing  # registers that tensors are sent through shared memory

AHEAD = 2  # tasks per worker that are prepared before they are asked for
SMALL = 4096  # bytes that fit into a pipe, so that sending them does not wait for the worker
PATIENCE_S = 5.0  # for a worker to end
ATTEMPTS = 2  # a worker may have been killed for the memory that others took


class WorkerDied(RuntimeError):
    """The process that worked on a task died each time that the task was tried."""


def results_in_order(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    num_workers: int,
    died: Callable[[Any, WorkerDied], Any],
) -> Iterator[Any]:
    """`function(task)` of each task, in order, computed by worker processes.

    Tasks are taken from the iterable only as far as the workers are ahead of the caller.

    Args:
        function: called in the workers; it and the tasks can be pickled where processes are spawned.
        num_workers: number of processes; 0 computes here.
        died: gives the result of a task whose worker died; it may raise.

    Raises:
        Exception: what `function` raises, with the traceback of the worker as its cause.
    """
    if num_workers == 0:
        yield from map(function, tasks)
        return
    pool = _Pool(function, num_workers)
    waiting: deque[_Task] = deque()
    remaining = iter(tasks)
    try:
        while True:
            while len(waiting) < AHEAD * num_workers:
                try:
                    waiting.append(_Task(next(remaining)))
                except StopIteration:
                    break
                pool.add(waiting[-1])
            if not waiting:
                return
            while not waiting[0].done:
                pool.step()
            yield waiting.popleft().result(died)
    finally:
        pool.close()


class _Task:
    """A task and, once it is done, its outcome."""

    def __init__(self, value: Any):
        self.value = value
        self.content = ForkingPickler.dumps(value)
        self.attempts = 0
        self.done = False
        self.outcome: Any = None
        self.error: Exception | None = None

    def finish(self, outcome: Any, error: Exception | None) -> None:
        self.outcome, self.error, self.done = outcome, error, True

    def result(self, died: Callable[[Any, WorkerDied], Any]) -> Any:
        if isinstance(self.error, WorkerDied):
            return died(self.value, self.error)
        if self.error is not None:
            raise self.error
        return self.outcome


class _Pool:
    """Workers that compute their tasks one after another, so that it is known which task a worker died of."""

    def __init__(self, function: Callable[[Any], Any], num_workers: int):
        self.function, self.num_workers = function, num_workers
        self.context = torch.multiprocessing.get_context()
        get_temp_dir()  # for the sockets of the workers: one that this process removes, even if workers are killed
        self.seed = torch.randint(2**62, ()).item()  # as a DataLoader does: `torch.manual_seed` decides
        self.started = 0
        self.queue: deque[_Task] = deque()
        self.workers: list[_Worker] = []
        self.at_exit = Finalize(None, self.close, exitpriority=0)  # if the caller never closes the generator

    def add(self, task: _Task) -> None:
        self.queue.append(task)
        self._distribute()

    def step(self) -> None:
        """Wait until a worker has finished a task or has died."""
        busy = {worker.connection: worker for worker in self.workers if worker.tasks}
        busy |= {worker.process.sentinel: worker for worker in self.workers if worker.tasks}
        for worker in dict.fromkeys(busy[ready] for ready in wait(list(busy))):
            if not worker.receive():
                self._replace(worker)
        self._distribute()

    def close(self) -> None:
        self.at_exit.cancel()
        for worker in self.workers:
            worker.process.terminate()
            worker.connection.close()
        for worker in self.workers:
            worker.end()

    def _distribute(self) -> None:
        """Give each task to the worker with the fewest. A large task waits until a worker has none."""
        while self.queue:
            if len(self.workers) < self.num_workers and all(worker.tasks for worker in self.workers):
                self.workers.append(_Worker(self.context, self.function, self.seed + self.started, self.workers))
                self.started += 1
            worker = min(self.workers, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= (1 if len(self.queue[0].content) > SMALL else AHEAD):
                return
            if not worker.give(self.queue.popleft()):
                self._replace(worker)

    def _replace(self, worker: "_Worker") -> None:
        """Take a dead worker out. The task of which it died is tried once more; those that it had finished are too."""
        self.workers.remove(worker)
        worker.connection.close()
        worker.end()
        finished = [worker.tasks.popleft() for _ in range(worker.lost)]
        if worker.tasks:
            culprit = worker.tasks[0]
            culprit.attempts += 1
            if culprit.attempts == ATTEMPTS:
                culprit.finish(None, WorkerDied(_reason(worker.process.exitcode)))
                worker.tasks.popleft()
        self.queue.extendleft(reversed([*finished, *worker.tasks]))


class _Worker:
    """A process and the tasks that it has, in the order in which it computes them.

    Attributes:
        lost: tasks that it had finished when it died, but whose tensors died with it.
    """

    def __init__(self, context: Any, function: Callable[[Any], Any], seed: int, others: list["_Worker"]):
        self.tasks: deque[_Task] = deque()
        self.lost = 0
        self.connection, child = context.Pipe()
        forked = context.get_start_method() == "fork"
        inherited = [self.connection, *(other.connection for other in others)] if forked else []
        self.process = context.Process(target=_work, args=(child, function, seed, inherited), daemon=True)
        self.process.start()
        child.close()

    def end(self) -> None:
        """Wait for the end of the process, which was asked to end or is dead.

        A process that was forked while another thread held a lock may be stuck for ever.
        """
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def give(self, task: _Task) -> bool:
        """Send a task; False if the worker is dead."""
        self.tasks.append(task)
        try:
            self.connection.send_bytes(task.content)
        except OSError:
            return False
        return True

    def receive(self) -> bool:
        """Take the outcome of the first task; False if the worker is dead."""
        try:
            message = self.connection.recv_bytes()
        except (EOFError, OSError):
            return False
        try:
            outcome, error = pickle.loads(message)
        except (EOFError, OSError):  # it died before its tensors were taken over
            self.lost = 1 + self._unread()
            return False
        self.tasks.popleft().finish(outcome, error)
        return True

    def _unread(self) -> int:
        """The number of outcomes that a dead worker had sent and nobody has read."""
        count = 0
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll():
                self.connection.recv_bytes()
                count += 1
        return count


def _work(connection: Connection, function: Callable[[Any], Any], seed: int, inherited: list[Connection]) -> None:
    """The life of a worker. It ends when the other end of the connection is closed, also by the death of its parent."""
    for other in inherited:  # copies of the parent's ends: open ones would hide its death from the other workers
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            try:
                message = ForkingPickler.dumps((function(task), None))
            except Exception as error:
                message = _pickled(error)
            connection.send_bytes(message)


def _pickled(error: Exception) -> Any:
    """A message with an error and, as its cause, its traceback."""
    try:
        message = ForkingPickler.dumps((None, ExceptionWithTraceback(error, error.__traceback__)))
        pickle.loads(message)
    except Exception:  # some errors cannot be rebuilt from their arguments
        return ForkingPickler.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
    return message


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        names = {number.value: number.name for number in signal.Signals}
        how = f"was killed by the signal {names.get(-code, -code)}"
    else:
        how = f"ended with status {code}"
    return f"the process that read it {how}, {ATTEMPTS} times; the file is damaged, or the memory was not enough"
