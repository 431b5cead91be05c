"""The self-contained HTML page of an explanation, and its pieces for other pages such as the Space."""

import base64
import html
import io
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from .drawing import BETTER, WORSE, place_stills
from .explanation import Explanation, Place, weakest_places
from .words import WordScore

HERE = Path(__file__).parent
MAX_INLINE_BYTES = 8 * 2**20  # a larger overlay is linked instead of inlined

MEANINGS = {
    "quality_score": "All in all: the sum of the other scores.",
    "technical_score": "How clean the picture is: sharp, free of noise, blocks, flicker and warping.",
    "aesthetic_score": "How good it looks: colour, light, composition.",
    "alignment_score": "How well the video shows what the prompt says.",
}


def report_html(explanation: Explanation, video: Any, paths: dict[str, Path]) -> str:
    """The page of an explanation. Pictures and video are inlined, but an overlay above 8 MiB is linked."""
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=stylesheet(),
        title=html.escape(short_name(explanation.video)),
        note=note_html(explanation.note),
        prompt=words_html(explanation),
        scores=scores_html(explanation.scores),
        overlay=_overlay_html(paths.get("overlay")),
        places=_places_html(explanation, video),
        timeline=_data_uri("image/png", paths["timeline"].read_bytes()),
        method=html.escape(method_text(explanation)),
    )


def stylesheet() -> str:
    """The CSS that the pieces below need."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def short_name(video: str) -> str:
    """The file name in `Explanation.video`."""
    return Path(video.strip("'\"")).name


def note_html(note: str | None) -> str:
    """The note on the weights; empty if there is none."""
    return f'<p class="aigcvqa-note" role="note">{html.escape(note)}</p>' if note else ""


def scores_html(scores: dict[str, float]) -> str:
    """One card per score, with its name, value and meaning."""
    cards = [
        f'<div class="aigcvqa-card" data-score="{name}"><h3>{name.removesuffix("_score")}</h3>'
        f"<strong>{value:.3f}</strong><p>{MEANINGS[name]}</p></div>"
        for name, value in scores.items()
    ]
    return f'<div class="aigcvqa-cards">{"".join(cards)}</div>'


def words_html(explanation: Explanation) -> str:
    """The prompt with every word coloured by its effect on the alignment score, and a list of the weakest words."""
    if not explanation.words:
        return f'<p class="aigcvqa-prompt">{html.escape(explanation.prompt or "")}</p>'
    pieces, end = [], 0
    for word in explanation.words:
        pieces.append(html.escape(explanation.prompt[end : word.start]))
        pieces.append(_word_html(word, explanation.word_limit))
        end = word.end
    pieces.append(html.escape(explanation.prompt[end:]))
    return f'<p class="aigcvqa-prompt">{"".join(pieces)}</p>{_weakest_words_html(explanation)}'


def _word_html(word: WordScore, limit: float) -> str:
    share = np.clip(word.effect / limit, -1, 1)
    red, green, blue = WORSE if share < 0 else BETTER
    return (
        f'<span class="aigcvqa-word" title="{word.effect:+.4f}" '
        f'style="background: rgb({red} {green} {blue} / {0.55 * abs(share):.2f})">{html.escape(word.word)}</span>'
    )


def _weakest_words_html(explanation: Explanation) -> str:
    items = [
        f"<li><b>{html.escape(word.word)}</b> <span>{word.effect:+.4f}</span></li>"
        for word in explanation.weakest_words()
    ]
    return (
        '<p class="aigcvqa-hint">The number of a word is the alignment score with the word minus the score without it. '
        f"Red words lower the score, blue ones raise it; full colour at ±{explanation.word_limit:.4f}.</p>"
        f'<p class="aigcvqa-hint">Weakest words:</p><ol class="aigcvqa-weakest">{"".join(items)}</ol>'
    )


def _overlay_html(path: Path | None) -> str:
    if path is None:
        return "<p>This model has no branch with a map.</p>"
    content = path.read_bytes()
    source = _data_uri("video/mp4", content) if len(content) <= MAX_INLINE_BYTES else path.name
    return f'<video controls loop muted autoplay playsinline src="{source}"></video>'


def _places_html(explanation: Explanation, video: Any) -> str:
    """Stills of the weakest places of every map, or a sentence if none stands out."""
    rows = []
    for branch in explanation.maps:
        places = weakest_places(explanation, branch)
        if not places:
            rows.append(f"<p>{branch}: no place stands out.</p>")
            continue
        stills = zip(places, place_stills(explanation, video, branch, places))
        figures = [_still_html(explanation, branch, place, image) for place, image in stills]
        rows.append(f'<div class="aigcvqa-stills">{"".join(figures)}</div>')
    return "".join(rows)


def _still_html(explanation: Explanation, branch: str, place: Place, image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    seconds = explanation.seconds(place.frame)
    when = f"frame {place.frame}" if seconds is None else f"at {seconds:.2f} s"
    caption = f"{branch} {place.value:.3f}, {place.deviation:+.3f} from the mean, {when}"
    uri = _data_uri("image/jpeg", buffer.getvalue())
    return f'<figure><img src="{uri}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def method_text(explanation: Explanation) -> str:
    """A description of how the numbers were computed."""
    windows = explanation.windows
    count, sampled = windows.indices.shape
    if count == 1:
        seen = f"The {explanation.num_frames} frames of the clip are one window, of which {sampled} frames were scored."
    else:
        seen = (
            f"The {explanation.num_frames} frames of the clip were scored in {count} windows of {windows.length} "
            f"frames, {windows.stride} frames apart. Every branch scored {sampled} frames per window, and overlapping "
            f"windows were averaged ({explanation.weighting} weights). The scores at the top were computed from "
            f"{sampled} frames spread over the clip."
        )
    return (
        f"{seen} A score is the mean of its map. Higher is better; scores of different models cannot be compared. "
        "Colours are neutral at the mean of the clip and full at the printed limits. The distance of a limit from the "
        "mean is at least a quarter of the change by heavy blur or noise."
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
