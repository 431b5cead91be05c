"""A run from its manifest to its accounts."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ..clip_scorer import ScorerIdentity, ScorerSettings
from ..scoring.score_file import lock
from .accounts import LEDGER, SUMMARY, Accounts, accounts_of, remove_repeated, write_ledger
from .engine import CARRIED, READ_SECONDS, SCORE_SECONDS, Engine, Work
from .inputs import inputs_of
from .pending import counts_of
from .plan import Plan, fingerprint_of, planned
from .progress import RunProgress, reported
from .run_folder import RunFolder
from .store import Store
from .units import Unit

RECORD = "run.json"
PLAN = "plan/plan.json"
LOG = "log.txt"
OWN_FILES = (RECORD, "plan", "fragments", "scores", "failures", LEDGER, SUMMARY, LOG)
ROWS_PER_SHARD = 1000
DIED = (
    "the process that worked on this clip died each time that it was tried, also with the clip alone; the file is "
    "damaged, or the memory was not enough"
)


@dataclass
class Run:
    """A manifest to be scored into a folder.

    Args:
        manifest: see `inputs_of`.
        output: path or fsspec address of the folder.
        settings: of the scorer.
        rows_per_shard: rows of a text or parquet file that make a unit of work, and a shard.
        retry_failed: score the rows in the ledger of failures again.
        overwrite: remove what an earlier run has left in the folder.
    """

    manifest: str
    output: str
    settings: ScorerSettings
    rows_per_shard: int = ROWS_PER_SHARD
    retry_failed: bool = False
    overwrite: bool = False

    def score(self, engine: Engine, console: Console) -> dict[str, Any]:
        """Score what is left of the run, and give its accounts, as they stand in summary.json.

        Raises:
            ValueError: for a manifest or model that cannot be read, or a folder of another run; says what to do.
        """
        store = Store(self.output)
        with _locked(store):
            work, folder, plan = self._opened(store, console)
            log = Path(store.path(LOG)) if store.is_local else None
            before = accounts_of(store, folder.units)
            open_units = folder.open_units()
            clock = _Clock()
            total = plan["rows"] - before.repeated if plan["is_counted"] else None
            rows, failed = folder.rows_in_fragments()
            retried = folder.rows_to_retry(open_units)
            done, failed = before.scored + before.failed + rows - retried, before.failed + failed - retried
            with reported(console, log, total, done, failed) as progress:
                try:
                    _score(engine, open_units, work, folder, progress, clock)
                finally:
                    folder.flush()
                _settle(engine, folder, work, progress, clock)
            return self._close(store, folder, work, clock, progress)

    def _opened(self, store: Store, console: Console) -> tuple[Work, RunFolder, dict]:
        """Go on with the run that is there, or begin one."""
        if self.overwrite:
            for name in OWN_FILES:
                store.remove(name)
        identity = ScorerIdentity.of(self.settings)
        inputs = inputs_of(self.manifest)
        made_by = {
            "model": self.settings.model,
            "model_sha256": identity.model_sha256,
            **identity.options,
            "rows_per_shard": self.rows_per_shard,
            "inputs": [fingerprint_of(source) for source in inputs],
        }
        record = _checked_record(store, made_by)
        if not store.exists(PLAN):
            plan = planned(inputs, store, self.rows_per_shard, console.print)
            content = asdict(plan) | {"units": len(plan.units)}
            store.write_json(PLAN, {name: value for name, value in content.items() if name != "inputs"})
        plan = store.read_json(PLAN)
        if identity.requires_prompt and not plan["has_prompts"]:
            raise ValueError(
                "the alignment branch needs the prompts, and there is none: pass a manifest with a column prompt, or "
                "leave the branch out with --branches technical,aesthetic."
            )
        units = Plan.saved_units(store)
        if self.retry_failed and _is_closed(store):
            record["round"] += 1
            store.remove(SUMMARY)  # before the record: a run that is killed here counts as not closed
        store.write_json(RECORD, record)
        folder = RunFolder(store, units, plan["columns"], record["round"], self.settings.scale)
        return Work(store, identity, self.settings, record["round"]), folder, plan

    def _close(self, store: Store, folder: RunFolder, work: Work, clock: "_Clock", progress: RunProgress) -> dict:
        """Write ledger and summary."""
        start = time.monotonic()
        accounts = accounts_of(store, folder.units)
        if accounts.shards == len(folder.units):
            remove_repeated(store, folder.units)
            accounts = accounts_of(store, folder.units)
        write_ledger(store)
        clock.parts["accounts"] += time.monotonic() - start
        summary = self._summary(folder, work, accounts, clock, progress)
        store.write_json(SUMMARY, summary)
        return summary

    def _summary(
        self, folder: RunFolder, work: Work, accounts: Accounts, clock: "_Clock", progress: RunProgress
    ) -> dict:
        seconds = time.monotonic() - clock.start
        clips = progress.done - progress.before
        is_complete = accounts.shards == len(folder.units) and accounts.clips == accounts.scored + accounts.failed
        places = [{"place": folder.units[n].place, "reason": reason} for n, reason in sorted(folder.unreadable.items())]
        return {
            "complete": is_complete,
            "in": accounts.clips,
            "scored": accounts.scored,
            "failed": accounts.failed,
            "repeated": accounts.repeated,
            "shards": accounts.shards,
            "units": len(folder.units),
            "unreadable_inputs": places,
            "round": folder.round_number,
            "model": self.settings.model,
            "model_revision": work.identity.model_revision,
            "options": work.identity.options,
            "options_fingerprint": work.identity.options_fingerprint,
            "note": work.identity.weights_note,
            "this_run": {
                "clips": clips,
                "seconds": round(seconds, 3),
                "clips_per_second": round(clips / seconds, 3),
                "seconds_by_part": {name: round(value, 3) for name, value in clock.parts.items()},
            },
        }


class _Clock:
    """Time since the start, and by part: of reading and scoring the sum over all processes."""

    def __init__(self):
        self.start = time.monotonic()
        self.parts: Counter = Counter()


def _score(
    engine: Engine, units: list[Unit], work: Work, folder: RunFolder, progress: RunProgress, clock: _Clock
) -> None:
    for results in engine(units, work) if units else ():
        folder_start = time.monotonic()
        for row in results:
            clock.parts["read"] += row[READ_SECONDS] or 0.0
            clock.parts["score"] += row[SCORE_SECONDS] or 0.0
        clips = [row for row in results if row["id"]]
        folder.add(results)
        progress.add(len(clips), sum(row["error"] is not None for row in clips))
        clock.parts["write"] += time.monotonic() - folder_start


def _settle(engine: Engine, folder: RunFolder, work: Work, progress: RunProgress, clock: "_Clock") -> None:
    """Score what died with its process one by one; what dies again has failed. Join what then is complete."""
    if left := _unsettled(folder, work):
        _score(engine, left, replace(work, one_by_one=True), folder, progress, clock)
        folder.flush()
    for unit in _unsettled(folder, work):
        for row in work.rows(unit):
            died = {name: row[name] for name in CARRIED} | {"error": f"'{row['file']}': {DIED}."}
            folder.add([died])
            progress.add(1, 1)
    folder.flush()
    for unit in folder.open_units():
        unreadable = unit.number in folder.unreadable
        folder.join(unit, *((None, None) if unreadable else counts_of(unit, work.identity)))


def _unsettled(folder: RunFolder, work: Work) -> list[Unit]:
    """The units that could be read and have rows without a result."""
    return [
        unit
        for unit in folder.open_units()
        if unit.number not in folder.unreadable and next(work.rows(unit), None) is not None
    ]


def _checked_record(store: Store, made_by: dict) -> dict:
    """The record of the run that is there, or a new one.

    Raises:
        ValueError: if the folder holds another run, or other files.
    """
    remedy = "pass --overwrite to replace it, or name another folder."
    if not store.exists(RECORD):
        others = [name for name in store.names("") if name != LOG]
        if others:
            raise ValueError(f"--output '{store.root}' holds other files ('{others[0]}', ...); name another folder.")
        return {"made_by": made_by, "round": 1}
    record = store.read_json(RECORD)
    now = json.loads(json.dumps(made_by))
    before = record.get("made_by", {})
    changed = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    if "inputs" in changed:
        there, here = before.get("inputs") or [], now["inputs"]
        places = [one["place"] for one in [*there, *here] if one not in there or one not in here]
        raise ValueError(
            f"the manifest is not the one that the scores in '{store.root}' were begun with ('{places[0]}' has "
            f"changed, is new or is gone); {remedy}"
        )
    if changed:
        differences = "; ".join(f"{name}: {before.get(name)} there, {now.get(name)} now" for name in changed)
        raise ValueError(f"--output '{store.root}' holds the scores of another run ({differences}); {remedy}")
    return record


def _is_closed(store: Store) -> bool:
    """Whether the last round was ended with its accounts."""
    return store.exists(SUMMARY) and store.read_json(SUMMARY).get("complete", False)


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Refuse a folder that another run is writing. Object stores have no locks."""
    if not store.is_local:
        yield
        return
    root = Path(store.root)
    if root.exists() and not root.is_dir():
        raise ValueError(f"--output '{root}' is a file; name a folder.")
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a") as file:
        lock(file, root)
        yield
