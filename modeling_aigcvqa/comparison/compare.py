"""The comparison of generators: leaderboards and pairs by score and by category, and what the reader must know."""

from dataclasses import dataclass

import numpy as np

from ..names_aigcvqa import SCORES
from .answers import Answers
from .leaderboard import Place, leaderboard
from .pairs import ALPHA, Pair, correct, fewest_prompts, pairs_of

FEW_PROMPTS = 10
MIN_CATEGORY = 2  # prompts


@dataclass
class Board:
    """Generators by one score.

    Attributes:
        prompts: number of prompts that any of them answered.
        places: the best first.
        pairs: all of them.
    """

    prompts: int
    places: list[Place]
    pairs: list[Pair]


@dataclass
class Comparison:
    """Generators compared.

    Attributes:
        boards: by score.
        categories: boards of the quality score, by category; empty without categories.
        tests: number of tests that were corrected together for `boards`.
    """

    answers: Answers
    boards: dict[str, Board]
    categories: dict[str, Board]
    tests: int
    warnings: list[str]


def compare(answers: Answers) -> Comparison:
    """Compare generators by each score, and by quality in each category.

    All pairs of all scores are one family of tests, so that with probability 95 % nothing is told apart wrongly; all
    pairs of all categories are another one.
    """
    pairs = {name: pairs_of(scores) for name, scores in answers.scores.items()}
    tests = correct(list(pairs.values()))
    boards = {name: _board(scores, pairs[name]) for name, scores in answers.scores.items()}
    quality = answers.scores[SCORES[0]]
    rows = {
        name: quality[[category == name for category in answers.categories]]
        for name in sorted({category for category in answers.categories if category is not None})
    }
    of_categories = {name: pairs_of(scores) for name, scores in rows.items() if len(scores) >= MIN_CATEGORY}
    correct(list(of_categories.values()))
    categories = {name: _board(rows[name], found) for name, found in of_categories.items()}
    return Comparison(answers, boards, categories, tests, [*answers.warnings, *_warnings(answers, pairs, tests)])


def _board(scores: np.ndarray, pairs: list[Pair]) -> Board:
    return Board(int(np.isfinite(scores).any(1).sum()), leaderboard(scores, pairs), pairs)


def _warnings(answers: Answers, pairs: dict[str, list[Pair]], tests: int) -> list[str]:
    numbers = [pair.prompts for pair in pairs[SCORES[0]]]
    warnings, least = [], fewest_prompts(tests)
    if min(numbers) < FEW_PROMPTS:
        warnings.append(
            f"Some generators share only {min(numbers)} prompts. Below {FEW_PROMPTS} prompts a mean says more about "
            "the prompts than about the generators."
        )
    if max(numbers) < least:
        warnings.append(
            f"With {max(numbers)} prompts and {tests} tests, no difference is large enough to be told from chance at "
            f"{ALPHA:.0%}: that takes {least} prompts or more, or fewer generators."
        )
    alone = int(((answers.clips > 0).sum(1) == 1).sum())
    if alone:
        warnings.append(f"{alone} prompts were answered by one generator alone and compare nothing.")
    return warnings
