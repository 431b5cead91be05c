"""Make the synthetic benchmark: a small text-to-video quality data set that needs no download.

    python -m dataset_scripts.synthetic_t2v --output DIR --num_prompts 1000 --generators 10 --seed 0 --size 256

The program writes DIR/data/train/metadata.jsonl, the clips beside it and a dataset card; `datasets.load_dataset(DIR)`
reads the folder. `--contact_sheet FILE.png` also draws twelve clips with their prompts, failures and scores.
"""

import argparse
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import whole_folder
from modeling_aigcvqa.common.signals import end_with_parent

from .synthetic_baselines import write_baselines
from .synthetic_card import contact_sheet, write_card
from .synthetic_failures import GENERATORS, Plan, crf_of, make_plan, render
from .synthetic_prompts import Prompt, make_prompts
from .synthetic_raters import DIMENSIONS, make_raters, mean_opinion, quality_of
from .synthetic_scenes import Assets

FPS = 4
PROMPTS_PER_FOLDER = 100


def encode(frames: np.ndarray, path: Path, crf: int) -> None:
    """Write frames (T, H, W, 3), uint8, as H.264. The preset does not deblock, so that a high rate factor shows."""
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
    """The random generators of one clip, for its plan, its rendering and its raters. No other clip affects them."""
    sequence = np.random.SeedSequence(seed, spawn_key=(2, prompt, generator))
    return [np.random.default_rng(child) for child in sequence.spawn(3)]


def make_assets(seed: int, prompt: int, size: int) -> Assets:
    """The backgrounds and the sprites that the generators of one prompt share."""
    return Assets(np.random.SeedSequence(seed, spawn_key=(3, prompt)), size)


def make_row(index: int, prompt: Prompt, name: str, plan: Plan, raters: dict, rng: np.random.Generator) -> dict:
    """The labels of a generator's clip of prompt number `index`."""
    latents = plan.latents()
    quality = quality_of(**latents)
    row = {
        "file_name": f"clips/{index // PROMPTS_PER_FOLDER:03d}/{index:05d}-{name}.mp4",
        "id": f"{index:05d}-{name}",
        "prompt_id": index,
        "prompt": prompt.text,
        "mos": round(mean_opinion(quality, raters, rng), 3),
        "generator": name,
        "category": prompt.scene.category,
    }
    row |= {f"{key}_mos": round(mean_opinion(latents[key], raters, rng), 3) for key in DIMENSIONS}
    row |= {key: round(value, 5) for key, value in latents.items()}
    row |= {"quality": round(quality, 5), "failures": json.dumps(plan.failures)}
    return row | {"prompt_parts": json.dumps(prompt.parts)}


def render_prompt(job: tuple[int, Prompt], output: str, generators: int, seed: int, size: int) -> list[dict]:
    """Write the clips of all generators for one prompt into `output`; returns the labels.

    Args:
        job: number of the prompt, and the prompt.
    """
    cv2.setNumThreads(1)
    index, prompt = job
    assets, raters, rows = make_assets(seed, index, size), make_raters(seed), []
    for number, generator in enumerate(GENERATORS[:generators]):
        plan_rng, render_rng, rater_rng = clip_streams(seed, index, number)
        plan = make_plan(prompt.scene, generator, plan_rng)
        row = make_row(index, prompt, generator.name, plan, raters, rater_rng)
        encode(render(plan, assets, render_rng), Path(output) / row["file_name"], crf_of(plan))
        rows.append(row)
    return rows


def check_arguments(output: Path, num_prompts: int, generators: int, size: int) -> None:
    """Refuse values with which no benchmark can be made."""
    if num_prompts < 1:
        raise ValueError(f"num_prompts={num_prompts} is below 1; ask for at least one prompt.")
    if not 1 <= generators <= len(GENERATORS):
        raise ValueError(f"generators={generators} is outside 1..{len(GENERATORS)}; choose a number in that range.")
    if size < 64 or size % 2:
        raise ValueError(f"size={size} must be even and at least 64; choose 256 or 512.")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"output='{output}' is not empty; name a new folder or empty this folder.")


