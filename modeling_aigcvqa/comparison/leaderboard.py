"""Ranks of generators, and groups that cannot be told apart."""

import string
from dataclasses import dataclass

import networkx as nx
import numpy as np

from .pairs import MIN_PAIRED, Pair, interval_of_mean


@dataclass
class Place:
    """A generator's place by one score.

    Attributes:
        generator: its place in the list of generators.
        mean, interval: over prompts, with the 95 % interval by prompt; no interval for a single prompt.
        prompts: number of prompts in the mean.
        best_rank, worst_rank: 1 and the number of generators that are better for certain, and so on from the other end.
        groups: letters; generators that share a letter cannot be told apart.
    """

    generator: int
    mean: float
    interval: tuple[float, float] | None
    prompts: int
    best_rank: int = 1
    worst_rank: int = 1
    groups: str = ""


def leaderboard(scores: np.ndarray, pairs: list[Pair]) -> list[Place]:
    """The generators by the mean of their scores (P, G), the best first.

    The mean is over the prompts that all have answered, or over each one's own if these are fewer than two. A generator
    without any score has no place.
    """
    answered = np.isfinite(scores)
    common = answered[:, answered.any(0)].all(1)
    places = []
    for generator in np.flatnonzero(answered.any(0)).tolist():
        of = scores[common if common.sum() >= MIN_PAIRED else answered[:, generator], generator]
        interval = interval_of_mean(of) if len(of) >= MIN_PAIRED else None
        places.append(Place(generator, float(of.mean()), interval, len(of)))
    places.sort(key=lambda place: -place.mean)
    _set_ranks(places, pairs)
    _set_groups(places, pairs)
    return places


def _set_ranks(places: list[Place], pairs: list[Pair]) -> None:
    for place in places:
        better = worse = 0
        for pair in pairs:
            if pair.differs and place.generator in (pair.first, pair.second):
                is_ahead = (pair.difference > 0) == (pair.first == place.generator)
                better, worse = better + (not is_ahead), worse + is_ahead
        place.best_rank, place.worst_rank = 1 + better, len(places) - worse


def _set_groups(places: list[Place], pairs: list[Pair]) -> None:
    """Letters for the largest sets of generators of which no two differ."""
    order = {place.generator: rank for rank, place in enumerate(places)}
    graph = nx.Graph()
    graph.add_nodes_from(order)
    graph.add_edges_from((pair.first, pair.second) for pair in pairs if not pair.differs)
    cliques = sorted(sorted(order[member] for member in clique) for clique in nx.find_cliques(graph.subgraph(order)))
    for number, clique in enumerate(cliques):
        for rank in clique:
            places[rank].groups += _letter(number)


def _letter(number: int) -> str:
    letters = string.ascii_lowercase
    return letters[number] if number < len(letters) else f"({number + 1})"
