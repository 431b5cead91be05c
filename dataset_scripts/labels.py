"""The records that a label reader produces (clips, pairs, problems), and the functions that all label readers share."""

import csv
import json
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Value

# The file endings that VideoFolder of `datasets` recognises: these files are linked unchanged.
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mpeg", ".mov")
# VideoFolder does not recognise these, and decord 0.6 cannot read GIF: these files are rewritten losslessly as mp4.
OTHER_VIDEO_SUFFIXES = (".gif", ".webm", ".m4v")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

STRING, FLOAT, INTEGER = Value("string"), Value("float64"), Value("int64")


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a dataset before its labels are read.

    Args:
        label_patterns: where the label files are, as glob patterns; the first pattern that finds a file decides.
        columns: columns that follow `id`, `video`, `prompt` and `mos`.
        ranges: lowest and highest allowed value, both included, of `mos` and of any of the columns.
        tags: tags on the card besides "video-quality-assessment"; "synthetic" for simulated clips or opinions.
    """

    name: str
    license: str
    description: str
    homepage: str
    label_patterns: tuple[str, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    pair_columns: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    has_prompts: bool = True
    repeated_pairs_are_votes: bool = False
    suffixes: tuple[str, ...] = VIDEO_SUFFIXES + OTHER_VIDEO_SUFFIXES


@dataclass(slots=True)
class Clip:
    """One clip. `file` is relative to the source folder, None if not found. `mos` is None for an unlabelled clip."""

    split: str
    id: str
    file: str | None
    prompt: str
    mos: float | None = None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Pair:
    """Two clips of one prompt. Each preference column says which clip people preferred: "A", "B" or "tie"."""

    split: str
    id_a: str
    id_b: str
    prompt: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Problem:
    """A defect of one row or file. `kind` is a key of `checks.PROBLEM_KINDS`."""

    kind: str
    subject: str
    detail: str


@dataclass
class Labels:
    """Everything that a label reader found."""

    clips: list[Clip] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @cached_property
    def _prompts(self) -> dict[tuple[str, str], str]:  # also remembers clips whose pair was left out
        return {(clip.split, clip.id): clip.prompt for clip in self.clips}

    @cached_property
    def _ids(self) -> set[tuple[str, str]]:
        return {(clip.split, clip.id) for clip in self.clips}

    def add_pair(self, clip_a: Clip, clip_b: Clip, values: dict[str, Any]) -> None:
        """Add a pair, and its clips if they are new. A clip may belong to many pairs, but only to one prompt."""
        for clip in (clip_a, clip_b):
            known = self._prompts.setdefault((clip.split, clip.id), clip.prompt)
            if known != clip.prompt:
                detail = f"the clip has two prompts, {known!r} and {clip.prompt!r}; the pair is left out"
                self.problems.append(Problem("bad_label", clip.id, detail))
                return
        if clip_a.id == clip_b.id:
            self.problems.append(Problem("bad_label", clip_a.id, "the pair compares the clip with itself"))
            return
        for clip in (clip_a, clip_b):
            if (clip.split, clip.id) not in self._ids:
                self._ids.add((clip.split, clip.id))
                self.clips.append(clip)
        self.pairs.append(Pair(clip_a.split, clip_a.id, clip_b.id, clip_a.prompt, values))


class MediaIndex:
    """The media files under a folder, listed once. `find` returns the file that a label names."""

    def __init__(self, source: Path, suffixes: Iterable[str]):
        self.source = Path(source)
        self.suffixes = tuple(suffixes)
        self.files = frozenset(self._walk())

    def _walk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.source, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = posixpath.normpath(Path(folder).relative_to(self.source).as_posix())
            for name in names:
                # Archives made on macOS contain a "._name" shadow of every file.
                if name.lower().endswith(self.suffixes) and not name.startswith("."):
                    yield posixpath.normpath(posixpath.join(relative, name))

    @cached_property
    def by_stem(self) -> Mapping[str, list[str]]:
        """The files by their name without folder and ending; each list is sorted."""
        stems = defaultdict(list)
        for file in sorted(self.files):
            stems[posixpath.splitext(posixpath.basename(file))[0]].append(file)
        return stems

    def find(self, name: str, folders: Iterable[str] = (), anywhere: bool = True) -> str | None:
        """The file that a label calls `name`, relative to the source folder; None if it is missing or ambiguous.

        The search covers `folders`, then the root and then, with `anywhere`, every path that ends with the name, if
        there is exactly one. A name without a media ending matches a file with any media ending.
        """
        name = clean_name(name)
        endings = ("",) if name.lower().endswith(self.suffixes) else self.suffixes
        for folder in (*folders, ""):
            for ending in endings:
                candidate = posixpath.join(folder, name + ending)
                if candidate in self.files:
                    return candidate
        if not anywhere:
            return None
        tails = tuple(f"/{name}{ending}" for ending in endings)
        same_stem = self.by_stem.get(posixpath.basename(clip_id(name, self.suffixes)), ())
        found = [file for file in same_stem if f"/{file}".endswith(tails)]
        return found[0] if len(found) == 1 else None

    def clip(
        self, split: str, name: str, prompt: str | None, mos: float | None, values: dict[str, Any], *folders: str
    ) -> Clip:
        """The clip that a label calls `name`, with its id and, if `find` finds it, its file."""
        return Clip(split, clip_id(name), self.find(name, folders), prompt or "", mos, values)


def clean_name(name: str) -> str:
    """A file name from a label without surrounding blanks or a leading "./", and with forward slashes."""
    return posixpath.normpath(str(name).strip().replace("\\", "/")).lstrip("/")


def clip_id(name: str, suffixes: Iterable[str] = VIDEO_SUFFIXES + OTHER_VIDEO_SUFFIXES + IMAGE_SUFFIXES) -> str:
    """The stable id of a clip: its name in the label file without the media ending."""
    name = clean_name(name)
    stem, ending = posixpath.splitext(name)
    return stem if ending.lower() in suffixes else name


def label_files(source: Path, given: Iterable[Path] | None, patterns: tuple[str, ...]) -> list[Path]:
    """The label files given on the command line or, if none are given, those of the first pattern that finds any."""
    if given:
        missing = [str(path) for path in given if not path.is_file()]
        if missing:
            raise ValueError(f"--labels: no such file: {', '.join(missing)}; give paths of existing label files.")
        return list(given)
    for pattern in patterns:
        found = sorted(path for path in source.glob(pattern) if path.is_file())
        if found:
            return found
    raise ValueError(f"no label file in '{source}' (looked for {', '.join(patterns)}); name it with --labels FILE.")


def split_of(path: Path) -> str:
    """The split that the name of a label file implies: test, validation (also "val" and "dev"), otherwise train."""
    stem = path.stem.lower()
    for split, marks in {"test": ("test",), "validation": ("val", "dev")}.items():
        if any(mark in stem for mark in marks):
            return split
    return "train"


def read_rows(path: Path, columns: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a csv, json (a list, or a dict with a list "data_list"), jsonl or parquet file.

    Raises:
        ValueError: if the file has another format, or if a row lacks one of the `columns`.
    """
    for row in _parse(path):
        require_columns(row, columns, path)
        yield row


