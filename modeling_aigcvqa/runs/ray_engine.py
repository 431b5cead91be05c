"""The engine on Ray Data: pools of actors that read and score, on one machine or on many."""

import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch

from ..clip_scorer import ClipReader, ClipScorer, ScorerIdentity
from .engine import CARRIED, READ_SECONDS, SCORE_SECONDS, Work
from .local_engine import inputs_of_row, scored
from .ray_reading import BLOCK_ROWS, read_rows
from .run_folder import FRAGMENT
from .units import Unit

RESULT = pa.schema(
    [
        *FRAGMENT,
        ("distinct", pa.int64()),
        ("repeated", pa.int64()),
        (READ_SECONDS, pa.float64()),
        (SCORE_SECONDS, pa.float64()),
    ]
)
TASK_RETRIES = 1  # of what an actor died of; then its clips are tried one by one
READER_CPUS = 0.25  # of a task that reads manifests
CONNECT_S = 10.0
TEXTS = ("name", "warning", "error")


@dataclass(frozen=True)
class RayEngine:
    """Scores on the machines of a Ray cluster.

    Args:
        address: of a cluster, or "auto"; None starts Ray on this machine.
        workers: processes that compute; None for one per GPU of the cluster, or without GPUs one per core.
        gpus_per_worker: GPUs of each, may be a fraction; None for 1 where the cluster has GPUs, else 0.
        decoders: processes that decode; 0 decodes in the processes that compute; None for 0 without GPUs, and for the
            cores that are left with them.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    decoders: int | None = None

    def __call__(self, units: list[Unit], work: Work) -> Iterator[list[dict]]:
        """The results of the rows of units; see `Engine`."""
        import ray.data
        from ray.util.metrics import Counter

        _configure_ray_data()
        cpus = work.settings.threads or 1
        pools = self.pools(ray.cluster_resources(), cpus, may_shrink=work.one_by_one)
        block_rows = 1 if work.one_by_one else BLOCK_ROWS
        rows = (
            ray.data.from_items([asdict(unit) for unit in units], override_num_blocks=len(units))
            # The same size of batches has Ray join both steps: the blocks come as they are read, without more tasks.
            .map_batches(
                read_rows,
                batch_size=block_rows,
                fn_kwargs={"work": work},
                num_cpus=READER_CPUS,
            )
            .repartition(target_num_rows_per_block=block_rows)
        )
        arguments = {
            "fn_constructor_kwargs": {"work": work},
            "batch_size": block_rows,
            "batch_format": "pyarrow",
            "ray_remote_args_fn": _retries,
        }
        pool = ray.data.ActorPoolStrategy
        if pools.decoders:
            rows = rows.map_batches(_Reader, num_cpus=1, compute=pool(size=pools.decoders), **arguments)
        results = rows.map_batches(
            _Scorer,
            num_cpus=cpus,
            num_gpus=pools.gpus_per_worker or None,
            compute=pool(size=pools.workers),
            **arguments,
        )
        clips = Counter("aigcvqa_clips", "Clips by outcome: scored, failed", ("outcome",))  # in Ray's own metrics
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
            rows = batch.to_pylist()
            failed = sum(row["error"] is not None for row in rows)
            for outcome, number in (("scored", len(rows) - failed), ("failed", failed)):
                if number:
                    clips.inc(number, {"outcome": outcome})
            yield rows

    @contextmanager
    def connected(self, threads: int) -> Iterator[None]:
        """A connection to Ray within the block. A cluster that was started for it ends with it.

        What Ray prints to the standard output within the block goes to standard error.
        """
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its errors are Python exceptions too
        ray = _imported_ray()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if self.address is None:
            # Ray counts cores only to place processes: as many as are asked for, and one for reading manifests.
            cores = os.cpu_count() or 1
            needed = (self.workers or cores) * threads + (self.decoders or 0) + 1
            options |= {"num_cpus": max(needed, cores), "include_dashboard": False}
        else:
            _check_address(self.address)
            options["address"] = self.address
        with redirect_stdout(sys.stderr):
            yield from self._while_connected(ray, options)

    def _while_connected(self, ray: Any, options: dict[str, Any]) -> Iterator[None]:
        try:
            ray.init(**options)
        except (ConnectionError, OSError, ValueError) as error:
            raise ValueError(f"--address {self.address}: no Ray cluster can be reached there ({error}).") from error
        try:
            yield
        finally:
            ray.shutdown()

    def pools(self, resources: dict[str, float], cpus: int, may_shrink: bool = False) -> "Pools":
        """The sizes of the pools: what was asked for, and what fits the cluster where nothing was.

        Args:
            resources: of the cluster, as `ray.cluster_resources` gives them.
            cpus: cores of a worker.
            may_shrink: take what fits where less is there than was asked for, because nodes were lost.

        Raises:
            ValueError: for pools that the cluster cannot hold.
        """
        gpus, cores = resources.get("GPU", 0), int(resources.get("CPU", 0))
        per_worker = (1 if gpus else 0) if self.gpus_per_worker is None else self.gpus_per_worker
        if self.decoders is None:
            decoders = max(1, cores - 1 - (self.workers or int(gpus // per_worker)) * cpus) if per_worker else 0
        else:
            decoders = self.decoders
        if may_shrink:
            decoders = min(decoders, max(1, cores // 2))
        fits = (cores - 1 - decoders) // cpus
        fits = max(1, min(fits, int(gpus // per_worker)) if per_worker else fits)
        workers = self.workers or fits
        if may_shrink:
            workers = min(workers, fits)
        pools = Pools(workers, per_worker, decoders)
        if per_worker * workers > gpus:
            raise ValueError(
                f"{pools} need {per_worker * workers:g} GPUs, and the cluster has {gpus:g}; lower the numbers."
            )
        needed = workers * cpus + decoders + READER_CPUS
        if needed > cores:
            raise ValueError(
                f"{pools} with {cpus} threads each need {needed:g} cores, and the cluster has {cores}; lower the "
                "numbers, or add machines."
            )
        return pools


@dataclass(frozen=True)
class Pools:
    """The sizes of the pools of actors."""

    workers: int
    gpus_per_worker: float
    decoders: int

    def __str__(self) -> str:
        return f"--workers {self.workers} --gpus_per_worker {self.gpus_per_worker:g} --decoders {self.decoders}"


def _retries() -> dict[str, int]:
    return {"max_task_retries": TASK_RETRIES}


def _imported_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("--engine ray needs Ray: pip install 'aigcvqa[scale]'") from error
    return ray


def _check_address(address: str) -> None:
    """Refuse HOST:PORT where nothing listens: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        raise ValueError(f"--address {address}: no Ray cluster can be reached there ({error}).") from error


