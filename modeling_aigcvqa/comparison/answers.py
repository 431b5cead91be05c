"""The answers of generators to prompts: their scores in a table of prompts and generators."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.manifests import file_column
from ..names_aigcvqa import SCORES, shortened
from ..scoring.score_table import ScoreTable

# What makes scores comparable, of the records beside files of scores.
OPTIONS = ("model_sha256", "branches", "alignment_num_frames", "dtype")


@dataclass(frozen=True)
class Answers:
    """Scores of G generators by P prompts.

    Attributes:
        generators: names (G,), sorted.
        prompts: texts (P,).
        categories: of the prompts (P,); None for a prompt without one, and for all if there is no such column.
        scores: score name -> (P, G), the mean over the clips of a generator for a prompt, NaN where it has none.
        clips: (P, G), the number of clips that were scored.
        failed: per clip that could not be scored, its file, generator and error.
        warnings: what the reader must know of the data.
    """

    generators: list[str]
    prompts: list[str]
    categories: list[str | None]
    scores: dict[str, np.ndarray]
    clips: np.ndarray
    failed: list[dict[str, str]]
    warnings: list[str]


def gathered(tables: Sequence[tuple[Path, ScoreTable]], by: str = "generator", category: str = "category") -> Answers:
    """The answers in the rows of manifests.

    Args:
        by: the column that names the generator. With several manifests, the rows of a manifest without this column are
            of a generator with the name of the file, see `distinct_names`.
        category: the column of the category of a prompt.

    Raises:
        ValueError: for a row without prompt or generator, fewer than two generators, or scores of different sums; names
            the file and the row.
    """
    values: dict[str, dict] = {name: defaultdict(list) for name in SCORES}
    categories: dict[str, Counter] = defaultdict(Counter)
    failed, sums, generators = [], set(), set()
    for (path, table), name_of_file in zip(tables, distinct_names([path for path, _ in tables])):
        has_column = any(row.get(by) not in (None, "") for row in table.rows)
        if not has_column and len(tables) == 1:
            raise ValueError(
                f"'{path}' has no column '{by}' that says which generator made a clip; add it, name another with --by, "
                "or pass one manifest per generator."
            )
        for number, row in enumerate(table.rows, 1):
            generator = str(row.get(by) or "") if has_column else name_of_file
            prompt = str(row.get("prompt") or "").strip()
            missing = by if not generator else "prompt" if not prompt else None
            if missing:
                raise ValueError(f"'{path}', row {number}: '{missing}' is empty; clips are compared prompt by prompt.")
            generators.add(generator)
            if row.get(category) not in (None, ""):
                categories[prompt][str(row[category])] += 1
            if "error" in row:
                failed.append({"file": row[file_column(row)], "generator": generator, "error": row["error"]})
                continue
            sums.add(row.get("quality_of"))
            for name in SCORES:
                if name in row:
                    values[name][prompt, generator].append(row[name])
    _check(sums, generators, values, failed)
    names, prompts = sorted(generators), list(dict.fromkeys(prompt for prompt, _ in values[SCORES[0]]))
    scores = {name: _matrix(found, prompts, names, np.mean) for name, found in values.items() if found}
    clips = np.nan_to_num(_matrix(values[SCORES[0]], prompts, names, len)).astype(int)
    of_prompts = [categories[prompt].most_common(1)[0][0] if categories[prompt] else None for prompt in prompts]
    warnings = [*_warnings_of_files(tables), *_warnings_of_clips(clips, names, categories, failed)]
    return Answers(names, prompts, of_prompts, scores, clips, failed, warnings)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name per file: its name without the ending, and where names repeat with as many folders as tell them apart.

    Raises:
        ValueError: for a file that is named twice.
    """
    full = [path.absolute().with_suffix("").parts for path in paths]
    twice = next((path for path, parts in zip(paths, full) if full.count(parts) > 1), None)
    if twice is not None:
        raise ValueError(f"--manifest '{twice}' is named twice, or two files differ in their ending alone.")
    for depth in range(1, max(map(len, full)) + 1):
        names = ["/".join(parts[-depth:]) for parts in full]
        if len(set(names)) == len(names):
            break
    return names


def _check(sums: set, generators: set[str], values: dict[str, dict], failed: list[dict[str, str]]) -> None:
    if len(sums) > 1:
        raise ValueError(
            f"the quality scores are sums of different branches ({sorted(map(str, sums))}); score all clips alike."
        )
    if not values[SCORES[0]]:
        raise ValueError(f"no clip has a score; the first of {len(failed)} failed: {failed[0]['error']}")
    if len(generators) < 2:
        raise ValueError(f"there is one generator, {sorted(generators)}; a comparison needs two or more.")


def _matrix(found: dict, prompts: list[str], generators: list[str], of: Any) -> np.ndarray:
    return np.array([[of(found[p, g]) if (p, g) in found else np.nan for g in generators] for p in prompts])


def check_same_model(tables: Sequence[tuple[Path, ScoreTable]]) -> None:
    """Refuse scores of different models or options: they cannot be compared.

    Raises:
        ValueError: names two files, and what differs.
    """
    known = [(str(path), table.made_by) for path, table in tables if "model_sha256" in table.made_by]
    for (first, before), (second, after) in zip(known, known[1:]):
        changed = [name for name in OPTIONS if before.get(name) != after.get(name)]
        if changed == ["dtype"] and None in (before.get("dtype"), after.get("dtype")):
            continue  # a run in a folder leaves the dtype of the weights unnamed
        if changed:
            values = "; ".join(f"{name}: {before.get(name)} and {after.get(name)}" for name in changed)
            raise ValueError(
                f"the scores in '{first}' and '{second}' cannot be compared, they were made differently ({values}); "
                "score the clips with one model and the same options."
            )


def _warnings_of_files(tables: Sequence[tuple[Path, ScoreTable]]) -> list[str]:
    warnings = []
    for path, table in tables:
        if not table.is_new and "model_sha256" not in table.made_by:
            warnings.append(f"No record beside '{path.name}' says which model its scores are of.")
        if table.missing:
            warnings.append(f"'{path.name}' lacks {table.missing} rows: its scoring was interrupted.")
    return warnings


def _warnings_of_clips(
    clips: np.ndarray, generators: list[str], categories: dict[str, Counter], failed: list[dict[str, str]]
) -> list[str]:
    warnings = []
    if (clips == 0).any():
        answered = ", ".join(f"{name} {number}" for name, number in zip(generators, (clips > 0).sum(0)))
        common = int((clips > 0).all(1).sum())
        warnings.append(
            f"The generators answered different prompts (of {len(clips)}: {answered}; all of them {common}). Means are "
            "over the prompts of all where there are enough, and each pair is compared on its common prompts."
        )
    if failed:
        by_generator = Counter(entry["generator"] for entry in failed)
        counts = ", ".join(f"{name} {number}" for name, number in sorted(by_generator.items()))
        warnings.append(f"{len(failed)} clips could not be scored and are left out ({counts}).")
    mixed = [prompt for prompt, found in categories.items() if len(found) > 1]
    if mixed:
        warnings.append(
            f"{len(mixed)} prompts have several categories, the first: '{shortened(mixed[0], 60)}'; the most frequent "
            "one counts."
        )
    return warnings
