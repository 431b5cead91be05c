"""Prepare the video part of GenAI-Bench: votes between two generated videos of one prompt.

    python -m dataset_scripts.prepare_genai_bench --source GenAI-Bench --output data/genai_bench

Label files: video_generation/<split>-*.parquet of the Hub dataset, with the columns `prompt`, `left_model`,
`left_video`, `right_model`, `right_video` and `vote_type`. A clip is the file that its name or link ends with, anywhere
under --source. The authors' result files (results/video_generation/<judge>/pairwise.json) hold the same
votes (`idx`, `prompt`, `human_vote`) but do not name the clips, which are then expected as `<idx>_left` and
`<idx>_right`.

Left is A, right is B. "tievote" and "bothbad_vote" both become "tie"; the column `vote` keeps the difference. There are
no scores, so `mos` is null. The same two clips may have several votes, and every vote is kept.

Tested with a real result file (1,069 votes). The columns of the parquet files are taken from the dataset card; neither
these files nor the clips have been tested.
"""

import posixpath
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .folder import preparer
from .labels import STRING, Clip, DatasetSpec, Labels, MediaIndex, Problem, read_rows, require_columns, to_preference

SPEC = DatasetSpec(
    name="GenAI-Bench (video)",
    license="cc-by-4.0",
    description="Votes of GenAI-Arena's users between two generated videos of one prompt (Jiang et al., NeurIPS 2024).",
    homepage="https://huggingface.co/datasets/TIGER-Lab/GenAI-Bench",
    label_patterns=("**/video_generation/test-*.parquet", "**/video_generation/*.parquet", "*.parquet", "*.json"),
    columns={"generator": STRING},
    pair_columns={"preference": STRING, "vote": STRING},
    repeated_pairs_are_votes=True,
)
VOTES = {"leftvote": "A", "rightvote": "B", "tievote": "tie", "bothbad_vote": "tie"}


def to_clip(row: dict[str, Any], side: str, index: MediaIndex) -> Clip:
    """The clip on one side of a vote."""
    if f"{side}_video" in row:
        name = posixpath.basename(urlparse(str(row[f"{side}_video"])).path)
    else:
        name = f"{row['idx']}_{side}"
    return index.clip("test", name, row["prompt"], None, {"generator": row.get(f"{side}_model")}, "videos")


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The clips and the votes of all label files."""
    labels = Labels()
    for path in files:
        for number, row in enumerate(read_rows(path)):
            vote_column = "vote_type" if "vote_type" in row else "human_vote"
            names = ("left_video", "right_video") if vote_column == "vote_type" else ("idx",)
            require_columns(row, ("prompt", vote_column, *names), path)
            vote = row[vote_column]
            preference = to_preference(vote, VOTES)
            if preference is None:
                detail = f"the vote {vote!r} is not one of {', '.join(VOTES)}"
                labels.problems.append(Problem("bad_label", f"{path.name}:{number}", detail))
                continue
            clips = (to_clip(row, side, index) for side in ("left", "right"))
            labels.add_pair(*clips, {"preference": preference, "vote": vote})
    return labels


build_parser, main = preparer(__doc__, SPEC, read_labels)

if __name__ == "__main__":
    raise SystemExit(main())
