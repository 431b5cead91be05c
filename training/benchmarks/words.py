"""Measure whether word scores find wrong words: `python -m training.benchmarks.words --model DIR --data DIR`.

In the synthetic benchmark (`dataset_scripts.synthetic_t2v`), the column `failures` says which part of its prompt a clip
got wrong: colour, subject, background, count or motion. This program scores every content word of the prompt
(`modeling_aigcvqa.explain.words`) and measures whether the words of the wrong part have the lowest effect:

- `hit_rate`: how often the word with the lowest effect belongs to the wrong part; `chance`: the same for a random word.
- `auc`: how often a wrong word has a lower effect than a right word of the same prompt; chance is 0.5.
- `paired_auc`: how often a word has a lower effect on a clip that got it wrong than on another clip of the same prompt
  that got it right. This compares each word with itself, because effects differ from word to word; chance is 0.5.

Each figure has a 95 % bootstrap interval over prompts. Clips that got several parts or the whole prompt wrong are left
out. Clips that got no part wrong are used as the other clips of `paired_auc`.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from rich.table import Table

from modeling_aigcvqa import AIGCVQAPipeline, load_pipeline
from modeling_aigcvqa.common.choices import SHIPPED
from modeling_aigcvqa.common.console import error_console, exits_with_status
from modeling_aigcvqa.common.files import write_json
from modeling_aigcvqa.explain import WORD_METHODS, WordScore, word_scores
from modeling_aigcvqa.loading import DTYPES
from training.common.clips import PARTS, load_clips
from training.common.prompt_parts import NOTHING, WRONG, part_of, read_parts
from training.vqa_correlation.resampling import mean_interval

BOOTSTRAP = 2000


@dataclass(frozen=True)
class ClipWords:
    """The content words of one clip's prompt."""

    prompt_id: object
    wrong: str | None  # the part of the prompt that the clip got wrong
    words: list[WordScore]
    parts: list[str | None]  # the part of the prompt to which each word belongs


def wrong_part(failures: str | None) -> str | None:
    """The part of the prompt that a clip got wrong, or None.

    Raises:
        ValueError: for a clip that got several parts or the whole prompt wrong.
    """
    wrong = [name for name in json.loads(failures or "{}") if name in (*WRONG, NOTHING)]
    if len(wrong) > 1 or wrong == [NOTHING]:
        raise ValueError(f"failures={wrong}: expected at most one of {list(WRONG)}.")
    return WRONG[wrong[0]] if wrong else None


def usable_clips(clips: Dataset) -> list[tuple[int, str | None]]:
    """Index and wrong part of the clips that got one part wrong, and of the clips of the same prompts without one."""
    missing = {"failures", "prompt_parts"} - set(clips.column_names)
    if missing:
        raise ValueError(f"the data has no column {sorted(missing)} (it has {clips.column_names}); see synthetic_t2v.")
    parts: dict[int, str | None] = {}
    for index, failures in enumerate(clips["failures"]):
        try:
            parts[index] = wrong_part(failures)
        except ValueError:
            continue
    prompts = clips["prompt"]
    asked = {prompts[index] for index, part in parts.items() if part is not None}
    if not asked:
        raise ValueError(f"none of the {len(clips)} clips got exactly one part of its prompt wrong; use more clips.")
    return [(index, part) for index, part in parts.items() if prompts[index] in asked]


def score_clip(pipeline: AIGCVQAPipeline, clip: dict, wrong: str | None, method: str) -> ClipWords:
    """Score the content words of one clip."""
    views = pipeline.processor(videos=[clip["video"]])["pixel_values_resized"].to(pipeline.device)
    words = [word for word in word_scores(pipeline, views, clip["prompt"], method)[0] if word.is_content]
    spans = read_parts(clip["prompt_parts"])
    parts = [part_of(spans, word.start, word.end) for word in words]
    return ClipWords(clip["prompt"], wrong, words, parts)


def hit(clip: ClipWords) -> float:
    """1 if the word with the lowest effect belongs to the wrong part, otherwise 0."""
    weakest = min(range(len(clip.words)), key=lambda index: clip.words[index].effect)
    return float(clip.parts[weakest] == clip.wrong)


def chance(clip: ClipWords) -> float:
    """Share of the words that belong to the wrong part."""
    return float(np.mean([part == clip.wrong for part in clip.parts]))


def auc(clip: ClipWords) -> float:
    """Share of the pairs of a wrong and a right word in which the wrong word has the lower effect; ties count half."""
    effects = np.array([word.effect for word in clip.words])
    is_wrong = np.array([part == clip.wrong for part in clip.parts])
    return below(effects[is_wrong], effects[~is_wrong])


def paired_auc(clip: ClipWords, others: list[ClipWords]) -> float:
    """`auc` of each wrong word against the same word on other clips that got it right; NaN without other clips."""
    shares = [
        below(np.array([word.effect]), np.array([other.words[place].effect for other in others]))
        for place, (word, part) in enumerate(zip(clip.words, clip.parts))
        if part == clip.wrong and others
    ]
    return float(np.mean(shares)) if shares else float("nan")


