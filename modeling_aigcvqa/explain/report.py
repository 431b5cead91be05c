"""Write an explanation to a folder.

    paths = write_report(explanation, "clip.mp4", "report/")  # overlay.mp4, timeline.png, explanation.json, report.html

Needs matplotlib (`pip install 'aigcvqa[explain]'`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..common.cells import encodable
from ..common.files import whole_files
from ..video_reading_aigcvqa import fetched
from .drawing import draw_timeline, write_overlay
from .explanation import ColorScale, Explanation, weakest_places
from .page import report_html


def write_report(
    explanation: Explanation, video: Any, folder: str | Path, scale: ColorScale | None = None
) -> dict[str, Path]:
    """Write an explanation to `folder`, which is created if it does not exist.

    Args:
        video: the clip that was explained, in the same form; it is read again for its frames.
        scale: of the colours, if the clip is compared with others; None for its own.

    Returns:
        Name -> path: "report" (a self-contained HTML page), "timeline" (PNG), "explanation" (JSON) and, for a model
        with maps, "overlay" (mp4).
    """
    folder, video = Path(folder), fetched(video)
    names = {"timeline": "timeline.png", "explanation": "explanation.json", "report": "report.html"}
    if explanation.maps:
        names["overlay"] = "overlay.mp4"
    with whole_files(folder) as partial:
        paths = {name: partial / file for name, file in names.items()}
        draw_timeline(explanation).savefig(paths["timeline"])
        text = json.dumps(to_json(explanation), indent=1, ensure_ascii=False)
        paths["explanation"].write_text(encodable(text), encoding="utf-8")
        if explanation.maps:
            write_overlay(explanation, video, paths["overlay"], scale=scale)
        paths["report"].write_text(encodable(report_html(explanation, video, paths, scale)), encoding="utf-8")
    return {name: folder / file for name, file in names.items()}


def to_json(explanation: Explanation) -> dict:
    """An explanation as dicts and nested lists; the lists have the shapes documented in `Explanation`."""

    def rounded(values: np.ndarray) -> list:
        return np.asarray(values, np.float64).round(6).tolist()

    windows = explanation.windows
    return {
        "video": explanation.video,
        "prompt": explanation.prompt,
        "note": explanation.note,
        "scores": explanation.scores,
        "num_frames": explanation.num_frames,
        "fps": explanation.fps,
        "frame_size": list(explanation.frame_size),
        "clip_indices": explanation.clip_indices.tolist(),
        "windows": {
            "length": windows.length,
            "stride": windows.stride,
            "weighting": explanation.weighting,
            "indices": windows.indices.tolist(),
            "scores": {name: rounded(values) for name, values in explanation.window_scores.items()},
        },
        "window_means": explanation.window_means,
        "percentiles": explanation.percentiles,
        "about_scale": explanation.about_scale,
        "timeline": {name: rounded(values) for name, values in explanation.timeline.items()},
        "maps": {branch: rounded(values) for branch, values in explanation.maps.items()},
        "map_means": explanation.map_means,
        "color_limits": explanation.color_limits,
        "reference_changes": explanation.reference_changes,
        "words": [{"word": w.word, "start": w.start, "end": w.end, "effect": w.effect} for w in explanation.words],
        "weakest_words": [word.word for word in explanation.weakest_words()],
        "weakest_places": {
            branch: [vars(place) for place in weakest_places(explanation, branch)] for branch in explanation.maps
        },
    }
