"""The engine without Ray: one process computes, others decode ahead of it."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from ..clip_scorer import ClipReader, ClipScorer
from ..workers_aigcvqa import WorkerDied, results_in_order
from .engine import CARRIED, READ_SECONDS, SCORE_SECONDS, Work
from .units import Unit


class LocalEngine:
    """Scores on this machine.

    Args:
        decoders: processes that decode videos; 0 decodes in the process that computes, so that a video that crashes
            the decoder ends the run.
    """

    def __init__(self, decoders: int = 1):
        self.decoders = decoders
        self.scorer: ClipScorer | None = None

    def __call__(self, units: list[Unit], work: Work) -> Iterator[list[dict]]:
        """The results of the rows of units; see `Engine`."""
        if self.scorer is None:
            self.scorer = ClipScorer(work.settings)
        rows: deque[dict] = deque()

        def handed_out() -> Iterator[dict]:
            for unit in units:
                for row in work.rows(unit):
                    rows.append({name: row[name] for name in CARRIED})
                    yield {name: row[name] for name in ("path", "content", "prompt", "error")}

        read = results_in_order(_Reads(ClipReader(work.settings)), handed_out(), self.decoders, _of_a_dead_worker)
        batch: list[tuple] = []
        for inputs, seconds in read:
            batch.append((rows.popleft(), inputs, seconds))
            if len(batch) == work.settings.batch_size:
                yield scored(self.scorer, *zip(*batch))
                batch = []
        if batch:
            yield scored(self.scorer, *zip(*batch))


def scored(scorer: ClipScorer, rows: list[dict], inputs: list[dict], read_seconds: list[float]) -> list[dict]:
    """The results of clips that are read.

    Args:
        rows: with the columns CARRIED.
        inputs: of the model, as a `ClipReader` gives them.
    """
    start = time.perf_counter()
    columns = scorer({name: [row[name] for row in rows] for name in CARRIED} | {"inputs": list(inputs)})
    columns[READ_SECONDS] = list(read_seconds)
    columns[SCORE_SECONDS] = [(time.perf_counter() - start) / len(rows)] * len(rows)
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


class _Reads:
    """Reads the clip of a row and measures the time."""

    def __init__(self, reader: ClipReader):
        self.reader = reader

    def __call__(self, row: dict) -> tuple[dict[str, Any], float]:
        start = time.perf_counter()
        return inputs_of_row(self.reader, row), time.perf_counter() - start


def inputs_of_row(reader: ClipReader, row: dict) -> dict[str, Any]:
    """The inputs of the model for a pending row, or `{"error"}`."""
    if row["error"] is not None:
        return {"error": row["error"]}
    return reader.read(row["path"] if row["content"] is None else row["content"], row["prompt"])


def _of_a_dead_worker(row: dict, error: WorkerDied) -> tuple[dict[str, Any], float]:
    return {"error": f"{row['path'] or 'the clip'!r} cannot be read: {error}."}, 0.0
