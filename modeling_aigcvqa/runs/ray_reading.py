"""The tasks of a Ray run that read manifests. They start quickly, because they need no PyTorch."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from .engine import Work
from .pending import SCHEMA, batches_of
from .units import Unit

BLOCK_ROWS = 16  # clips that are handed to an actor at once: what is lost with it is tried again


def read_rows(batch: dict[str, Any], work: Work) -> Iterator[pa.Table]:
    """The rows of units that are to be scored. It runs as a task, near to the data."""
    names = list(batch)
    for values in zip(*batch.values()):
        unit = Unit(**{name: _plain(value) for name, value in zip(names, values)})
        for rows in batches_of(work.rows(unit), BLOCK_ROWS):
            yield pa.Table.from_pylist(rows, SCHEMA)


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value  # Ray makes NaN of None in a column of numbers
