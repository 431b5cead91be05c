"""Load the labelled clips of a prepared folder and divide them into the parts of a split file."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, DatasetDict, Video, concatenate_datasets, load_dataset
from huggingface_hub import DatasetCard

PARTS = ("train", "validation", "test")
SIMULATED = "synthetic"  # tag on the card of a data set whose clips and opinions were made by a program


def load_clips(data: str, split_file: str | Path | None = None, part: str | None = None) -> Dataset:
    """The clips with a MOS: `id`, undecoded `video` (`{"bytes", "path"}`), `prompt`, `mos` and any other columns.

    Args:
        data: folder written by a preparer of `dataset_scripts`, or the Hub id of such a data set.
        split_file: CSV file `id,split`, as `dataset_scripts.make_splits` writes it; None for the data set's own splits.
        part: "train", "validation" or "test"; None for all clips.

    Raises:
        ValueError: for a missing column, an unknown part, an id that is not in the data set or is listed twice, or
            a part without clips.
    """
    clips = rows_of_part(load_splits(data), data, split_file, part)
    labelled = [index for index, mos in enumerate(clips["mos"]) if mos is not None]
    if not labelled:
        raise ValueError(f"none of the {len(clips)} clips in part {part or 'all'!r} of '{data}' has a MOS.")
    return clips.select(labelled)


def rows_of_part(splits: DatasetDict, data: str, split_file: str | Path | None, part: str | None) -> Dataset:
    """The clips of one part, with or without a MOS; the arguments and errors are those of `load_clips`."""
    if part is not None and part not in PARTS:
        raise ValueError(f"part={part!r}: expected one of {list(PARTS)}.")
    if split_file is not None:
        return _take(concatenate_datasets(list(splits.values())), data, split_file, part)
    if part is None:
        return concatenate_datasets(list(splits.values()))
    if part not in splits:
        raise ValueError(f"the data set '{data}' has the splits {list(splits)}, not {part!r}; pass --split_file.")
    return splits[part]


def load_splits(data: str) -> DatasetDict:
    """The clips of every split of a data set, undecoded. Raises ValueError for a missing column."""
    if not Path(data).exists() and (data.startswith((".", "/")) or data.count("/") != 1):
        raise ValueError(f"--data '{data}' is neither a folder nor a Hub id (owner/name).")
    splits = load_dataset(data, cache_dir=cache_of(Path(data)) if Path(data).is_dir() else None)
    for name, rows in splits.items():
        missing = {"id", "video", "prompt", "mos"} - set(rows.column_names)
        if missing:
            raise ValueError(
                f"'{data}', split {name!r}, has no column {sorted(missing)}; prepare it (dataset_scripts)."
            )
    return DatasetDict({name: rows.cast_column("video", Video(decode=False)) for name, rows in splits.items()})


def cache_of(folder: Path) -> str:
    """A cache folder that depends on the path and on the sizes and modification times of the metadata files.

    The cache of `datasets` depends only on the folder's name and card. After the folder was moved or prepared again,
    it would give the old paths and labels.
    """
    files = sorted(file for suffix in ("parquet", "jsonl", "csv") for file in folder.rglob(f"*.{suffix}"))
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.blake2b(f"{folder.resolve()} {state}".encode(), digest_size=16).hexdigest()
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "aigcvqa" / key)


def _take(clips: Dataset, data: str, split_file: str | Path, part: str | None) -> Dataset:
    """The rows of one part of a split file, in the file's order."""
    wanted = [clip_id for clip_id, own in read_split(split_file).items() if part is None or own == part]
    ids = clips["id"]
    place = {clip_id: index for index, clip_id in enumerate(ids)}
    unknown = [clip_id for clip_id in wanted if clip_id not in place]
    if unknown:
        raise ValueError(
            f"--split_file '{split_file}' names {len(unknown)} clips that '{data}' lacks, for example {unknown[0]!r}."
        )
    if not wanted:
        raise ValueError(f"--split_file '{split_file}' has no clip in the part {part!r}.")
    if len(place) < len(ids):
        repeated = sorted({clip_id for clip_id, count in Counter(ids).items() if count > 1} & set(wanted))
        if repeated:
            raise ValueError(
                f"'{data}' has {len(repeated)} ids more than once, for example {repeated[0]!r}, so --split_file "
                f"'{split_file}' does not say which clip is meant; prepare the data again."
            )
    return clips.select([place[clip_id] for clip_id in wanted])


def read_split(split_file: str | Path) -> dict[str, str]:
    """The part of each id in a split file, in the file's order.

    Raises:
        ValueError: for missing columns, or an id that is listed twice, in one part or in two.
    """
    with Path(split_file).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or not {"id", "split"} <= set(reader.fieldnames):
            raise ValueError(f"--split_file '{split_file}' has the columns {reader.fieldnames}; expected id,split.")
        parts: dict[str, str] = {}
        for row in reader:
            if row["id"] in parts:
                raise ValueError(
                    f"--split_file '{split_file}', line {reader.line_num}, lists the id {row['id']!r} a second time "
                    f"(in {parts[row['id']]!r} and in {row['split']!r}); keep one row per clip."
                )
            parts[row["id"]] = row["split"]
    return parts


def some_clips(clips: Dataset, number: int | None, seed: int) -> Dataset:
    """`number` of the clips, drawn with the seed and kept in order; None for all clips."""
    if number is None or number >= len(clips):
        return clips
    return clips.select(sorted(np.random.default_rng(seed).choice(len(clips), number, replace=False).tolist()))


def data_name(data: str) -> str:
    """The name of a data set without any path of this machine: the Hub id, or the name of the folder or file."""
    return Path(data).resolve().name if Path(data).exists() else data


def is_simulated(data: str) -> bool:
    """Whether the card of a prepared folder says that a program made its clips and opinions."""
    card = Path(data) / "README.md"
    return card.is_file() and SIMULATED in (DatasetCard.load(card).data.tags or [])
