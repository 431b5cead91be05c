"""Make reproducible splits of a prepared folder: plain CSV files `id,split`, and a check for leakage.

    python -m dataset_scripts.make_splits --data data/t2vqa_db --output data/t2vqa_db/splits

`random_00.csv` ... `random_09.csv` are splits by clip with equal generator shares, the paper's protocol: ten of them,
results are means over the ten. As each prompt has a clip of every generator, most test prompts are in training too.
`prompt_disjoint_00.csv` ... keep all clips of a prompt on one side, generator shares as equal as the prompts allow.

The fractions are 0.7 train, 0.1 validation, 0.2 test. The published code uses 80/20 and chooses its best epoch on the
test part; here the test part keeps its 20 %, and a validation part for choosing checkpoints is cut from the rest.

Everything is ordered by hashes of seed, split number and id, so a split depends on nothing else: not on the order of
the rows, the file format or Python's random generator. All labelled clips of the folder take part, whatever split they
stand in there; clips without MOS are left out and counted. `leakage.json` tells for every split what its parts share.
"""

import argparse
import csv
import hashlib
import io
import json
import math
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from .checks import content_hash

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Item:
    """What a split needs to know of a clip."""

    id: str
    prompt: str
    generator: str
    content: str


def normalise_prompt(prompt: str) -> str:
    """Prompts that differ only in case, spacing, Unicode form or final punctuation count as one."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split()).rstrip(" .!,;:")


def hash_key(*parts: object) -> str:
    """A pseudo-random sort key that is the same on every machine and Python."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def load_items(data: str | Path, hash_contents: bool = True) -> tuple[list[Item], int]:
    """The labelled clips of a prepared folder, sorted by id, and the number of clips left out for want of a MOS."""
    from datasets import Video, load_dataset

    # Streaming reads the folder in place; otherwise a parquet folder, clips included, is copied into the cache.
    splits = load_dataset(str(data), streaming=True)
    items, unlabelled = [], 0
    for split in splits.values():
        missing = {"id", "video", "prompt", "mos"} - set(split.features)
        if missing:
            raise ValueError(f"--data '{data}' has no column {sorted(missing)}; give a folder made by a preparer.")
        columns = [c for c in ("id", "video", "prompt", "mos", "generator") if c in split.features]
        if not hash_contents:
            columns.remove("video")
        rows = split.select_columns(columns)
        for row in rows.cast_column("video", Video(decode=False)) if hash_contents else rows:
            if row["mos"] is None:
                unlabelled += 1
                continue
            content = video_hash(row["video"]) if hash_contents else row["id"]
            items.append(Item(row["id"], normalise_prompt(row["prompt"]), row.get("generator") or "", content))
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise ValueError(f"--data '{data}' has {len(repeated)} ids more than once, such as {repeated[0]!r}.")
    return sorted(items, key=lambda item: item.id), unlabelled


def video_hash(video: Mapping[str, Any]) -> str:
    """The content hash of a clip as `datasets` gives it undecoded."""
    if video["bytes"] is None:
        return content_hash(Path(video["path"]))
    return hashlib.blake2b(video["bytes"], digest_size=16).hexdigest()


def allocate(counts: Mapping[str, int], fractions: tuple[float, ...]) -> dict[str, list[int]]:
    """How many of each generator's clips go to each part.

    Every share is within one clip of exact, and what rounding leaves over goes where the whole split lacks most, so
    that the parts' total sizes are right as well.
    """
    owed = [0.0] * len(fractions)
    result = {}
    for name, count in sorted(counts.items()):
        exact = [count * fraction for fraction in fractions]
        sizes = [math.floor(value + 1e-9) for value in exact]
        owed = [debt + value - size for debt, value, size in zip(owed, exact, sizes, strict=True)]
        # Only parts whose own share was rounded down may take one more.
        open_parts = [part for part in range(len(fractions)) if exact[part] - sizes[part] > 1e-9]
        for part in sorted(open_parts, key=lambda part: (-owed[part], part))[: count - sum(sizes)]:
            sizes[part] += 1
            owed[part] -= 1
        result[name] = sizes
    return result


def random_split(items: list[Item], fractions: tuple[float, ...], key: str) -> dict[str, str]:
    """Split by clip with equal generator shares: id -> part."""
    strata = defaultdict(list)
    for item in items:
        strata[item.generator].append(item.id)
    sizes = allocate({name: len(ids) for name, ids in strata.items()}, fractions)
    assigned = {}
    for name, ids in strata.items():
        ordered = iter(sorted(ids, key=lambda i: hash_key(key, i)))
        for part, size in zip(PARTS, sizes[name], strict=True):
            assigned.update((next(ordered), part) for _ in range(size))
    return assigned


