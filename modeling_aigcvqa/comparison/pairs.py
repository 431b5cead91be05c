"""Two generators on the prompts that both answered: difference, test, and what it would take to tell them apart."""

import math
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

try:
    from scipy import stats
except ImportError as error:
    raise ImportError("comparing needs scipy and networkx: pip install 'aigcvqa[compare]'") from error

ALPHA = 0.05  # family-wise error rate of all tests together
POWER = 0.8  # with which the prompts that are wanted would tell a pair apart
MIN_PAIRED = 2  # prompts
MOST_WANTED = 10_000  # prompts; more is no plan
DECIDING = 5  # prompts that are named


@dataclass
class Pair:
    """Two generators, by one score.

    Attributes:
        first, second: places of the generators; `difference` is first minus second.
        prompts: how many both answered.
        difference, interval: mean over the prompts, and its 95 % interval; None for fewer than two prompts.
        wins, ties: prompts on which the first is better, and on which both are equal.
        p_value, p_holm: of Wilcoxon's signed-rank test, two-sided, before and after Holm's correction.
        more_prompts: about how many prompts more would tell them apart; 0 if they are, None if it is hopeless.
        deciding: places of prompts; without these and others like them, `turned_by` in all, the order would turn.
    """

    first: int
    second: int
    prompts: int
    difference: float | None = None
    interval: tuple[float, float] | None = None
    wins: int = 0
    ties: int = 0
    p_value: float = 1.0
    p_holm: float = 1.0
    more_prompts: int | None = None
    deciding: list[int] = field(default_factory=list)
    turned_by: int = 0
    agrees: bool = True

    @property
    def differs(self) -> bool:
        """Whether the two can be told apart. The test and the means must agree on who is better."""
        return self.p_holm < ALPHA and self.agrees


def pairs_of(scores: np.ndarray) -> list[Pair]:
    """All pairs of generators, by scores (P, G); `p_holm` is not set yet."""
    return [_pair(scores, first, second) for first, second in combinations(range(scores.shape[1]), 2)]


def _pair(scores: np.ndarray, first: int, second: int) -> Pair:
    differences = scores[:, first] - scores[:, second]
    places = np.flatnonzero(np.isfinite(differences))
    found = differences[places]
    pair = Pair(first, second, len(found))
    if len(found) < MIN_PAIRED:
        return pair
    pair.difference, pair.interval = float(found.mean()), interval_of_mean(found)
    pair.wins, pair.ties = int((found > 0).sum()), int((found == 0).sum())
    if found.any():
        pair.p_value = float(stats.wilcoxon(found).pvalue)
        ranks = stats.rankdata(np.abs(found[found != 0]))
        pair.agrees = bool((ranks * np.sign(found[found != 0])).sum() * pair.difference > 0)
    pair.turned_by, deciding = _deciding(found)
    pair.deciding = [int(places[place]) for place in deciding]
    return pair


def interval_of_mean(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of values (N,), by Student's t."""
    error = stats.sem(values)
    if error == 0:
        return float(values[0]), float(values[0])
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=error)
    return float(low), float(high)


def _deciding(differences: np.ndarray) -> tuple[int, list[int]]:
    """How many of the largest differences must go until the mean has the other sign, and the first of them."""
    signed = differences * np.sign(differences.sum())
    if not signed.any():
        return 0, []
    order = np.argsort(-signed, kind="stable")
    left = np.cumsum(signed[order][::-1])[::-1][1:]  # what the others sum up to
    number = int(np.argmax(np.append(left, 0.0) <= 0)) + 1
    return number, order[: min(number, DECIDING)].tolist()


def holm(p_values: list[float]) -> list[float]:
    """The p-values after Holm's correction (1979), in the given order."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return corrected.tolist()


def correct(families: list[list[Pair]]) -> int:
    """Correct the p-values of all these pairs as one family of tests, and set `more_prompts`; returns their number."""
    pairs = [pair for family in families for pair in family]
    for pair, corrected in zip(pairs, holm([pair.p_value for pair in pairs])):
        pair.p_holm = corrected
        pair.more_prompts = 0 if pair.differs else _more_prompts(pair, len(pairs))
    return len(pairs)


def _more_prompts(pair: Pair, tests: int) -> int | None:
    """About how many prompts more would tell a pair apart, if the difference stays as it is.

    The normal deviate of a test grows with the root of the number of prompts.
    """
    if pair.p_value >= 1 or not pair.agrees:
        return None
    seen = stats.norm.isf(pair.p_value / 2)
    wanted = stats.norm.isf(ALPHA / tests / 2) + stats.norm.isf(1 - POWER)
    number = max(pair.prompts * (wanted / seen) ** 2, fewest_prompts(tests)) if seen > 0 else math.inf
    return max(1, math.ceil(number) - pair.prompts) if number <= MOST_WANTED else None


def fewest_prompts(tests: int) -> int:
    """With fewer prompts no difference can be told by so many tests: the smallest p-value of n prompts is 2^(1 - n)."""
    return math.ceil(1 + math.log2(tests / ALPHA))
