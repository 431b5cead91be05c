"""A comparison as data: JSON and tables that spreadsheets open."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..common.cells import csv_line
from .compare import Board, Comparison
from .leaderboard import Place
from .pairs import Pair

PLACES = ("generator", "mean", "low", "high", "prompts", "best_rank", "worst_rank", "groups")
PAIRS = (
    *("first", "second", "prompts", "difference", "low", "high", "wins", "ties", "p_value", "p_holm", "differs"),
    *("more_prompts", "turned_by"),
)


def to_json(comparison: Comparison, model: str | None = None, note: str | None = None) -> dict[str, Any]:
    """A comparison as dicts and lists; the names are those of `Place` and `Pair`."""
    answers = comparison.answers
    return {
        "generators": answers.generators,
        "prompts": len(answers.prompts),
        "clips": int(answers.clips.sum()),
        "model": model,
        "note": note,
        "warnings": comparison.warnings,
        "tests": comparison.tests,
        "scores": {name: _board(board, comparison) for name, board in comparison.boards.items()},
        "categories": {name: _board(board, comparison) for name, board in comparison.categories.items()},
        "failed": answers.failed,
    }


def _board(board: Board, comparison: Comparison) -> dict[str, Any]:
    names = comparison.answers.generators
    return {
        "prompts": board.prompts,
        "leaderboard": [_place(place, names) for place in board.places],
        "pairs": [
            _pair(pair, names) | {"deciding": [comparison.answers.prompts[place] for place in pair.deciding]}
            for pair in board.pairs
        ],
    }


def _place(place: Place, names: Sequence[str]) -> dict[str, Any]:
    low, high = place.interval or (None, None)
    content = asdict(place) | {"generator": names[place.generator], "low": low, "high": high}
    return {name: content[name] for name in PLACES}


def _pair(pair: Pair, names: Sequence[str]) -> dict[str, Any]:
    low, high = pair.interval or (None, None)
    content = asdict(pair) | {"first": names[pair.first], "second": names[pair.second], "low": low, "high": high}
    content["differs"] = pair.differs
    return {name: content[name] for name in PAIRS}


def leaderboard_csv(comparison: Comparison) -> str:
    """A line per score and generator, and per category."""
    names = comparison.answers.generators
    lines = [csv_line(["score", "category", *PLACES])]
    for score, category, board in _boards(comparison):
        lines += [csv_line([score, category, *_place(place, names).values()]) for place in board.places]
    return "".join(lines)


def pairs_csv(comparison: Comparison) -> str:
    """A line per score and pair of generators, and per category."""
    names = comparison.answers.generators
    lines = [csv_line(["score", "category", *PAIRS])]
    for score, category, board in _boards(comparison):
        lines += [csv_line([score, category, *_pair(pair, names).values()]) for pair in board.pairs]
    return "".join(lines)


def _boards(comparison: Comparison) -> list[tuple[str, str, Board]]:
    of_scores = [(name, "", board) for name, board in comparison.boards.items()]
    return of_scores + [("quality_score", name, board) for name, board in comparison.categories.items()]
