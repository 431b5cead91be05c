"""Tiny prepared data set for the tests of evaluation: clips with labels and failures, optionally an unreadable file."""

import json
from pathlib import Path

from tests.conftest import moving_gradient, write_video

GENERATORS = ("aurora", "basalt")
PROMPTS = ("two red dogs in a forest", "a blue car by the sea", "one green cloud in the sky", "a pink ball in a room")
CATEGORIES = ("animal", "object", "animal", "object")


def make_rows() -> list[dict]:
    """Labels of eight clips: four prompts by two generators."""
    rows = []
    for prompt_id, prompt in enumerate(PROMPTS):
        for number, generator in enumerate(GENERATORS):
            index = 2 * prompt_id + number
            failures = {"wrong_colour": 0.5} if index == 5 else {"blur": 0.3}
            rows.append(
                {
                    "file_name": f"{prompt_id}-{generator}.mp4",
                    "id": f"00{prompt_id}-{generator}",
                    "prompt_id": prompt_id,
                    "prompt": prompt,
                    "mos": [20.0, 31.5, 64.0, 58.0, 75.5, 40.0, 82.0, 12.5][index],
                    "generator": generator,
                    "category": CATEGORIES[prompt_id],
                    "technical": [0.2, 0.4, 0.7, 0.5, 0.8, 0.3, 0.9, 0.1][index],
                    "aesthetic": [0.3, 0.2, 0.5, 0.9, 0.6, 0.1, 0.8, 0.4][index],
                    "alignment": [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0][index],
                    "failures": json.dumps(failures),
                }
            )
    return rows


def make_data_set(folder: Path, broken: str | None = None) -> Path:
    """Write the clips and their metadata into `folder` as the test part. The file of clip `broken` is not a video."""
    test = folder / "data" / "test"
    test.mkdir(parents=True)
    rows = make_rows()
    for index, row in enumerate(rows):
        if row["id"] == broken:
            (test / row["file_name"]).write_text("not a video")
        else:
            write_video(test / row["file_name"], moving_gradient(4 + index, 64, 64 + 16 * index))
    (test / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
