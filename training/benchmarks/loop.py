"""Measure what the training loop costs beside the network: `python -m training.benchmarks.loop`.

A stand-in for the network on a device that works while the loop goes on, as a GPU does: a pass puts `--step_ms` of work
in the device's queue and returns at once, and reading a number of a result waits until the queue is empty. `--host_ms`
is what the loop's own process needs to start the work of a step, which a loop without needless waiting hides behind the
device. The loop, the loader and the data are those of a stage. Printed: the share of time that the device had nothing
to do. A stage on a real device prints the time it waited for data instead.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor, nn

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import write_json
from modeling_aigcvqa.common.presets import default_processor, save_model_folder, untrained_model
from training.common import loop
from training.common.arguments import TERMS, StageArguments
from training.common.sources import Source
from training.common.stage import Stage, TrainingRun

from .timing import make_clip

STAGE = Stage(name="loop", branches=("aesthetic",), unfixed_ratio=1.0, terms=lambda branches: branches)
WAITING = (Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.cpu, Tensor.numpy)


@dataclass
class FakeDevice:
    """A queue of work: seconds that were worked so far, and the time at which the queue is empty."""

    worked: float = 0.0
    done: float = 0.0

    def launch(self, seconds: float) -> None:
        self.done = max(self.done, time.perf_counter()) + seconds
        self.worked += seconds

    def wait(self) -> None:
        time.sleep(max(0.0, self.done - time.perf_counter()))


class OnDevice(Tensor):
    """A result of the fake device: reading its numbers waits for the device. Results of results are such too."""

    device_queue: FakeDevice

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in WAITING:
            cls.device_queue.wait()
        return super().__torch_function__(function, types, args, kwargs or {})


class SlowNetwork(nn.Module):
    """Scores (B,) with a gradient. A pass costs the host `host_s` and the device `step_s`."""

    def __init__(self, device: FakeDevice, step_s: float, host_s: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.queue, self.step_s, self.host_s = device, step_s, host_s

    def forward(self, pixel_values_resized: Tensor) -> dict[str, Tensor]:
        time.sleep(self.host_s)
        self.queue.launch(self.step_s)
        scores = self.weight * pixel_values_resized[:, 0, 0, 0].float().mean(1)
        return {"aesthetic_score": scores.as_subclass(OnDevice)}


def make_run(folder: Path, arguments: argparse.Namespace, device: FakeDevice) -> TrainingRun:
    """A run of a stage with the stand-in as its network."""
    model = untrained_model("small")
    save_model_folder(model, default_processor(model.config), folder / "model")
    video, number = str(make_clip(folder, size=128)), arguments.steps * arguments.batch_size
    clips = Dataset.from_dict(
        {
            "id": [str(index) for index in range(number)],
            "video": [{"bytes": None, "path": video}] * number,
            "prompt": [""] * number,
            "mos": torch.linspace(0, 100, number).tolist(),
        }
    )
    values = {"batch_size": arguments.batch_size, "num_workers": arguments.num_workers, "epochs": arguments.epochs}
    values |= {"cache": str(folder / "cache"), "init_from": str(folder / "model"), "warmup_epochs": 0}
    columns = dict.fromkeys(TERMS, "mos")
    source = Source("stand-in", columns, {"train": clips, "validation": clips.select(range(8))})
    stage = replace(STAGE, load_sources=lambda *_: [source])
    run = loop.set_up(stage, StageArguments(data=[str(folder)], output=str(folder / "run"), **values))
    OnDevice.device_queue = device
    run.trained = SlowNetwork(device, arguments.step_ms / 1000, arguments.host_ms / 1000)
    return run


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The share of the time of all epochs but the first, which fills the cache, in which the device had no work."""
    device = FakeDevice()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), arguments, device)
        loop.train_epoch(run)
        device.wait()
        device.worked, start = 0.0, time.perf_counter()
        for _ in range(arguments.epochs - 1):
            loop.train_epoch(run)
        device.wait()
        seconds = time.perf_counter() - start
        worked, waited = device.worked, run.progress.history[-1]["data_wait_share"]
        del run
    return {"seconds": seconds, "device_seconds": worked, "lost_share": 1 - worked / seconds, "data_wait_share": waited}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--step_ms", type=float, default=100.0, help="work of the device per step")
    parser.add_argument("--host_ms", type=float, default=40.0, help="time that starting this work takes the process")
    parser.add_argument("--steps", type=int, default=50, help="steps per epoch")
    parser.add_argument("--epochs", type=int, default=4, help="the first one is not timed")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser


@exits_with_status("loop")
def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 2 or arguments.epochs < 2 or arguments.steps * arguments.batch_size < 8:
        parser.error("--batch_size and --epochs must be at least 2, and an epoch must have at least 8 clips.")
    result = measure(arguments)
    steps = (arguments.epochs - 1) * arguments.steps
    print(
        f"{steps} steps in {result['seconds']:.2f} s, the device worked for {result['device_seconds']:.2f} s: "
        f"{result['lost_share']:.1%} lost outside the network (last epoch: {result['data_wait_share']:.1%} waiting for "
        "data)"
    )
    if arguments.output:
        write_json(arguments.output, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
