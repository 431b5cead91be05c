"""Prepare VideoFeedback (VideoScore): generated videos rated by people in five dimensions, each 1..4.

    python -m dataset_scripts.prepare_videofeedback --source VideoFeedback --output data/videofeedback

Label files: annotated/<split>-*.parquet of the Hub dataset, or its earlier <split>/data_annotated.json, with the
columns `id`, `text prompt`, `video link` and the five dimensions. A clip is the file that its link ends with, or that
has its id as name, anywhere under --source. The part `real` (real videos, rated by rules) is read only if --labels
names it. The dataset's zipped folders of frames are not read.

`mos` is the mean of the five dimensions, which the authors compare with preferences. No column names the generator, and
the names of the clips are a letter and a number, so `generator` is null.

Not tested with the real files. The columns are taken from the dataset card.
"""

import posixpath
from pathlib import Path
from urllib.parse import urlparse

from .folder import preparer
from .labels import FLOAT, STRING, Clip, DatasetSpec, Labels, MediaIndex, read_rows, split_of, to_score

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
    label_patterns=("**/annotated/*.parquet", "**/data_annotated.json", "*.parquet", "*.json"),
    columns={"generator": STRING, **dict.fromkeys(COLUMNS.values(), FLOAT)},
    ranges=dict.fromkeys(("mos", *COLUMNS.values()), (1.0, 4.0)),
)


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The clips of all label files."""
    labels = Labels()
    for path in files:
        split = "test" if path.parent.name == "test" else split_of(path)
        for row in read_rows(path, ("id", "text prompt", *DIMENSIONS)):
            link, clip_id = urlparse(row.get("video link") or "").path, str(row["id"])
            names = (posixpath.basename(link), clip_id)
            file = next((file for name in names if name and (file := index.find(name))), None)
            values = {column: to_score(row[name]) for name, column in COLUMNS.items()}
            mos = sum(values.values()) / len(values)
            labels.clips.append(Clip(split, clip_id, file, row["text prompt"] or "", mos, values))
    return labels


build_parser, main = preparer(__doc__, SPEC, read_labels)

if __name__ == "__main__":
    raise SystemExit(main())
