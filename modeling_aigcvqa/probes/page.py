"""The page of probes: one row per probe with its verdict, and pictures of the worst cases."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image
from torch import Tensor

from . import verdicts
from .degradations import DEGRADATIONS
from .measure import degraded, read_frames
from .tricks import TRICKS
from .verdicts import Row

HERE = Path(__file__).parent
MOST_PICTURES, PICTURE_HEIGHT = 12, 200
SECTIONS = {
    "degradations": (
        "What it notices",
        "Clips are spoiled in three strengths. A score that means something falls, and falls further where more is "
        "spoiled. Half of the clips fall by chance alone.",
    ),
    "tricks": (
        "What fools it",
        "Changes that make no clip better. The lift is the mean rise of a score, in deviations of the clips' own "
        "scores; below 0 the trick does harm.",
    ),
    "swaps": ("Does it read the prompt?", "The alignment score with the clip's own prompt, against those of others."),
    "steadiness": (
        "How steady it is",
        "Changes that nobody sees. The change of the quality score, up or down, in deviations of the clips' scores.",
    ),
}
COLUMNS = {
    "falls_mild": ("mild", "share"),
    "falls_medium": ("medium", "share"),
    "falls_strong": ("strong", "share"),
    "falls_further": ("strong below mild", "share"),
    "raised": ("clips raised", "share"),
    "wins": ("own prompt wins", "share"),
    "lift_quality": ("quality", "signed"),
    "lift_technical": ("technical", "signed"),
    "lift_aesthetic": ("aesthetic", "signed"),
    "lift_alignment": ("alignment", "signed"),
    "mean_change": ("mean change", "plain"),
    "largest_change": ("largest change", "plain"),
}


def page_html(
    summary: dict[str, Any], rows: Sequence[Row], records: list[dict[str, Any]], videos: dict[str, Any]
) -> str:
    """The page as HTML that needs no other file.

    Args:
        summary: as `probe` gives it.
        records: of the clips that could be scored.
        videos: by the name of the clip.
    """
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        model=html.escape(str(summary["model"])),
        note=_note(summary["note"]),
        about=html.escape(
            f"{summary['clips']} clips; gradient ascent of {summary['ascent_steps']} steps; model "
            f"{summary['model_revision'][:19]}, aigcvqa {summary['aigcvqa']}."
        ),
        failed=_failed(summary["failed"]),
        sections="\n".join(_section(group, [row for row in rows if row.group == group]) for group in SECTIONS),
        pictures=_pictures(rows, records, videos),
        thresholds=html.escape(_thresholds()),
    )


def shown(value: float, form: str) -> str:
    """A figure of a row as text."""
    return {"share": f"{value:.2f}", "signed": f"{value:+.2f}", "plain": f"{value:.3g}"}[form]


def _note(note: str | None) -> str:
    return f'<p class="note" role="note">{html.escape(note)}</p>' if note else ""


def _failed(failed: list[dict[str, str]]) -> str:
    if not failed:
        return ""
    items = "".join(f"<li>{html.escape(entry['error'])}</li>" for entry in failed)
    return f"<details><summary>{len(failed)} clips could not be probed</summary><ul>{items}</ul></details>"


def _section(group: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    title, text = SECTIONS[group]
    columns = [name for name in COLUMNS if name in rows[0].figures]
    head = "".join(f"<th>{COLUMNS[name][0]}</th>" for name in columns)
    lines = []
    for row in rows:
        cells = "".join(f"<td>{shown(row.figures[name], COLUMNS[name][1])}</td>" for name in columns)
        chip = f'<span class="chip {row.verdict}">{row.verdict}</span>'
        lines.append(f'<tr data-probe="{row.name}"><th>{html.escape(row.title)}</th><td>{chip}</td>{cells}</tr>')
    table = f"<table><thead><tr><th></th><th>verdict</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<h2>{title}</h2><p>{text}</p><div class="wide">{table}</div>'


def _pictures(rows: Sequence[Row], records: list[dict[str, Any]], videos: dict[str, Any]) -> str:
    """The clips that show best what went wrong: the middle frames before and after, with the scores."""
    shown_rows = [row for row in rows if row.worst and row.verdict != verdicts.GOOD and _is_drawable(row)]
    shown_rows = sorted(shown_rows, key=lambda row: row.verdict != verdicts.BAD)[:MOST_PICTURES]
    by_file = {record["file"]: record for record in records}
    figures = [_picture(row, by_file[row.worst], read_frames(videos[row.worst])) for row in shown_rows]
    return "\n".join(figures) or "<p>No probe of pictures failed.</p>"


def _is_drawable(row: Row) -> bool:
    return row.group == "degradations" or (row.group == "tricks" and row.name in TRICKS)


def _picture(row: Row, record: dict[str, Any], frames: Tensor) -> str:
    if row.group == "degradations":
        after, scores = degraded(frames, row.name, "strong"), record["degradations"][f"{row.name}/strong"]
        title = f"{row.title}, strong ({DEGRADATIONS[row.name].strengths[2]:g} {DEGRADATIONS[row.name].unit})"
    else:
        after, _ = TRICKS[row.name].apply(frames, record["prompt"])
        title, scores = row.title, record["tricks"][row.name]
    before = record["original"]["quality_score"]
    return (
        f"<figure><div class=pair>{_image(frames, 'before')}{_image(after, 'after')}</div><figcaption>"
        f"<b>{html.escape(title)}</b>: quality {before:.2f} becomes {scores['quality_score']:.2f}. "
        f"{html.escape(Path(record['file']).name)}</figcaption></figure>"
    )


def _image(frames: Tensor, name: str) -> str:
    image = Image.fromarray(frames[len(frames) // 2].movedim(0, -1).contiguous().numpy())
    image.thumbnail((4 * PICTURE_HEIGHT, PICTURE_HEIGHT))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return f'<img alt="{name}" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _thresholds() -> str:
    return (
        f"Verdicts. Noticed: at least {verdicts.NOTICED:.0%} of the clips fall when it is strong and "
        f"{verdicts.FURTHER:.0%} fall further from mild to strong; partly from {verdicts.BARELY_NOTICED:.0%}. "
        f"Resisted: a mean lift of the quality of at most {verdicts.RESISTED:g} deviations; partly up to "
        f"{verdicts.BARELY_RESISTED:g}. Own prompt: at least {verdicts.TOLD_APART:.0%} of the pairs; partly from "
        f"{verdicts.BARELY_TOLD_APART:.0%}. Steady: a mean change of at most {verdicts.STEADY:g} deviations; partly up "
        f"to {verdicts.BARELY_STEADY:g}; for another batch or dtype {verdicts.ROUNDING:g} and "
        f"{verdicts.BARELY_ROUNDING:g}; a second run must give the same bits."
    )