def below(values: np.ndarray, others: np.ndarray) -> float:
    """How often one of `values` (n,) is below one of `others` (m,); ties count half."""
    difference = others[None, :] - values[:, None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def summarise(clips: list[ClipWords]) -> dict[str, dict]:
    """Figures with intervals, by wrong part and for "all"."""
    by_prompt = defaultdict(list)
    for clip in clips:
        by_prompt[clip.prompt_id].append(clip)
    # A clip can be judged only if some words belong to the wrong part and some do not.
    judged = [clip for clip in clips if clip.wrong and 0 < chance(clip) < 1]
    rows = []
    for clip in judged:
        others = [other for other in by_prompt[clip.prompt_id] if other.wrong != clip.wrong]
        rows.append((clip.prompt_id, clip.wrong, hit(clip), chance(clip), auc(clip), paired_auc(clip, others)))
    summary = {}
    for part in ("all", *WRONG.values()):
        chosen = [row for row in rows if part in ("all", row[1])]
        if chosen:
            summary[part] = {"clips": len(chosen), **_figures(chosen)}
    return summary


def _figures(rows: list[tuple]) -> dict[str, dict]:
    prompts = [row[0] for row in rows]
    hits, chances, aucs, paired = (np.array([row[column] for row in rows]) for column in (2, 3, 4, 5))
    return {
        "hit_rate": _with_interval(hits, prompts),
        "chance": float(chances.mean()),
        "hit_rate_above_chance": _with_interval(hits - chances, prompts),
        "auc": _with_interval(aucs, prompts),
        "paired_auc": _with_interval(paired, prompts),
    }


def _with_interval(values: np.ndarray, prompts: list) -> dict[str, float | None]:
    """Mean with 95 % bootstrap interval. Resamples prompts, because clips of one prompt are not independent."""
    kept = np.isfinite(values)
    if not kept.any():
        return {"value": None, "low": None, "high": None}
    names = [str(prompt) for prompt, keep in zip(prompts, kept) if keep]
    low, high = mean_interval(values[kept], names, num_bootstrap=BOOTSTRAP)
    return {"value": float(values[kept].mean()), "low": low, "high": high}


def run(arguments: argparse.Namespace, progress: Callable[[Iterable], Iterable]) -> dict:
    pipeline = load_pipeline(arguments.model, None, arguments.device, arguments.dtype)
    if "alignment" not in pipeline.model.config.branches:
        raise ValueError(f"model '{arguments.model}' has no alignment branch, the only branch that reads the prompt.")
    clips = load_clips(arguments.data, arguments.split_file, arguments.part)
    chosen = usable_clips(clips)[: arguments.max_clips]  # the clips of a prompt are adjacent, so pairs remain
    methods: dict[str, list[ClipWords]] = {method: [] for method in arguments.methods}
    failed = []
    for index, wrong in progress(chosen):
        clip = clips[index]
        try:
            scored = {method: score_clip(pipeline, clip, wrong, method) for method in methods}
        except (ValueError, OSError) as error:
            failed.append({"id": clip["id"], "error": str(error)})
            continue
        for method, of_clip in scored.items():
            methods[method].append(of_clip)
    return {
        "model": arguments.model,
        "model_note": pipeline.model.config.weights_note,
        "data": arguments.data,
        "split_file": str(arguments.split_file) if arguments.split_file else None,
        "part": arguments.part,
        "num_clips": len(chosen) - len(failed),
        "failed": failed,
        "methods": {method: summarise(of_clips) for method, of_clips in methods.items()},
    }


def print_tables(result: dict, console: Console) -> None:
    for method, summary in result["methods"].items():
        table = Table(title=f"{method}: is the wrong word the weakest?", caption=result["model_note"])
        for column in ("wrong part", "clips", "weakest word", "by chance", "AUC", "AUC, same word"):
            table.add_column(column, justify="left" if column == "wrong part" else "right")
        for part, figures in summary.items():
            cells = [_cell(figures["hit_rate"]), f"{figures['chance']:.2f}"]
            cells += [_cell(figures[name]) for name in ("auc", "paired_auc")]
            table.add_row(part, str(figures["clips"]), *cells)
        console.print(table)


def _cell(figure: dict) -> str:
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmarks.words",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=SHIPPED, help=f"folder or Hub id (default: {SHIPPED}, inside the package)")
    parser.add_argument("--data", required=True, help="folder made by dataset_scripts.synthetic_t2v")
    parser.add_argument("--split_file", type=Path, help="CSV id,split")
    parser.add_argument(
        "--part", choices=list(PARTS), help="part of the split (default: test with --split_file, otherwise all)"
    )
    parser.add_argument("--methods", nargs="+", choices=list(WORD_METHODS), default=list(WORD_METHODS))
    parser.add_argument("--max_clips", type=int, help="score only the first N clips", metavar="N")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["auto", *DTYPES])
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    return parser


@exits_with_status("words")
def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if every clip was scored, 1 if a clip failed, 2 for invalid arguments."""
    arguments = build_parser().parse_args(argv)
    console, errors = Console(), error_console()
    if arguments.part is None and arguments.split_file is not None:
        arguments.part = "test"
    if not arguments.output.parent.is_dir():
        raise ValueError(f"--output '{arguments.output}': the folder '{arguments.output.parent}' does not exist.")
    result = run(arguments, lambda clips: track(clips, "clips", console=errors, transient=True))
    write_json(arguments.output, result)
    print_tables(result, console)
    for row in result["failed"]:
        errors.print(f"failed: {row['id']}: {row['error']}", style="red")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