def prompt_disjoint_split(items: list[Item], fractions: tuple[float, ...], key: str) -> dict[str, str]:
    """Split by prompt: id -> part.

    Prompts come in random order, large ones first; each goes to the part where it brings the counts of its generators
    closest to their targets.
    """
    groups = defaultdict(list)
    for item in items:
        groups[item.prompt].append(item)
    totals = Counter(item.generator for item in items)
    lack = [{name: count * fraction for name, count in totals.items()} for fraction in fractions]
    assigned = {}
    for prompt in sorted(groups, key=lambda prompt: (-len(groups[prompt]), hash_key(key, prompt))):
        # Sorted: a sum of floats depends on its order, and ties decide the split.
        counts = dict(sorted(Counter(item.generator for item in groups[prompt]).items()))
        # Adding n to a part that lacks m changes the squared error by n^2 - 2nm; relative to the part's size, so that
        # small parts fill at the same pace as large ones.
        costs = [
            sum(n * n - 2 * n * lack[part][name] for name, n in counts.items()) / fraction if fraction else math.inf
            for part, fraction in enumerate(fractions)
        ]
        part = min(range(len(fractions)), key=lambda part: (costs[part], part))
        for name, n in counts.items():
            lack[part][name] -= n
        assigned.update((item.id, PARTS[part]) for item in groups[prompt])
    return assigned


def leakage(items: list[Item], assigned: Mapping[str, str]) -> dict[str, Any]:
    """Sizes and generator shares of the parts, and what each two of them share."""
    parts = {part: [item for item in items if assigned[item.id] == part] for part in PARTS}
    prompts = {part: {item.prompt for item in members if item.prompt} for part, members in parts.items()}
    contents = {part: {item.content for item in members} for part, members in parts.items()}
    seen = prompts["train"] | prompts["validation"]
    return {
        "clips": {part: len(members) for part, members in parts.items()},
        "generators": {
            part: dict(sorted(Counter(i.generator for i in members).items())) for part, members in parts.items()
        },
        "prompts_shared": {f"{a}/{b}": len(prompts[a] & prompts[b]) for a, b in combinations(PARTS, 2)},
        "contents_shared": {f"{a}/{b}": len(contents[a] & contents[b]) for a, b in combinations(PARTS, 2)},
        "test_clips_with_a_prompt_seen_before": sum(item.prompt in seen for item in parts["test"]),
    }


def split_csv(assigned: Mapping[str, str]) -> str:
    """`id,split` sorted by id, with Unix line ends everywhere."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "split"))
    writer.writerows(sorted(assigned.items()))
    return text.getvalue()


def read_split(path: str | Path) -> dict[str, str]:
    """A split file as id -> part."""
    with open(path, encoding="utf-8", newline="") as lines:
        return {row["id"]: row["split"] for row in csv.DictReader(lines)}


Splitter = Callable[[list[Item], tuple[float, ...], str], dict[str, str]]


def make_splits(
    items: list[Item], num_splits: int, seed: int, fractions: tuple[float, ...]
) -> Iterator[tuple[str, dict[str, str]]]:
    """All splits as (name, id -> part)."""
    kinds: Iterable[tuple[str, Splitter]] = (("random", random_split), ("prompt_disjoint", prompt_disjoint_split))
    for kind, split in kinds:
        if kind == "prompt_disjoint" and not any(item.prompt for item in items):
            continue
        for number in range(num_splits):
            yield f"{kind}_{number:02d}", split(items, fractions, hash_key(kind, seed, number))


def check_fractions(fractions: Iterable[float]) -> tuple[float, ...]:
    """Three parts of one; validation may be empty."""
    fractions = tuple(fractions)
    train, validation, test = fractions
    if not math.isclose(sum(fractions), 1.0) or min(train, test) <= 0 or validation < 0:
        raise ValueError(
            f"--fractions {' '.join(map(str, fractions))}: train and test must be above 0 and the three add to 1."
        )
    return fractions


def summary(name: str, found: dict[str, Any]) -> str:
    """One line for people."""
    sizes = "/".join(str(size) for size in found["clips"].values())
    shared = ", ".join(f"{pair} {count}" for pair, count in found["prompts_shared"].items())
    line = f"{name}: {sizes} clips; prompts shared: {shared}"
    leaks = {pair: count for pair, count in found["contents_shared"].items() if count}
    return f"{line}; LEAK, equal clips: {leaks}" if leaks else line


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="prepared folder (or Hub repository)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the split files; must not exist")
    parser.add_argument("--num_splits", type=int, default=10, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fractions", type=float, nargs=3, default=(0.7, 0.1, 0.2), metavar=PARTS)
    args = parser.parse_args(argv)
    try:
        fractions = check_fractions(args.fractions)
        if args.output.exists():
            raise ValueError(f"--output '{args.output}' exists; remove it or name another.")
        items, unlabelled = load_items(args.data)
        if not items:
            raise ValueError(f"--data '{args.data}' has no clip with a MOS; there is nothing to split.")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = {}
    args.output.mkdir(parents=True)
    for name, assigned in make_splits(items, args.num_splits, args.seed, fractions):
        (args.output / f"{name}.csv").write_text(split_csv(assigned), encoding="utf-8", newline="\n")
        found[name] = leakage(items, assigned)
        print(summary(name, found[name]))
    result = {
        "seed": args.seed,
        "fractions": dict(zip(PARTS, fractions, strict=True)),
        "clips": len(items),
        "clips_without_mos_left_out": unlabelled,
        "splits": found,
    }
    (args.output / "leakage.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    if not any(item.generator for item in items):
        print("note: no generators are known here, so the random splits cannot keep their shares equal.")
    print(f"written: {args.output} ({len(found)} splits of {len(items)} clips, {unlabelled} without MOS left out)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
