"""Prepare the video part of GenAI-Bench: votes between two generated videos of one prompt.

    python -m dataset_scripts.prepare_genai_bench --source GenAI-Bench --output data/genai_bench

Label files: the Hub dataset's video_generation/<split>-*.parquet with columns `prompt`, `left_model`, `left_video`,
`right_model`, `right_video`, `vote_type`; a clip is the file that its name or link ends with, anywhere under --source.
The authors' result files (results/video_generation/<judge>/pairwise.json) hold the same votes (`idx`, `prompt`,
`human_vote`) but name no clips: they are then looked for as `<idx>_left` and `<idx>_right`.

Left is A, right is B. "tievote" and "bothbad_vote" both become "tie", and `vote` keeps the difference. There are no
scores: `mos` is null. The same two clips may be voted on more than once; every vote is kept.

Seen: a real result file (1,069 votes). Not seen: the parquet files (columns from the card) and the clips.
"""

import posixpath
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .folder import argument_parser, run_preparer
from .labels import (
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
    to_preference,
)

SPEC = DatasetSpec(
    name="GenAI-Bench (video)",
    license="cc-by-4.0",
    description="Votes of GenAI-Arena's users between two generated videos of one prompt (Jiang et al., NeurIPS 2024).",
    homepage="https://huggingface.co/datasets/TIGER-Lab/GenAI-Bench",
    columns={"generator": STRING},
    pair_columns={"preference": STRING, "vote": STRING},
    repeated_pairs_are_votes=True,
)
PATTERNS = ("**/video_generation/test-*.parquet", "**/video_generation/*.parquet", "*.parquet", "*.json")
VOTES = {"leftvote": "A", "rightvote": "B", "tievote": "tie", "bothbad_vote": "tie"}


def to_clip(row: dict[str, Any], side: str, index: MediaIndex) -> Clip:
    """The clip on one side of a vote."""
    if f"{side}_video" in row:
        name = posixpath.basename(urlparse(str(row[f"{side}_video"])).path)
    else:
        name = f"{row['idx']}_{side}"
    values = {"generator": row.get(f"{side}_model")}
    return Clip("test", clip_id(name), index.find(name, ("videos",)), row["prompt"] or "", None, values)


def read_labels(source: Path, index: MediaIndex, files: list[Path] | None) -> Labels:
    """All label files of the dataset."""
    labels = Labels()
    for path in label_files(source, files, PATTERNS):
        for number, row in enumerate(read_rows(path)):
            vote_column = "vote_type" if "vote_type" in row else "human_vote"
            if number == 0:
                names = ("idx",) if vote_column == "human_vote" else ("left_video", "right_video")
                require_columns(row, ("prompt", vote_column, *names), path)
            vote = row[vote_column]
            preference = to_preference(vote, VOTES)
            if preference is None:
                detail = f"the vote {vote!r} is none of {', '.join(VOTES)}"
                labels.problems.append(Problem("bad_label", f"{path.name}:{number}", detail))
                continue
            clips = (to_clip(row, side, index) for side in ("left", "right"))
            labels.add_pair(*clips, {"preference": preference, "vote": vote})
    return labels


def main(argv: list[str] | None = None) -> int:
    args = argument_parser(__doc__).parse_args(argv)
    return run_preparer(SPEC, lambda source, index: read_labels(source, index, args.labels), args)


if __name__ == "__main__":
    sys.exit(main())
