"""Prepare AIGVE-Bench: generated videos rated by people in nine dimensions, each 1..5.

    python -m dataset_scripts.prepare_aigve_bench --source AIGVE_Bench --output data/aigve_bench

Label files: annotations/<split>.json, each a dict with the list `data_list`. `mos` is the dimension `overall`. In the
other dimensions 0 means that the dimension does not apply to the prompt, and becomes null.

Tested with the real annotations of its toy part (10 clips) and with two of its clips, not with the full dataset.
"""

from pathlib import Path

from datasets import List

from .folder import preparer
from .labels import FLOAT, STRING, DatasetSpec, Labels, MediaIndex, read_rows, split_of, to_score

DIMENSIONS = (
    "technical_quality",
    "dynamic",
    "consistency",
    "physics",
    "element_presentence",  # the dataset's spelling
    "element_quality",
    "action_presentence",
    "action_quality",
)
SPEC = DatasetSpec(
    name="AIGVE-Bench",
    license="mit",
    description="Generated videos rated by people in nine dimensions, 1..5 (Xiang et al., AIGVE-Tool, 2025). `mos` is "
    "`overall`. A null dimension does not apply to the prompt. The licence is that of the tool's repository.",
    homepage="https://github.com/ShaneXiangH/AIGVE_Tool",
    label_patterns=("**/annotations/*.json", "*.json"),
    columns={
        "generator": STRING,
        "category": STRING,
        **dict.fromkeys(DIMENSIONS, FLOAT),
        "subject": List(STRING),
        "dynamic_type": List(STRING),
    },
    ranges=dict.fromkeys(("mos", *DIMENSIONS), (1.0, 5.0)),
)


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The clips of all label files."""
    labels = Labels()
    for path in files:
        for row in read_rows(path, ("prompt_gt", "video_path_pd", "overall", *DIMENSIONS)):
            values = {name: to_score(row[name]) or None for name in DIMENSIONS}
            values |= {"generator": row.get("model"), "category": row.get("category")}
            values |= {name: row.get(name) or [] for name in ("subject", "dynamic_type")}
            mos, name = to_score(row["overall"]), row["video_path_pd"]
            labels.clips.append(index.clip(split_of(path), name, row["prompt_gt"], mos, values, "videos"))
    return labels


build_parser, main = preparer(__doc__, SPEC, read_labels)

if __name__ == "__main__":
    raise SystemExit(main())
