"""Runs of `aigcvqa score --output DIR/` on many clips: what they survive, and what Ray costs.

    python -m training.benchmarks.many_clips kills --clips 20000 --output outputs/many
    python -m training.benchmarks.many_clips overhead --clips 1000 --output outputs/many

`kills` scores clips of which one in twenty is broken, in one of ten ways. It kills the program three times and
processes of its pool five times, and compares the result with that of one process that nobody has killed. `overhead`
takes turns between Ray with two workers and two processes without Ray.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import check_new_folder

BROKEN_SHARE = 20  # one clip in so many
DRIVER_KILLS, ACTOR_KILLS = 3, 5
SAMPLE_S = 10.0  # between two samples of memory
SCENES = ("--num_prompts", "50", "--generators", "4", "--size", "128", "--skip_baselines")


def make_clips(folder: Path, count: int) -> Path:
    """Write clips of the synthetic benchmark under `count` names, some broken, and their manifest; gives its path."""
    drawn = folder / "drawn"
    command = [sys.executable, "-m", "dataset_scripts.synthetic_t2v", "--output", str(drawn), *SCENES]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    source = drawn / "data" / "train"
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()]
    clips = folder / "clips"
    manifest = folder / "manifest.jsonl"
    with manifest.open("w") as file:
        for number in range(count):
            row = rows[number % len(rows)]
            target = clips / f"{number // 1000:03d}" / f"{number:06d}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            written = {"file": str(target.relative_to(folder)), "prompt": row["prompt"], "mos": row["mos"]}
            if number % BROKEN_SHARE == 0:
                written |= break_clip(number // BROKEN_SHARE % 10, source / row["file_name"], target)
            else:
                os.link(source / row["file_name"], target)
            file.write(json.dumps(written) + "\n")
    return manifest


def break_clip(way: int, source: Path, target: Path) -> dict:
    """Write a clip that cannot be scored, or give the columns of a row that cannot; ten ways."""
    content = source.read_bytes()
    half = len(content) // 2
    if way == 0:
        return {}  # no file
    if way == 1:
        target.write_bytes(b"")
    elif way == 2:
        target.write_bytes(content[:half])
    elif way == 3:
        target.write_text("this is not a video")
    elif way == 4:
        target.write_bytes(bytes(len(content)))
    elif way == 5:
        target.mkdir()
    elif way == 6:
        target.write_text("#EXTM3U\n#EXTINF:1,\nother.mp4\n")
    else:
        os.link(source, target)
        return {"prompt": {7: None, 8: ["a", "list"], 9: "half a pair \ud800"}[way]}
    return {}


def command_of(manifest: Path, output: Path, *options: str) -> list[str]:
    program = [sys.executable, "-m", "modeling_aigcvqa", "score", "--manifest", str(manifest), "--output", f"{output}/"]
    return [*program, "--json", *options]


def run_with_kills(command: list[str], clips: int, seed: int = 0) -> dict:
    """Repeat a command until it ends by itself, and kill it and its actors at random moments.

    Returns:
        The samples of memory: seconds, clips done, bytes of the driver, bytes of all its processes.
    """
    rng = random.Random(seed)
    moments = sorted(rng.uniform(0.05, 0.9) for _ in range(DRIVER_KILLS + ACTOR_KILLS))
    kinds = ["driver"] * DRIVER_KILLS + ["actor"] * ACTOR_KILLS
    rng.shuffle(kinds)
    planned = list(zip(moments, kinds))
    output = Path(command[command.index("--output") + 1])
    samples, killed, start = [], [], time.monotonic()
    while True:
        with (output.parent / "stderr.txt").open("a") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        last = 0.0
        while process.poll() is None:
            time.sleep(0.5)
            done = rows_in(output)
            if time.monotonic() - last > SAMPLE_S:
                last = time.monotonic()
                samples.append((round(last - start, 1), done, *memory_of(process.pid)))
            if planned and done / clips >= planned[0][0] and (kind := kill(process.pid, planned[0][1])):
                killed.append((kind, done))
                planned.pop(0)
        if process.returncode != -signal.SIGKILL:
            break
        end_ray(process.pid)
    if planned:
        raise RuntimeError(f"the run ended before it was killed as often as planned (left: {planned}).")
    summary = json.loads(process.stdout.read())
    return {"status": process.returncode, "summary": summary, "killed": killed, "memory": samples}


def kill(driver: int, kind: str) -> str | None:
    """Kill the driver, or one of its actors; None if there is no actor yet."""
    if kind == "driver":
        os.kill(driver, signal.SIGKILL)
        return kind
    actors = [process.pid for process in family(driver) if "_Scorer" in name_of(process)]
    if not actors:
        return None
    os.kill(random.choice(actors), signal.SIGKILL)
    return kind


def family(driver: int) -> list[psutil.Process]:
    try:
        return psutil.Process(driver).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def memory_of(driver: int) -> tuple[int, int]:
    """Resident bytes of the driver, and unique bytes of all its processes."""
    total = 0
    for process in family(driver):
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return psutil.Process(driver).memory_info().rss, total


def end_ray(driver: int) -> None:
    """What a killed driver leaves ends by itself, when its processes notice; wait for it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any("raylet" in name_of(process) for process in psutil.process_iter()):
            return
        time.sleep(0.5)


