"""Make reproducible splits of a prepared folder, as CSV files with the columns `id,split`, and check them for leakage.

    python -m dataset_scripts.make_splits --data data/t2vqa_db --output data/t2vqa_db/splits

`random_00.csv` ... `random_09.csv` are ten splits by clip in which every part has the same share of each generator.
This is the paper's protocol, and its results are means over the ten splits. Because each prompt has a clip of every
generator, most test prompts also occur in training. `prompt_disjoint_00.csv` ... keep all clips of a prompt in one
part; the generator shares are as equal as the prompts allow.

By default, 0.7 of the clips are for training, 0.1 for validation and 0.2 for the test. The published code uses 80/20
and chooses its best epoch on the test part. Here the test part has the same size, and checkpoints are chosen on a
validation part.

The order of the clips comes from hashes of seed, split number and id. A split therefore does not depend on the order of
the rows, on the file format or on Python's random generator. All labelled clips of the folder are split anew, whatever
split they belong to there. Clips without MOS are left out and counted, unless no clip has one: then the clips in pairs
with preferences are split. A pair belongs to a part if both clips do, so take the splits by prompt for pairs.
`leakage.json` lists, for every split, what its parts have in common.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import whole_folder

from .checks import content_hash

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Item:
    """What a split needs to know about a clip; `prompt` is normalised and `content` is the hash of the file."""

    id: str
    prompt: str
    generator: str
    content: str


def normalise_prompt(prompt: str) -> str:
    """The prompt without differences of case, spacing, Unicode form or final punctuation."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split()).rstrip(" .!,;:")


def hash_key(*parts: object) -> str:
    """A pseudo-random sort key that is the same on every machine and in every version of Python."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def load_items(data: str | Path) -> tuple[list[Item], int]:
    """The labelled clips of a prepared folder, sorted by id, and the number of the others.

    Labelled are clips with a MOS or, if no clip has one, those in a pair with a preference.
    """
    from datasets import Video, load_dataset

    # Streaming reads the folder in place. Without it, a parquet folder would be copied into the cache with its clips.
    splits = load_dataset(str(data), streaming=True)
    items, others = [], []
    for split in splits.values():
        missing = {"id", "video", "prompt", "mos"} - set(split.features)
        if missing:
            raise ValueError(f"--data '{data}' has no column {sorted(missing)}; give a folder made by a preparer.")
        columns = [c for c in ("id", "video", "prompt", "mos", "generator") if c in split.features]
        for row in split.select_columns(columns).cast_column("video", Video(decode=False)):
            prompt, generator = normalise_prompt(row["prompt"]), row.get("generator") or ""
            item = Item(row["id"], prompt, generator, video_hash(row["video"]))
            (others if row["mos"] is None else items).append(item)
    if not items:
        compared = ids_in_pairs(data)
        items, others = ([item for item in others if (item.id in compared) == wanted] for wanted in (True, False))
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise ValueError(
            f"--data '{data}' has {len(repeated)} ids more than once, for example {repeated[0]!r}; prepare it again."
        )
    return sorted(items, key=lambda item: item.id), len(others)


def ids_in_pairs(data: str | Path) -> set[str]:
    """The ids of the clips that occur in the configuration "pairs" of a prepared folder; none without it."""
    from datasets import get_dataset_config_names, load_dataset

    if "pairs" not in get_dataset_config_names(str(data)):
        return set()
    tables = load_dataset(str(data), "pairs", streaming=True)
    return {
        name for table in tables.values() for row in table.select_columns(["id_a", "id_b"]) for name in row.values()
    }


def video_hash(video: Mapping[str, Any]) -> str:
    """The content hash of an undecoded clip of `datasets`."""
    if video["bytes"] is None:
        return content_hash(Path(video["path"]))
    return hashlib.blake2b(video["bytes"], digest_size=16).hexdigest()


def allocate(counts: Mapping[str, int], fractions: tuple[float, ...]) -> dict[str, list[int]]:
    """The number of each generator's clips in each part.

    Every number is within one clip of the exact share. Clips left over by rounding go to the parts that lack most, so
    that the total sizes of the parts are right as well.
    """
    owed = [0.0] * len(fractions)
    result = {}
    for name, count in sorted(counts.items()):
        exact = [count * fraction for fraction in fractions]
        sizes = [math.floor(value + 1e-9) for value in exact]
        owed = [debt + value - size for debt, value, size in zip(owed, exact, sizes, strict=True)]
        # Only parts whose share was rounded down may get one more clip.
        open_parts = [part for part in range(len(fractions)) if exact[part] - sizes[part] > 1e-9]
        for part in sorted(open_parts, key=lambda part: (-owed[part], part))[: count - sum(sizes)]:
            sizes[part] += 1
            owed[part] -= 1
        result[name] = sizes
    return result


def random_split(items: list[Item], fractions: tuple[float, ...], key: str) -> dict[str, str]:
    """Split by clip with equal generator shares; the part of each id."""
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
    """Split by prompt; the part of each id.

    Prompts with more clips come first, in random order. Each prompt goes to the part in which it brings the numbers of
    clips per generator closest to their targets.
    """
    groups = defaultdict(list)
    for item in items:
        groups[item.prompt].append(item)
    totals = Counter(item.generator for item in items)
    lack = [{name: count * fraction for name, count in totals.items()} for fraction in fractions]
    assigned = {}
    for prompt in sorted(groups, key=lambda prompt: (-len(groups[prompt]), hash_key(key, prompt))):
        # Sorted because a sum of floats depends on its order, and equal costs must stay equal everywhere.
        counts = dict(sorted(Counter(item.generator for item in groups[prompt]).items()))
        # Adding n clips to a part that lacks m changes its squared error by n^2 - 2nm. Dividing by the part's size lets
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
    """Sizes and generator counts of the parts, and what each two parts have in common."""
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
    """The CSV of a split, sorted by id, with Unix line ends on every system."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "split"))
    writer.writerows(sorted(assigned.items()))
    return text.getvalue()


