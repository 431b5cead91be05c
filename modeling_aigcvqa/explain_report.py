"""Draw an `Explanation`: heat maps over the video, a timeline, one HTML page. Not shipped by `save_pretrained`.

    paths = write_report(explanation, "clip.mp4", "report/")  # overlay.mp4, timeline.png, explanation.json, report.html

Needs matplotlib (`pip install 'aigcvqa[explain]'`).
"""

import base64
import html
import io
import json
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .explain import Explanation, Place, fetched, read_groups, weakest_places
from .explain_words import WordScore

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("drawing needs matplotlib: pip install 'aigcvqa[explain]'") from error

ASSETS = Path(__file__).parent / "assets"
PANEL = 352  # longer side of the video in a panel, pixels
TITLE, LEGEND, MARGIN = 28, 54, 10  # pixels above the panels (where no player's controls lie over them), and between
MAX_OVERLAY_FRAMES = 480  # a longer clip is shown with fewer frames, in its own time
DEFAULT_FPS = 8.0  # of clips that do not say
MAX_INLINE_BYTES = 8 * 2**20  # a larger overlay stays beside the report
OPACITY = 0.75  # of a place at the limit of the scale
WORSE, BETTER = (178, 24, 43), (33, 102, 172)  # red and blue: told apart by colour-blind readers too
PAPER, INK, FAINT = (255, 255, 255), (32, 33, 36), (110, 113, 118)

MEANINGS = {
    "quality_score": "All in all: the sum of the other scores.",
    "technical_score": "How clean the picture is: sharp, free of noise, blocks, flicker and warping.",
    "aesthetic_score": "How good it looks: colour, light, composition.",
    "alignment_score": "How well the video shows what the prompt says.",
}


def write_report(explanation: Explanation, video: Any, folder: str | Path) -> dict[str, Path]:
    """Write all pictures of an explanation into `folder`, which is made where it is missing.

    Args:
        video: the clip that was explained, in the same form; it is read again for its frames.

    Returns:
        Name -> path: "report" (HTML, complete in itself), "timeline" (PNG), "explanation" (JSON) and, for a model with
        maps, "overlay" (mp4).
    """
    folder, video = Path(folder), fetched(video)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "timeline": folder / "timeline.png",
        "explanation": folder / "explanation.json",
        "report": folder / "report.html",
    }
    draw_timeline(explanation).savefig(paths["timeline"])
    paths["explanation"].write_text(json.dumps(to_json(explanation), indent=1, ensure_ascii=False), encoding="utf-8")
    if explanation.maps:
        paths["overlay"] = folder / "overlay.mp4"
        write_overlay(explanation, video, paths["overlay"])
    paths["report"].write_text(report_html(explanation, video, paths), encoding="utf-8")
    return paths


def to_json(explanation: Explanation) -> dict:
    """An explanation as JSON knows it; lists of the shapes that `Explanation` names."""

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


# --- the video with its maps ---------------------------------------------------------------------------------------


def write_overlay(explanation: Explanation, video: Any, path: str | Path, max_frames: int = MAX_OVERLAY_FRAMES) -> None:
    """Write an mp4 (H.264, yuv420p): the video, and beside it the video under each branch's heat map.

    Red places score below the clip's mean, blue ones above; the limits of the scale stand above. A technical cell is
    drawn with its borders: it is the score of the fragment in its middle (32 x 32 pixels, 16 x 16 of the small model).
    The aesthetic map is interpolated.

    Raises:
        ValueError: for a model without maps.
    """
    if not explanation.maps:
        raise ValueError("the model has neither a technical nor an aesthetic branch: there is no map to lay over.")
    shown = np.linspace(0, explanation.num_frames - 1, min(explanation.num_frames, max_frames)).round().astype(int)
    fps = (explanation.fps or DEFAULT_FPS) * len(shown) / explanation.num_frames
    height, width = explanation.frame_size
    painter = OverlayPainter(explanation)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = painter.size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "24", "preset": "veryfast"}
        for index, frames in zip(shown, read_groups(video, shown[:, None], height * width * 3)):
            image = painter.paint(int(index), _to_uint8(frames[0].cpu().numpy()))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


