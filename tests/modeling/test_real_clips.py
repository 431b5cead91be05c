"""Real AI-generated clips, where they are at hand: mp4s and GIFs, with and without durations, 6 to 152 frames."""

import csv
import math

import pytest

from modeling_aigcvqa.cli import main
from tests.conftest import SHARED

MANIFEST = SHARED / "videos" / "manifest.csv"

pytestmark = pytest.mark.skipif(
    not MANIFEST.exists(), reason=f"no real clips at {MANIFEST.parent.name}/ beside the checkout"
)


def test_every_clip_is_scored(tmp_path):
    output = tmp_path / "scores.csv"
    assert main(["score", "--manifest", str(MANIFEST), "--output", str(output), "--batch_size", "2"]) == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with MANIFEST.open(newline="") as file:
        assert [row["file"] for row in rows] == [row["file"] for row in csv.DictReader(file)]
    scores = [float(row["quality_score"]) for row in rows]
    assert all(map(math.isfinite, scores))
    assert len(set(scores)) == len(scores), "no two clips score the same"
