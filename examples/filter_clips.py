"""Keep the good clips of a folder: those above thresholds, the best share of the clips, or both.

    python examples/filter_clips.py clips/ --minimum quality_score=0.5 --minimum alignment_score=0 --output filtered
    python examples/filter_clips.py clips/ --keep_share 0.3 --by quality_score --output filtered --copy

The prompt of clips/a.mp4 is read from clips/a.txt, the layout of training sets of video generators, or from a
`--manifest` with the columns file and prompt. The program writes the scores to kept.csv and rejected.csv; rejected.csv
also gives the reasons. `--copy` puts the kept clips into OUTPUT/clips. A clip that cannot be read is rejected, and the
other clips are scored. Clips without prompts need `--branches technical,aesthetic`.
"""

import argparse
import csv
import math
import shutil
import sys
from pathlib import Path

from modeling_aigcvqa import load_pipeline
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import whole_file
from modeling_aigcvqa.common.manifests import file_column, read_manifest
from modeling_aigcvqa.pipeline_aigcvqa import SCORES, AIGCVQAPipeline

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".gif", ".webp")


def find_clips(folder: Path, manifest: Path | None) -> list[dict]:
    """One row per clip: `file`, relative to the folder, and `prompt`, None if there is none."""
    if not folder.is_dir():
        raise ValueError(f"'{folder}' is not a folder; name the folder with the clips.")
    if manifest:
        rows = [{"file": row[file_column(row)], "prompt": row.get("prompt")} for row in read_manifest(manifest)]
    else:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
        rows = [{"file": str(file.relative_to(folder)), "prompt": prompt_beside(file)} for file in files]
    if not rows:
        raise ValueError(f"'{folder}' has no clips ({', '.join(SUFFIXES)}).")
    outside = [row["file"] for row in rows if not (folder / row["file"]).resolve().is_relative_to(folder.resolve())]
    if outside:
        raise ValueError(f"'{outside[0]}' is not inside '{folder}'; name files inside the folder, relative to it.")
    return rows


def prompt_beside(clip: Path) -> str | None:
    """The text of the file with the clip's name and the ending .txt."""
    file = clip.with_suffix(".txt")
    return " ".join(file.read_text(encoding="utf-8", errors="replace").split()) if file.is_file() else None


def score_clips(
    rows: list[dict], folder: Path, scorer: AIGCVQAPipeline, batch_size: int, num_workers: int
) -> list[dict]:
    """The rows with their scores, or with `error`."""
    items = [{"video": str(folder / row["file"]), "prompt": row["prompt"]} for row in rows]
    results = scorer(items, batch_size=batch_size, num_workers=num_workers, on_error="return")
    return [row | result for row, result in zip(rows, results)]


def judge(rows: list[dict], minimum: dict[str, float], keep_share: float | None, by: str) -> None:
    """Set the `reason` for which a row is rejected, empty for a clip that is kept.

    The thresholds are applied first. Of the clips that pass, the best ones by the score `by` are kept, up to the share
    `keep_share` of all readable clips, rounded up.
    """
    for row in rows:
        low = [f"{name} {row[name]:.4f} < {value:g}" for name, value in minimum.items() if row.get(name, value) < value]
        row["reason"] = f"cannot be scored: {row['error']}" if "error" in row else "; ".join(low)
    if keep_share is not None:
        readable = sum("error" not in row for row in rows)
        passed = sorted((row for row in rows if not row["reason"]), key=lambda row: row[by], reverse=True)
        for row in passed[math.ceil(keep_share * readable - 1e-9) :]:
            row["reason"] = f"not among the best {keep_share:.0%} by {by}"


def write_lists(rows: list[dict], folder: Path, output: Path, copy: bool) -> tuple[int, int]:
    """Write kept.csv and rejected.csv and, with `copy`, the kept clips; returns how many are kept and rejected."""
    output.mkdir(parents=True, exist_ok=True)
    kept = [row for row in rows if not row["reason"]]
    rejected = [row for row in rows if row["reason"]]
    columns = ["file", "prompt", *(name for name in SCORES if any(name in row for row in rows))]
    for name, part, extra in (("kept", kept, []), ("rejected", rejected, ["reason"])):
        with whole_file(output / f"{name}.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*columns, *extra], restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(part)
    for row in kept if copy else []:
        target = output / "clips" / row["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as partial:
            shutil.copyfile(folder / row["file"], partial)
    return len(kept), len(rejected)


def parse_minimum(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in SCORES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected SCORE=NUMBER with a score of {list(SCORES)}")
    try:
        return name, float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a number") from error


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the clips; subfolders are searched too")
    parser.add_argument("--manifest", type=Path, help="CSV or JSONL with file (relative to the folder) and prompt")
    parser.add_argument("--output", type=Path, required=True, help="folder for kept.csv and rejected.csv")
    parser.add_argument("--minimum", type=parse_minimum, action="append", default=[], metavar="SCORE=NUMBER")
    parser.add_argument("--keep_share", type=float, help="share of the readable clips to keep, above 0 and up to 1")
    parser.add_argument("--by", choices=SCORES, default="quality_score", help="score that ranks for --keep_share")
    parser.add_argument("--copy", action="store_true", help="copy the kept clips into OUTPUT/clips")
    parser.add_argument("--model", default="small", help="folder or Hub id (default: the package's small model)")
    parser.add_argument("--branches", help="comma-separated branches of the model (default: all)")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--num_workers", type=int, default=0, help="number of processes that decode ahead")
    return parser


def check_arguments(arguments: argparse.Namespace) -> None:
    if not arguments.minimum and arguments.keep_share is None:
        raise ValueError("no filter was given; pass --minimum SCORE=NUMBER or --keep_share SHARE.")
    if arguments.keep_share is not None and not 0 < arguments.keep_share <= 1:
        raise ValueError(f"--keep_share {arguments.keep_share}: expected a share above 0 and up to 1.")
    if arguments.output.resolve().is_relative_to(arguments.folder.resolve()):
        raise ValueError(f"--output '{arguments.output}' is inside the folder of the clips; name a folder outside it.")


@exits_with_status("filter_clips")
def main(argv: list[str] | None = None) -> int:
    """Returns 0 if every clip could be scored, 1 if some could not, 2 for wrong arguments."""
    arguments = build_parser().parse_args(argv)
    check_arguments(arguments)
    rows = find_clips(arguments.folder, arguments.manifest)
    scorer = load_pipeline(arguments.model, arguments.branches.split(",") if arguments.branches else None)
    wanted = {name for name, _ in arguments.minimum} | ({arguments.by} if arguments.keep_share else set())
    missing = sorted(wanted - {"quality_score", *(f"{branch}_score" for branch in scorer.model.config.branches)})
    if missing:
        raise ValueError(f"the model has no {missing}; its branches are {scorer.model.config.branches}.")
    rows = score_clips(rows, arguments.folder, scorer, arguments.batch_size, arguments.num_workers)
    judge(rows, dict(arguments.minimum), arguments.keep_share, arguments.by)
    kept, rejected = write_lists(rows, arguments.folder, arguments.output, arguments.copy)
    failed = sum("error" in row for row in rows)
    print(f"kept {kept}, rejected {rejected} ({failed} could not be scored); see '{arguments.output}'.")
    if scorer.model.config.weights_note:
        print(scorer.model.config.weights_note)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
