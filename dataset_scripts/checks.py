"""The checks of a dataset before anything is written: rows, files, duplicates, splits and pairs.

Nothing is dropped silently: every row that is left out becomes a `Problem`, and `report` counts and lists the problems.
Files are read in pieces, and each worker decodes one clip at a time, so the memory does not grow with the dataset.
"""

import hashlib
import itertools
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from .labels import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Clip, DatasetSpec, Labels, MediaIndex, Pair, Problem

PROBLEM_KINDS = {
    "bad_label": "label lines that could not be read; left out",
    "duplicate_id": "second rows of an id; left out",
    "empty_prompt": "rows with an empty prompt; left out",
    "mos_not_a_number": "rows whose MOS is empty, NaN or not a number; left out",
    "out_of_range": "rows with a MOS or score outside its range; left out",
    "missing_file": "labels without a file; left out",
    "unreadable_file": "files that cannot be decoded; left out",
    "duplicate_content": "clips that repeat another clip of their split byte for byte; left out",
    "shared_between_splits": "clips of several splits; kept in one split only, test before validation before train",
    "pair_without_clip": "pairs with a clip that was left out; left out",
    "duplicate_pair": "pairs that repeat another pair and its preferences; left out",
    "file_without_label": "files that no label names; not written",
}

T = TypeVar("T")


def progress(items: Iterable[T], total: int, text: str) -> Iterable[T]:
    """Iterate with a progress bar, shown only on a terminal: checking and writing a large dataset takes minutes."""
    return track(items, text, total=total, console=Console(stderr=True), disable=not sys.stderr.isatty())


def split_rank(split: str) -> int:
    """0 for test, 1 for validation, 2 for train. A clip found in two splits is kept in the split of the lowest rank."""
    return next((rank for rank, name in enumerate(("test", "validation")) if split.startswith(name)), 2)


