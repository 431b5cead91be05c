"""Measure the speed of preprocessing and of every branch: `python -m training.benchmarks.scoring`.

The table shows median time, work in GFLOP (counted on the operations of the model), share of the peak rate, and memory.
The peak rate is the rate of matrix products that alternate with the branch. `--compare` also runs the plain reference
implementation of the networks (`oracle.py`) on the same input, alternating as well. Compare ratios of one run; times of
different runs on a shared machine are not comparable.

`--stream N` instead scores N clips through the pipeline. It shows clips per second, the share of the time in which the
model is busy (otherwise it waits for data), and the growth of the process's memory over the second half of the clips.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.common.choices import ARCHITECTURES
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import write_json
from modeling_aigcvqa.common.presets import default_processor, untrained_model
from modeling_aigcvqa.configuration_aigcvqa import BRANCH_INPUTS, BRANCHES
from modeling_aigcvqa.loading import DTYPES
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

from . import oracle
from .depthwise import use_2d_convolutions
from .stream import stream_rows
from .timing import count_gflop, environment, make_clip, medians, peak_memory_mib, print_table, seconds_and_peak, speed


def branch_call(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor]) -> Callable[[], Tensor]:
    """A call that computes the score of one branch, including its head."""
    if branch == "alignment":
        video, *prompt = (inputs[name] for name in BRANCH_INPUTS[branch])
        return lambda: model.score_prompts(model.encode_video(video), *prompt)
    return lambda: model.score_map(branch, inputs[BRANCH_INPUTS[branch][0]]).mean((1, 2, 3))


def oracle_call(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor]) -> Callable[[], Tensor]:
    """The same score by the reference implementation in float32, before the scale and shift of the branch."""
    state = {key: value.float() for key, value in model.state_dict().items()}
    backbone, head = (oracle.below(state, f"{branch}_{part}.") for part in ("backbone", "head"))
    config = getattr(model.config, f"{branch}_config")
    if branch == "alignment":
        frames = imagenet_to_clip(inputs["pixel_values_resized"])
        prompt = inputs["input_ids"], inputs["attention_mask"]
        head_module = model.alignment_head.float()
        return lambda: head_module(oracle.alignment_backbone(backbone, frames, *prompt, config))[..., 0].mean(1)
    network = {"technical": oracle.swin3d, "aesthetic": oracle.convnext3d}[branch]
    video = inputs[BRANCH_INPUTS[branch][0]].float().transpose(1, 2)
    return lambda: oracle.map_score(head, network(backbone, video, config)).mean((1, 2, 3))


def measure_branch(
    model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor], gflop: float, arguments: argparse.Namespace
) -> dict:
    """The row of one branch; `gflop` is the work of the whole batch."""
    device = next(iter(inputs.values())).device
    calls = {"model": branch_call(model, branch, inputs)}
    if arguments.compare:
        calls["plain"] = oracle_call(model, branch, inputs)
    with torch.no_grad():
        times, peak = seconds_and_peak(calls, device, model.dtype, arguments.repeats)
        row = {
            "part": branch,
            "dtype": str(model.dtype).removeprefix("torch."),
            "batch_size": len(inputs["pixel_values_resized"]),
            "num_frames": arguments.num_frames,
            **speed(times["model"], gflop, peak),
        }
        if arguments.compare:
            config = model.config.parts[branch]
            plain = config.score_scale * calls["plain"]() + config.score_shift
            row["oracle_difference"] = (plain - calls["model"]()).abs().max().item()
            row["oracle_seconds"] = times["plain"]
            row["oracle_ratio"] = times["plain"] / times["model"]
            del calls["plain"]  # frees its float32 copy of the weights
        row["memory_mib"] = peak_memory_mib(device, calls["model"])
    return row


def measure_preprocessing(processor: AIGCVQAProcessor, clip: Path, arguments: argparse.Namespace) -> list[dict]:
    """The rows of decoding one clip on the CPU, and of decoding it and computing both views."""
    calls = {
        "decode": lambda: read_video(clip, lambda total: sample_frame_indices(total, arguments.num_frames)),
        "both": lambda: processor(videos=clip, num_frames=arguments.num_frames),
    }
    times = medians(calls, torch.device("cpu"), max(arguments.repeats, 20))
    return [
        {"part": "decode", "seconds": times["decode"]},
        {"part": "decode and both views", "seconds": times["both"], "ratio_to_decode": times["both"] / times["decode"]},
    ]


def compile_backbones(model: AIGCVQAModel, device: torch.device) -> None:
    """Compile the backbones in place with `torch.compile`; on a GPU with CUDA graphs."""
    for branch in model.config.branches:
        backbone = getattr(model, f"{branch}_backbone")
        parts = [backbone] if branch != "alignment" else [backbone.visual_encoder, backbone.text_encoder]
        for part in parts:
            part.compile(mode="reduce-overhead" if device.type == "cuda" else "default")


def measure_parts(model: AIGCVQAModel, processor: AIGCVQAProcessor, arguments: argparse.Namespace) -> list[dict]:
    """The rows of preprocessing, and of every branch and all branches in each dtype and batch size."""
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder))
        rows = measure_preprocessing(processor, clip, arguments)
        sample = processor(videos=clip, text=arguments.prompt, num_frames=arguments.num_frames)
    preprocessing = rows[-1]["seconds"]
    branches = [branch for branch in model.config.branches if branch in arguments.branches]
    # Counted once, in float32 and for one clip: the dtype does not change the work, and the batch size multiplies it.
    work = {branch: count_gflop(branch_call(model, branch, sample)) for branch in branches}
    if arguments.compile:
        compile_backbones(model, device)
    for dtype, batch_size in product(arguments.dtypes, arguments.batch_sizes):
        model.to(device, DTYPES[dtype])
        inputs = {name: value.repeat(batch_size, *[1] * (value.ndim - 1)).to(device) for name, value in sample.items()}
        parts = [measure_branch(model, branch, inputs, batch_size * work[branch], arguments) for branch in branches]
        rows += [*parts, total_row(parts, preprocessing)]
    return rows


def total_row(parts: list[dict], preprocessing: float) -> dict:
    """The row of all branches, from the rows of the branches and the seconds of preprocessing per clip."""
    seconds, gflop = (sum(row[name] for row in parts) for name in ("seconds", "gflop"))
    peak = gflop / sum(row["gflop"] / row["peak_gflop_per_second"] for row in parts)
    batch_size = parts[0]["batch_size"]
    row = {
        "part": "all branches",
        **{name: parts[0][name] for name in ("dtype", "batch_size", "num_frames")},
        **speed(seconds, gflop, peak),
        "memory_mib": max(row["memory_mib"] for row in parts),
        "clips_per_second": batch_size / seconds,
        "clips_per_second_from_files": batch_size / (seconds + batch_size * preprocessing),
    }
    if "oracle_seconds" in parts[0]:
        row["oracle_seconds"] = sum(row["oracle_seconds"] for row in parts)
        row["oracle_ratio"] = row["oracle_seconds"] / seconds
    return row


def run(arguments: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    if arguments.model in ARCHITECTURES:
        model = untrained_model(arguments.model)
    else:
        model = AIGCVQAModel.from_pretrained(arguments.model).eval()
    if arguments.alignment_num_frames is not None:
        model.config.alignment_num_frames = arguments.alignment_num_frames
    if arguments.depthwise_2d:
        use_2d_convolutions(model)
    processor = default_processor(model.config)
    if arguments.stream:
        if arguments.compile:
            compile_backbones(model, torch.device(arguments.device))
        rows = stream_rows(model, processor, arguments)
    else:
        rows = measure_parts(model, processor, arguments)
    return {"environment": environment(torch.device(arguments.device)), "model": arguments.model, "rows": rows}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.benchmarks.scoring", description=__doc__)
    parser.add_argument("--model", default="full", help="full or small (random weights), or a model folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=["float32"])
    parser.add_argument("--branches", nargs="+", choices=list(BRANCHES), default=list(BRANCHES))
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1])
    parser.add_argument("--num_frames", type=int, default=16)
    parser.add_argument(
        "--alignment_num_frames",
        type=int,
        metavar="N",
        help="of these frames, for the alignment branch (default: as the model)",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompt", default="a corgi walking in the park at sunrise, oil painting style")
    parser.add_argument("--compare", action="store_true", help="also run the plain reference implementation (float32)")
    parser.add_argument("--depthwise_2d", action="store_true", help="3D depthwise convolutions as sums of 2D ones")
    parser.add_argument("--compile", action="store_true", help="torch.compile; on a GPU with CUDA graphs")
    parser.add_argument("--stream", type=int, default=0, metavar="N", help="score N clips through the pipeline")
    parser.add_argument("--folder", type=Path, help="folder of mp4 clips for --stream (default: one generated clip)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that decode ahead, for --stream")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser


@exits_with_status("scoring")
def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.alignment_num_frames is not None and arguments.alignment_num_frames < 1:
        parser.error(f"--alignment_num_frames {arguments.alignment_num_frames}: expected at least 1.")
    result = run(arguments)
    print_table(result)
    if arguments.output:
        write_json(arguments.output, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