def _parse(path: Path) -> Iterator[dict[str, Any]]:
    ending = path.suffix.lower()
    if ending == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as lines:
            yield from csv.DictReader(lines)
    elif ending == ".jsonl":
        with open(path, encoding="utf-8-sig") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    elif ending == ".json":
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = content.get("data_list") if isinstance(content, dict) else content
        if not isinstance(rows, list):
            raise ValueError(
                f"'{path}' is not a list of rows; expected a JSON list or a dict with the list 'data_list'."
            )
        yield from rows
    elif ending == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    else:
        raise ValueError(f"cannot read labels from '{path}': use a .csv, .json, .jsonl or .parquet file.")


def require_columns(row: dict[str, Any], columns: Iterable[str], path: Path) -> None:
    """Refuse a row without one of the `columns`, with the name of its label file."""
    missing = [column for column in columns if column not in row]
    if missing:
        raise ValueError(f"'{path}' has no column {missing} (it has {list(row)}); is it the dataset's label file?")


def to_score(value: Any) -> float:
    """A label as a float; NaN, which the checks report, if the label is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def to_preference(value: Any, names: dict[str, str]) -> str | None:
    """A vote as "A", "B" or "tie", given the dataset's own names in lower case; None if the name is unknown."""
    return names.get(str(value).strip().lower())