def rows_in(output: Path) -> int:
    """Rows that are done."""
    count = 0
    for file in [
        *output.glob("scores/*.parquet"),
        *output.glob("failures/*.parquet"),
        *output.glob("fragments/*/*.parquet"),
    ]:
        with contextlib.suppress(OSError):  # a fragment that has just been joined
            count += pq.read_metadata(file).num_rows
    return count


def table_of(output: Path) -> tuple:
    """The scores and the ledger of a run, without what depends on the run."""
    scores = ds.dataset(output / "scores").to_table().sort_by("id")
    failures = pq.read_table(output / "failures.parquet", columns=["id", "file", "prompt", "reason"]).sort_by("id")
    return scores, failures


def check_equal(output: Path, reference: Path, clips: int) -> Iterator[str]:
    """What differs between two runs, and what is missing or stands twice in the first."""
    (scores, failures), (other_scores, other_failures) = table_of(output), table_of(reference)
    ids = scores.column("id").to_pylist() + failures.column("id").to_pylist()
    if len(ids) != clips or len(set(ids)) != clips:
        yield f"{len(ids)} rows with {len(set(ids))} ids, of {clips} clips"
    if not scores.equals(other_scores):
        yield "the scores differ"
    if not failures.equals(other_failures):
        yield "the failures differ"


def test_kills(folder: Path, clips: int) -> dict:
    manifest = make_clips(folder, clips)
    reference = folder / "reference"
    start = time.monotonic()
    subprocess.run(command_of(manifest, reference), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    output = folder / "killed"
    result = run_with_kills(command_of(manifest, output, "--engine", "ray", "--workers", "2"), clips)
    return {
        "differences": list(check_equal(output, reference, clips)),
        "reference_seconds": round(seconds, 1),
        **result,
    }


def measure_overhead(folder: Path, clips: int, turns: int) -> dict:
    """Rates of Ray with two workers and of two processes without it, by turns.

    `whole_command` counts from the start of the programs, `run` from when the model's files are read: imports are over,
    but for those of Ray's processes.
    """
    manifest = make_clips(folder, clips)
    lines = manifest.read_text().splitlines()
    halves = []
    for number in range(2):
        halves.append(folder / f"half{number}.jsonl")
        halves[-1].write_text("\n".join(lines[number::2]) + "\n")
    rates = {"ray": [], "plain": []}
    for _ in range(turns):
        for kind in rates:
            output = folder / kind
            shutil.rmtree(output, ignore_errors=True)
            if kind == "ray":
                commands = [command_of(manifest, output / "all", "--engine", "ray", "--workers", "2")]
            else:
                commands = [
                    command_of(half, output / str(number), "--decoders", "0") for number, half in enumerate(halves)
                ]
            output.mkdir()
            start = time.monotonic()
            running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for c in commands]
            this_runs = [json.loads(process.communicate()[0])["this_run"] for process in running]
            whole, scoring = time.monotonic() - start, max(run["seconds"] for run in this_runs)
            rates[kind].append({"whole_command": clips / whole, "run": clips / scoring})
    ratios = [
        {name: round(ray[name] / plain[name], 3) for name in ray} for ray, plain in zip(rates["ray"], rates["plain"])
    ]
    return {"clips_per_second": rates, "ratios": ratios}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "overhead"])
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3, help="of overhead")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    return parser


@exits_with_status("many_clips")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    check_new_folder(arguments.output)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.what == "kills":
        result = test_kills(arguments.output, arguments.clips)
        print(json.dumps(result, indent=2))
        return 1 if result["differences"] else 0
    print(json.dumps(measure_overhead(arguments.output, arguments.clips, arguments.turns), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
