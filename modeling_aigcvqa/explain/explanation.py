"""What an explanation holds: scores, maps, timeline and words of a clip, and its weakest places."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .windows import Windows
from .words import WordScore

# Shown colours reach their full strength at a deviation that is at least this share of what heavy damage changes.
UNREMARKABLE = 0.25


@dataclass(frozen=True)
class Explanation:
    """What `explain` finds; F frames of the clip, W windows of T sampled frames, T' = T/2 places in time of a map.

    Args:
        video, prompt: what was scored; `video` is its name in messages.
        note: the caveat on the model's weights, or None.
        scores: the clip's scores, those of the pipeline: T frames spread evenly over the whole clip.
        fps: frames a second, or None where the file does not say.
        frame_size: height and width in pixels.
        clip_indices: frames that `scores` rest on (T,).
        windows: where the windows lie and which frames they were scored on; a single window is the whole clip.
        weighting: how overlapping windows are averaged, "triangular" or "uniform".
        window_scores: score name -> (W,).
        maps: branch -> (W, T', 7, 7); a window's score is the mean of its map.
        frame_maps: branch -> (F, 7, 7); the windows' maps averaged where they overlap.
        timeline: score name -> (F,); technical and aesthetic are the means of `frame_maps`, alignment the average of
            the windows' scores, quality their sum.
        reference_changes: the yardstick of the colours. Of technical and aesthetic: the most that heavy blur or noise
            over the whole clip moves the score; of alignment: what an empty prompt does.
        words: the prompt's words in its order; none without the alignment branch.
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
        """F."""
        return self.windows.total

    @cached_property
    def map_means(self) -> dict[str, float]:
        """Branch -> mean of its map over the clip, the neutral colour."""
        return {branch: float(values.mean()) for branch, values in self.frame_maps.items()}

    @cached_property
    def color_limits(self) -> dict[str, float]:
        """Branch -> deviation from the mean that is shown in full colour.

        The 98th percentile of the deviations, but no less than a quarter of what heavy blur or noise changes: so a bad
        place shows, and a clip that is the same everywhere stays pale.
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
        """Deviations of the branch below this are not worth a look: a quarter of its reference change."""
        return max(UNREMARKABLE * self.reference_changes.get(branch, 0.0), 1e-6)

    def seconds(self, frame: int) -> float | None:
        """When a frame is shown, or None where the frame rate is not known."""
        return frame / self.fps if self.fps else None

    def weakest_words(self, count: int = 3) -> list[WordScore]:
        """The content words that add least, weakest first."""
        return sorted((word for word in self.words if word.is_content), key=lambda word: word.effect)[:count]


@dataclass(frozen=True)
class Place:
    """A cell of a frame: row and column of the 7 x 7, the map's value there and its deviation from the clip's mean."""

    frame: int
    row: int
    column: int
    value: float
    deviation: float


def weakest_places(explanation: Explanation, branch: str, count: int = 3) -> list[Place]:
    """The cells that fall furthest below the clip's mean, each at its worst frame, weakest first.

    Only cells that stand out: below the mean by a quarter of what heavy blur or noise changes, or more.
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
