"""Explain the scores of a clip: maps and scores in windows over the clip, a timeline, the effect of every word.

    from modeling_aigcvqa import load_pipeline
    from modeling_aigcvqa.explain import explain

    explanation = explain(load_pipeline(), "clip.mp4", "a corgi walking in the park")

`explain.report` draws it and needs matplotlib.
"""

from .explanation import ColorScale, Explanation, Place, weakest_places
from .scoring import explain
from .windows import Windows
from .words import WORD_METHODS, WordScore, word_scores

__all__ = [
    "WORD_METHODS",
    "ColorScale",
    "Explanation",
    "Place",
    "Windows",
    "WordScore",
    "explain",
    "weakest_places",
    "word_scores",
]
