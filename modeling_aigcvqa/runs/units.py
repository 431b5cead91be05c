"""Units of work: some rows of an input each, and how they are read."""

import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..common.cells import json_text
from ..common.manifests import file_column
from ..common.places import file_system, is_address, joined
from ..names_aigcvqa import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .inputs import DATASET_ID

NAME_COLUMNS = ("file", "file_name", "path")
CONTENT_COLUMNS = ("video", "bytes", "mp4")
PROMPT_COLUMNS = ("prompt", "caption", "text")
READ_ROWS = 16  # of a parquet file at once: they may hold videos


@dataclass(frozen=True)
class Unit:
    """Some rows of an input, which are scored into one shard.

    Attributes:
        number: counted from 0 over all inputs.
        kind: "rows" (of a text file, kept in the plan), "parquet", "tar" or "dataset".
        place: path or address of the file, or `id:split` of a data set.
        base: the folder that the names of clips are relative to.
        root: the folder that the names in ids are relative to.
        first, count: the row groups of a parquet file, or for a data set its part and the number of its parts.
        skip, rows: the rows within these groups; None for all.
    """

    number: int
    kind: str
    place: str
    base: str
    root: str
    first: int = 0
    count: int = 1
    skip: int = 0
    rows: int | None = None

    @property
    def shard(self) -> str:
        """The name of the unit's files."""
        return f"{self.number:06d}"


@dataclass
class Row:
    """A row of a unit.

    Attributes:
        position: in the unit, counted from 0.
        file: the name of the clip as the input has it.
        video: what is opened, a path, an address or bytes; None if the row has no clip.
        columns: the other columns.
    """

    position: int
    file: str
    video: str | bytes | None
    prompt: Any
    columns: dict[str, Any]


def rows_of(unit: Unit) -> Iterator[Row]:
    """The rows of a unit, read as they are asked for.

    Raises:
        OSError, ValueError, pyarrow.ArrowException, tarfile.TarError: if the input cannot be read, which may be found
            after some rows.
    """
    read = {"rows": _planned_rows, "parquet": _parquet_rows, "tar": _tar_rows, "dataset": _dataset_rows}[unit.kind]
    for position, (name, video, prompt, columns) in enumerate(read(unit)):
        file = name or f"{posixpath.basename(unit.place)}, row {unit.skip + position}"
        yield Row(position, file, video, prompt, columns)


def video_columns(schema: pa.Schema) -> tuple[str | None, str | None]:
    """The column that names the clip, and the one that holds its bytes."""

    def first(names: tuple[str, ...], fits: Any) -> str | None:
        return next((name for name in names if name in schema.names and fits(schema.field(name).type)), None)

    content = first(CONTENT_COLUMNS, _holds_bytes)
    return first(NAME_COLUMNS, _is_text) or (None if content else first(CONTENT_COLUMNS, _is_text)), content


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {field.name for field in kind}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _planned_rows(unit: Unit) -> Iterator[tuple]:
    system, path = file_system(unit.place)
    with system.open(path, "rb") as file:
        texts = pq.read_table(file).column("row").to_pylist()
    for text in texts:
        row = json.loads(text)
        yield _parts(row, file_column(row), None, unit.base)


def _parquet_rows(unit: Unit) -> Iterator[tuple]:
    system, path = file_system(unit.place)
    with system.open(path, "rb") as opened:
        file = pq.ParquetFile(opened)
        groups = range(unit.first, unit.first + unit.count)
        number = 0
        end = None if unit.rows is None else unit.skip + unit.rows
        for batch in file.iter_batches(READ_ROWS if video_columns(file.schema_arrow)[1] else 1024, groups):
            if number + len(batch) > unit.skip:
                start = max(0, unit.skip - number)
                stop = len(batch) if end is None else max(0, min(len(batch), end - number))
                for row in batch.slice(start, stop - start).to_pylist():
                    yield _parts(row, *video_columns(file.schema_arrow), unit.base)
            number += len(batch)
            if end is not None and number >= end:
                return


def _dataset_rows(unit: Unit) -> Iterator[tuple]:
    data = opened_dataset(unit.place)
    schema = data.features.arrow_schema
    for row in data.shard(num_shards=unit.count, index=unit.first):
        yield _parts(row, *video_columns(schema), unit.base)


