"""Mutants of small clips in every format: no crash, no hang, no other error, and next to no silent damage."""

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.barcodes import IMAGE_KINDS, KINDS
from tests.conftest import REPOSITORY

MUTANTS = int(os.environ.get("FUZZ_MUTANTS", "30"))  # per kind of file
SEED = int(os.environ.get("FUZZ_SEED", "0"))
PATIENCE_S = 20.0  # per mutant; reading one takes about 0.1 s
OUTCOMES = ("whole", "refused", "warned", "silent: fewer frames", "silent: other frames", "silent: other pixels")


def read_mutants(path: Path) -> Counter:
    """How many mutants of a clip had each outcome. A mutant that ends or holds the process counts as abort or hang."""
    command = [sys.executable, "-m", "tests.fuzzing", str(path), str(MUTANTS), str(SEED)]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60 + PATIENCE_S * MUTANTS, check=False
        )
        output, ending = done.stdout, "abort" if done.returncode else None
    except subprocess.TimeoutExpired as error:
        output, ending = (error.stdout or b"").decode(), "hang"
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    counts = Counter(row["outcome"] for row in rows)
    counts["hang"] += sum(row["seconds"] > PATIENCE_S for row in rows)
    if ending:
        counts[ending] += 1
    return counts


@pytest.mark.slow
def test_mutants(tmp_path, capsys):
    kinds = {**KINDS, **IMAGE_KINDS}
    paths = [write(tmp_path / name) for name, write in kinds.items()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(kinds, pool.map(read_mutants, paths)))
    total = sum(counts.values(), Counter())
    mutants = MUTANTS * len(kinds)
    names = [*OUTCOMES, *sorted(set(total) - set(OUTCOMES))]
    with capsys.disabled():
        print("\n| file |", " | ".join(names), "|")
        print("| --- |" + " --- |" * len(names))
        for kind, count in [*counts.items(), ("all", total)]:
            print(f"| {kind} |", " | ".join(str(count[name]) for name in names), "|")
    assert not [name for name in total if name.startswith(("abort", "wrong type"))] and not total["hang"]
    assert total["silent: fewer frames"] + total["silent: other frames"] < 0.02 * mutants
