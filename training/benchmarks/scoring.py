"""Speed of every branch and of the whole way from a file to its scores: `python -m training.benchmarks.scoring`.

Time (median), work in GFLOP (counted on the model's own operations), the share of the peak, which is the rate of matrix
products timed in turn with the branch, memory; decoding and preprocessing apart. `--compare` runs the plain restatement
of the same networks (`oracle.py`) on the same input, in turn too. Ratios of one run compare; times of two runs
on a shared machine do not.

`--stream N` scores N clips instead, through the pipeline: clips a second, the share of the time that
the model is at work (the rest it waits for data), and how much the process's memory grows over the second half.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from modeling_aigcvqa import AIGCVQAModel
from modeling_aigcvqa.common.files import write_json
from modeling_aigcvqa.common.presets import ARCHITECTURES, default_processor, untrained_model
from modeling_aigcvqa.configuration_aigcvqa import BRANCH_INPUTS, BRANCHES
from modeling_aigcvqa.loading import DTYPES
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

from . import oracle
from .depthwise import use_2d_convolutions
from .stream import run_stream
from .timing import count_gflop, environment, make_clip, medians, peak_memory_mib, print_table, seconds_and_peak


def branch_call(model: AIGCVQAModel, branch: str, inputs: dict[str, Tensor]) -> Callable[[], Tensor]:
    """A call that scores one branch, head and all."""
    if branch == "alignment":
        video, *prompt = (inputs[name] for name in BRANCH_INPUTS[branch])
        return lambda: model.score_prompts(model.encode_video(video), *prompt)
    return lambda: model.score_map(branch, inputs[BRANCH_INPUTS[branch][0]]).mean((1, 2, 3))


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
    video = inputs[BRANCH_INPUTS[branch][0]].float().transpose(1, 2)
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


def compile_backbones(model: AIGCVQAModel, device: torch.device) -> None:
    """`torch.compile` in place; on a GPU with CUDA graphs."""
    for branch in model.config.branches:
        backbone = getattr(model, f"{branch}_backbone")
        parts = [backbone] if branch != "alignment" else [backbone.visual_encoder, backbone.text_encoder]
        for part in parts:
            part.compile(mode="reduce-overhead" if device.type == "cuda" else "default")


def run(arguments: argparse.Namespace) -> dict:
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    if arguments.model in ARCHITECTURES:
        model = untrained_model(arguments.model)
    else:
        model = AIGCVQAModel.from_pretrained(arguments.model).eval()
    if arguments.alignment_num_frames is not None:
        model.config.alignment_num_frames = arguments.alignment_num_frames
    processor = default_processor(model.config)
    if arguments.depthwise_2d:
        use_2d_convolutions(model)
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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.benchmarks.scoring", description=__doc__)
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
        write_json(arguments.output, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
