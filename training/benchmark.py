"""Speed of every branch and of the whole way from a file to its scores: `python -m training.benchmark`.

Time (median), work in GFLOP (counted on the model's own operations), the share of the peak, which is the rate of matrix
products timed in turn with the branch, memory; decoding and preprocessing apart. `--compare` runs the plain restatement
of the same networks (`training/oracle.py`) on the same input, in turn too. Ratios of one run compare; times of two runs
on a shared machine do not.

`--stream N` scores N clips instead, through the pipeline: clips a second, the share of the time that
the model is at work (the rest it waits for data), and how much the process's memory grows over the second half.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAPipeline
from modeling_aigcvqa.backbone_convnext3d import DepthwiseConv3d
from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from modeling_aigcvqa.loading import DTYPES
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from modeling_aigcvqa.presets import PRESETS, default_processor, untrained_model
from modeling_aigcvqa.processing_aigcvqa import AIGCVQAProcessor
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video
from training import oracle

INPUTS = {
    "technical": ("pixel_values_fragments",),
    "aesthetic": ("pixel_values_resized",),
    "alignment": ("pixel_values_resized", "input_ids", "attention_mask"),
}
PEAK_SIZES, PRODUCTS = {"cpu": (1024, 2048), "cuda": (4096, 8192)}, 4
EMULATED_SECONDS = 0.5  # products that take longer are computed in a dtype that the device lacks: no larger ones then


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def medians(calls: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each call, after one round to warm up.

    They take turns, so that a machine whose speed varies (clock, neighbours) is the same machine to all of them.
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
    """Median seconds of each call, and the rate in GFLOP/s of square matrix products that take turns with them.

    The rate is the highest of the sizes', each the median over `repeats` of a few products in a row.
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


def count_gflop(call: Callable[[], object]) -> float:
    """Work of `call` in GFLOP, a multiplication and an addition each counting one; attention is counted unfused."""
    plain = torch.backends.mkldnn.flags(enabled=False)  # its fused operations are not counted
    with plain, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() / 1e9


def peak_memory_mib(device: torch.device, call: Callable[[], object]) -> float:
    """Most memory during `call`: allocated on a GPU; on a CPU the process's highest resident size so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**20
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def branch_call(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor]) -> Callable[[], Tensor]:
    """A call that scores one branch, head and all."""
    if branch == "alignment":
        return lambda: model._score_alignment(*(inputs[name] for name in INPUTS[branch]))
    return lambda: model._score_map(branch, inputs[INPUTS[branch][0]]).mean((1, 2, 3))


def oracle_call(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor]) -> Callable[[], Tensor]:
    """The same score by the plain restatement, float32, before the branch's affine."""
    state = {key: value.float() for key, value in model.state_dict().items()}
    backbone, head = (oracle.below(state, f"{branch}_{part}.") for part in ("backbone", "head"))
    config = getattr(model.config, f"{branch}_config")
    if branch == "alignment":
        frames = imagenet_to_clip(inputs["pixel_values_resized"])
        prompt = inputs["input_ids"], inputs["attention_mask"]
        head_module = model.alignment_head.float()
        return lambda: head_module(oracle.alignment_backbone(backbone, frames, *prompt, config))[..., 0].mean(1)
    network = {"technical": oracle.swin3d, "aesthetic": oracle.convnext3d}[branch]
    video = inputs[INPUTS[branch][0]].float().transpose(1, 2)
    return lambda: oracle.map_score(head, network(backbone, video, config)).mean((1, 2, 3))


def measure_branch(
    model: AIGCVQAModel,
    branch: str,
    inputs: dict[str, Tensor],
    gflop: float,
    arguments: argparse.Namespace,
) -> dict:
    device = next(iter(inputs.values())).device
    calls = {"model": branch_call(model, branch, inputs)}
    if arguments.compare:
        calls["plain"] = oracle_call(model, branch, inputs)
    with torch.no_grad():
        times, peak = seconds_and_peak(calls, device, model.dtype, arguments.repeats)
        taken = times["model"]
        row = {
            "part": branch,
            "dtype": str(model.dtype).removeprefix("torch."),
            "batch_size": len(inputs["pixel_values_resized"]),
            "num_frames": arguments.num_frames,
            "seconds": taken,
            "gflop": gflop,
            "gflop_per_second": gflop / taken,
            "share_of_peak": gflop / taken / peak,
            "peak_gflop_per_second": peak,
        }
        if arguments.compare:
            scale, shift = (
                getattr(getattr(model.config, f"{branch}_config"), f"score_{k}") for k in ("scale", "shift")
            )
            row["oracle_difference"] = (scale * calls["plain"]() + shift - calls["model"]()).abs().max().item()
            row["oracle_seconds"] = times["plain"]
            row["oracle_ratio"] = times["plain"] / taken
            del calls["plain"]  # it holds the weights in float32
        row["memory_mib"] = peak_memory_mib(device, calls["model"])
    return row


def make_clip(folder: Path, size: int = 512, frames: int = 16, fps: int = 4) -> Path:
    """A T2VQA-DB-like clip: 512 x 512, 4 s, H.264."""
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


def measure_preprocessing(processor, clip: Path, arguments: argparse.Namespace) -> list[dict]:
    """Decoding alone, and decoding with both views, of one clip on the CPU."""
    calls = {
        "decode": lambda: read_video(clip, lambda total: sample_frame_indices(total, arguments.num_frames)),
        "both": lambda: processor(videos=clip, num_frames=arguments.num_frames),
    }
    times = medians(calls, torch.device("cpu"), max(arguments.repeats, 20))
    return [
        {"part": "decode", "seconds": times["decode"]},
        {"part": "decode and both views", "seconds": times["both"], "ratio_to_decode": times["both"] / times["decode"]},
    ]