def _configure_ray_data() -> None:
    from ray.data import DataContext

    # There is no other way to limit the retries: hence the upper bound on Ray's version in pyproject.toml.
    warnings.filterwarnings("ignore", message="`ray_remote_args")
    context = DataContext.get_current()
    context.enable_progress_bars = False  # a run has its own
    context.max_errored_blocks = -1  # what died with its processes is missing afterwards, and tried one by one
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what is lost is found and tried again


class _Reader:
    """An actor that decodes. The inputs travel as safetensors, which need no code to be read."""

    def __init__(self, work: Work):
        _check_model(ScorerIdentity.of(work.settings), work)
        self.read = ClipReader(work.settings)

    def __call__(self, table: pa.Table) -> pa.Table:
        inputs, texts, seconds = [], [], []
        for row in table.to_pylist():
            start = time.perf_counter()
            read = inputs_of_row(self.read, row)
            tensors = {name: value for name, value in read.items() if isinstance(value, torch.Tensor)}
            inputs.append(safetensors.torch.save(tensors) if tensors else None)
            texts.append({name: read.get(name) for name in TEXTS})
            seconds.append(time.perf_counter() - start)
        carried = table.select(list(CARRIED))
        carried = carried.append_column("inputs", pa.array(inputs, pa.large_binary()))
        for name in TEXTS:
            carried = carried.append_column(name, pa.array([text[name] for text in texts], pa.string()))
        return carried.append_column(READ_SECONDS, pa.array(seconds, pa.float64()))


class _Scorer:
    """An actor that computes. It decodes too where no actor has done so before it."""

    def __init__(self, work: Work):
        self.scorer = ClipScorer(work.settings)
        _check_model(self.scorer.identity, work)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        if "inputs" in table.column_names:
            inputs, seconds = [_unpacked(row) for row in rows], [row[READ_SECONDS] for row in rows]
        else:
            inputs, seconds = [], []
            for row in rows:
                start = time.perf_counter()
                inputs.append(inputs_of_row(self.scorer.read, row))
                seconds.append(time.perf_counter() - start)
        try:
            results = scored(self.scorer, rows, inputs, seconds)
        except RuntimeError:
            os._exit(1)  # the GPU is lost for this process; a new one takes the clips over
        return pa.Table.from_pylist(results, RESULT)


def _unpacked(row: dict) -> dict[str, Any]:
    inputs = safetensors.torch.load(row["inputs"]) if row["inputs"] is not None else {}
    return inputs | {name: row[name] for name in TEXTS if row[name] is not None}


def _check_model(here: ScorerIdentity, work: Work) -> None:
    """Refuse to score with other files of the model than those of the machine that started the run."""
    if here != work.identity:
        raise ValueError(
            f"model '{work.settings.model}' on this machine ({here.model_revision}, {here.options}) is not the one of "
            f"the machine that started the run ({work.identity.model_revision}, {work.identity.options}); have "
            "both the same."
        )
