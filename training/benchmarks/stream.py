"""Score a long stream of clips through the pipeline; measure the rate, the busy time of the model and the memory."""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.data import Dataset

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAPipeline, AIGCVQAProcessor
from modeling_aigcvqa.loading import DTYPES

from .timing import make_clip, synchronize


class Repeated(Dataset):
    """Repeats the items up to `length`. A data set, unlike a generator, can be shared by worker processes."""

    def __init__(self, items: list[dict], length: int):
        self.items, self.length = items, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.items[index % len(self.items)]


@contextmanager
def busy_time(pipeline: AIGCVQAPipeline) -> Iterator[list[float]]:
    """A list to which the seconds of every forward pass are added while the context is open."""
    forward, taken = pipeline.forward, []

    def timed(batch: list[dict]) -> list[dict]:
        start = time.perf_counter()
        results = forward(batch)
        synchronize(pipeline.device)
        taken.append(time.perf_counter() - start)
        return results

    pipeline.forward = timed
    try:
        yield taken
    finally:
        pipeline.forward = forward


def resident_mib() -> float:
    """Resident memory of this process in MiB (Linux only)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_stream(pipeline: AIGCVQAPipeline, clips: list[Path], arguments: argparse.Namespace) -> dict:
    """Score `--stream` clips through the pipeline, repeating `clips`."""
    items = Repeated([{"video": clip, "prompt": arguments.prompt} for clip in clips], arguments.stream)
    batch_size = arguments.batch_sizes[0]
    options = {"batch_size": batch_size, "num_workers": arguments.num_workers, "num_frames": arguments.num_frames}
    every, memory = max(arguments.stream // 10, 1), []
    start = time.perf_counter()
    with busy_time(pipeline) as busy:
        for number, _ in enumerate(pipeline(items, **options), 1):
            if number % every == 0:
                memory.append(round(resident_mib(), 1))
    taken = time.perf_counter() - start
    return {
        "part": f"stream of {arguments.stream} clips",
        "dtype": str(pipeline.model.dtype).removeprefix("torch."),
        "batch_size": batch_size,
        "num_workers": arguments.num_workers,
        "seconds": taken,
        "clips_per_second": arguments.stream / taken,
        "model_busy_share": sum(busy) / taken,
        "memory_mib": memory[-1],
        "memory_by_tenths_mib": memory,
        "memory_growth_mib": memory[-1] - memory[len(memory) // 2],
    }


def stream_rows(model: AIGCVQAModel, processor: AIGCVQAProcessor, arguments: argparse.Namespace) -> list[dict]:
    """The row of a stream of clips.

    Raises:
        ValueError: if `--folder` has no clips.
    """
    device = torch.device(arguments.device)
    pipeline = AIGCVQAPipeline(model.to(device, DTYPES[arguments.dtypes[0]]), processor=processor, device=device)
    with tempfile.TemporaryDirectory() as folder:
        clips = sorted(arguments.folder.glob("*.mp4")) if arguments.folder else [make_clip(Path(folder))]
        if not clips:
            raise ValueError(f"--folder '{arguments.folder}' has no .mp4 file; name a folder of clips.")
        return [measure_stream(pipeline, clips, arguments)]
