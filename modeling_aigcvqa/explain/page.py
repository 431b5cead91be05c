"""The self-contained HTML page of an explanation, and its pieces for other pages such as the Space."""

import base64
import html
import io
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from ..names_aigcvqa import PERCENTILE_OF, QUALITY_MOS, SCORES
from ..scale_aigcvqa import RANGES, range_of
from .drawing import (
    BETTER,
    DEFAULT_FPS,
    MAX_OVERLAY_FRAMES,
    WORSE,
    OverlayPainter,
    legend_words,
    place_stills,
    timeline_svg,
)
from .explanation import ColorScale, Explanation, Place, weakest_places
from .words import WordScore

HERE = Path(__file__).parent
MAX_INLINE_BYTES = 8 * 2**20  # a larger overlay is linked instead of inlined

MEANINGS = {
    "quality_score": "All in all. The sum of the other three, which are its parts.",
    "technical_score": "How clean the picture is: sharp, free of noise, blocks, flicker and warping.",
    "aesthetic_score": "How good it looks: colour, light, composition.",
    "alignment_score": "How well the video shows what the prompt says.",
}


def report_html(explanation: Explanation, video: Any, paths: dict[str, Path], scale: ColorScale | None = None) -> str:
    """The page of an explanation. Pictures and video are inlined, but an overlay above 8 MiB is linked.

    Args:
        scale: of the colours; None for that of the clip alone.
    """
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=stylesheet(),
        script=script(),
        title=html.escape(short_name(explanation.video)),
        note=note_html(explanation.note),
        scored=html.escape(scored_text(explanation)),
        prompt=words_html(explanation),
        scores=scores_html(explanation.scores, explanation.percentiles, explanation.about_scale),
        windows=windows_html(explanation),
        overlay=player_html(explanation, paths.get("overlay"), scale),
        places=_places_html(explanation, video),
        timeline=timeline_html(explanation),
        method=html.escape(method_text(explanation)),
    )


def script() -> str:
    """The JavaScript that plays overlays, for pages with `player_html`."""
    return (HERE / "player.js").read_text(encoding="utf-8")


