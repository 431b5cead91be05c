"""`aigcvqa serve` under load: many clients at once, with a process of it killed in the middle.

    python -m training.benchmarks.service_load --clients 32 --seconds 120 --workers 2

Each client sends one clip of 16 frames after the other and retries what is refused because the service is busy. The
output says how many requests were answered, how long they took (with the retries), what failed, and the memory of the
service over time. Every answer is compared with the first for its clip.
"""

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import psutil
import torch

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.serving.client import AIGCVQAClient, ServiceError

CLIPS, SIZE = 8, 128
START_S, SAMPLE_S = 120.0, 5.0


def started(workers: int, options: list[str]) -> tuple[subprocess.Popen, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "modeling_aigcvqa", "serve", "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz", timeout=5).raise_for_status()
            return process, url
        except httpx.HTTPError:
            time.sleep(0.5)
    raise RuntimeError("the service does not start.")


class Load:
    """What the clients have seen."""

    def __init__(self, url: str, until: float):
        self.url, self.until = url, until
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.scores: dict[int, set[float]] = {number: set() for number in range(CLIPS)}
        generator = torch.Generator().manual_seed(0)
        shape = (CLIPS, 1, 16, SIZE, SIZE, 3)
        self.clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    def client(self, seed: int) -> None:
        order = random.Random(seed)
        with AIGCVQAClient(self.url, retries=60) as client:
            while time.monotonic() < self.until:
                number, start = order.randrange(CLIPS), time.monotonic()
                try:
                    (result,) = client.score_tensors(self.clips[number], [f"clip number {number}"])
                except ServiceError as error:
                    self.errors.append(str(error))
                    continue
                self.seconds.append(time.monotonic() - start)
                if "error" in result:
                    self.errors.append(result["error"])
                else:
                    self.scores[number].add(result["quality_score"])


def memory_of(service: psutil.Process) -> int:
    total = 0
    for process in [service, *service.children(recursive=True)]:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total


def kill_one(url: str) -> int:
    """Kill a process that answers; gives its number."""
    pid = httpx.get(f"{url}/healthz").json()["process"]
    psutil.Process(pid).send_signal(signal.SIGKILL)
    return pid


def measure(clients: int, seconds: float, workers: int, options: list[str]) -> dict:
    process, url = started(workers, options)
    try:
        start = time.monotonic()
        load, memory, killed = Load(url, start + seconds), [], None
        threads = [threading.Thread(target=load.client, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        while time.monotonic() < load.until:
            memory.append((round(time.monotonic() - start, 1), memory_of(psutil.Process(process.pid)) // 2**20))
            if workers > 1 and killed is None and time.monotonic() - start > seconds / 2:
                killed = kill_one(url)
            time.sleep(SAMPLE_S)
        for thread in threads:
            thread.join()
        wall = time.monotonic() - start
    finally:
        process.terminate()
        process.wait(60)
    p50, p95 = np.percentile(load.seconds, [50, 95])
    return {
        "clients": clients,
        "workers": workers,
        "answers": len(load.seconds),
        "answers_per_second": round(len(load.seconds) / wall, 2),
        "seconds_p50": round(float(p50), 3),
        "seconds_p95": round(float(p95), 3),
        "errors": load.errors,
        "scores_per_clip": {number: len(scores) for number, scores in load.scores.items()},
        "killed": killed,
        "memory_mib": memory,
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("options", nargs="*", help="of aigcvqa serve, after --")
    return parser


@exits_with_status("service_load")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    result = measure(arguments.clients, arguments.seconds, arguments.workers, arguments.options)
    print(json.dumps(result, indent=1))
    return 1 if result["errors"] or any(count != 1 for count in result["scores_per_clip"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