class Repeated(Dataset):
    """The items again and again, `length` in all, so that worker processes can share them."""

    def __init__(self, items: list[dict], length: int):
        self.items, self.length = items, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.items[index % len(self.items)]


@contextmanager
def busy_time(pipeline: AIGCVQAPipeline) -> Iterator[list[float]]:
    """The seconds of every pass of the model while the context lasts."""
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
    """Memory of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_stream(pipeline: AIGCVQAPipeline, clips: list[Path], arguments: argparse.Namespace) -> dict:
    """Score `--stream` clips through the pipeline, `clips` in turn."""
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


def run_stream(model: AIGCVQAModel, processor: AIGCVQAProcessor, arguments: argparse.Namespace) -> dict:
    device = torch.device(arguments.device)
    pipeline = AIGCVQAPipeline(model.to(device, DTYPES[arguments.dtypes[0]]), processor=processor, device=device)
    with tempfile.TemporaryDirectory() as folder:
        clips = sorted(arguments.folder.glob("*.mp4")) if arguments.folder else [make_clip(Path(folder))]
        if not clips:
            raise ValueError(f"--folder '{arguments.folder}' holds no .mp4; name a folder of clips.")
        row = measure_stream(pipeline, clips, arguments)
    return {"environment": environment(device), "model": arguments.model, "rows": [row]}


def environment(device: torch.device) -> dict:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def compile_backbones(model: AIGCVQAModel, device: torch.device) -> None:
    """`torch.compile` in place; on a GPU with CUDA graphs."""
    for branch in model.config.branches:
        backbone = getattr(model, f"{branch}_backbone")
        backbone.compile(mode="reduce-overhead" if device.type == "cuda" else "default")


def run(arguments: argparse.Namespace) -> dict:
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    if arguments.model in PRESETS:
        model = untrained_model(arguments.model)
    else:
        model = AIGCVQAModel.from_pretrained(arguments.model).eval()
    if arguments.alignment_num_frames is not None:
        model.config.alignment_num_frames = arguments.alignment_num_frames
    processor = default_processor(model.config)
    for module in model.modules():
        if isinstance(module, DepthwiseConv3d):
            module.as_2d = arguments.depthwise_2d
    if arguments.stream:
        if arguments.compile:
            compile_backbones(model, device)
        return run_stream(model, processor, arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder))
        rows += measure_preprocessing(processor, clip, arguments)
        sample = processor(videos=clip, text=arguments.prompt, num_frames=arguments.num_frames)
    decode_and_views = rows[1]["seconds"]
    branches = [branch for branch in model.config.branches if branch in arguments.branches]
    # Counted once, in float32, for one clip: the work does not depend on the dtype and grows with the batch.
    work = {branch: count_gflop(branch_call(model, branch, sample)) for branch in branches}
    if arguments.compile:
        compile_backbones(model, device)
    for dtype in arguments.dtypes:
        model = model.to(device, DTYPES[dtype])
        for batch_size in arguments.batch_sizes:
            inputs = {
                name: value.repeat(batch_size, *[1] * (value.ndim - 1)).to(device) for name, value in sample.items()
            }
            parts = [measure_branch(model, branch, inputs, batch_size * work[branch], arguments) for branch in branches]
            rows += parts
            taken = sum(row["seconds"] for row in parts)
            gflop = sum(row["gflop"] for row in parts)
            at_peak = sum(row["gflop"] / row["peak_gflop_per_second"] for row in parts)
            rows.append(
                {
                    "part": "all branches",
                    "dtype": dtype,
                    "batch_size": batch_size,
                    "num_frames": arguments.num_frames,
                    "seconds": taken,
                    "gflop": gflop,
                    "gflop_per_second": gflop / taken,
                    "share_of_peak": at_peak / taken,
                    "peak_gflop_per_second": gflop / at_peak,
                    "memory_mib": max(row["memory_mib"] for row in parts),
                    "clips_per_second": batch_size / taken,
                    "clips_per_second_from_files": batch_size / (taken + batch_size * decode_and_views),
                }
            )
            if arguments.compare:
                rows[-1]["oracle_seconds"] = sum(row["oracle_seconds"] for row in parts)
                rows[-1]["oracle_ratio"] = rows[-1]["oracle_seconds"] / taken
    return {"environment": environment(device), "model": arguments.model, "rows": rows}


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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.benchmark", description=__doc__)
    parser.add_argument("--model", default="full", help="full or small (random weights), or a model folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=["float32"])
    parser.add_argument("--branches", nargs="+", choices=list(BRANCHES), default=list(BRANCHES))
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1])
    parser.add_argument("--num_frames", type=int, default=16)
    parser.add_argument("--alignment_num_frames", type=int, metavar="N", help="of those (default: the model's number)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompt", default="a corgi walking in the park at sunrise, oil painting style")
    parser.add_argument("--compare", action="store_true", help="run the plain restatement beside it (float32)")
    parser.add_argument("--depthwise_2d", action="store_true", help="3D depthwise convolutions as sums of 2D ones")
    parser.add_argument("--compile", action="store_true", help="torch.compile; on a GPU with CUDA graphs")
    parser.add_argument("--stream", type=int, default=0, metavar="N", help="score N clips through the pipeline")
    parser.add_argument("--folder", type=Path, help="mp4 clips of --stream (default: one made on the spot)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes of --stream that decode ahead")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.alignment_num_frames is not None and arguments.alignment_num_frames < 1:
        parser.error(f"--alignment_num_frames {arguments.alignment_num_frames}: expected at least 1.")
    result = run(arguments)
    print_table(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
