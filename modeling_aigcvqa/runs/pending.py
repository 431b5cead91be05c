"""The rows of a unit that are still to be scored. It runs where the rows are read, on any machine of a run."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from ..clip_scorer import ScorerIdentity, clip_id
from ..common.cells import encodable, json_text
from ..names_aigcvqa import shortened
from .plan import column_name
from .store import Store
from .units import Row, Unit, as_column, name_in_ids, rows_of

UNREADABLE = -1  # position of the row that stands for an input that cannot be read
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("unit", pa.int64()),
        ("position", pa.int64()),
        ("file", pa.string()),
        ("prompt", pa.string()),
        ("path", pa.string()),
        ("content", pa.large_binary()),
        ("columns", pa.string()),  # JSON
        ("error", pa.string()),
        ("distinct", pa.int64()),
        ("repeated", pa.int64()),
    ]
)
BATCH_BYTES = 64 * 2**20  # of videos that are held at once


@dataclass
class Done:
    """What is there of a unit.

    Attributes:
        ids: rows that need no work in this round.
        retried: if the unit was complete before this round, the failed rows that are tried again; otherwise None.
    """

    ids: set[str]
    retried: set[str] | None = None


def done_of(store: Store, unit: Unit, round_number: int) -> Done:
    """What is there of a unit: scored rows, and those that failed in this round."""
    shard, failures = f"scores/{unit.shard}.parquet", f"failures/{unit.shard}.parquet"
    done = Done(set())
    if store.exists(shard):
        done.ids.update(store.read_table(shard, ["id"]).column("id").to_pylist())
        is_complete = store.read_metadata(shard)["complete"] == "1"
        failed = store.read_table(failures, ["id", "attempts"]).to_pylist() if store.exists(failures) else []
        done.ids.update(row["id"] for row in failed if row["attempts"] >= round_number)
        if is_complete:
            done.retried = {row["id"] for row in failed}
    for name in store.names(f"fragments/{unit.shard}"):
        ids = store.read_table(f"fragments/{unit.shard}/{name}", ["id", "error"]).to_pylist()
        of_this_round = int(name.partition("-")[0]) == round_number
        done.ids.update(row["id"] for row in ids if row["error"] is None or of_this_round)
    return done


def pending_rows(store: Store, unit: Unit, identity: ScorerIdentity, round_number: int) -> Iterator[dict]:
    """The rows of a unit that are to be scored in this round, as dicts of `SCHEMA`.

    A row with an `error` need not be opened. The last row says in `distinct` and `repeated` how many clips the whole
    unit has, and how many of its rows are the same clip with the same prompt once more. If the unit cannot be read to
    its end, the last row has the position UNREADABLE and the reason as `error`.
    """
    done = done_of(store, unit, round_number)
    seen: set[str] = set()
    count, last = 0, None
    try:
        for row in rows_of(unit):
            count += 1
            item = _item(unit, row, identity)
            if item["id"] in seen:
                continue
            seen.add(item["id"])
            if item["id"] in done.ids or (done.retried is not None and item["id"] not in done.retried):
                continue
            if last is not None:
                yield last
            last = item
    except Exception as error:  # each format and each file system has errors of its own
        if last is not None:
            yield last
        yield unreadable_row(unit, f"'{unit.place}' cannot be read to its end ({error})")
        return
    if last is not None:
        yield last | {"distinct": len(seen), "repeated": count - len(seen)}


def counts_of(unit: Unit, identity: ScorerIdentity) -> tuple[int, int]:
    """How many different clips a unit has, and how many rows repeat one of them."""
    ids = [_item(unit, row, identity)["id"] for row in rows_of(unit)]
    return len(set(ids)), len(ids) - len(set(ids))


def unreadable_row(unit: Unit, reason: str) -> dict:
    return dict.fromkeys(SCHEMA.names) | {"id": "", "unit": unit.number, "position": UNREADABLE, "error": reason}


def _item(unit: Unit, row: Row, identity: ScorerIdentity) -> dict:
    error, prompt = None, as_column(row.prompt)
    if row.video is None:
        error = f"'{shortened(row.file)}' names no clip; name a file or an address."
    elif prompt is not None and not isinstance(row.prompt, str):
        error = f"the prompt is {shortened(repr(row.prompt))} ({type(row.prompt).__name__}); pass text."
    content = row.video if isinstance(row.video, bytes) else None
    if isinstance(prompt, str) and prompt != encodable(prompt):
        error = f"the prompt {shortened(ascii(prompt))} has characters that are not valid Unicode; correct it."
    columns = {name: as_column(value) for name, value in row.columns.items()}
    return {
        "id": clip_id(_hashed(content) or name_in_ids(unit, row), prompt, identity),
        "unit": unit.number,
        "position": row.position,
        "file": encodable(row.file),
        "prompt": None if prompt is None else encodable(prompt if isinstance(prompt, str) else json_text(prompt)),
        "path": None if content is not None or row.video is None else encodable(row.video),
        "content": content,
        "columns": json_text({name: value for key, value in columns.items() if (name := column_name(key))}),
        "error": error,
        "distinct": None,
        "repeated": None,
    }


def _hashed(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def batches_of(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    """Batches of at most `size` rows, fewer where they hold large videos."""
    batch: list[dict] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += len(row["content"] or b"")
        if len(batch) == size or held > BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def columns_of(row: dict) -> dict:
    return json.loads(row["columns"]) if row["columns"] else {}
