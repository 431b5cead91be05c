"""Compare two generators: scores their clips of the same prompts and tests the difference.

    python examples/compare_generators.py --manifest clips.csv --generators modelA modelB --model DIR

The manifest (CSV or JSONL) has the columns file, prompt and generator. Each prompt of which both generators have clips
is one pair; several clips of a prompt count with their mean. For every score the table gives both means, the share of
prompts on which the first generator wins (ties count half), both with 95 % bootstrap intervals over prompts, and the
p-value of Wilcoxon's signed-rank test, Holm-corrected for the number of scores.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from modeling_aigcvqa import load_pipeline
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import write_text
from modeling_aigcvqa.common.manifests import clip_of, file_column, read_manifest
from modeling_aigcvqa.pipeline_aigcvqa import SCORES

MIN_PROMPTS = 2


def read_clips(manifest: Path, generators: list[str]) -> list[dict]:
    """The manifest's rows of the two generators, with the path of the clip as `video`."""
    rows = read_manifest(manifest)
    for number, row in enumerate(rows, 1):
        missing = [name for name in ("prompt", "generator") if not row.get(name)]
        if missing:
            raise ValueError(f"'{manifest}', row {number}: {' and '.join(missing)} must be given.")
        row["video"] = clip_of(row, manifest)
    known = sorted({row["generator"] for row in rows})
    unknown = [name for name in generators if name not in known]
    if unknown or len(set(generators)) < 2:
        raise ValueError(f"--generators {generators}: expected two generators of '{manifest}', which has {known}.")
    return [row for row in rows if row["generator"] in generators]


def score_clips(rows: list[dict], model: str, batch_size: int) -> tuple[list[dict], str | None]:
    """The rows with their scores or with an `error`, and the note about the model's weights."""
    scorer = load_pipeline(model)
    items = [{"video": row["video"], "prompt": row["prompt"]} for row in rows]
    results = scorer(items, batch_size=batch_size, on_error="return")
    return [row | result for row, result in zip(rows, results)], scorer.model.config.weights_note


def pair_by_prompt(rows: list[dict], generators: list[str], score: str) -> np.ndarray:
    """The mean score of each generator's clips for each common prompt, (number of common prompts, 2)."""
    clips = defaultdict(lambda: ([], []))
    for row in rows:
        if score in row:
            clips[row["prompt"]][generators.index(row["generator"])].append(row[score])
    return np.array([[np.mean(a), np.mean(b)] for a, b in clips.values() if a and b]).reshape(-1, 2)


def compare(pairs: np.ndarray, seed: int = 0) -> dict:
    """Means, win rate, mean difference and p-value of one score's pairs (N, 2); the intervals are [low, high].

    The p-value is 1 if all differences are zero, because there is nothing to test.
    """
    differences = pairs[:, 0] - pairs[:, 1]
    wins = (np.sign(differences) + 1) / 2
    return {
        "means": pairs.mean(0).tolist(),
        "mean_intervals": [interval(column, seed) for column in pairs.T],
        "win_rate": float(wins.mean()),
        "win_rate_interval": interval(wins, seed),
        "difference": float(differences.mean()),
        "difference_interval": interval(differences, seed),
        "p_value": float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0,
    }


def interval(values: np.ndarray, seed: int) -> list[float]:
    """The 95 % percentile bootstrap interval of the mean of `values` (N,)."""
    found = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(seed))
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def holm(p_values: list[float]) -> list[float]:
    """The p-values after Holm's correction for multiple tests, in the given order."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.array(p_values)[order] * factors), 1.0)
    return corrected.tolist()


def compare_generators(rows: list[dict], generators: list[str], seed: int = 0) -> dict:
    """The comparison of every score that the model gives."""
    comparisons = {}
    for score in SCORES:
        pairs = pair_by_prompt(rows, generators, score)
        if len(pairs) >= MIN_PROMPTS:
            comparisons[score] = compare(pairs, seed) | {"num_prompts": len(pairs)}
    failed = [{"file": row[file_column(row)], "error": row["error"]} for row in rows if "error" in row]
    if not comparisons:
        reason = f" {len(failed)} clips could not be scored, the first one: {failed[0]['error']}" if failed else ""
        raise ValueError(f"{generators} share fewer than {MIN_PROMPTS} scored prompts.{reason}")
    corrected = holm([comparison["p_value"] for comparison in comparisons.values()])
    for comparison, p_value in zip(comparisons.values(), corrected):
        comparison["p_value_holm"] = p_value
    return {"generators": generators, "num_clips": len(rows) - len(failed), "scores": comparisons, "failed": failed}


def print_comparison(result: dict) -> None:
    first, second = result["generators"]
    table = Table(title=f"{first} against {second}, {result['num_clips']} clips", title_justify="left")
    for column in ("score", first, second, f"{first} wins", "p (Holm)", "prompts"):
        table.add_column(column, justify="left" if column == "score" else "right", no_wrap=True)
    for score, found in result["scores"].items():
        means = [f"{m:.3f} [{a:.3f}, {b:.3f}]" for m, (a, b) in zip(found["means"], found["mean_intervals"])]
        low, high = found["win_rate_interval"]
        wins = f"{found['win_rate']:.0%} [{low:.0%}, {high:.0%}]"
        name = score.removesuffix("_score")
        table.add_row(name, *means, wins, f"{found['p_value_holm']:.3g}", str(found["num_prompts"]))
    console = Console(highlight=False)
    console.width = max(console.width, 110)
    console.print(table)
    if result["note"]:
        print(result["note"])
    for failure in result["failed"]:
        print(f"failed: {failure['file']}: {failure['error']}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="CSV or JSONL with file, prompt and generator")
    parser.add_argument("--generators", nargs=2, required=True, metavar=("A", "B"))
    parser.add_argument("--model", default="small", help="folder or Hub id (default: the package's small model)")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument("--output", type=Path, help="also write the comparison to this JSON file")
    return parser


@exits_with_status("compare_generators")
def main(argv: list[str] | None = None) -> int:
    """Returns 0 if every clip could be scored, 1 if some could not, 2 for wrong arguments."""
    arguments = build_parser().parse_args(argv)
    clips = read_clips(arguments.manifest, arguments.generators)
    rows, note = score_clips(clips, arguments.model, arguments.batch_size)
    result = compare_generators(rows, arguments.generators, arguments.seed) | {"note": note}
    if arguments.output:
        write_text(arguments.output, json.dumps(result, indent=1))
    print_comparison(result)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
