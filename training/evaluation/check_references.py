"""Compare our baselines with what published code gave on the same seeded weights and inputs.

    python -m training.evaluation.check_references --reference DIR --seed 0

DIR holds, for each metric, `NAME_seedN.npz` (arrays of the published code), the keys of its checkpoint
(`NAME_state_dict.csv`) and a recipe that makes weights and inputs from a seed (`recipe*.py`, which is executed).
The weights are written as a checkpoint file and read by `from_checkpoint`. For every array the largest difference and
its limit are printed.

Exit status: 0 if all arrays are within their limits, 1 if one is not or cannot be compared, 2 for a wrong call.
"""

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from modeling_aigcvqa.common.console import exits_with_status

from .baselines.clip_tokenizer import VOCABULARY
from .references import PRODUCERS


@dataclass(frozen=True)
class Compared:
    """An array of a reference. `difference` is None, with a `reason`, if it could not be compared."""

    name: str
    array: str
    difference: float | None
    limit: float
    reason: str = ""

    @property
    def is_met(self) -> bool:
        return self.difference is not None and self.difference <= self.limit


@torch.no_grad()
def compared(reference: Path, name: str, seed: int, vocabulary: Path | None) -> Iterator[Compared]:
    """Compare every array of a reference.

    Args:
        name: as in the name of its file, "viclip_b16".
        vocabulary: of CLIP; None leaves the arrays of prompts out, which then count as not compared.
    """
    metric = next(metric for metric in PRODUCERS if name.startswith(metric))
    producer = PRODUCERS[metric]
    recipe = load_recipe(reference / producer.recipe)
    with np.load(reference / f"{name}_seed{seed}.npz", allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    found = producer.arrays(name, recipe, seed, stored, vocabulary)
    for key, expected in stored.items():
        if key.endswith(".pick"):
            continue  # says which tokens are stored
        is_exact = expected.dtype.kind in "iuU"
        limit = 0.0 if is_exact else producer.limit_of(key)
        if key not in found:
            yield Compared(name, key, None, limit, "needs the vocabulary" if "prompt" in key else "not computed")
        elif found[key].shape != expected.shape:
            yield Compared(name, key, None, limit, f"has the shape {found[key].shape}, not {expected.shape}")
        else:
            yield Compared(name, key, _difference(found[key], expected), limit)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference; of texts the share that differs."""
    if expected.dtype.kind == "U":
        return float((found != expected).mean())
    return float(np.abs(found.astype(np.float64) - expected).max())


def load_recipe(path: Path) -> ModuleType:
    """The recipe in a file.

    Raises:
        ValueError: if there is none; names the file.
    """
    if not path.is_file():
        raise ValueError(f"'{path}' is missing; --reference names the folder with recipes and npz files.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_in(reference: Path, seed: int) -> list[str]:
    """The references with outputs for this seed."""
    return sorted(path.name.removesuffix(f"_seed{seed}.npz") for path in reference.glob(f"*_seed{seed}.npz"))


def find_vocabulary(given: Path | None) -> Path | None:
    """The file of CLIP's vocabulary: the given one, or that in the package open_clip_torch."""
    if given is not None:
        if not given.is_file():
            raise ValueError(f"--vocabulary '{given}' is not a file.")
        return given
    package = importlib.util.find_spec("open_clip")
    inside = Path(package.origin).with_name(VOCABULARY) if package else None
    return inside if inside and inside.is_file() else None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.check_references",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reference", type=Path, required=True, help="folder of recipes and outputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--names", nargs="+", help="references, such as viclip_b16 (default: all that are there)")
    parser.add_argument(
        "--vocabulary", type=Path, help=f"CLIP's {VOCABULARY} (default: that of the package open_clip_torch)"
    )
    return parser


@exits_with_status("check_references")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    there = names_in(arguments.reference, arguments.seed)
    absent = [name for name in arguments.names or () if name not in there]
    if absent or not there:
        raise ValueError(f"'{arguments.reference}' has no {absent or 'outputs'} with seed {arguments.seed}: {there}.")
    names = [name for name in arguments.names or there if name.startswith(tuple(PRODUCERS))]
    if others := [name for name in arguments.names or there if name not in names]:
        print(f"Not compared, because they are not built here: {', '.join(others)}.")
    vocabulary, missed = find_vocabulary(arguments.vocabulary), 0
    for name in names:
        table = Table("array", "difference", "limit", "", title=name, title_justify="left")
        for row in compared(arguments.reference, name, arguments.seed, vocabulary):
            shown = row.reason if row.difference is None else f"{row.difference:.2e}"
            table.add_row(row.array, shown, f"{row.limit:.2e}", "" if row.is_met else "MISSED")
            missed += not row.is_met
        Console().print(table)
    print(f"{missed} arrays missed." if missed else "All arrays are within their limits.")
    return 1 if missed or (arguments.names and others) else 0


if __name__ == "__main__":
    sys.exit(main())
