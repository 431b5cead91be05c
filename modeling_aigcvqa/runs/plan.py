"""The plan of a run: its inputs cut into units of work, kept in the run's folder."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..common.manifests import manifest_rows
from ..common.places import file_system
from ..names_aigcvqa import RESULTS, SCALE, UNCERTAINTY
from .inputs import Input
from .store import Store
from .units import CONTENT_COLUMNS, NAME_COLUMNS, PROMPT_COLUMNS, Unit, opened_dataset, video_columns

UNITS = "plan/units.parquet"
# Of an earlier run whose output is the manifest.
OLD_RESULTS = (*RESULTS, *UNCERTAINTY, *SCALE, "model_revision", "options_fingerprint")
READ_BYTES = 2**22
TYPES = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}


@dataclass
class Plan:
    """What a run scores.

    Attributes:
        units: in the order of the inputs.
        columns: the other columns of the inputs and their types, names of `TYPES`.
        inputs: each file with what shows that it has not changed.
        has_prompts: False if no row can have a prompt.
        rows: number of rows, as far as it is known before they are read; `is_counted` says if that is of all inputs.
    """

    units: list[Unit] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    inputs: list[dict] = field(default_factory=list)
    rows: int = 0
    is_counted: bool = True
    has_prompts: bool = False

    def save(self, store: Store) -> None:
        store.write_table(UNITS, pa.Table.from_pylist([asdict(unit) for unit in self.units]))

    @staticmethod
    def saved_units(store: Store) -> list[Unit]:
        return [Unit(**row) for row in store.read_table(UNITS).to_pylist()]


def fingerprint_of(source: Input) -> dict[str, Any]:
    """What shows that an input has not changed: size and digest of a text file, size and footer of a parquet file."""
    if source.kind == "dataset":
        return {"place": source.place}
    system, path = file_system(source.place)
    seen = {"place": source.place, "size": system.size(path)}
    if source.kind == "text":
        digest = hashlib.sha256()
        with system.open(path, "rb") as file:
            while content := file.read(READ_BYTES):
                digest.update(content)
        seen["sha256"] = digest.hexdigest()
    elif source.kind == "parquet":
        seen["footer_sha256"] = hashlib.sha256(str(_metadata(source).to_dict()).encode()).hexdigest()
    return seen


def planned(inputs: list[Input], store: Store, rows_per_shard: int, say: Callable[[str], None]) -> Plan:
    """Cut inputs into units. The rows of text files are copied into the plan, from which any machine can read some.

    Raises:
        ValueError: for an input that cannot be read or has no column that names or holds the clips; names it.
    """
    plan = Plan()
    for source in inputs:
        plan.inputs.append(fingerprint_of(source))
        {"text": _plan_text, "parquet": _plan_parquet, "tar": _plan_tar, "dataset": _plan_dataset}[source.kind](
            plan, source, store, rows_per_shard
        )
        if len(inputs) > 1 and len(plan.inputs) % 100 == 0:
            say(f"planning: {len(plan.inputs)} of {len(inputs)} inputs, {plan.rows} rows")
    if not plan.units:
        raise ValueError(f"the manifest '{inputs[0].place}' has no rows.")
    plan.save(store)
    return plan


def _plan_text(plan: Plan, source: Input, store: Store, rows_per_shard: int) -> None:
    system, path = file_system(source.place)
    with system.open(path, "rb") as file:
        for chunk in _chunks(file, source.place, rows_per_shard):
            number = len(plan.units)
            for row in chunk:
                plan.has_prompts = plan.has_prompts or any(row.get(name) for name in PROMPT_COLUMNS)
                for name, value in row.items():
                    _add_type(plan, name, _type_of(value))
            place = store.path(f"plan/{number:06d}.parquet")
            table = pa.table({"row": [json.dumps(row) for row in chunk]})
            store.write_table(f"plan/{number:06d}.parquet", table)
            plan.units.append(Unit(number, "rows", place, source.folder, source.root, rows=len(chunk)))
            plan.rows += len(chunk)


def _chunks(file: BinaryIO, name: str, size: int) -> Iterator[list[dict]]:
    chunk: list[dict] = []
    for row in manifest_rows(file, name):
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _plan_parquet(plan: Plan, source: Input, store: Store, rows_per_shard: int) -> None:
    metadata = _metadata(source)
    schema = metadata.schema.to_arrow_schema()
    names, content = video_columns(schema)
    if names is None and content is None:
        raise ValueError(
            f"'{source.place}' has no column that names the clips (text in {' or '.join(NAME_COLUMNS)}) or holds them "
            f"(bytes in {' or '.join(CONTENT_COLUMNS)}); it has {schema.names}."
        )
    _add_schema(plan, schema)
    plan.rows += metadata.num_rows
    first = 0
    while first < metadata.num_row_groups:
        count, rows = 1, metadata.row_group(first).num_rows
        while first + count < metadata.num_row_groups and rows < rows_per_shard:
            rows += metadata.row_group(first + count).num_rows
            count += 1
        # A group of names is read in parts, but not one that holds videos: each part would read the whole group.
        step = rows_per_shard if content is None else rows
        for skip in range(0, rows, step):
            part = min(step, rows - skip)
            plan.units.append(
                Unit(len(plan.units), "parquet", source.place, source.folder, source.root, first, count, skip, part)
            )
        first += count


def _plan_tar(plan: Plan, source: Input, store: Store, rows_per_shard: int) -> None:
    plan.is_counted, plan.has_prompts = False, True
    _add_type(plan, "json", "string")
    plan.units.append(Unit(len(plan.units), "tar", source.place, source.folder, source.root))


def _plan_dataset(plan: Plan, source: Input, store: Store, rows_per_shard: int) -> None:
    data = opened_dataset(source.place)
    schema = data.features.arrow_schema
    if video_columns(schema) == (None, None):
        raise ValueError(
            f"--manifest {source.place}: no column that names or holds the clips ({' or '.join(CONTENT_COLUMNS)}); "
            f"it has {schema.names}."
        )
    _add_schema(plan, schema)
    plan.is_counted = False
    for part in range(data.num_shards):
        plan.units.append(Unit(len(plan.units), "dataset", source.place, "", "", part, data.num_shards))


def _metadata(source: Input) -> pq.FileMetaData:
    system, path = file_system(source.place)
    try:
        with system.open(path, "rb") as file:
            return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{source.place}' cannot be read as parquet ({error}).") from error


def _add_schema(plan: Plan, schema: pa.Schema) -> None:
    plan.has_prompts = plan.has_prompts or any(name in schema.names for name in PROMPT_COLUMNS)
    used = video_columns(schema)
    for column in schema:
        if (
            column.name not in used
            and not pa.types.is_binary(column.type)
            and not pa.types.is_large_binary(column.type)
        ):
            _add_type(plan, column.name, _type_of_arrow(column.type))


def _type_of_arrow(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):  # which may exceed int64
        return "int64"
    if pa.types.is_floating(kind):
        return "double"
    return "bool" if pa.types.is_boolean(kind) else "string"


def _type_of(value: Any) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else "string"
    return "double" if isinstance(value, float) else None if value is None else "string"


def _add_type(plan: Plan, name: str, kind: str | None) -> None:
    """Note the type of a column; of two types that do not go together it is text."""
    name = column_name(name)
    if name is None or name == "file_name":
        return
    before = plan.columns.get(name)
    if kind is None:
        plan.columns.setdefault(name, None)
    elif before in (None, kind):
        plan.columns[name] = kind
    else:
        plan.columns[name] = "double" if {before, kind} == {"int64", "double"} else "string"


def column_name(name: str) -> str | None:
    """The name of another column in the output; None for results of an earlier run, which are left out."""
    if name in ("id", "position"):
        return f"manifest_{name}"
    return None if name in (*OLD_RESULTS, "file", "prompt") else name
