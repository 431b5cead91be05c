"""The folder of a run: what is scored, what is left, and the accounts at its end.

    run.json               what makes the scores, and the number of the round
    plan/                  the units of work
    fragments/UNIT/        rows of a unit that is not complete
    scores/UNIT.parquet    the scored rows of a unit
    failures/UNIT.parquet  its rows that cannot be scored
    failures.parquet       all of these: the ledger
    summary.json           the accounts

A unit is complete when its shard says so and it has no fragments. What is deleted is deleted last: whenever a run is
killed, every row stands in a fragment or in a shard, and rows that stand in both are joined by their id.
"""

import hashlib
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from ..common.cells import json_text
from ..names_aigcvqa import SCALE, SCORES
from .pending import UNREADABLE, columns_of
from .plan import TYPES
from .store import Store
from .units import Unit

FRAGMENT_ROWS, FRAGMENT_SECONDS = 50, 10.0  # rows that are kept before they are written, and for how long
READERS = 16  # threads that read footers: on an object store each takes a round trip
BEFORE = [("id", pa.string()), ("file", pa.string()), ("prompt", pa.string())]
AFTER = [
    *((name, pa.float64()) for name in SCORES),
    *((name, pa.float64()) for name in SCALE),
    ("quality_of", pa.string()),
    ("warning", pa.string()),
    ("model_revision", pa.string()),
    ("options_fingerprint", pa.string()),
]
RESULT_NAMES = [name for name, _ in (*BEFORE, ("position", None), *AFTER)]
FRAGMENT = pa.schema(
    [*BEFORE, ("unit", pa.int64()), ("position", pa.int64()), ("columns", pa.string()), *AFTER, ("error", pa.string())]
)
FAILURES = pa.schema(
    [
        *BEFORE,
        ("reason", pa.string()),
        ("attempts", pa.int64()),
        ("unit", pa.int64()),
        ("position", pa.int64()),
        ("columns", pa.string()),
    ]
)


