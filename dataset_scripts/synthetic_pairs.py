"""Prepare pairs of clips of the synthetic benchmark with simulated preferences, beside the MOS of its clips.

    python -m dataset_scripts.synthetic_pairs --source data/synthetic --output data/synthetic_pairs

--source is a folder that `dataset_scripts.synthetic_t2v` wrote. Each pair compares two generators' clips of one prompt.
One of the benchmark's raters, drawn anew for each pair, gives both clips a score, with this rater's bias, scale and
noise, in each of four questions: overall (`preference`), `preference_technical`, `preference_aesthetic` and
`preference_alignment`. The clip with the higher score is preferred; scores less than --tie_points apart are a tie.

One vote of one rater says far less than the mean of 27, as in the data sets of people's preferences.
"""

import argparse
import functools
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from modeling_aigcvqa.common.console import exits_with_status

from .folder import argument_parser, run_preparer
from .labels import FLOAT, INTEGER, STRING, Clip, DatasetSpec, Labels, MediaIndex, read_rows
from .synthetic_raters import DIMENSIONS, NUM_RATERS, make_raters, opinion

QUESTIONS = {"preference": "quality", **{f"preference_{name}": name for name in DIMENSIONS}}
SPEC = DatasetSpec(
    name="Synthetic T2V preferences",
    license="cc0-1.0",
    description="Simulated preferences between clips of the synthetic benchmark, and the simulated MOS of the clips. "
    "Everything is made by a program.",
    homepage="written by `python -m dataset_scripts.synthetic_pairs`",
    label_patterns=("data/train/metadata.jsonl",),
    columns={"prompt_id": INTEGER, "generator": STRING, **{f"{name}_mos": FLOAT for name in DIMENSIONS}},
    ranges={"mos": (0.0, 100.0)},
    pair_columns=dict.fromkeys(QUESTIONS, STRING),
    tags=("synthetic",),
)


def read_labels(files: list[Path], index: MediaIndex, arguments: argparse.Namespace) -> Labels:
    """The clips of the benchmark, and pairs drawn among those of each prompt."""
    labels, raters, groups = Labels(), make_raters(arguments.seed), defaultdict(list)
    for row in read_rows(files[0], ("id", "prompt_id", *QUESTIONS.values())):
        groups[row["prompt_id"]].append(row)
        labels.clips.append(to_clip(row, index))
    clips = {clip.id: clip for clip in labels.clips}
    for prompt_id, rows in groups.items():
        rng = np.random.default_rng(np.random.SeedSequence(arguments.seed, spawn_key=(4, prompt_id)))
        possible = list(itertools.combinations(range(len(rows)), 2))
        chosen = rng.choice(len(possible), min(arguments.pairs_per_prompt, len(possible)), replace=False)
        for number in chosen:
            sides = [rows[place] for place in rng.permutation(possible[number])]
            votes = compare(*sides, raters, arguments.tie_points, rng)
            labels.add_pair(*(clips[row["id"]] for row in sides), votes)
    return labels


def to_clip(row: dict[str, Any], index: MediaIndex) -> Clip:
    values = {name: row[name] for name in SPEC.columns}
    file = index.find(row["file_name"], ("data/train",), anywhere=False)
    return Clip("train", row["id"], file, row["prompt"], row["mos"], values)


def compare(
    first: dict[str, Any], second: dict[str, Any], raters: dict, tie_points: float, rng: np.random.Generator
) -> dict[str, str]:
    """The answers of one rater, drawn at random, to every question about two clips: "A", "B" or "tie"."""
    rater, votes = int(rng.integers(NUM_RATERS)), {}
    for question, value in QUESTIONS.items():
        points = [opinion(row[value], raters, rater, rng) for row in (first, second)]
        difference = points[0] - points[1]
        votes[question] = "tie" if abs(difference) < tie_points else "A" if difference > 0 else "B"
    return votes


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs_per_prompt", type=int, default=10, help="number of pairs per prompt (default: 10)")
    parser.add_argument("--tie_points", type=float, default=5.0, help="of 0..100; closer scores tie (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pairs and the raters (default: 0)")
    return parser


@exits_with_status("synthetic_pairs")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.pairs_per_prompt < 1 or arguments.tie_points < 0:
        raise ValueError(
            f"--pairs_per_prompt {arguments.pairs_per_prompt}, --tie_points {arguments.tie_points}: expected at least "
            "1 and 0."
        )
    return run_preparer(SPEC, functools.partial(read_labels, arguments=arguments), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
