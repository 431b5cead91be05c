"""The synthetic benchmark: a miniature text-to-video quality data set that needs no download.

    python -m dataset_scripts.synthetic_t2v --output DIR --num_prompts 1000 --generators 10 --seed 0 --size 256

writes DIR/data/train/metadata.jsonl, the clips beside it and a dataset card; `datasets.load_dataset(DIR)` reads it.
`--contact_sheet FILE.png` also draws twelve clips with their prompts, failures and scores.
"""

import argparse
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from .synthetic_baselines import LIMIT, baseline_table, markdown_table, write_into_card
from .synthetic_card import contact_sheet, write_card
from .synthetic_failures import GENERATORS, Plan, crf_of, make_plan, render
from .synthetic_prompts import Prompt, make_prompts
from .synthetic_raters import DIMENSIONS, make_raters, mean_opinion, quality_of
from .synthetic_scenes import Assets

FPS = 4
PROMPTS_PER_FOLDER = 100


@dataclass(frozen=True)
class Job:
    """One prompt and what is needed to render it."""

    index: int
    prompt: Prompt


def encode(frames: np.ndarray, path: Path, crf: int) -> None:
    """Write frames (T, H, W, 3), uint8, as H.264; the preset does not deblock, so a high rate factor shows blocks."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "ultrafast"}
        for frame in frames:
            planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))


def clip_streams(seed: int, prompt: int, generator: int) -> list[np.random.Generator]:
    """Random streams of one clip, the same whatever else is made: its plan, its rendering, its raters."""
    sequence = np.random.SeedSequence(seed, spawn_key=(2, prompt, generator))
    return [np.random.default_rng(child) for child in sequence.spawn(3)]


def make_assets(seed: int, prompt: int, size: int) -> Assets:
    """Backgrounds and sprites that the generators of one prompt share."""
    return Assets(np.random.SeedSequence(seed, spawn_key=(3, prompt)), size)


def make_row(job: Job, name: str, plan: Plan, raters: dict, rng: np.random.Generator) -> dict:
    """Labels of one clip."""
    latents = plan.latents()
    quality = quality_of(**latents)
    row = {
        "file_name": f"clips/{job.index // PROMPTS_PER_FOLDER:03d}/{job.index:05d}-{name}.mp4",
        "id": f"{job.index:05d}-{name}",
        "prompt_id": job.index,
        "prompt": job.prompt.text,
        "mos": round(mean_opinion(quality, raters, rng), 3),
        "generator": name,
        "category": job.prompt.scene.category,
    }
    row |= {f"{key}_mos": round(mean_opinion(latents[key], raters, rng), 3) for key in DIMENSIONS}
    row |= {key: round(value, 5) for key, value in latents.items()}
    row |= {"quality": round(quality, 5), "failures": json.dumps(plan.failures)}
    return row | {"prompt_parts": json.dumps(job.prompt.parts)}


def render_prompt(job: Job, output: str, generators: int, seed: int, size: int) -> list[dict]:
    """Render one prompt by all generators into `output`; returns the labels."""
    cv2.setNumThreads(1)
    assets, raters, rows = make_assets(seed, job.index, size), make_raters(seed), []
    for number, generator in enumerate(GENERATORS[:generators]):
        plan_rng, render_rng, rater_rng = clip_streams(seed, job.index, number)
        plan = make_plan(job.prompt.scene, generator, plan_rng)
        row = make_row(job, generator.name, plan, raters, rater_rng)
        encode(render(plan, assets, render_rng), Path(output) / row["file_name"], crf_of(plan))
        rows.append(row)
    return rows


def check_arguments(output: Path, num_prompts: int, generators: int, size: int) -> None:
    """Refuse what cannot be made."""
    if num_prompts < 1:
        raise ValueError(f"num_prompts={num_prompts} is below 1; ask for at least one prompt.")
    if not 1 <= generators <= len(GENERATORS):
        raise ValueError(f"generators={generators} is outside 1..{len(GENERATORS)}; choose a number in that range.")
    if size < 64 or size % 2:
        raise ValueError(f"size={size} must be even and at least 64; choose 256 or 512.")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"output='{output}' is not empty; name a new folder or empty this one.")


def make_benchmark(
    output: Path,
    num_prompts: int,
    generators: int = 10,
    seed: int = 0,
    size: int = 512,
    num_workers: int = 1,
    unlike_seeds: Sequence[int] = (),
) -> list[dict]:
    """Write clips and metadata.jsonl; returns the rows in the order of prompts and generators.

    Args:
        unlike_seeds: ask for no scene that the same number of prompts of these seeds asks for.
    """
    check_arguments(output, num_prompts, generators, size)
    others = {prompt.scene for other in unlike_seeds for prompt in make_prompts(num_prompts, other)}
    jobs = [Job(index, prompt) for index, prompt in enumerate(make_prompts(num_prompts, seed, others))]
    train = output / "data" / "train"
    for folder in range((num_prompts - 1) // PROMPTS_PER_FOLDER + 1):
        (train / "clips" / f"{folder:03d}").mkdir(parents=True)
    work = functools.partial(render_prompt, output=str(train), generators=generators, seed=seed, size=size)
    if num_workers > 1:
        with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
            rows = [row for rows in _counted(pool.imap(work, jobs, chunksize=1), num_prompts) for row in rows]
    else:
        rows = [row for rows in _counted(map(work, jobs), num_prompts) for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (train / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return rows


def _counted(results: Iterable[list[dict]], total: int) -> Iterator[list[dict]]:
    """Pass results on, with a line of progress for every tenth of them."""
    step = max(total // 10, 1)
    for done, result in enumerate(results, 1):
        if done % step == 0 or done == total:
            print(f"{done}/{total} prompts", flush=True)
        yield result


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m dataset_scripts.synthetic_t2v", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--num_prompts", type=int, default=1000)
    parser.add_argument("--generators", type=int, default=10, help=f"simulated generators, 1 to {len(GENERATORS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--unlike_seeds",
        type=int,
        nargs="+",
        default=[],
        metavar="SEED",
        help="ask for no scene that a set of these seeds with as many prompts, or fewer, asks for",
    )
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--contact_sheet", type=Path, help="also draw twelve clips into this picture")
    parser.add_argument("--skip_baselines", action="store_true", help="leave the trivial predictors out of the card")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status is 1 if a trivial predictor passes the limit on a thousand clips or more."""
    arguments = parse_arguments(argv)
    output, started = arguments.output, time.perf_counter()
    options = {name: getattr(arguments, name) for name in ("num_prompts", "generators", "seed", "size", "unlike_seeds")}
    rows = make_benchmark(output, num_workers=arguments.num_workers, **options)
    seconds = time.perf_counter() - started
    print(f"{len(rows)} clips in {seconds:.1f} s: {len(rows) / seconds:.1f} clips a second")
    given = " ".join(f"--{name} {value}" for name, value in options.items() if name != "unlike_seeds")
    if arguments.unlike_seeds:
        given += " --unlike_seeds " + " ".join(map(str, arguments.unlike_seeds))
    write_card(output, rows, arguments.size, f"python -m dataset_scripts.synthetic_t2v --output DIR {given}")
    if arguments.contact_sheet:
        contact_sheet(output, rows, arguments.contact_sheet)
    if arguments.skip_baselines:
        return 0
    table = baseline_table(output, arguments.num_workers)
    write_into_card(output, table)
    print(markdown_table(table))
    return int(len(rows) >= 1000 and any(abs(row["mos"]) >= LIMIT for row in table.values()))


if __name__ == "__main__":
    raise SystemExit(main())
