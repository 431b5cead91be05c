"""The result of `explain`: scores, maps, timeline, words and weakest places of a clip."""

from dataclasses import dataclass
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
        scores: scores of the clip as the pipeline gives them, from T frames spread evenly over the whole clip.
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

    @property
    def num_frames(self) -> int:
        """Number of frames of the clip, F."""
        return self.windows.total

    @cached_property
    def map_means(self) -> dict[str, float]:
        """Branch -> mean of its map over the clip, which is shown in the neutral colour."""
        return {branch: float(values.mean()) for branch, values in self.frame_maps.items()}

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
        """The content words with the lowest effects, the lowest first."""
        return sorted((word for word in self.words if word.is_content), key=lambda word: word.effect)[:count]


@dataclass(frozen=True)
class Place:
    """A cell of the 7 x 7 map of a frame, its value and the deviation of the value from the mean over the clip."""

    frame: int
    row: int
    column: int
    value: float
    deviation: float


def weakest_places(explanation: Explanation, branch: str, count: int = 3) -> list[Place]:
    """The cells that are furthest below the mean of the clip, each at its worst frame, the lowest value first.

    Cells that are below the mean by less than a quarter of the reference change are left out.
    """
    values = explanation.frame_maps[branch]
    mean, worst = explanation.map_means[branch], values.min(0)
    places = []
    for cell in np.argsort(worst, axis=None)[:count]:
        row, column = map(int, np.unravel_index(cell, worst.shape))
        deviation = float(worst[row, column] - mean)
        if -deviation >= explanation.unremarkable(branch):
            frame = int(values[:, row, column].argmin())
            places.append(Place(frame, row, column, float(worst[row, column]), deviation))
    return places