class RunFolder:
    """Takes the results of rows in any order, and joins them to one shard per unit.

    Args:
        store: the folder.
        units: of the plan.
        columns: other columns and their types.
        round_number: 1, and one more for each time that the failed rows are tried again.
        scale: whether the shards have percentiles.
    """

    def __init__(
        self, store: Store, units: list[Unit], columns: dict[str, str | None], round_number: int, scale: bool = False
    ):
        self.store, self.units, self.round_number = store, units, round_number
        others = [(name, TYPES[kind or "string"]) for name, kind in columns.items()]
        after = [field for field in AFTER if scale or field[0] not in SCALE]
        self.schema = pa.schema([*BEFORE, *others, *after, ("position", pa.int64())])
        self.buffer: list[dict] = []
        self.last_flush = time.monotonic()
        self.counts: dict[int, tuple[int, int]] = {}  # of units in work: different clips, and rows that repeat one
        self.unreadable: dict[int, str] = {}

    def open_units(self) -> list[Unit]:
        """The units with rows to score in this round, in order."""
        shards, fragments = set(self.store.names("scores")), set(self.store.names("fragments"))
        complete = [u for u in self.units if f"{u.shard}.parquet" in shards and u.shard not in fragments]
        failures = set(self.store.names("failures")) if self.round_number > 1 else set()
        to_retry = [unit for unit in complete if f"{unit.shard}.parquet" in failures]
        with ThreadPoolExecutor(READERS) as threads:
            old = {u.number for u, tried in zip(to_retry, threads.map(self._attempts, to_retry)) if tried}
        done = {unit.number for unit in complete} - old
        return [unit for unit in self.units if unit.number not in done]

    def rows_to_retry(self, units: list[Unit]) -> int:
        """How many failed rows of complete units are tried again in this round."""
        names = set(self.store.names("failures")) & {f"{unit.shard}.parquet" for unit in units}
        tables = [self.store.read_table(f"failures/{name}", ["attempts"]).column("attempts") for name in names]
        return sum(number < self.round_number for table in tables for number in table.to_pylist())

    def rows_in_fragments(self) -> tuple[int, int]:
        """How many rows stand in the fragments of units that are not complete, and how many of them failed."""
        folders = [f"fragments/{name}" for name in self.store.names("fragments")]
        names = [f"{folder}/{name}" for folder in folders for name in self.store.names(folder)]
        with ThreadPoolExecutor(READERS) as threads:
            counts = list(threads.map(self.store.read_counts, names))
        return sum(count["num_rows"] for count in counts), sum(int(count["failed"]) for count in counts)

    def _attempts(self, unit: Unit) -> bool:
        """Whether a unit has failed rows that were not tried in this round."""
        attempts = self.store.read_table(f"failures/{unit.shard}.parquet", ["attempts"]).column("attempts")
        return any(number < self.round_number for number in attempts.to_pylist())

    def add(self, rows: list[dict]) -> None:
        """Take the results of rows. They are on the disk after `flush`, or soon."""
        for row in rows:
            if row["position"] == UNREADABLE:
                self.unreadable[row["unit"]] = row["error"]
                continue
            if row.get("distinct") is not None:
                self.counts[row["unit"]] = (row["distinct"], row["repeated"])
            self.buffer.append(row)
        if len(self.buffer) >= FRAGMENT_ROWS or time.monotonic() - self.last_flush > FRAGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held, and join the units that they complete."""
        by_unit = defaultdict(list)
        for row in self.buffer:
            by_unit[row["unit"]].append(row)
        for number, rows in by_unit.items():
            ids = hashlib.sha256("".join(sorted(row["id"] for row in rows)).encode()).hexdigest()[:16]
            name = f"fragments/{self.units[number].shard}/{self.round_number:03d}-{ids}.parquet"
            failed = sum(row["error"] is not None for row in rows)
            table = _table(rows, FRAGMENT).replace_schema_metadata({"failed": str(failed)})
            self.store.write_table(name, table)
        self.buffer = []
        self.last_flush = time.monotonic()
        for number in by_unit:
            if number in self.counts:
                self._join_if_complete(self.units[number])

    def _join_if_complete(self, unit: Unit) -> None:
        distinct, repeated = self.counts[unit.number]
        if self.join(unit, distinct, repeated, only_complete=True):
            del self.counts[unit.number]

    def join(self, unit: Unit, distinct: int | None, repeated: int | None, only_complete: bool = False) -> bool:
        """Join the fragments of a unit with its shard; returns whether the unit is complete.

        Args:
            distinct, repeated: how many different clips the unit has, and how many rows repeat one; None if unknown.
            only_complete: leave an incomplete unit as it is.
        """
        scored, failed = self._rows_of_shard(unit)
        names = [f"fragments/{unit.shard}/{name}" for name in self.store.names(f"fragments/{unit.shard}")]
        for name in names:
            attempts = int(name.rpartition("/")[2].partition("-")[0])
            for row in self.store.read_table(name).to_pylist():
                if row["error"] is None:
                    scored[row["id"]] = {name: row.get(name) for name in RESULT_NAMES} | columns_of(row)
                elif attempts >= failed.get(row["id"], {}).get("attempts", 0):
                    failed[row["id"]] = row | {"reason": row["error"], "attempts": attempts}
        failed = {key: row for key, row in failed.items() if key not in scored}
        distinct, repeated = self._counts_of_complete(unit) or (distinct, repeated)
        is_complete = distinct is not None and len(scored) + len(failed) == distinct
        if only_complete and not is_complete:
            return False
        counts = {"complete": str(int(is_complete)), "rows": str(distinct or ""), "repeated": str(repeated or 0)}
        self._write_unit(unit, list(scored.values()), list(failed.values()), counts)
        if is_complete:
            self.store.remove(f"fragments/{unit.shard}")
        return is_complete

    def _counts_of_complete(self, unit: Unit) -> tuple[int, int] | None:
        """The counts of a unit that was complete before: rows that repeat a clip of another unit have left it."""
        shard = f"scores/{unit.shard}.parquet"
        counts = self.store.read_metadata(shard) if self.store.exists(shard) else {"complete": "0"}
        return (int(counts["rows"]), int(counts["repeated"])) if counts["complete"] == "1" else None

    def _rows_of_shard(self, unit: Unit) -> tuple[dict[str, dict], dict[str, dict]]:
        """The scored and the failed rows of a unit by id, as far as it has been joined before."""
        scored, failed = {}, {}
        shard, failures = f"scores/{unit.shard}.parquet", f"failures/{unit.shard}.parquet"
        if self.store.exists(shard):
            scored = {row["id"]: row for row in self.store.read_table(shard).to_pylist()}
        if self.store.exists(failures):
            failed = {row["id"]: row for row in self.store.read_table(failures).to_pylist()}
        return scored, failed

    def _write_unit(self, unit: Unit, scored: list[dict], failed: list[dict], counts: dict[str, str]) -> None:
        """Write both files of a unit; the shard last, because it says that the unit is complete."""
        failures = f"failures/{unit.shard}.parquet"
        if failed:
            self.store.write_table(failures, _table(sorted(failed, key=_position), FAILURES))
        elif self.store.exists(failures):
            self.store.remove(failures)
        table = _table(sorted(scored, key=_position), self.schema)
        table = table.replace_schema_metadata({**counts, "failed": str(len(failed))})
        self.store.write_table(f"scores/{unit.shard}.parquet", table)


def _position(row: dict) -> int:
    return row["position"]


def _table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    """Rows as a table; in a column of text, other values become text."""
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if pa.types.is_string(field.type):
            values = [value if isinstance(value, str | None) else json_text(value) for value in values]
        columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)
