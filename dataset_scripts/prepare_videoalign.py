"""Prepare preference pairs in the format of VideoAlign, for example VideoGen-RewardBench.

    python -m dataset_scripts.prepare_videoalign --source VideoGen-RewardBench --output data/videogen_rewardbench

Label files: CSV with `path_A`, `path_B`, `prompt` and the preferences `VQ` (visual quality), `MQ` (motion quality) and
`TA` (text alignment), each "A", "B" or "same"; VideoGen-RewardBench adds `Overall`, `A_model` and `B_model`. "same"
becomes "tie". The pairs have the columns `preference` (the overall preference, null if there is none), `preference_VQ`,
`preference_MQ` and `preference_TA`. There are no scores, so `mos` is null. A file with "rewardbench", "eval" or "test"
in its name becomes the split `test`.

Tested with the real example CSV of the repository, which repeats its three rows (the report says so), and the clips of
its first pair. The columns of videogen-rewardbench.csv are taken from its card and from the authors' evaluation script;
the file itself has not been tested.
"""

from pathlib import Path
from typing import Any

from .folder import preparer
from .labels import (
    FLOAT,
    STRING,
    Clip,
    DatasetSpec,
    Labels,
    MediaIndex,
    Problem,
    read_rows,
    split_of,
    to_preference,
    to_score,
)

PREFERENCES = {"Overall": "preference", "VQ": "preference_VQ", "MQ": "preference_MQ", "TA": "preference_TA"}
SPEC = DatasetSpec(
    name="VideoAlign preference pairs",
    license="apache-2.0",
    description="Pairs of generated videos of one prompt with preferences in visual quality, motion quality and text "
    "alignment (Liu et al., VideoAlign, 2025). VideoGen-RewardBench is under Apache-2.0, the example of the repository "
    "under MIT.",
    homepage="https://huggingface.co/datasets/KlingTeam/VideoGen-RewardBench",
    label_patterns=("*.csv", "*/*.csv"),
    columns={"generator": STRING, "fps": FLOAT, "num_frames": FLOAT},
    pair_columns=dict.fromkeys(PREFERENCES.values(), STRING),
)
VOTES = {"a": "A", "b": "B", "same": "tie"}


def to_clip(row: dict[str, Any], side: str, split: str, index: MediaIndex) -> Clip:
    """The clip on one side of a pair."""
    numbers = {key: to_score(row[f"{key}_{side}"]) for key in ("fps", "num_frames") if row.get(f"{key}_{side}")}
    values = {"generator": row.get(f"{side}_model") or None, **numbers}
    return index.clip(split, row[f"path_{side}"], row["prompt"], None, values)


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The clips and the pairs of all label files."""
    labels = Labels()
    for path in files:
        split = "test" if any(mark in path.stem.lower() for mark in ("rewardbench", "eval")) else split_of(path)
        for line, row in enumerate(read_rows(path, ("path_A", "path_B", "prompt", "VQ", "MQ", "TA")), 2):
            votes = {column: row[name] for name, column in PREFERENCES.items() if row.get(name)}
            values = {column: to_preference(vote, VOTES) for column, vote in votes.items()}
            if None in values.values() or not values:
                detail = f"expected the preferences A, B or same, got {votes}"
                labels.problems.append(Problem("bad_label", f"{path.name}:{line}", detail))
                continue
            clips = (to_clip(row, side, split, index) for side in "AB")
            labels.add_pair(*clips, {column: values.get(column) for column in PREFERENCES.values()})
    return labels


build_parser, main = preparer(__doc__, SPEC, read_labels)

if __name__ == "__main__":
    raise SystemExit(main())
