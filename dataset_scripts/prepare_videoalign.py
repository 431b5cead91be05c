"""Prepare preference pairs in the format of VideoAlign, such as VideoGen-RewardBench.

    python -m dataset_scripts.prepare_videoalign --source VideoGen-RewardBench --output data/videogen_rewardbench

Label files: CSV with `path_A`, `path_B`, `prompt` and the preferences `VQ` (visual quality), `MQ` (motion quality),
`TA` (text alignment), each "A", "B" or "same"; and, in VideoGen-RewardBench, `Overall`, `A_model` and `B_model`. "same"
becomes "tie". Columns of the pairs: `preference` (the overall one; null where there is none), `preference_VQ`, ....
There are no scores: `mos` is null. A file with "rewardbench", "eval" or "test" in its name becomes the split `test`.

Seen: the real example CSV of the repository and the clips of its first pair. It repeats its three rows, which is
reported. Not seen: videogen-rewardbench.csv (columns from its card and from the authors' evaluation script).
"""

import sys
from pathlib import Path
from typing import Any

from .folder import argument_parser, run_preparer
from .labels import (
    FLOAT,
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
    to_preference,
    to_score,
)

PREFERENCES = {"Overall": "preference", "VQ": "preference_VQ", "MQ": "preference_MQ", "TA": "preference_TA"}
SPEC = DatasetSpec(
    name="VideoAlign preference pairs",
    license="apache-2.0",
    description="Pairs of generated videos of one prompt with preferences in visual quality, motion quality and text "
    "alignment (Liu et al., VideoAlign, 2025). VideoGen-RewardBench is Apache-2.0, the example of the repository MIT.",
    homepage="https://huggingface.co/datasets/KlingTeam/VideoGen-RewardBench",
    columns={"generator": STRING, "fps": FLOAT, "num_frames": FLOAT},
    pair_columns=dict.fromkeys(PREFERENCES.values(), STRING),
)
VOTES = {"a": "A", "b": "B", "same": "tie"}


def to_clip(row: dict[str, Any], side: str, split: str, index: MediaIndex) -> Clip:
    """The clip on one side of a pair."""
    name = row[f"path_{side}"]
    numbers = {key: to_score(row[f"{key}_{side}"]) for key in ("fps", "num_frames") if row.get(f"{key}_{side}")}
    values = {"generator": row.get(f"{side}_model") or None, **numbers}
    return Clip(split, clip_id(name), index.find(name), row["prompt"] or "", None, values)


def read_labels(source: Path, index: MediaIndex, files: list[Path] | None) -> Labels:
    """All label files of the dataset."""
    labels = Labels()
    for path in label_files(source, files, ("*.csv", "*/*.csv")):
        split = "test" if any(mark in path.stem.lower() for mark in ("rewardbench", "eval")) else split_of(path)
        for number, row in enumerate(read_rows(path), 2):
            if number == 2:
                require_columns(row, ("path_A", "path_B", "prompt", "VQ", "MQ", "TA"), path)
            votes = {column: row[name] for name, column in PREFERENCES.items() if row.get(name)}
            values = {column: to_preference(vote, VOTES) for column, vote in votes.items()}
            if None in values.values() or not values:
                labels.problems.append(
                    Problem("bad_label", f"{path.name}:{number}", f"preferences {votes} not A, B, same")
                )
                continue
            clips = (to_clip(row, side, split, index) for side in "AB")
            labels.add_pair(*clips, {column: values.get(column) for column in PREFERENCES.values()})
    return labels


def main(argv: list[str] | None = None) -> int:
    args = argument_parser(__doc__).parse_args(argv)
    return run_preparer(SPEC, lambda source, index: read_labels(source, index, args.labels), args)


if __name__ == "__main__":
    sys.exit(main())
