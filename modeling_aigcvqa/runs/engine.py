"""What the engines of a run share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..clip_scorer import ScorerIdentity, ScorerSettings
from .pending import pending_rows
from .store import Store
from .units import Unit

# Columns of pending rows that go along with a clip to its result.
CARRIED = ("id", "unit", "position", "file", "prompt", "columns", "distinct", "repeated")
READ_SECONDS, SCORE_SECONDS = "read_seconds", "score_seconds"


@dataclass(frozen=True)
class Work:
    """What an engine scores. It can be pickled and sent to other machines.

    Attributes:
        identity: of the scorer, as it is on the machine that started the run.
        one_by_one: clips are handed out one by one, because some of them end the processes that work on them.
    """

    store: Store
    identity: ScorerIdentity
    settings: ScorerSettings
    round_number: int
    one_by_one: bool = False

    def rows(self, unit: Unit) -> Iterator[dict]:
        """The rows of a unit that are to be scored, as dicts of `pending.SCHEMA`."""
        return pending_rows(self.store, unit, self.identity, self.round_number)


# Scores the rows of units, in any order. A result has the columns CARRIED, those that `ClipScorer` adds, and the time
# that was spent on it, READ_SECONDS and SCORE_SECONDS.
Engine = Callable[[list[Unit], Work], Iterator[list[dict]]]
