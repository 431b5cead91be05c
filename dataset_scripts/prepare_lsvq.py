"""Prepare LSVQ (PatchVQ): user-made videos with MOS, for the first training stage. It has no prompts: `prompt` is "".

    python -m dataset_scripts.prepare_lsvq --source LSVQ --output data/lsvq

Label files of one of three kinds: the authors' labels_train_test.csv (columns `name`, `mos`, `is_test`) and
labels_test_1080p.csv; or LSVQ_whole_train.csv, LSVQ_whole_test.csv and LSVQ_whole_test_1080p.csv (`name`, `mos`); or
train_labels.txt, labels_test.txt and labels_1080p.txt of FAST-VQA and DOVER (lines of `file, -1, -1, mos`). A name may
lack its ending ".mp4". The 1080p test part becomes the split `test_1080p`.

Not tested with the real files. The columns are those that public readers of these files use, and the range of the MOS
is assumed to be 0..100.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .folder import preparer
from .labels import DatasetSpec, Labels, MediaIndex, read_rows, split_of, to_score

SPEC = DatasetSpec(
    name="LSVQ",
    license="other",
    description="User-generated videos with mean opinion scores (Ying et al., Patch-VQ, CVPR 2021). Free for use under "
    "the copyright notice of the University of Texas at Austin, which must appear in every copy.",
    homepage="https://github.com/baidut/PatchVQ",
    label_patterns=("**/labels_*.csv", "**/LSVQ_whole_*.csv", "**/*labels*.txt"),
    ranges={"mos": (0.0, 100.0)},
    has_prompts=False,
)


def text_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a FAST-VQA label file. The name may contain commas, the other three fields may not."""
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if line.strip():
            name, *_, mos = line.rsplit(",", 3)
            yield {"name": name, "mos": mos}


def split_for(path: Path, row: dict[str, Any]) -> str:
    """The split of a row, from `is_test` if the file has this column, otherwise from the file's name."""
    if "1080p" in path.stem:
        return "test_1080p"
    if "is_test" in row:
        return "test" if str(row["is_test"]).strip().lower() in ("true", "1", "1.0") else "train"
    return split_of(path)


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The clips of all label files."""
    labels = Labels()
    for path in files:
        for row in text_rows(path) if path.suffix == ".txt" else read_rows(path, ("name", "mos")):
            clip = index.clip(split_for(path, row), row["name"], "", to_score(row["mos"]), {}, "videos")
            labels.clips.append(clip)
    return labels


build_parser, main = preparer(__doc__, SPEC, read_labels)

if __name__ == "__main__":
    raise SystemExit(main())
