"""What a comparison says, in sentences."""

from collections.abc import Sequence

from .compare import Board
from .leaderboard import Place
from .pairs import Pair


def verdict(board: Board, names: Sequence[str]) -> str:
    """Who is best, and whether that can be told."""
    if not board.places:
        return "Nothing can be compared."
    ahead = [names[place.generator] for place in board.places if place.best_rank == 1]
    if len(ahead) == 1:
        return f"{ahead[0]} is better than every other generator."
    if len(ahead) == len(board.places):
        return "No generator can be told to be better than all others."
    return f"{listed(ahead)} lead; which of them is best cannot be told."


def listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def rank(place: Place) -> str:
    """ "1" for a certain rank, or "1 to 3"."""
    return str(place.best_rank) if place.best_rank == place.worst_rank else f"{place.best_rank} to {place.worst_rank}"


def difference(pair: Pair) -> str:
    """ "+1.20 [0.40, 2.00]"; a dash if there are too few common prompts."""
    if pair.difference is None:
        return "-"
    low, high = pair.interval
    return f"{pair.difference:+.2f} [{low:.2f}, {high:.2f}]"


def told_apart(pair: Pair) -> str:
    """Whether two generators can be told apart, and what it would take."""
    if pair.differs:
        return "yes"
    if pair.more_prompts is None:
        return "no, nor with 10,000 prompts"
    return f"no; about {pair.more_prompts:,} prompts more"


def neighbours(board: Board) -> list[tuple[Pair, bool]]:
    """The pairs of neighbours on the leaderboard, and whether the second of the pair is ahead."""
    by_members = {(pair.first, pair.second): pair for pair in board.pairs}
    found = []
    for ahead, behind in zip(board.places, board.places[1:]):
        first, second = sorted((ahead.generator, behind.generator))
        found.append((by_members[first, second], ahead.generator == second))
    return found


def turned(pair: Pair, is_second_ahead: bool) -> Pair:
    """The pair with the generator that is ahead as its first."""
    if not is_second_ahead:
        return pair
    low, high = pair.interval or (0.0, 0.0)
    return Pair(
        **{
            **vars(pair),
            "first": pair.second,
            "second": pair.first,
            "difference": None if pair.difference is None else -pair.difference,
            "interval": None if pair.interval is None else (-high, -low),
            "wins": pair.prompts - pair.wins - pair.ties,
        }
    )
