"""The accounts at the end of a run: every clip is scored or in the ledger of failures, and none stands twice."""

import os
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .run_folder import FAILURES, READERS
from .store import Store
from .units import Unit

LEDGER = "failures.parquet"
SUMMARY = "summary.json"
COUNTS = ("complete", "rows", "repeated", "failed")  # metadata of a shard


@dataclass
class Accounts:
    """What is there of a run.

    Attributes:
        clips: different clips of the units that are complete.
        scored, failed: rows in all units.
        repeated: rows of the inputs that are the same clip with the same prompt once more; they are scored once.
        shards: units that are complete.
    """

    clips: int = 0
    scored: int = 0
    failed: int = 0
    repeated: int = 0
    shards: int = 0


def accounts_of(store: Store, units: list[Unit]) -> Accounts:
    """Add up the footers of the shards."""
    present = set(store.names("scores"))
    names = [f"scores/{unit.shard}.parquet" for unit in units if f"{unit.shard}.parquet" in present]
    accounts = Accounts()
    with ThreadPoolExecutor(READERS) as threads:
        for seen in threads.map(store.read_counts, names):
            accounts.scored += seen["num_rows"]
            accounts.failed += int(seen["failed"])
            accounts.repeated += int(seen["repeated"])
            accounts.clips += int(seen["rows"] or 0)
            accounts.shards += int(seen["complete"])
    return accounts


def write_ledger(store: Store) -> None:
    """Join the failures of all units to one file, which is never held in memory as a whole."""
    columns = [name for name in FAILURES.names if name != "columns"]
    schema = pa.schema([FAILURES.field(name) for name in columns])
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, LEDGER)
        with pq.ParquetWriter(local, schema) as writer:
            for name in store.names("failures"):
                writer.write_table(store.read_table(f"failures/{name}", columns).cast(schema))
        store.put(local, LEDGER)


def remove_repeated(store: Store, units: list[Unit]) -> int:
    """Have each id stand once in all shards: a scored row before a failed one, then the first; returns how many went.

    The ids are collected in a database on the disk, not in memory.
    """
    if len(units) == 1:
        return 0
    removed = 0
    with tempfile.TemporaryDirectory() as folder:
        ids = sqlite3.connect(Path(folder) / "ids.sqlite", isolation_level=None)
        ids.execute("pragma journal_mode = off")
        ids.execute("pragma synchronous = off")
        ids.execute("create table ids (id text primary key) without rowid")
        for kind in ("scores", "failures"):
            for name in store.names(kind):
                removed += _remove_seen(store, f"{kind}/{name}", f"scores/{name}", ids)
        ids.close()
    return removed


def _remove_seen(store: Store, name: str, shard: str, ids: sqlite3.Connection) -> int:
    """Take the rows out of a file whose ids were seen before, and correct the counts of its unit."""
    seen = store.read_table(name, ["id"]).column("id").to_pylist()
    ids.execute("begin")
    is_new = [ids.execute("insert or ignore into ids values (?)", (key,)).rowcount == 1 for key in seen]
    ids.execute("commit")
    repeated = is_new.count(False)
    if not repeated:
        return 0
    kept = store.read_table(name).filter(pa.array(is_new))
    counts = store.read_counts(shard)
    failed = int(counts["failed"]) if name == shard else len(kept)
    rows = (len(kept) if name == shard else counts["num_rows"]) + failed
    total = int(counts["rows"]) + int(counts["repeated"])
    counts |= {"rows": str(rows), "repeated": str(total - rows), "failed": str(failed)}
    table = kept if name == shard else store.read_table(shard)
    # The shard goes first: if the run is killed in between, the same rows are found again and give the same counts.
    store.write_table(shard, table.replace_schema_metadata({key: counts[key] for key in COUNTS}))
    if name != shard and len(kept):
        store.write_table(name, kept)
    elif name != shard:
        store.remove(name)
    return repeated
