"""Prepare ImageReward's human rankings of generated images, each image as a clip of one frame.

    python -m dataset_scripts.prepare_imagereward --source ImageRewardDB --output data/imagereward

Label files, either kind: the repository's train.json, valid.json, test.json (rows of `id`, `prompt`, `generations`,
`ranking`); or ImageRewardDB's metadata-<split>.parquet and the json files beside the images (rows of `image_path`,
`prompt_id`, `prompt`, `classification`, `rank`, `overall_rating`, `image_text_alignment_rating`, `fidelity_rating`).

Images become mp4 of one frame, RGB H.264 at crf 0: every pixel as it was, and VideoFolder, parquet and decord take them
as clips (tests compare the pixels). Rank 1 is best. `mos` is `overall_rating` (1..7), null in the first kind. All pairs
of images of a prompt stand in `pairs`; equal ranks are "tie" there, which the authors' training code skips.

Seen: the first 16,000 characters of the real test.json. Not seen: ImageRewardDB's files (columns from its loading
script; whether a rating outside 1..7 or an empty one occurs is for the report to tell) and the images.
"""

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .folder import argument_parser, run_preparer
from .labels import (
    FLOAT,
    IMAGE_SUFFIXES,
    INTEGER,
    STRING,
    Clip,
    DatasetSpec,
    Labels,
    MediaIndex,
    Problem,
    clip_id,
    label_files,
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
    columns={"prompt_id": STRING, "category": STRING, "rank": INTEGER, **dict.fromkeys(RATINGS, FLOAT)},
    ranges={"mos": (1.0, 7.0), **dict.fromkeys(RATINGS, (1.0, 7.0))},
    pair_columns={"preference": STRING},
    suffixes=IMAGE_SUFFIXES,
)
PATTERNS = ("**/metadata-*.parquet", "**/*.json")


def image_rows(path: Path) -> Iterator[dict[str, Any]]:
    """One row an image from either kind of label file."""
    for row in read_rows(path):
        if "generations" not in row:
            require_columns(row, ("image_path", "prompt_id", "prompt", "rank"), path)
            yield row
            continue
        require_columns(row, ("id", "prompt", "ranking"), path)
        # A ranking shorter than its images gives images without a rank, which are reported.
        for image, rank in itertools.zip_longest(row["generations"], row["ranking"]):
            yield {"image_path": image, "prompt_id": row["id"], "prompt": row["prompt"], "rank": rank}


def to_clip(row: dict[str, Any], split: str, index: MediaIndex) -> Clip:
    """The clip of one image."""
    values = {name: to_score(row[name]) for name in RATINGS if row.get(name) is not None}
    values |= {"prompt_id": str(row["prompt_id"]), "category": row.get("classification"), "rank": row["rank"]}
    mos = None if row.get("overall_rating") is None else to_score(row["overall_rating"])
    file = index.find(row["image_path"], ("images",))
    return Clip(split, clip_id(row["image_path"]), file, row["prompt"] or "", mos, values)


def read_labels(source: Path, index: MediaIndex, files: list[Path] | None) -> Labels:
    """All label files of the dataset; pairs from the ranks of each prompt's images."""
    labels, groups = Labels(), defaultdict(list)
    for path in label_files(source, files, PATTERNS):
        for row in image_rows(path):
            if not row["image_path"] or row["rank"] is None:
                subject = str(row["image_path"] or row["prompt_id"])
                labels.problems.append(Problem("bad_label", subject, "as many ranks as images are needed"))
                continue
            clip = to_clip(row, split_of(path), index)
            labels.clips.append(clip)
            groups[clip.split, clip.values["prompt_id"]].append(clip)
    for clips in groups.values():
        for clip_a, clip_b in itertools.combinations(clips, 2):
            rank_a, rank_b = clip_a.values["rank"], clip_b.values["rank"]
            preference = "tie" if rank_a == rank_b else "A" if rank_a < rank_b else "B"
            labels.add_pair(clip_a, clip_b, {"preference": preference})
    return labels


def main(argv: list[str] | None = None) -> int:
    args = argument_parser(__doc__).parse_args(argv)
    return run_preparer(SPEC, lambda source, index: read_labels(source, index, args.labels), args)


if __name__ == "__main__":
    sys.exit(main())