def make_splits(
    items: list[Item], num_splits: int, seed: int, fractions: tuple[float, ...]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The name and the parts by id of every split; without prompts there are no splits by prompt."""
    kinds = {"random": random_split}
    if any(item.prompt for item in items):
        kinds["prompt_disjoint"] = prompt_disjoint_split
    for kind, split in kinds.items():
        for number in range(num_splits):
            yield f"{kind}_{number:02d}", split(items, fractions, hash_key(kind, seed, number))


def summary(name: str, found: dict[str, Any]) -> str:
    """The leakage of a split in one line."""
    sizes = "/".join(str(size) for size in found["clips"].values())
    shared = ", ".join(f"{pair} {count}" for pair, count in found["prompts_shared"].items())
    line = f"{name}: {sizes} clips; prompts shared: {shared}"
    leaks = {pair: count for pair, count in found["contents_shared"].items() if count}
    return f"{line}; LEAK, equal clips: {leaks}" if leaks else line


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="prepared folder or Hub repository")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--num_splits", type=int, default=10, help="number of splits of each kind")
    parser.add_argument("--seed", type=int, default=0, help="seed of the splits")
    parser.add_argument("--fractions", type=float, nargs=3, default=(0.7, 0.1, 0.2), metavar=PARTS)
    return parser


@exits_with_status("make_splits")
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    fractions = train, validation, test = tuple(args.fractions)
    try:
        if not math.isclose(sum(fractions), 1.0) or min(train, test) <= 0 or validation < 0:
            given = " ".join(map(str, fractions))
            raise ValueError(f"--fractions {given}: train and test must be above 0, and the sum must be 1.")
        if args.output.exists():
            raise ValueError(f"--output '{args.output}' exists; remove it or name another folder.")
        items, unlabelled = load_items(args.data)
        if not items:
            raise ValueError(f"--data '{args.data}' has no clips with a MOS and no pairs; name a folder with labels.")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = {}
    with whole_folder(args.output) as folder:
        for name, assigned in make_splits(items, args.num_splits, args.seed, fractions):
            (folder / f"{name}.csv").write_text(split_csv(assigned), encoding="utf-8", newline="\n")
            found[name] = leakage(items, assigned)
            print(summary(name, found[name]))
        result = {
            "seed": args.seed,
            "fractions": dict(zip(PARTS, fractions, strict=True)),
            "clips": len(items),
            "clips_without_mos_left_out": unlabelled,
            "splits": found,
        }
        (folder / "leakage.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    if not any(item.generator for item in items):
        print("note: the generators of the clips are unknown, so the random splits cannot keep their shares equal.")
    print(f"written: {args.output} ({len(found)} splits of {len(items)} clips, {unlabelled} without labels left out)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
