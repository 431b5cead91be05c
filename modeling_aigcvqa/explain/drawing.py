"""Draw an explanation: heat maps over the video, stills of the weakest places, the timeline."""

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .explanation import ColorScale, Explanation, Place
from .windows import read_groups

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("drawing needs matplotlib: pip install 'aigcvqa[explain]'") from error

PANEL = 352  # longer side of a panel in pixels
TITLE, LEGEND, MARGIN = 28, 54, 10  # pixels; title and legend stand above, because players cover the bottom
MAX_OVERLAY_FRAMES = 480  # a longer clip is shown with fewer frames per second
DEFAULT_FPS = 8.0  # for clips without a frame rate
OPACITY = 0.75  # of the colour at the limit of the scale
WORSE, BETTER = (178, 24, 43), (33, 102, 172)  # red and blue can also be told apart by colour-blind readers
PAGE_INK = (1, 2, 3)  # replaced by the colour of the page's text
PAGE_BLUE = "#4a90d9"  # readable on white and on black
PAPER, INK, FAINT = (255, 255, 255), (32, 33, 36), (110, 113, 118)


def write_overlay(
    explanation: Explanation,
    video: Any,
    path: str | Path,
    max_frames: int = MAX_OVERLAY_FRAMES,
    scale: ColorScale | None = None,
) -> None:
    """Write an mp4 (H.264, yuv420p) that shows the video, and beside it the video under the heat map of each branch.

    Places that score below the mean of the clip are red, places above the mean are blue. A legend shows the limits of
    the scale. The cells of the technical map have sharp borders, because each is the score of one fragment (32 x 32
    pixels, 16 x 16 in the small model). The aesthetic map is interpolated.

    Args:
        scale: of the colours; None for that of the clip alone.

    Raises:
        ValueError: if the model has no maps.
    """
    if not explanation.maps:
        raise ValueError("the model has neither a technical nor an aesthetic branch: there is no map to draw.")
    shown = np.linspace(0, explanation.num_frames - 1, min(explanation.num_frames, max_frames)).round().astype(int)
    fps = (explanation.fps or DEFAULT_FPS) * len(shown) / explanation.num_frames
    height, width = explanation.frame_size
    painter = OverlayPainter(explanation, scale)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = painter.size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "24", "preset": "veryfast"}
        for index, frames in zip(shown, read_groups(video, shown[:, None], height * width * 3)):
            image = painter.paint(int(index), to_uint8(frames[0].cpu().numpy()))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


