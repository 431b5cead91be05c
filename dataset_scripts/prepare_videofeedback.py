"""Prepare VideoFeedback (VideoScore): generated videos rated 1..4 in five dimensions.

    python -m dataset_scripts.prepare_videofeedback --source VideoFeedback --output data/videofeedback

Label files: the Hub dataset's annotated/<split>-*.parquet (or its earlier <split>/data_annotated.json), with columns
`id`, `text prompt`, `video link` and the five dimensions. A row's clip is the file named as the link ends, or as the
id, anywhere under --source. The part `real` (real videos, rated by rule) is read only when it is named with --labels.

`mos` is the mean of the five dimensions: what the authors compare with preferences. The generator is not in the columns
and the clips are named by letter and number; it stays null.

Not seen: the real files; columns from the dataset card. Its zipped frame folders are not read, only video files.
"""

import posixpath
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .folder import argument_parser, run_preparer
from .labels import (
    FLOAT,
    STRING,
    Clip,
    DatasetSpec,
    Labels,
    MediaIndex,
    label_files,
    read_rows,
    require_columns,
    split_of,
    to_score,
)

DIMENSIONS = (
    "visual quality",
    "temporal consistency",
    "dynamic degree",
    "text-to-video alignment",
    "factual consistency",
)
COLUMNS = {name: name.replace(" ", "_").replace("-", "_") for name in DIMENSIONS}
SPEC = DatasetSpec(
    name="VideoFeedback",
    license="apache-2.0",
    description="Generated videos rated by people in five dimensions, 1..4 (He et al., VideoScore, EMNLP 2024). `mos` "
    "is the mean of the five.",
    homepage="https://huggingface.co/datasets/TIGER-Lab/VideoFeedback",
    columns={"generator": STRING, **dict.fromkeys(COLUMNS.values(), FLOAT)},
    ranges=dict.fromkeys(("mos", *COLUMNS.values()), (1.0, 4.0)),
)
PATTERNS = ("**/annotated/*.parquet", "**/data_annotated.json", "*.parquet", "*.json")


def to_clip(row: dict[str, Any], split: str, index: MediaIndex) -> Clip:
    """The clip of one row."""
    names = (posixpath.basename(urlparse(row.get("video link") or "").path), str(row["id"]))
    file = next((file for name in names if name and (file := index.find(name))), None)
    values = {column: to_score(row[name]) for name, column in COLUMNS.items()}
    return Clip(split, str(row["id"]), file, row["text prompt"] or "", sum(values.values()) / len(values), values)


def read_labels(source: Path, index: MediaIndex, files: list[Path] | None) -> Labels:
    """All label files of the dataset."""
    labels = Labels()
    for path in label_files(source, files, PATTERNS):
        split = "test" if "test" in (path.parent.name, split_of(path)) else split_of(path)
        for number, row in enumerate(read_rows(path)):
            if number == 0:
                require_columns(row, ("id", "text prompt", *DIMENSIONS), path)
            labels.clips.append(to_clip(row, split, index))
    return labels


def main(argv: list[str] | None = None) -> int:
    args = argument_parser(__doc__).parse_args(argv)
    return run_preparer(SPEC, lambda source, index: read_labels(source, index, args.labels), args)


if __name__ == "__main__":
    sys.exit(main())
