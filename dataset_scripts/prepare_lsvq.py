"""Prepare LSVQ (PatchVQ): user-made videos with MOS, for the first training stage. It has no prompts: `prompt` is "".

    python -m dataset_scripts.prepare_lsvq --source LSVQ --output data/lsvq

Label files: labels_train_test.csv (columns `name`, `mos`, `is_test`) and labels_test_1080p.csv of the authors; or
LSVQ_whole_train.csv, LSVQ_whole_test.csv, LSVQ_whole_test_1080p.csv (`name`, `mos`); or the train_labels.txt,
labels_test.txt, labels_1080p.txt of FAST-VQA and DOVER (lines `file, -1, -1, mos`). Names without ".mp4" are completed.
The 1080p test part becomes the split `test_1080p`.

Not seen: the real files. Columns are those that public readers of these files name; the MOS range is taken as 0..100.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .folder import argument_parser, run_preparer
from .labels import (
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

SPEC = DatasetSpec(
    name="LSVQ",
    license="other",
    description="User-generated videos with mean opinion scores (Ying et al., Patch-VQ, CVPR 2021). Free for use under "
    "the copyright notice of the University of Texas at Austin, which must appear in every copy.",
    homepage="https://github.com/baidut/PatchVQ",
    ranges={"mos": (0.0, 100.0)},
    has_prompts=False,
)
PATTERNS = ("**/labels_*.csv", "**/LSVQ_whole_*.csv", "**/*labels*.txt")


def text_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a FAST-VQA label file; the name may hold commas, the last three fields may not."""
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if line.strip():
            name, *_, mos = line.rsplit(",", 3)
            yield {"name": name, "mos": mos}


def split_for(path: Path, row: dict[str, Any]) -> str:
    """The split of a row: `is_test` where the file has it, else the file's name."""
    if "1080p" in path.stem:
        return "test_1080p"
    if "is_test" in row:
        return "test" if str(row["is_test"]).strip().lower() in ("true", "1", "1.0") else "train"
    return split_of(path)


def read_labels(source: Path, index: MediaIndex, files: list[Path] | None) -> Labels:
    """All label files of the dataset."""
    labels = Labels()
    for path in label_files(source, files, PATTERNS):
        for number, row in enumerate(text_rows(path) if path.suffix == ".txt" else read_rows(path)):
            if number == 0:
                require_columns(row, ("name", "mos"), path)
            file = index.find(row["name"], ("videos",))
            labels.clips.append(Clip(split_for(path, row), clip_id(row["name"]), file, "", to_score(row["mos"])))
    return labels


def main(argv: list[str] | None = None) -> int:
    args = argument_parser(__doc__).parse_args(argv)
    return run_preparer(SPEC, lambda source, index: read_labels(source, index, args.labels), args)


if __name__ == "__main__":
    sys.exit(main())
