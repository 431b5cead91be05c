"""The result of `explain`: scores, maps, timeline, words and weakest places of a clip."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .windows import Windows
from .words import WordScore

# A deviation below this share of the reference change (heavy damage to the clip) is not worth a look.
UNREMARKABLE = 0.25


@dataclass(frozen=True)
class Explanation:
    """The result of `explain` for a clip of F frames in W windows, with T sampled frames and T' = T/2 map steps each.

    Args:
        video: name of the video in messages.
        prompt: the prompt, or None.
        note: what users must know about the weights, or None.
        scores: scores of the clip as the pipeline gives them, from T frames spread evenly over the whole clip. Windows
            are another sampling of a clip with more frames: their mean is in `window_means`, and maps, timeline and
            colours are about that one.
        fps: frames per second, or None if the file does not say.
        frame_size: height and width in pixels.
        clip_indices: the frames behind `scores` (T,).
        windows: places and frames of the windows; a single window is the whole clip.
        weighting: how overlapping windows are averaged, "triangular" or "uniform".
        window_scores: score name -> (W,).
        maps: branch -> (W, T', 7, 7); the score of a window is the mean of its map.
        frame_maps: branch -> (F, 7, 7), the maps of the windows averaged where they overlap.
        timeline: score name -> (F,). Technical and aesthetic are the means of `frame_maps`, alignment is the average
            over the windows, quality is their sum.
        reference_changes: branch -> change of its score that counts as large: for technical and aesthetic the change
            by heavy blur or noise over the whole clip, for alignment the change by an empty prompt.
        words: the words of the prompt in order; empty without the alignment branch.
        percentiles: of `scores` among the reference of the model, and its estimated MOS, as of `config.on_scale`.
        about_scale: what the percentiles are of; None if the model has no scale.
    """

    video: str
    prompt: str | None
    note: str | None
    scores: dict[str, float]
    fps: float | None
    frame_size: tuple[int, int]
    clip_indices: np.ndarray
    windows: Windows
    weighting: str
    window_scores: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    frame_maps: dict[str, np.ndarray]
    timeline: dict[str, np.ndarray]
    reference_changes: dict[str, float]
    words: list[WordScore]
    percentiles: dict[str, float] = field(default_factory=dict)
    about_scale: str | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames of the clip, F."""
        return self.windows.total

    @property
    def is_one_sampling(self) -> bool:
        """Whether maps and timeline are of the frames behind `scores`: the clip is a single window."""
        return len(self.windows.starts) == 1

    @cached_property
    def window_means(self) -> dict[str, float]:
        """Score name -> its mean over the timeline; for a single window the score of the clip."""
        if self.is_one_sampling:
            return {name: self.scores[name] for name in self.timeline}
        return {name: float(values.mean()) for name, values in self.timeline.items()}

    @property
    def map_means(self) -> dict[str, float]:
        """Branch -> mean of its map over the windows, which is shown in the neutral colour."""
        return {branch: self.window_means[f"{branch}_score"] for branch in self.frame_maps}

    @cached_property
    def color_limits(self) -> dict[str, float]:
        """Branch -> deviation from the mean that is shown in full colour.

        This is the 98th percentile of the deviations, but at least a quarter of the reference change. A bad place is
        then visible, and a clip of even quality stays pale.
        """
        limits = {}
        for branch, values in self.frame_maps.items():
            spread = float(np.quantile(np.abs(values - self.map_means[branch]), 0.98))
            limits[branch] = max(spread, self.unremarkable(branch))
        return limits

    @property
    def word_limit(self) -> float:
        """Effect of a word, up or down, that is shown in full colour."""
        return max([abs(word.effect) for word in self.words] + [self.unremarkable("alignment")])

    def unremarkable(self, branch: str) -> float:
        """The deviation below which a place is not worth a look: a quarter of the branch's reference change."""
        return max(UNREMARKABLE * self.reference_changes.get(branch, 0.0), 1e-6)

    def seconds(self, frame: int) -> float | None:
        """The time of a frame, or None if the frame rate is not known."""
        return frame / self.fps if self.fps else None

    def weakest_words(self, count: int = 3) -> list[WordScore]:
        """The content words without which the score would be higher, the strongest first.

        Words that lower the score by less than a quarter of the reference change are left out.
        """
        least = self.unremarkable("alignment")
        weak = [word for word in self.words if word.is_content and -word.effect >= least]
        return sorted(weak, key=lambda word: word.effect)[:count]


@dataclass(frozen=True)
class ColorScale:
    """What the colours of the maps mean, for one clip or for several that are compared.

    Args:
        centers: branch -> the value in the neutral colour.
        limits: branch -> deviation from it in full colour.
        clips: number of clips that the scale is for.
    """

    centers: dict[str, float]
    limits: dict[str, float]
    clips: int

    @classmethod
    def over(cls, explanations: Sequence[Explanation]) -> "ColorScale":
        """The scale of clips that are shown side by side: equal values have equal colours.

        The neutral colour is the mean of their means. The full colour is at the largest of their limits, and at least
        as far as the mean of a clip is from the neutral one: a clip that is worse throughout is red throughout.
        """
        centers, limits = {}, {}
        for branch in explanations[0].frame_maps:
            means = [explanation.map_means[branch] for explanation in explanations]
            centers[branch] = float(np.mean(means))
            furthest = max(abs(mean - centers[branch]) for mean in means)
            limits[branch] = max(furthest, *(explanation.color_limits[branch] for explanation in explanations))
        return cls(centers, limits, len(explanations))


@dataclass(frozen=True)
class Place:
    """A cell of the 7 x 7 map of a frame, its value and the deviation of the value from the mean over the clip."""

    frame: int
    row: int
    column: int
    value: float
    deviation: float


def weakest_places(explanation: Explanation, branch: str, count: int = 3) -> list[Place]:
    """The cells that are furthest below the mean of the clip, at different times, the lowest value first.

    A place keeps a distance of a `2 * count`-th of the clip from the places before it, so that a single bad moment does
    not take them all. Cells that are below the mean by less than a quarter of the reference change are left out.
    """
    values = explanation.frame_maps[branch].astype(np.float64)
    mean, places = explanation.map_means[branch], []
    distance = len(values) / (2 * count)
    free = np.ones(len(values), dtype=bool)
    while len(places) < count and free.any():
        cell = np.where(free[:, None, None], values, np.inf).argmin()
        frame, row, column = map(int, np.unravel_index(cell, values.shape))
        deviation = float(values[frame, row, column] - mean)
        if -deviation < explanation.unremarkable(branch):
            break
        places.append(Place(frame, row, column, float(values[frame, row, column]), deviation))
        free &= np.abs(np.arange(len(values)) - frame) > distance
    return places