def scored_text(explanation: Explanation) -> str:
    """What was scored, in a sentence."""
    height, width = explanation.frame_size
    seconds = f", {explanation.num_frames / explanation.fps:.1f} s" if explanation.fps else ""
    prompt = " against its prompt" if explanation.prompt else ""
    frames = len(set(explanation.clip_indices.tolist()))
    return (
        f"{short_name(explanation.video)}, {width} x {height}, {explanation.num_frames} frames{seconds}{prompt}. The "
        f"scores are of {frames} frames, spread over it. Higher is better; scores of different models cannot be "
        "compared."
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


def scores_html(
    scores: dict[str, float], percentiles: dict[str, float] | None = None, about_scale: str | None = None
) -> str:
    """One card per score, with its name, value, place among the reference and meaning.

    Args:
        percentiles: as of `config.on_scale`; about_scale: what they are of.
    """
    percentiles = percentiles or {}
    cards = [_card(name, value, percentiles) for name, value in scores.items() if name in MEANINGS]
    about = f'<p class="aigcvqa-hint">{html.escape(about_scale)}</p>' if about_scale and percentiles else ""
    unknown = "" if percentiles else NO_SCALE
    return f'<div class="aigcvqa-cards">{"".join(cards)}</div>{about}{unknown}'


NO_SCALE = (
    '<p class="aigcvqa-hint">Whether that is much is not known: this model has no reference scores. '
    "<code>aigcvqa calibrate</code> gives it some.</p>"
)


def _card(name: str, value: float, percentiles: dict[str, float]) -> str:
    percentile = percentiles.get(PERCENTILE_OF[name])
    place = "" if percentile is None else bar_html(percentile)
    if name == SCORES[0] and QUALITY_MOS in percentiles:
        place += f"<p>Estimated MOS: <b>{percentiles[QUALITY_MOS]:.2f}</b></p>"
    return (
        f'<div class="aigcvqa-card" data-score="{name}"><h3>{name.removesuffix("_score")}</h3>'
        f"<strong>{value:.2f}</strong>{place}<p>{MEANINGS[name]}</p></div>"
    )


def bar_html(percentile: float) -> str:
    """Five ranges with a mark at the percentile, and the word for its range."""
    word = range_of(percentile)
    fields = "".join(f'<i class="{"in" if name == word else ""}"></i>' for name in RANGES)
    return (
        f'<div class="aigcvqa-bar" role="img" aria-label="{word}">{fields}<b style="left:{percentile:.1f}%"></b></div>'
        f'<p><span class="aigcvqa-word-of-range">{word}</span>: above {percentile:.0f} % of the reference</p>'
    )


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
    share = np.clip(word.effect / limit, -1, 1) if word.is_content else 0.0
    red, green, blue = WORSE if share < 0 else BETTER
    return (
        f'<span class="aigcvqa-word" title="{word.effect:+.4f}" '
        f'style="background: rgb({red} {green} {blue} / {0.55 * abs(share):.2f})">{html.escape(word.word)}</span>'
    )


def _weakest_words_html(explanation: Explanation) -> str:
    words = explanation.weakest_words()
    items = "".join(f"<li><b>{html.escape(word.word)}</b> <span>{word.effect:+.2f}</span></li>" for word in words)
    weakest = (
        f'<p class="aigcvqa-hint">Without these words the alignment would be higher:</p>'
        f'<ol class="aigcvqa-weakest">{items}</ol>'
        if words
        else '<p class="aigcvqa-hint aigcvqa-none">None stands out: leaving a word out raises the score by little or '
        "nothing.</p>"
    )
    return (
        f'{weakest}<p class="aigcvqa-hint">Red words lower the alignment score, blue ones raise it: the score with the '
        f"word minus the score without it, full colour at ±{explanation.word_limit:.2f}. Words such as “the” are not "
        "coloured.</p>"
    )


def windows_html(explanation: Explanation) -> str:
    """The two samplings, named apart: scores of the clip, and means over its windows; nothing for a single window."""
    if explanation.is_one_sampling:
        return ""
    count, sampled = explanation.windows.indices.shape
    heads = "".join(f"<th>{name.removesuffix('_score')}</th>" for name in explanation.window_means)
    whole = "".join(f"<td>{explanation.scores[name]:.2f}</td>" for name in explanation.window_means)
    means = "".join(f"<td>{value:.2f}</td>" for value in explanation.window_means.values())
    return (
        '<h2>A closer look, in windows</h2><p class="aigcvqa-hint">For what follows the clip was scored again, in '
        f"{count} windows of {sampled} frames that follow each other more closely. Their scores differ from those of "
        "the whole clip; colours and times below are about the windows.</p>"
        f'<div class="aigcvqa-wide"><table class="aigcvqa-samplings"><tr><th></th>{heads}</tr>'
        f"<tr><th>whole clip</th>{whole}</tr>"
        f"<tr><th>mean of the windows</th>{means}</tr></table></div>"
    )


def player_html(
    explanation: Explanation, path: Path | None, scale: ColorScale | None = None, inline: bool = False
) -> str:
    """The video and its maps, with legends and controls below the pictures; needs `script`.

    Args:
        path: of the overlay; None for a model without maps.
        scale: that the overlay was painted with.
        inline: whether to put an overlay of any size into the page.
    """
    if path is None:
        return "<p>This model has no branch with a map.</p>"
    content = path.read_bytes()
    source = _data_uri("video/mp4", content) if inline or len(content) <= MAX_INLINE_BYTES else html.escape(path.name)
    painter = OverlayPainter(explanation, scale)
    width, height = painter.panel
    figures = []
    for column, title in enumerate(["video", *map(painter.title, explanation.maps)]):
        left, top = painter.corner(column)
        legend = _legend_html(painter.scale, list(explanation.maps)[column - 1]) if column else ""
        figures.append(
            f"<figure><figcaption>{title}</figcaption>{legend}"
            f'<canvas width="{width}" height="{height}" data-part="{left} {top} {width} {height}"></canvas></figure>'
        )
    shown = min(explanation.num_frames, MAX_OVERLAY_FRAMES)
    rate = (explanation.fps or DEFAULT_FPS) * shown / explanation.num_frames
    return (
        f'<div class="aigcvqa-player" data-frames="{shown}" data-rate="{rate}" data-fps="{explanation.fps or 0}">'
        f'<video controls loop muted playsinline preload="auto" src="{source}"></video>'
        f'<div class="aigcvqa-panels">{"".join(figures)}</div>'
        f'<div class="aigcvqa-controls"><button type="button">Pause</button>'
        f'<input type="range" min="0" max="{shown - 1}" value="0" aria-label="frame"><output></output></div></div>'
    )


def _legend_html(scale: ColorScale, branch: str) -> str:
    center, limit = scale.centers[branch], scale.limits[branch]
    ends = zip(legend_words(scale), (center - limit, center, center + limit))
    cells = "".join(f"<div>{word}<br>{value:.2f}</div>" for word, value in ends)
    return f'<div class="aigcvqa-legend"><span></span><div>{cells}</div></div>'


def timeline_html(explanation: Explanation) -> str:
    """The timeline, in the colours of the page."""
    return f'<div class="aigcvqa-timeline" role="img" aria-label="scores over time">{timeline_svg(explanation)}</div>'


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
    caption = f"{branch} {place.value:.2f}, {place.deviation:+.2f} from the mean, {when}"
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
            f"windows were averaged ({explanation.weighting} weights)."
        )
    return (
        f"{seen} A score is the mean of its map. Higher is better; scores of different models cannot be compared. "
        "Colours are neutral at the mean and full at the printed limits. The distance of a limit from the "
        "mean is at least a quarter of the change by heavy blur or noise."
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
