"""Helpers of the benchmarks: alternating timings, peak rate of the machine, memory, a test clip, the printed table."""

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

PEAK_SIZES, PRODUCTS = {"cpu": (1024, 2048), "cuda": (4096, 8192)}, 4
EMULATED_SECONDS = 0.5  # a slower product means that the device emulates the dtype: then try no larger ones


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def medians(calls: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each call, after one warm-up round.

    The calls alternate, so that changes in the machine's speed (clock, other processes) affect all of them equally.
    """
    times = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def seconds_and_peak(
    calls: dict[str, Callable[[], object]], device: torch.device, dtype: torch.dtype, repeats: int
) -> tuple[dict[str, float], float]:
    """Median seconds of each call, and the peak rate of the machine in GFLOP/s.

    The peak rate is measured with square matrix products that alternate with the calls. It is the best rate over the
    matrix sizes; the rate of each size is a median over `repeats` runs of a few products.
    """
    products, gflop = {}, {}
    for size in PEAK_SIZES[device.type]:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = f"product {size}"
        products[product] = lambda a=left, b=right: [a @ b.mT for _ in range(PRODUCTS)]
        gflop[product] = PRODUCTS * 2 * size**3 / 1e9
        if medians({product: products[product]}, device, 1)[product] > EMULATED_SECONDS:
            break
    taken = medians(calls | products, device, repeats)
    return {name: taken[name] for name in calls}, max(gflop[product] / taken[product] for product in products)


def speed(seconds: float, gflop: float, peak: float) -> dict[str, float]:
    """The figures of a row with work in GFLOP and the peak rate in GFLOP/s."""
    return {
        "seconds": seconds,
        "gflop": gflop,
        "gflop_per_second": gflop / seconds,
        "share_of_peak": gflop / seconds / peak,
        "peak_gflop_per_second": peak,
    }


def count_gflop(call: Callable[[], object]) -> float:
    """Work of `call` in GFLOP. A multiplication and an addition count one each; attention is counted unfused."""
    plain = torch.backends.mkldnn.flags(enabled=False)  # its fused operations would not be counted
    with plain, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() / 1e9


def peak_memory_mib(device: torch.device, call: Callable[[], object]) -> float:
    """Peak memory in MiB: allocated during `call` on a GPU; on a CPU the peak resident size of the process so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**20
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def make_clip(folder: Path, size: int = 512, frames: int = 16, fps: int = 4) -> Path:
    """Write a clip like those of T2VQA-DB: 512 x 512, 4 s, H.264."""
    path, rng = folder / "clip.mp4", np.random.default_rng(0)
    coarse = rng.integers(0, 256, (frames + 8, size // 16, size // 16, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height = stream.width = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            smooth = coarse[index : index + 8].mean(0).astype(np.uint8)
            frame = torch.from_numpy(smooth).permute(2, 0, 1)[None].float()
            frame = torch.nn.functional.interpolate(frame, (size, size), mode="bicubic").clamp(0, 255)
            image = frame[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def environment(device: torch.device) -> dict:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def print_table(result: dict) -> None:
    table = Table(title=", ".join(f"{key} {value}" for key, value in result["environment"].items()))
    columns = {
        "part": "{}",
        "dtype": "{}",
        "batch_size": "{}",
        "seconds": "{:.3f}",
        "gflop": "{:.0f}",
        "gflop_per_second": "{:.0f}",
        "share_of_peak": "{:.0%}",
        "memory_mib": "{:.0f}",
        "clips_per_second": "{:.2f}",
        "model_busy_share": "{:.0%}",
        "memory_growth_mib": "{:.1f}",
        "ratio_to_decode": "{:.2f}",
        "oracle_ratio": "{:.1f}",
        "oracle_difference": "{:.1e}",
    }
    shown = [name for name in columns if any(name in row for row in result["rows"])]
    for name in shown:
        table.add_column(name.replace("_", " "), justify="left" if name == "part" else "right")
    for row in result["rows"]:
        table.add_row(*(columns[name].format(row[name]) if name in row else "" for name in shown))
    Console(width=160).print(table)
