"""Score a data set with `map` of `datasets`: its columns stay, the scores are new columns.

    python examples/score_data_set.py clips/ --output scored
    python examples/score_data_set.py clips/ --output scored --num_proc 4 --branches technical,aesthetic

The data set is a folder that `datasets` loads (VideoFolder with metadata.jsonl, parquet with a column `video`) or a Hub
id. A clip that cannot be scored has no number in any column of scores, and its `error`. `datasets` caches what it has
computed; `--num_proc` decodes and computes in so many processes, each with a model of its own.
"""

import argparse
import sys
from pathlib import Path

import datasets

from modeling_aigcvqa import ClipScorer, ScorerSettings
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import check_new_folder, whole_folder

TEXTS = ("quality_of", "warning", "error", "model_revision", "options_fingerprint")
SCORES = ("quality_score", "technical_score", "aesthetic_score", "alignment_score")


class Scores:
    """Scores batches. The model is loaded where the clips are scored, once per process."""

    def __init__(self, settings: ScorerSettings):
        self.settings, self.scorer = settings, None

    def __call__(self, batch: dict) -> dict:
        self.scorer = self.scorer or ClipScorer(self.settings)
        return self.scorer(batch)

    def __getstate__(self) -> dict:
        return {"settings": self.settings, "scorer": None}  # also what the cache of `datasets` depends on


def score(data: datasets.Dataset, settings: ScorerSettings, batch_size: int = 16, num_proc: int | None = None):
    """The data set with the scores of its column `video`, against its column `prompt`.

    Raises:
        ValueError: if it has no column `video`.
    """
    if "video" not in data.column_names:
        raise ValueError(f"the data set has no column 'video' (it has {data.column_names}).")
    data = data.cast_column("video", datasets.Video(decode=False))  # as files: decoding them is the scorer's work
    # A batch without any score would otherwise have a column of another type than the other batches.
    new = {name: datasets.Value("float64") for name in SCORES} | {name: datasets.Value("string") for name in TEXTS}
    features = datasets.Features({**data.features, **new})
    return data.map(Scores(settings), batched=True, batch_size=batch_size, num_proc=num_proc, features=features)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder or Hub id")
    parser.add_argument("--split", default="train")
    parser.add_argument("--output", type=Path, required=True, help="new folder, for datasets.load_from_disk")
    parser.add_argument("--model", default="small")
    parser.add_argument("--branches", help="comma-separated; without alignment no column prompt is needed")
    parser.add_argument("--num_proc", type=int)
    return parser


@exits_with_status("score_data_set")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    check_new_folder(arguments.output)
    branches = tuple(arguments.branches.split(",")) if arguments.branches else None
    settings = ScorerSettings(model=arguments.model, branches=branches, threads=1)
    scored = score(datasets.load_dataset(arguments.data, split=arguments.split), settings, num_proc=arguments.num_proc)
    with whole_folder(arguments.output) as partial:
        scored.save_to_disk(partial)
    failed = sum(error is not None for error in scored["error"])
    print(f"{len(scored)} clips, {failed} of them without scores, in '{arguments.output}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
