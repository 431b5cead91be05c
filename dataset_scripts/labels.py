"""What a label reader produces (clips, pairs, problems) and the helpers that all readers share."""

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

# The endings that `datasets`' VideoFolder recognises: these files are linked as they are.
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mpeg", ".mov")
# Not recognised by VideoFolder, and GIF not by decord 0.6 either: these are rewritten, without loss, as mp4.
OTHER_VIDEO_SUFFIXES = (".gif", ".webm", ".m4v")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

STRING, FLOAT, INTEGER = Value("string"), Value("float64"), Value("int64")


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset beforehand: its columns, its ranges and the text of its card.

    `columns` come after `id, video, prompt, mos`; `ranges` bound `mos` and any of the columns (both ends included).
    """

    name: str
    license: str
    description: str
    homepage: str
    columns: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    pair_columns: dict[str, Any] = field(default_factory=dict)
    has_prompts: bool = True
    repeated_pairs_are_votes: bool = False
    suffixes: tuple[str, ...] = VIDEO_SUFFIXES + OTHER_VIDEO_SUFFIXES


@dataclass(slots=True)
class Clip:
    """One labelled clip. `file` is relative to the source folder, None: not found; `mos` None: unlabelled."""

    split: str
    id: str
    file: str | None
    prompt: str
    mos: float | None = None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Pair:
    """Two clips of one prompt and who was preferred: "A", "B" or "tie" in each of the preference columns."""

    split: str
    id_a: str
    id_b: str
    prompt: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Problem:
    """Something wrong with one row or file; `kind` is a key of `checks.PROBLEM_KINDS`."""

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
    def _prompts(self) -> dict[tuple[str, str], str]:
        return {(clip.split, clip.id): clip.prompt for clip in self.clips}

    def add_pair(self, clip_a: Clip, clip_b: Clip, values: dict[str, Any]) -> None:
        """Add a pair and those of its clips that are new; a clip may stand in many pairs, with one prompt only."""
        for clip in (clip_a, clip_b):
            known = self._prompts.setdefault((clip.split, clip.id), clip.prompt)
            if known != clip.prompt:
                detail = f"the clip has two prompts, {known!r} and {clip.prompt!r}; the pair is left out"
                self.problems.append(Problem("bad_label", clip.id, detail))
                return
        if clip_a.id == clip_b.id:
            self.problems.append(Problem("bad_label", clip_a.id, "the pair compares the clip with itself"))
            return
        self._new_clips(clip_a, clip_b)
        self.pairs.append(Pair(clip_a.split, clip_a.id, clip_b.id, clip_a.prompt, values))

    @cached_property
    def _seen(self) -> set[tuple[str, str]]:
        return {(clip.split, clip.id) for clip in self.clips}

    def _new_clips(self, *clips: Clip) -> None:
        for clip in clips:
            if (clip.split, clip.id) not in self._seen:
                self._seen.add((clip.split, clip.id))
                self.clips.append(clip)


class MediaIndex:
    """The media files under a folder, walked once, and the search for the file that a label means."""

    def __init__(self, source: Path, suffixes: Iterable[str]):
        self.source = Path(source)
        self.suffixes = tuple(suffixes)
        self.files = frozenset(self._walk())

    def _walk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.source, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = posixpath.normpath(Path(folder).relative_to(self.source).as_posix())
            for name in names:
                # macOS archives carry a "._name" shadow of every file.
                if name.lower().endswith(self.suffixes) and not name.startswith("."):
                    yield posixpath.normpath(posixpath.join(relative, name))

    @cached_property
    def by_stem(self) -> Mapping[str, list[str]]:
        """The files of each name without folder and ending, sorted."""
        stems = defaultdict(list)
        for file in sorted(self.files):
            stems[posixpath.splitext(posixpath.basename(file))[0]].append(file)
        return stems

    def find(self, name: str, folders: Iterable[str] = (), anywhere: bool = True) -> str | None:
        """The file that a label calls `name`, relative to the source.

        Looked for in `folders` and at the root, then, with `anywhere`, wherever exactly one path ends so. A name
        without a media ending matches any.
        """
        name = clean_name(name)
        has_suffix = name.lower().endswith(self.suffixes)
        endings = ("",) if has_suffix else self.suffixes
        for folder in (*folders, ""):
            for ending in endings:
                candidate = posixpath.join(folder, name + ending)
                if candidate in self.files:
                    return candidate
        if not anywhere:
            return None
        stem = clip_id(name, self.suffixes)
        found = [
            file
            for file in self.by_stem.get(posixpath.basename(stem), ())
            if f"/{file}".endswith(tuple(f"/{name}{ending}" for ending in endings))
        ]
        return found[0] if len(found) == 1 else None


def clean_name(name: str) -> str:
    """A file name from a label in one spelling: no surrounding blanks, no "./", forward slashes."""
    return posixpath.normpath(str(name).strip().replace("\\", "/")).lstrip("/")


def clip_id(name: str, suffixes: Iterable[str] = VIDEO_SUFFIXES + OTHER_VIDEO_SUFFIXES + IMAGE_SUFFIXES) -> str:
    """The stable id of a clip: its name in the label file without the media ending."""
    name = clean_name(name)
    stem, ending = posixpath.splitext(name)
    return stem if ending.lower() in suffixes else name


def label_files(source: Path, given: Iterable[str | Path] | None, patterns: Iterable[str]) -> list[Path]:
    """The label files: those given on the command line, or those that the first successful pattern finds."""
    if given:
        missing = [str(path) for path in given if not Path(path).is_file()]
        if missing:
            raise ValueError(f"--labels: no such file: {', '.join(missing)}; give paths of existing label files.")
        return [Path(path) for path in given]
    patterns = list(patterns)
    for pattern in patterns:
        found = sorted(path for path in Path(source).glob(pattern) if path.is_file())
        if found:
            return found
    raise ValueError(f"no label file in '{source}' (looked for {', '.join(patterns)}); name it with --labels FILE.")


def split_of(path: str | Path) -> str:
    """The split that a label file's name tells: test, validation (also "val", "dev") or else train."""
    stem = Path(path).stem.lower()
    for split, marks in {"test": ("test",), "validation": ("val", "dev")}.items():
        if any(mark in stem for mark in marks):
            return split
    return "train"


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a csv, json (a list, or a dict with a list "data_list"), jsonl or parquet file as dicts."""
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
            raise ValueError(f"'{path}' holds no list of rows; expected a JSON list or a dict with 'data_list'.")
        yield from rows
    elif ending == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    else:
        raise ValueError(f"cannot read labels from '{path}': use a .csv, .json, .jsonl or .parquet file.")


def require_columns(row: dict[str, Any], columns: Iterable[str], path: Path) -> None:
    """Refuse a label file of another kind, by name, rather than fail on its first row."""
    missing = [column for column in columns if column not in row]
    if missing:
        raise ValueError(f"'{path}' has no column {missing} (it has {list(row)}); is it the dataset's label file?")


def to_score(value: Any) -> float:
    """A label as a float; NaN (found by the checks, never written) where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def to_preference(value: Any, names: dict[str, str]) -> str | None:
    """A vote as "A", "B" or "tie" by a table of the dataset's own names (in lower case); None if unknown."""
    return names.get(str(value).strip().lower())
