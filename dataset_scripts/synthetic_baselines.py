"""Trivial predictors of the scores of the synthetic benchmark: the scores must need more than low-level features.

    python -m dataset_scripts.synthetic_baselines --data DIR

The program prints the SROCC of Laplacian sharpness, colourfulness, frame difference and random numbers with every MOS,
and writes the table into the dataset card of DIR.
"""

import argparse
import itertools
import json
import multiprocessing
from pathlib import Path

import av
import cv2
import numpy as np
from scipy.stats import spearmanr

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import write_text
from modeling_aigcvqa.common.signals import end_with_parent

PREDICTORS = ("laplacian", "colourfulness", "frame_difference", "random")
TARGETS = ("mos", "technical_mos", "aesthetic_mos", "alignment_mos")
LIMIT = 0.5
_START, _END = "<!-- baselines start -->", "<!-- baselines end -->"


def read_clip(path: str | Path) -> np.ndarray:
    """All frames (T, H, W, 3), uint8, of a clip."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def laplacian_sharpness(frames: np.ndarray) -> float:
    """The variance of the Laplacian of the luma, mean over the frames."""
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    return float(np.mean([cv2.Laplacian(grey, cv2.CV_32F).var() for grey in greys]))


def colourfulness(frames: np.ndarray) -> float:
    """Hasler and Suesstrunk's colourfulness (2003), mean over every fourth frame."""
    values = []
    for frame in frames[::4].astype(np.float32):
        rg = frame[..., 0] - frame[..., 1]
        yb = 0.5 * (frame[..., 0] + frame[..., 1]) - frame[..., 2]
        values.append(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
    return float(np.mean(values))


def frame_difference(frames: np.ndarray) -> float:
    """The mean absolute difference of neighbouring frames."""
    return float(np.mean([cv2.absdiff(a, b).mean() for a, b in itertools.pairwise(frames)]))


def clip_features(path: str) -> dict[str, float]:
    """The predictions for one clip, except the random one."""
    cv2.setNumThreads(1)
    frames = read_clip(path)
    return {
        "laplacian": laplacian_sharpness(frames),
        "colourfulness": colourfulness(frames),
        "frame_difference": frame_difference(frames),
    }


def read_rows(data: Path) -> list[dict]:
    """The rows of a benchmark on disk."""
    metadata = data / "data" / "train" / "metadata.jsonl"
    if not metadata.is_file():
        raise ValueError(
            f"data={str(data)!r} has no file data/train/metadata.jsonl; make it with dataset_scripts.synthetic_t2v."
        )
    return [json.loads(line) for line in metadata.read_text(encoding="utf-8").splitlines()]


def baseline_table(data: Path, num_workers: int = 1, seed: int = 0) -> dict[str, dict[str, float]]:
    """The SROCC of every trivial predictor with every target: `table[predictor][target]`."""
    rows = read_rows(data)
    paths = [str(data / "data" / "train" / row["file_name"]) for row in rows]
    if num_workers > 1:
        with multiprocessing.get_context("spawn").Pool(num_workers, end_with_parent) as pool:
            features = pool.map(clip_features, paths, chunksize=32)
    else:
        features = [clip_features(path) for path in paths]
    noise = np.random.default_rng(seed).random(len(rows))
    scores = {name: [feature[name] for feature in features] for name in PREDICTORS[:-1]} | {"random": noise}
    labels = {target: [row[target] for row in rows] for target in TARGETS}
    return {
        name: {target: float(spearmanr(scores[name], labels[target]).statistic) for target in TARGETS}
        for name in PREDICTORS
    }


def markdown_table(table: dict[str, dict[str, float]]) -> str:
    """The table as Markdown."""
    lines = ["| predictor | " + " | ".join(TARGETS) + " |", "| --- |" + " ---: |" * len(TARGETS)]
    lines += [
        f"| {name} | " + " | ".join(f"{row[target]:.3f}" for target in TARGETS) + " |" for name, row in table.items()
    ]
    return "\n".join(lines)


def write_baselines(data: Path, num_workers: int) -> list[str]:
    """Print the table, and write it between the markers of the dataset card.

    Returns:
        The predictors that are too good: they reach an SROCC of LIMIT with the overall MOS.
    """
    table = baseline_table(data, num_workers)
    text = markdown_table(table)
    print(text)
    card = data / "README.md"
    content = card.read_text(encoding="utf-8")
    if _START not in content or _END not in content:
        raise ValueError(f"'{card}' has no lines {_START!r} and {_END!r}; write the benchmark again.")
    before, after = content.split(_START)[0], content.split(_END)[1]
    write_text(card, f"{before}{_START}\n{text}\n{_END}{after}")
    return [name for name, row in table.items() if abs(row["mos"]) >= LIMIT]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder written by dataset_scripts.synthetic_t2v")
    parser.add_argument("--num_workers", type=int, default=2, help="number of processes that read the clips")
    return parser


@exits_with_status("synthetic_baselines")
def main(argv: list[str] | None = None) -> int:
    """Returns 1 if a trivial predictor reaches an SROCC of 0.5 with the overall MOS, otherwise 0."""
    arguments = build_parser().parse_args(argv)
    too_easy = write_baselines(arguments.data, arguments.num_workers)
    if too_easy:
        print(f"Too easy: {', '.join(too_easy)} reach an SROCC of {LIMIT} with the overall MOS.")
    return 1 if too_easy else 0


if __name__ == "__main__":
    raise SystemExit(main())