def opened_dataset(place: str) -> Any:
    """A data set of the Hub, streamed, with videos as they are stored.

    Raises:
        ValueError: if `datasets` is not installed, the data set cannot be opened, or it has several splits and none is
            named.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"--manifest {place}: data sets of the Hub need `pip install 'aigcvqa[scale]'`.") from error
    named = DATASET_ID.fullmatch(place)
    try:
        data = datasets.load_dataset(named["id"], split=named["split"], streaming=True)
    except Exception as error:  # of the Hub, of scripts, of formats
        raise ValueError(
            f"--manifest {place}: no such file, and not a data set that can be opened ({error})."
        ) from error
    if isinstance(data, dict):
        if len(data) > 1:
            raise ValueError(
                f"--manifest {place} has the splits {sorted(data)}; name one, as {named['id']}:{min(data)}."
            )
        data = next(iter(data.values()))
    if data.features is None:
        data = data._resolve_features()
    for name, feature in data.features.items():
        if isinstance(feature, datasets.Video | datasets.Image):
            data = data.cast_column(name, type(feature)(decode=False))
    return data


def _parts(row: dict, name_column: str | None, content_column: str | None, base: str) -> tuple:
    """Name, video, prompt and other columns of a row."""
    name, content = row.pop(name_column, None), row.pop(content_column, None)
    if isinstance(content, dict):
        name, content = name or content.get("path"), content.get("bytes")
    prompt_column = next((column for column in PROMPT_COLUMNS if row.get(column) is not None), None)
    prompt = row[prompt_column] if prompt_column else None
    if isinstance(prompt, int | float) and not isinstance(prompt, bool):
        prompt = str(prompt)
    row.pop("prompt", None)
    row = {column: value for column, value in row.items() if not isinstance(value, bytes)}
    video = content if content is not None else joined(base, name) if name else None
    return name, video, prompt, row


def _tar_rows(unit: Unit) -> Iterator[tuple]:
    """The samples of a WebDataset archive: consecutive members whose names are equal up to the first dot."""
    system, path = file_system(unit.place)
    archive = posixpath.basename(unit.place)
    with system.open(path, "rb") as opened, tarfile.open(fileobj=opened, mode="r|*") as tar:
        key, sample = None, {}
        for member in tar:
            if not member.isfile() or posixpath.basename(member.name).startswith("."):
                continue
            folder, name = posixpath.split(member.name)
            stem, _, suffix = name.partition(".")
            if key is not None and key != (folder, stem):
                yield _sample(archive, key, sample)
                sample = {}
            key = (folder, stem)
            sample[suffix.lower()] = tar.extractfile(member).read()
        if key is not None:
            yield _sample(archive, key, sample)
        _check_end(opened)


def _check_end(file: Any) -> None:
    """Refuse an archive without the empty block at its end: `tarfile` does not notice where it is cut between members.

    Raises:
        ValueError: if the archive is cut. Compressed ones are checked by their decompressor.
    """
    file.seek(257)
    if file.read(5) != b"ustar":
        return
    file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise ValueError("the mark at its end is missing, so that it was cut; write or download it again")


def _sample(archive: str, key: tuple[str, str], sample: dict[str, bytes]) -> tuple:
    """Name, video, prompt and other columns of a sample. Its JSON is kept as text in the column `json`."""
    suffix = next((suffix for suffix in sample if f".{suffix}".endswith(VIDEO_SUFFIXES)), None)
    suffix = suffix or next((suffix for suffix in sample if f".{suffix}".endswith(IMAGE_SUFFIXES)), None)
    name = f"{archive}/{posixpath.join(*key)}" + (f".{suffix}" if suffix else "")
    columns, prompt = {}, None
    if "json" in sample:
        columns["json"] = sample["json"].decode("utf-8", errors="replace")
        try:
            described = json.loads(columns["json"])
        except (ValueError, RecursionError):
            described = None
        if isinstance(described, dict):
            prompt = next((described[name] for name in PROMPT_COLUMNS if isinstance(described.get(name), str)), None)
    if prompt is None and "txt" in sample:
        prompt = sample["txt"].decode("utf-8", errors="replace").strip()
    return name, sample.get(suffix), prompt, columns


def name_in_ids(unit: Unit, row: Row) -> str:
    """The name of a row's clip that its id is made of: relative to the root of the inputs, as far as it lies there."""
    if not isinstance(row.video, str):
        return row.file
    path = row.video if is_address(row.video) else posixpath.normpath(row.video)
    return posixpath.relpath(path, unit.root) if unit.root and path.startswith(f"{unit.root}/") else path


def as_column(value: Any) -> Any:
    """A value of another column in a form that JSON has; objects, lists, dates and the like become text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json_text(value) if isinstance(value, dict | list) else str(value)
