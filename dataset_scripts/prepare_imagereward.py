"""Prepare ImageReward's human rankings of generated images. Each image becomes a clip of one frame.

    python -m dataset_scripts.prepare_imagereward --source ImageRewardDB --output data/imagereward

Label files of either kind: train.json, valid.json and test.json of the repository (rows of `id`, `prompt`,
`generations`, `ranking`), or ImageRewardDB's metadata-<split>.parquet and the json files beside the images (rows of
`image_path`, `prompt_id`, `prompt`, `classification`, `rank`, `overall_rating`, `image_text_alignment_rating`,
`fidelity_rating`).

The clips are lossless (H.264 in RGB at crf 0). Rank 1 is best. `mos` is `overall_rating` (1..7), null in the first
kind. The configuration `pairs` holds all pairs of images of a prompt. Equal ranks are a "tie", which the authors'
training code skips.

Tested with the first 16,000 characters of the real test.json. The columns of ImageRewardDB are taken from its loading
script; neither its files nor its images have been tested. The report shows whether ratings are empty or outside 1..7.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .folder import preparer
from .labels import (
    FLOAT,
    IMAGE_SUFFIXES,
    INTEGER,
    STRING,
    DatasetSpec,
    Labels,
    MediaIndex,
    Problem,
    read_rows,
    require_columns,
    split_of,
    to_score,
)

RATINGS = ("image_text_alignment_rating", "fidelity_rating")
SPEC = DatasetSpec(
    name="ImageReward",
    license="apache-2.0",
    description="Human rankings and ratings of images that were generated from one prompt (Xu et al., NeurIPS 2023), "
    "as clips of one frame. `rank` 1 is best.",
    homepage="https://huggingface.co/datasets/THUDM/ImageRewardDB",
    label_patterns=("**/metadata-*.parquet", "**/*.json"),
    columns={"prompt_id": STRING, "category": STRING, "rank": INTEGER, **dict.fromkeys(RATINGS, FLOAT)},
    ranges=dict.fromkeys(("mos", *RATINGS), (1.0, 7.0)),
    pair_columns={"preference": STRING},
    suffixes=IMAGE_SUFFIXES,
)


def image_rows(path: Path) -> Iterator[dict[str, Any]]:
    """One row per image from a label file of either kind."""
    for row in read_rows(path):
        if "generations" not in row:
            require_columns(row, ("image_path", "prompt_id", "prompt", "rank"), path)
            yield row
            continue
        require_columns(row, ("id", "prompt", "ranking"), path)
        # A ranking that is shorter than its list of images leaves images without a rank, which are reported.
        for image, rank in itertools.zip_longest(row["generations"], row["ranking"]):
            yield {"image_path": image, "prompt_id": row["id"], "prompt": row["prompt"], "rank": rank}


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The images of all label files, and pairs made from the ranks of each prompt's images."""
    labels, groups = Labels(), defaultdict(list)
    for path in files:
        for row in image_rows(path):
            name, prompt_id = row["image_path"], str(row["prompt_id"])
            if not name or row["rank"] is None:
                detail = "the numbers of images and ranks differ"
                labels.problems.append(Problem("bad_label", str(name or prompt_id), detail))
                continue
            ratings = {key: to_score(row[key]) for key in ("overall_rating", *RATINGS) if row.get(key) is not None}
            mos = ratings.pop("overall_rating", None)
            values = {**ratings, "prompt_id": prompt_id, "category": row.get("classification"), "rank": row["rank"]}
            clip = index.clip(split_of(path), name, row["prompt"], mos, values, "images")
            labels.clips.append(clip)
            groups[clip.split, prompt_id].append(clip)
    for clips in groups.values():
        for clip_a, clip_b in itertools.combinations(clips, 2):
            rank_a, rank_b = clip_a.values["rank"], clip_b.values["rank"]
            preference = "tie" if rank_a == rank_b else "A" if rank_a < rank_b else "B"
            labels.add_pair(clip_a, clip_b, {"preference": preference})
    return labels


build_parser, main = preparer(__doc__, SPEC, read_labels)

if __name__ == "__main__":
    raise SystemExit(main())
