"""Prepare AIGVE-Bench: generated videos rated 1..5 in nine dimensions.

    python -m dataset_scripts.prepare_aigve_bench --source AIGVE_Bench --output data/aigve_bench

Label files: annotations/<split>.json, a dict with `data_list`. `mos` is `overall`; in the other dimensions 0 means that
the dimension does not apply and becomes null. Names of the columns are the dataset's ("element_presentence" included).

Seen: the real annotations of its toy part (10 clips) and two of the clips. Not seen: the full dataset.
"""

import sys
from pathlib import Path
from typing import Any

from datasets import List

from .folder import argument_parser, run_preparer
from .labels import (
    FLOAT,
    STRING,
    Clip,
    DatasetSpec,
    Labels,
    MediaIndex,
    clip_id,
    label_files,
    read_rows,
    require_columns,
    split_of,
    to_score,
)

DIMENSIONS = (
    "technical_quality",
    "dynamic",
    "consistency",
    "physics",
    "element_presentence",
    "element_quality",
    "action_presentence",
    "action_quality",
)
SPEC = DatasetSpec(
    name="AIGVE-Bench",
    license="mit",
    description="Generated videos rated by people in nine dimensions, 1..5 (Xiang et al., AIGVE-Tool, 2025). `mos` is "
    "`overall`; null in a dimension: it does not apply to the prompt. The licence is that of the tool's repository.",
    homepage="https://github.com/ShaneXiangH/AIGVE_Tool",
    columns={
        "generator": STRING,
        "category": STRING,
        **dict.fromkeys(DIMENSIONS, FLOAT),
        "subject": List(STRING),
        "dynamic_type": List(STRING),
    },
    ranges=dict.fromkeys(("mos", *DIMENSIONS), (1.0, 5.0)),
)
PATTERNS = ("**/annotations/*.json", "*.json")


def to_clip(row: dict[str, Any], split: str, index: MediaIndex) -> Clip:
    """The clip of one row."""
    scores = {name: to_score(row[name]) or None for name in DIMENSIONS}
    values = {
        **scores,
        "generator": row.get("model"),
        "category": row.get("category"),
        "subject": row.get("subject") or [],
        "dynamic_type": row.get("dynamic_type") or [],
    }
    name = row["video_path_pd"]
    mos = to_score(row["overall"])
    return Clip(split, clip_id(name), index.find(name, ("videos",)), row["prompt_gt"] or "", mos, values)


def read_labels(source: Path, index: MediaIndex, files: list[Path] | None) -> Labels:
    """All label files of the dataset."""
    labels = Labels()
    for path in label_files(source, files, PATTERNS):
        for number, row in enumerate(read_rows(path)):
            if number == 0:
                require_columns(row, ("prompt_gt", "video_path_pd", "overall", *DIMENSIONS), path)
            labels.clips.append(to_clip(row, split_of(path), index))
    return labels


def main(argv: list[str] | None = None) -> int:
    args = argument_parser(__doc__).parse_args(argv)
    return run_preparer(SPEC, lambda source, index: read_labels(source, index, args.labels), args)


if __name__ == "__main__":
    sys.exit(main())