class OverlayPainter:
    """Paints frames of the overlay; what does not change is painted once."""

    def __init__(self, explanation: Explanation):
        self.explanation = explanation
        height, width = explanation.frame_size
        scale = PANEL / max(height, width)
        self.panel = max(round(width * scale), 2), max(round(height * scale), 2)
        self.column = max(self.panel[0], 190)  # wide enough for the legend of an upright video
        columns = 1 + len(explanation.maps)
        size = columns * (self.column + MARGIN) + MARGIN, TITLE + LEGEND + self.panel[1] + MARGIN
        self.size = tuple(length + length % 2 for length in size)  # yuv420p wants even sides
        self.background = self._background()

    def paint(self, index: int, frame: np.ndarray) -> Image.Image:
        """One frame (H, W, 3) uint8 with its maps."""
        canvas = self.background.copy()
        picture = np.asarray(Image.fromarray(frame).resize(self.panel, Image.Resampling.BILINEAR))
        canvas.paste(Image.fromarray(picture), self._corner(0))
        for column, branch in enumerate(self.explanation.maps, 1):
            canvas.paste(Image.fromarray(tint(picture, self._heat(branch, index))), self._corner(column))
        seconds = self.explanation.seconds(index)
        time = "" if seconds is None else f"{seconds:.2f} s   "
        ImageDraw.Draw(canvas).text((self._left(0), TITLE), f"{time}frame {index}", FAINT, _font(13))
        return canvas

    def _heat(self, branch: str, index: int) -> np.ndarray:
        """Deviations from the mean in units of the limit, -1..1, at the panel's pixels."""
        values = self.explanation.frame_maps[branch][index]
        values = (values - self.explanation.map_means[branch]) / self.explanation.color_limits[branch]
        # Fragments are places of their own; the aesthetic network's neighbouring cells see much of the same.
        how = Image.Resampling.NEAREST if branch == "technical" else Image.Resampling.BICUBIC
        return np.asarray(Image.fromarray(values.astype(np.float32)).resize(self.panel, how)).clip(-1, 1)

    def _left(self, column: int) -> int:
        return MARGIN + column * (self.column + MARGIN) + (self.column - self.panel[0]) // 2

    def _corner(self, column: int) -> tuple[int, int]:
        return self._left(column), TITLE + LEGEND

    def _background(self) -> Image.Image:
        canvas = Image.new("RGB", self.size, PAPER)
        draw = ImageDraw.Draw(canvas)
        draw.text((self._left(0), 7), "video", INK, _font(14))
        for column, branch in enumerate(self.explanation.maps, 1):
            left, score = self._left(column), self.explanation.scores[f"{branch}_score"]
            draw.text((left, 7), f"{branch}  {score:.3f}", INK, _font(14))
            self._legend(canvas, branch, MARGIN + column * (self.column + MARGIN))
        return canvas

    def _legend(self, canvas: Image.Image, branch: str, left: int) -> None:
        """A bar from worse to better over mid-grey, with the numbers at its ends and its middle."""
        top, draw = TITLE, ImageDraw.Draw(canvas)
        grey = np.full((12, self.column, 3), 128, np.uint8)
        bar = tint(grey, np.broadcast_to(np.linspace(-1, 1, self.column), grey.shape[:2]))
        canvas.paste(Image.fromarray(bar), (left, top))
        mean, limit = self.explanation.map_means[branch], self.explanation.color_limits[branch]
        ends = (
            (left, "la", mean - limit),
            (left + self.column // 2, "ma", mean),
            (left + self.column, "ra", mean + limit),
        )
        for (x, anchor, value), word in zip(ends, ("worse", "mean", "better")):
            draw.text((x, top + 15), f"{value:.3f}", INK, _font(12), anchor=anchor)
            draw.text((x, top + 30), word, FAINT, _font(11), anchor=anchor)


def tint(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 under heat (H, W) from -1 (worse, red) to 1 (better, blue); 0 shows through."""
    colors = np.where(heat[..., None] < 0, WORSE, BETTER)
    alpha = OPACITY * np.abs(heat)[..., None]
    return (picture * (1 - alpha) + colors * alpha).round().astype(np.uint8)


def _to_uint8(frame: np.ndarray) -> np.ndarray:
    return frame if frame.dtype == np.uint8 else (frame * 255).round().astype(np.uint8)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: the same letters on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


# --- the timeline --------------------------------------------------------------------------------------------------


def draw_timeline(explanation: Explanation) -> Figure:
    """A row a score: its course over the clip, the clip's own score as a dashed line, the lowest moment marked.

    A row spans at least a quarter of what heavy damage changes (of alignment: of what an empty prompt changes), so that
    a clip that is the same all along gives a flat line.
    """
    names = list(explanation.timeline)
    figure = Figure(figsize=(9, 0.7 + 1.25 * len(names)), dpi=110, layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    times = np.arange(explanation.num_frames) / (explanation.fps or 1.0)
    for axis, name in zip(axes, names):
        _draw_row(axis, explanation, name, times)
    axes[-1].set_xlabel("seconds" if explanation.fps else "frame")
    if len(times) > 1:
        axes[-1].set_xlim(times[0], times[-1])
    return figure


def _draw_row(axis: Any, explanation: Explanation, name: str, times: np.ndarray) -> None:
    values, score = explanation.timeline[name], explanation.scores[name]
    axis.plot(times, values, color=_hex(BETTER), marker="o" if len(times) == 1 else None)
    axis.axhline(score, color=_hex(FAINT), linestyle="--", linewidth=1)
    branch = name.removesuffix("_score")
    unremarkable = (
        sum(map(explanation.unremarkable, explanation.reference_changes))
        if branch == "quality"
        else explanation.unremarkable(branch)
    )
    low, high = min(values.min(), score), max(values.max(), score)
    margin = 0.08 * (high - low) + max(unremarkable - (high - low), 0) / 2
    axis.set_ylim(low - margin, high + margin)
    if values.mean() - values.min() >= unremarkable:
        lowest = int(values.argmin())
        axis.plot(times[lowest], values[lowest], "o", color=_hex(WORSE))
    axis.set_title(f"{branch}  {score:.3f}", loc="left", fontsize=10)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


# --- the page ------------------------------------------------------------------------------------------------------


def report_html(explanation: Explanation, video: Any, paths: dict[str, Path]) -> str:
    """One page that needs nothing beside it: pictures and video are inlined (an overlay above 8 MiB is linked)."""
    template = Template((ASSETS / "explain.html").read_text(encoding="utf-8"))
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
    """The style of the pieces below, for any page that shows them."""
    return (ASSETS / "explain.css").read_text(encoding="utf-8")


def short_name(video: str) -> str:
    """The file's name out of `Explanation.video`."""
    return Path(video.strip("'\"")).name


def note_html(note: str | None) -> str:
    """The caveat on the model's weights; nothing where there is none."""
    return f'<p class="aigcvqa-note" role="note">{html.escape(note)}</p>' if note else ""


def scores_html(scores: dict[str, float]) -> str:
    """A card a score: its name, its value, what it says."""
    cards = [
        f'<div class="aigcvqa-card" data-score="{name}"><h3>{name.removesuffix("_score")}</h3>'
        f"<strong>{value:.3f}</strong><p>{MEANINGS[name]}</p></div>"
        for name, value in scores.items()
    ]
    return f'<div class="aigcvqa-cards">{"".join(cards)}</div>'


def words_html(explanation: Explanation) -> str:
    """The prompt with every word coloured by its effect on the alignment score, and a sentence on the weakest."""
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
        '<p class="aigcvqa-hint">The number of a word is the alignment score with it minus the score without it. '
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
    """The weakest places of every map as stills, or a sentence that none stands out."""
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


def place_stills(explanation: Explanation, video: Any, branch: str, places: list[Place]) -> Iterator[Image.Image]:
    """The frame of every place with a box around its cell."""
    height, width = explanation.frame_size
    rows, columns = explanation.frame_maps[branch].shape[1:]
    for place, frames in zip(places, read_groups(video, np.array([[p.frame] for p in places]), height * width * 3)):
        image = Image.fromarray(_to_uint8(frames[0].cpu().numpy()))
        image.thumbnail((PANEL, PANEL))
        wide, high = image.width / columns, image.height / rows
        left, top = place.column * wide, place.row * high
        draw = ImageDraw.Draw(image)
        for color, thickness in ((PAPER, 4), (WORSE, 2)):
            draw.rectangle((left, top, left + wide, top + high), outline=color, width=thickness)
        yield image


def method_text(explanation: Explanation) -> str:
    """How the numbers came about, in a few sentences."""
    windows = explanation.windows
    count, sampled = windows.indices.shape
    if count == 1:
        seen = f"The clip's {explanation.num_frames} frames are one window, of which {sampled} frames were scored."
    else:
        seen = (
            f"{explanation.num_frames} frames in {count} windows of {windows.length} frames, {windows.stride} apart; "
            f"{sampled} frames of each were scored by every branch, and windows that overlap were averaged "
            f"({explanation.weighting} weights). The scores at the top rest on {sampled} frames spread over the clip."
        )
    return (
        f"{seen} A score is the mean of its map. Higher is better; only scores of one model compare. Colours are "
        "neutral at the clip's mean and full at the limits printed beside them, which are never closer than a quarter "
        "of what heavy blur or noise would change."
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