def content_hash(path: Path) -> str:
    """The BLAKE2b hash of a file, read in pieces of 1 MiB."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def decode_error(path: Path) -> str | None:
    """The reason why a clip cannot be decoded, None if it can.

    Files that will be linked are opened with decord, the metric's own reader, which decodes the first frame and the
    last one; an interrupted download fails at the last frame. Files that will be rewritten are decoded completely, so
    that writing them cannot fail later.
    """
    try:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            _read_ends(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            from PIL import Image

            with Image.open(path) as image:
                image.load()
        else:
            import av

            with av.open(str(path)) as container:
                if not sum(1 for _ in container.decode(video=0)):
                    raise ValueError("no frames")
    # decord, FFmpeg and Pillow have different errors for bad files, without a common base class (DECORDError is a plain
    # Exception). Every error is reported.
    except Exception as error:
        # The report may be published with the dataset, so it must not contain the paths of this machine.
        text = " ".join(str(error).split()).replace(str(path), path.name)
        return f"{type(error).__name__}: {text[:160]}"
    return None


def _read_ends(path: Path) -> None:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path), num_threads=1)
    if not len(reader):
        raise ValueError("no frames")
    # The frames are copied because decord2 fails on some frame sizes (32 x 32) only then.
    reader.get_batch(sorted({0, len(reader) - 1})).asnumpy()


def inspect_files(source: Path, files: Iterable[str], workers: int) -> Iterator[tuple[str, str | None]]:
    """The content hash and `decode_error` of each file, in the given order. Hard links to one file are read once."""
    linked: dict[tuple[int, int], tuple[str, str | None]] = {}

    def inspect(file: str) -> tuple[str, str | None]:
        path = source / file
        try:
            status = path.stat()
            key = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and key in linked:
                return linked[key]
            facts = content_hash(path), decode_error(path)
        except OSError as error:
            return "", f"{type(error).__name__}: {error.strerror}"
        if status.st_nlink > 1:
            linked[key] = facts
        return facts

    files = iter(files)
    with ThreadPoolExecutor(workers) as pool:
        # Files are handed over in portions because Executor.map would queue 100,000 tasks at once.
        while portion := list(itertools.islice(files, 64 * workers)):
            yield from pool.map(inspect, portion)


class Checker:
    """Runs the checks. Afterwards `clips` and `pairs` have passed them, and `problems` lists what was found."""

    def __init__(self, spec: DatasetSpec, labels: Labels, index: MediaIndex, keep_duplicates: bool = False):
        self.spec = spec
        self.index = index
        self.keep_duplicates = keep_duplicates
        self.problems = list(labels.problems)
        self.clips = labels.clips
        self.pairs = labels.pairs

    def run(self, workers: int) -> None:
        """Run all checks: first rows, which are fast to check, then files, then pairs."""
        labelled = {clip.file for clip in self.clips}
        # The checks keep the first of two equal clips. Within a split, sorting keeps the order of the labels.
        ordered = sorted(self.clips, key=lambda clip: split_rank(clip.split))
        kept, same_as = self._check_files(list(self._check_rows(ordered)), workers)
        self.clips = [clip for clip in self.clips if id(clip) in kept]
        self.pairs = list(self._check_pairs(same_as))
        for file in sorted(self.index.files - labelled):
            self._add("file_without_label", file, "no label names this file")

    def _add(self, kind: str, subject: str, detail: str) -> None:
        self.problems.append(Problem(kind, subject, detail))

    def _check_rows(self, clips: list[Clip]) -> Iterator[Clip]:
        ids: dict[str, str] = {}
        for clip in clips:
            problem = self._row_problem(clip, ids)
            if problem:
                self._add(problem[0], clip.id, problem[1])
            else:
                ids[clip.id] = clip.split
                yield clip

    def _row_problem(self, clip: Clip, ids: dict[str, str]) -> tuple[str, str] | None:
        if clip.id in ids:
            if ids[clip.id] == clip.split:
                return "duplicate_id", f"a second row of this id in split '{clip.split}'"
            return "shared_between_splits", f"the id occurs in '{ids[clip.id]}' and in '{clip.split}'"
        if self.spec.has_prompts and not clip.prompt.strip():
            return "empty_prompt", "the prompt is empty"
        if clip.mos is not None and not math.isfinite(clip.mos):
            return "mos_not_a_number", f"the MOS is {clip.mos}"
        for column, (low, high) in self.spec.ranges.items():
            value = clip.mos if column == "mos" else clip.values.get(column)
            if value is not None and not low <= value <= high:
                return "out_of_range", f"{column}={value} is outside {low:g}..{high:g}"
        if clip.file is None:
            return "missing_file", "--source has no file, or more than one, of the labelled name"
        return None

    def _check_files(self, clips: list[Clip], workers: int) -> tuple[set[int], dict[tuple[str, str], str]]:
        """The `id()` of the clips to keep, and the id of the equal clip that replaces a duplicate of the same split."""
        first: dict[str, Clip] = {}
        kept, same_as = set(), {}
        facts = inspect_files(self.index.source, (clip.file for clip in clips), workers)
        for clip, (digest, error) in progress(zip(clips, facts, strict=True), len(clips), "checking clips"):
            if error:
                self._add("unreadable_file", clip.id, f"'{clip.file}': {error}")
                continue
            other = first.setdefault(digest, clip)
            if other.split != clip.split:
                detail = f"'{clip.file}' of '{clip.split}' equals '{other.file}' of '{other.split}'"
                self._add("shared_between_splits", clip.id, detail)
                continue
            if other is not clip:
                self._add("duplicate_content", clip.id, f"'{clip.file}' equals '{other.file}'")
                if not self.keep_duplicates:
                    if other.prompt == clip.prompt:
                        same_as[clip.split, clip.id] = other.id
                    continue
            kept.add(id(clip))
        return kept, same_as

    def _check_pairs(self, same_as: dict[tuple[str, str], str]) -> Iterator[Pair]:
        kept = {(clip.split, clip.id) for clip in self.clips}
        seen = set()
        for pair in self.pairs:
            pair.id_a = same_as.get((pair.split, pair.id_a), pair.id_a)
            pair.id_b = same_as.get((pair.split, pair.id_b), pair.id_b)
            name = f"{pair.id_a} / {pair.id_b}"
            lost = [i for i in (pair.id_a, pair.id_b) if (pair.split, i) not in kept]
            key = (pair.split, pair.id_a, pair.id_b, *pair.values.values())
            if lost or pair.id_a == pair.id_b:
                detail = f"left out: {', '.join(lost)}" if lost else "both clips are the same file"
                self._add("pair_without_clip", name, detail)
            elif key in seen and not self.spec.repeated_pairs_are_votes:
                self._add("duplicate_pair", name, "an earlier label has the same pair and the same preferences")
            else:
                seen.add(key)
                yield pair


def report(checker: Checker) -> dict[str, Any]:
    """The result as a dict for report.json: rows per split, problems per kind, and every problem."""
    counts = Counter(problem.kind for problem in checker.problems)
    clips = Counter(clip.split for clip in checker.clips)
    return {
        "dataset": checker.spec.name,
        # In the order train, validation, test.
        "clips": {split: clips[split] for split in sorted(clips, key=lambda split: (-split_rank(split), split))},
        "unlabelled_clips": dict(Counter(clip.split for clip in checker.clips if clip.mos is None)),
        "pairs": dict(Counter(pair.split for pair in checker.pairs)),
        "keep_duplicates": checker.keep_duplicates,
        "problem_counts": {kind: counts[kind] for kind in PROBLEM_KINDS if counts[kind]},
        "problems": [asdict(problem) for problem in checker.problems],
    }


def format_report(result: dict[str, Any], examples: int = 3) -> str:
    """The report as text: counts, and the first `examples` of each kind of problem."""
    lines = [f"{result['dataset']}: {sum(result['clips'].values())} clips {result['clips']}"]
    if result["pairs"]:
        lines[0] += f", {sum(result['pairs'].values())} pairs {result['pairs']}"
    for kind, count in result["problem_counts"].items():
        meaning = PROBLEM_KINDS[kind]
        if kind == "duplicate_content" and result["keep_duplicates"]:
            meaning = meaning.replace("left out", "kept (--keep_duplicates)")
        lines.append(f"  {kind}: {count} ({meaning})")
        found = (problem for problem in result["problems"] if problem["kind"] == kind)
        lines += [f"    {problem['subject']}: {problem['detail']}" for problem in itertools.islice(found, examples)]
        if count > examples:
            lines.append(f"    ... and {count - examples} more in report.json")
    if not result["problem_counts"]:
        lines.append("  no problems found")
    return "\n".join(lines)
