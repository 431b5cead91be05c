"""Prepare FETV: 619 prompts, clips of four generators and the reference videos, rated 1..5 by three people.

    python -m dataset_scripts.prepare_fetv --source FETV --output data/fetv

The source folder needs `fetv_data.json` (one prompt per line; the line number, from 0, is the sentence id), the ratings
`manual_eval_results/human<N>/manual_eval_results_<model>.json` of FETV-EVAL (one `{"<sentence id>": {...}}` per line)
and the clips `<model>/.../<sentence id>.mp4` or `.gif`. The ratings call ModelScopeT2V "damo-text2video"; its clips are
found in `modelscope-t2v`, `damo-text2video` or `videofusion`. GIFs are rewritten as mp4 with the same pixels.

Columns: `static_quality`, `temporal_quality` and `alignment` (1..5), each the mean over the raters, and
`fine_grained_alignment` (1..3, the mean over attributes and raters, null if the prompt controls no attribute). FETV has
no overall score: `mos` is the mean of the first three columns. The generator of the reference videos is "ground-truth".
FETV does not publish them, so they are reported as missing unless you have them.

Tested with a part of the real fetv_data.json and of the real ratings of one rater. The layout of the clips follows the
READMEs of the dataset and has not been tested with the real archives.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import List

from .folder import preparer
from .labels import FLOAT, INTEGER, STRING, Clip, DatasetSpec, Labels, MediaIndex, Problem, label_files, to_score

DIMENSIONS = ("static_quality", "temporal_quality", "alignment")
FOLDERS = {
    "damo-text2video": ("modelscope-t2v", "damo-text2video", "videofusion"),
    "ground-truth": ("ground-truth", "gt"),
}
SPEC = DatasetSpec(
    name="FETV",
    license="cc-by-4.0",
    description="Videos of four generators for 619 prompts with ratings of static quality, temporal quality and "
    "alignment (Liu et al., NeurIPS 2023). `mos` is the mean of the three.",
    homepage="https://github.com/llyx97/FETV",
    label_patterns=("**/human*/manual_eval_results_*.json",),
    columns={
        "generator": STRING,
        "category": STRING,
        **dict.fromkeys((*DIMENSIONS, "fine_grained_alignment"), FLOAT),
        "spatial_content": List(STRING),
        "temporal_content": List(STRING),
        "num_raters": INTEGER,
    },
    ranges={**dict.fromkeys(("mos", *DIMENSIONS), (1.0, 5.0)), "fine_grained_alignment": (1.0, 3.0)},
)


def read_json_lines(path: Path) -> Iterator[Any]:
    """The values of a FETV file, which holds one JSON value per line despite its ending ".json"."""
    yield from (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip())


def read_ratings(paths: list[Path]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The ratings of each (model, sentence id), one per rater."""
    ratings = defaultdict(list)
    for path in paths:
        model = path.stem.removeprefix("manual_eval_results_")
        for line in read_json_lines(path):
            for sentence, rating in line.items():
                ratings[model, sentence].append(rating)
    return ratings


def find_clip(index: MediaIndex, model: str, sentence: str) -> str | None:
    """The clip of a sentence at any depth below its model's folder; an mp4 is preferred to a GIF."""
    names = set(FOLDERS.get(model, (model,)))
    found = [file for file in index.by_stem.get(sentence, ()) if names & set(file.split("/")[:-1])]
    return min(found, key=lambda file: (file.endswith(".gif"), file), default=None)


def mean_scores(ratings: list[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of each dimension over the raters."""
    scores = {name: fmean(to_score(rating.get(name)) for rating in ratings) for name in DIMENSIONS}
    fine = [to_score(v) for rating in ratings for v in rating.get("fine-grained_alignment", {}).values()]
    return {**scores, "fine_grained_alignment": fmean(fine) if fine else None}


def read_labels(files: list[Path], index: MediaIndex) -> Labels:
    """The clips of all rating files. Ratings and prompts are joined by the sentence id."""
    prompt_files = [path for path in files if path.name.startswith("fetv_data")]
    rating_files = [path for path in files if path not in prompt_files]
    prompts = list(read_json_lines(label_files(index.source, prompt_files, ("**/fetv_data.json",))[0]))
    all_ratings = read_ratings(label_files(index.source, rating_files, SPEC.label_patterns))
    labels = Labels()
    for (model, sentence), ratings in all_ratings.items():
        name = f"{model}/{sentence}"
        if not (sentence.isdigit() and int(sentence) < len(prompts)):
            detail = f"the sentence id is not a line number of the {len(prompts)} prompts"
            labels.problems.append(Problem("bad_label", name, detail))
            continue
        prompt = prompts[int(sentence)]
        if any(str(rating.get("video_id", prompt["video_id"])) != str(prompt["video_id"]) for rating in ratings):
            labels.problems.append(Problem("bad_label", name, "the rating and the prompt have different video_ids"))
            continue
        scores = mean_scores(ratings)
        content = prompt.get("major content") or {}
        values = {
            **scores,
            "generator": model,
            "category": ", ".join(content.get("spatial") or ()),
            "spatial_content": content.get("spatial") or [],
            "temporal_content": content.get("temporal") or [],
            "num_raters": len(ratings),
        }
        mos = fmean(scores[dimension] for dimension in DIMENSIONS)
        labels.clips.append(Clip("test", name, find_clip(index, model, sentence), prompt["prompt"], mos, values))
    return labels


build_parser, main = preparer(__doc__, SPEC, read_labels)

if __name__ == "__main__":
    raise SystemExit(main())