class OverlayPainter:
    """Paints the frames of the overlay on a background that is painted once."""

    def __init__(self, explanation: Explanation, scale: ColorScale | None = None):
        self.explanation, self.scale = explanation, scale or ColorScale.over([explanation])
        height, width = explanation.frame_size
        scale = PANEL / max(height, width)
        self.panel = max(round(width * scale), 2), max(round(height * scale), 2)
        self.column = max(self.panel[0], 190)  # wide enough for the legend of an upright video
        columns = 1 + len(explanation.maps)
        size = columns * (self.column + MARGIN) + MARGIN, TITLE + LEGEND + self.panel[1] + MARGIN
        self.size = tuple(length + length % 2 for length in size)  # yuv420p needs even sides
        self.background = self._background()

    def paint(self, index: int, frame: np.ndarray) -> Image.Image:
        """One frame (H, W, 3) uint8 with its maps."""
        canvas = self.background.copy()
        picture = np.asarray(Image.fromarray(frame).resize(self.panel, Image.Resampling.BILINEAR))
        canvas.paste(Image.fromarray(picture), self.corner(0))
        for column, branch in enumerate(self.explanation.maps, 1):
            canvas.paste(Image.fromarray(tint(picture, self._heat(branch, index))), self.corner(column))
        seconds = self.explanation.seconds(index)
        time = "" if seconds is None else f"{seconds:.2f} s   "
        ImageDraw.Draw(canvas).text((self._left(0), TITLE), f"{time}frame {index}", FAINT, _font(13))
        return canvas

    def _heat(self, branch: str, index: int) -> np.ndarray:
        """Deviations from the mean in units of the colour limit, -1..1, for every pixel of the panel."""
        values = self.explanation.frame_maps[branch][index]
        values = (values - self.scale.centers[branch]) / self.scale.limits[branch]
        # Fragments are separate places, but neighbouring cells of the aesthetic network see much of the same area.
        how = Image.Resampling.NEAREST if branch == "technical" else Image.Resampling.BICUBIC
        return np.asarray(Image.fromarray(values.astype(np.float32)).resize(self.panel, how)).clip(-1, 1)

    def _left(self, column: int) -> int:
        return MARGIN + column * (self.column + MARGIN) + (self.column - self.panel[0]) // 2

    def corner(self, column: int) -> tuple[int, int]:
        return self._left(column), TITLE + LEGEND

    def _background(self) -> Image.Image:
        canvas = Image.new("RGB", self.size, PAPER)
        draw = ImageDraw.Draw(canvas)
        draw.text((self._left(0), 7), "video", INK, _font(14))
        for column, branch in enumerate(self.explanation.maps, 1):
            draw.text((self._left(column), 7), self.title(branch), INK, _font(14))
            self._legend(canvas, branch, MARGIN + column * (self.column + MARGIN))
        return canvas

    def title(self, branch: str) -> str:
        """The branch with the mean of what its map shows."""
        mean = self.explanation.map_means[branch]
        return f"{branch}  {mean:.2f}" if self.explanation.is_one_sampling else f"{branch}, windows' mean {mean:.2f}"

    def _legend(self, canvas: Image.Image, branch: str, left: int) -> None:
        """A colour bar on grey from worse to better, with the values at both ends and in the middle."""
        top, draw = TITLE, ImageDraw.Draw(canvas)
        grey = np.full((12, self.column, 3), 128, np.uint8)
        bar = tint(grey, np.broadcast_to(np.linspace(-1, 1, self.column), grey.shape[:2]))
        canvas.paste(Image.fromarray(bar), (left, top))
        mean, limit = self.scale.centers[branch], self.scale.limits[branch]
        ends = (
            (left, "la", mean - limit),
            (left + self.column // 2, "ma", mean),
            (left + self.column, "ra", mean + limit),
        )
        for (x, anchor, value), word in zip(ends, legend_words(self.scale)):
            draw.text((x, top + 15), f"{value:.2f}", INK, _font(12), anchor=anchor)
            draw.text((x, top + 30), word, FAINT, _font(11), anchor=anchor)


def legend_words(scale: ColorScale) -> tuple[str, str, str]:
    """What stands below the ends and the middle of a legend."""
    return "worse", "mean" if scale.clips == 1 else f"mean of {scale.clips} clips", "better"


def tint(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour a picture (H, W, 3) uint8 by heat (H, W) from -1 (worse, red) to 1 (better, blue); 0 is transparent."""
    colors = np.where(heat[..., None] < 0, WORSE, BETTER)
    alpha = OPACITY * np.abs(heat)[..., None]
    return (picture * (1 - alpha) + colors * alpha).round().astype(np.uint8)


def to_uint8(frame: np.ndarray) -> np.ndarray:
    return frame if frame.dtype == np.uint8 else (frame * 255).round().astype(np.uint8)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of matplotlib, which is the same on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def place_stills(explanation: Explanation, video: Any, branch: str, places: list[Place]) -> Iterator[Image.Image]:
    """The frame of every place with a box around its cell."""
    height, width = explanation.frame_size
    rows, columns = explanation.frame_maps[branch].shape[1:]
    for place, frames in zip(places, read_groups(video, np.array([[p.frame] for p in places]), height * width * 3)):
        image = Image.fromarray(to_uint8(frames[0].cpu().numpy()))
        image.thumbnail((PANEL, PANEL))
        wide, high = image.width / columns, image.height / rows
        left, top = place.column * wide, place.row * high
        draw = ImageDraw.Draw(image)
        for color, thickness in ((PAPER, 4), (WORSE, 2)):
            draw.rectangle((left, top, left + wide, top + high), outline=color, width=thickness)
        yield image


def draw_timeline(explanation: Explanation, width: float = 9.0) -> Figure:
    """Draw one row per score: its values over the clip, their mean as a dashed line, a mark at the lowest.

    The y axis spans at least a quarter of the reference change, so that a clip of even quality gives a flat line.

    Args:
        width: in inches.
    """
    names = list(explanation.timeline)
    figure = Figure(figsize=(width, 0.7 + 1.25 * len(names)), dpi=110, layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    times = np.arange(explanation.num_frames) / (explanation.fps or 1.0)
    for axis, name in zip(axes, names):
        _draw_row(axis, explanation, name, times)
    axes[-1].set_xlabel("seconds" if explanation.fps else "frame")
    if len(times) > 1:
        axes[-1].set_xlim(times[0], times[-1])
    return figure


def timeline_svg(explanation: Explanation) -> str:
    """The timeline as SVG for a page, narrow enough for a phone; its ink is the colour of the text around it."""
    ink = _hex(PAGE_INK)
    style = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
        "svg.fonttype": "none",
        "svg.hashsalt": explanation.video,
    }
    with matplotlib.rc_context(style):
        file = io.StringIO()
        draw_timeline(explanation, width=5.2).savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawn = file.getvalue()
    return drawn[drawn.index("<svg") :].replace(ink, "currentColor").replace(_hex(BETTER), PAGE_BLUE)


def _draw_row(axis: Any, explanation: Explanation, name: str, times: np.ndarray) -> None:
    values, mean = explanation.timeline[name], explanation.window_means[name]
    axis.plot(times, values, color=_hex(BETTER), marker="o" if len(times) == 1 else None)
    axis.axhline(mean, color=_hex(FAINT), linestyle="--", linewidth=1)
    branch = name.removesuffix("_score")
    unremarkable = (
        sum(map(explanation.unremarkable, explanation.reference_changes))
        if branch == "quality"
        else explanation.unremarkable(branch)
    )
    low, high = min(values.min(), mean), max(values.max(), mean)
    margin = 0.08 * (high - low) + max(unremarkable - (high - low), 0) / 2
    axis.set_ylim(low - margin, high + margin)
    if values.mean() - values.min() >= unremarkable:
        lowest = int(values.argmin())
        axis.plot(times[lowest], values[lowest], "o", color=_hex(WORSE))
    what = "" if explanation.is_one_sampling else ", windows' mean"
    axis.set_title(f"{branch}{what}  {mean:.2f}", loc="left", fontsize=10)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