def make_benchmark(
    output: Path,
    num_prompts: int,
    generators: int = 10,
    seed: int = 0,
    size: int = 512,
    num_workers: int = 1,
    unlike_seeds: Sequence[int] = (),
) -> list[dict]:
    """Write the clips and metadata.jsonl; returns the rows in the order of prompts and generators.

    Args:
        unlike_seeds: no prompt asks for a scene of the first `num_prompts` prompts of these seeds.
    """
    check_arguments(output, num_prompts, generators, size)
    with whole_folder(output) as folder:
        return fill_folder(folder, num_prompts, generators, seed, size, num_workers, unlike_seeds)


def fill_folder(
    output: Path,
    num_prompts: int,
    generators: int,
    seed: int,
    size: int,
    num_workers: int,
    unlike_seeds: Sequence[int],
) -> list[dict]:
    """Write the clips and metadata.jsonl into a folder that exists; the arguments are those of `make_benchmark`."""
    others = {prompt.scene for other in unlike_seeds for prompt in make_prompts(num_prompts, other)}
    jobs = enumerate(make_prompts(num_prompts, seed, others))
    train = output / "data" / "train"
    for folder in range((num_prompts - 1) // PROMPTS_PER_FOLDER + 1):
        (train / "clips" / f"{folder:03d}").mkdir(parents=True)
    work = functools.partial(render_prompt, output=str(train), generators=generators, seed=seed, size=size)
    if num_workers > 1:
        with multiprocessing.get_context("spawn").Pool(num_workers, end_with_parent) as pool:
            rows = [row for rows in _counted(pool.imap(work, jobs), num_prompts) for row in rows]
    else:
        rows = [row for rows in _counted(map(work, jobs), num_prompts) for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (train / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return rows


def _counted(results: Iterable[list[dict]], total: int) -> Iterator[list[dict]]:
    """Yield the results, and print the progress after every tenth of them."""
    step = max(total // 10, 1)
    for done, result in enumerate(results, 1):
        if done % step == 0 or done == total:
            print(f"{done}/{total} prompts", flush=True)
        yield result


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must be empty or not exist")
    parser.add_argument("--num_prompts", type=int, default=1000, help="number of prompts")
    parser.add_argument("--generators", type=int, default=10, help=f"number of generators, 1 to {len(GENERATORS)}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the prompts, the clips and the scores")
    unlike = "use no scene that occurs in the benchmarks of these seeds with at most as many prompts"
    parser.add_argument("--unlike_seeds", type=int, nargs="+", default=[], metavar="SEED", help=unlike)
    parser.add_argument("--size", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument("--contact_sheet", type=Path, help="also draw twelve clips into this picture")
    parser.add_argument("--skip_baselines", action="store_true", help="leave the trivial predictors out of the card")
    return parser


@exits_with_status("synthetic_t2v")
def main(argv: list[str] | None = None) -> int:
    """Returns 1 if a trivial predictor is too good (on at least 1,000 clips), otherwise 0."""
    arguments = build_parser().parse_args(argv)
    output, started = arguments.output, time.perf_counter()
    options = {name: getattr(arguments, name) for name in ("num_prompts", "generators", "seed", "size", "unlike_seeds")}
    check_arguments(output, arguments.num_prompts, arguments.generators, arguments.size)
    with whole_folder(output) as folder:
        rows = fill_folder(folder, num_workers=arguments.num_workers, **options)
        seconds = time.perf_counter() - started
        print(f"{len(rows)} clips in {seconds:.1f} s: {len(rows) / seconds:.1f} clips per second")
        return describe(folder, rows, arguments, options)


def describe(output: Path, rows: list[dict], arguments: argparse.Namespace, options: dict) -> int:
    """Write the card, with the trivial predictors, and the contact sheet; returns the exit status of `main`."""
    given = " ".join(f"--{name} {value}" for name, value in options.items() if name != "unlike_seeds")
    if arguments.unlike_seeds:
        given += " --unlike_seeds " + " ".join(map(str, arguments.unlike_seeds))
    write_card(output, rows, arguments.size, f"python -m dataset_scripts.synthetic_t2v --output DIR {given}")
    if arguments.contact_sheet:
        contact_sheet(output, rows, arguments.contact_sheet)
    if arguments.skip_baselines:
        return 0
    too_easy = write_baselines(output, arguments.num_workers)
    return 1 if too_easy and len(rows) >= 1000 else 0


if __name__ == "__main__":
    raise SystemExit(main())
