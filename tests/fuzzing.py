"""Read mutants of a clip in this process, and print one JSON line per mutant.

python -m tests.fuzzing FILE COUNT SEED
"""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np

from modeling_aigcvqa import VideoReadError
from modeling_aigcvqa.video_reading_aigcvqa import read_video
from tests.barcodes import number_of


def mutate(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The name of a mutation, and the content after it."""
    data, size = bytearray(content), len(content)
    start, length = rng.randrange(size), rng.randrange(1, size // 5)
    kind = rng.choice(["cut", "cut", "flip", "flip", "zero", "delete", "insert", "swap"])
    if kind == "cut":
        del data[rng.randrange(size // 10, size) :]
    elif kind == "flip":
        for _ in range(rng.choice([1, 3, 10, 50])):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif kind == "delete":
        del data[start : start + length]
    elif kind == "insert":
        data[start:start] = rng.randbytes(rng.randrange(1, 2000))
    else:
        other = rng.randrange(size - length)
        start = min(start, size - length)
        data[start : start + length], data[other : other + length] = (
            data[other : other + length],
            data[start : start + length],
        )
    return kind, bytes(data)


def outcome(content: bytes, whole: np.ndarray) -> str:
    """What reading a mutant gives, with `whole` (T, H, W, 3) as the frames of the intact clip."""
    try:
        read_video(content, range)
    except VideoReadError:
        refused = True
    except Exception as error:
        return f"wrong type {type(error).__name__}: {error}"
    else:
        refused = False
    try:
        frames, metadata = read_video(content, range, on_damage="warn")
    except VideoReadError:
        return "refused"
    if refused or metadata.warning:
        return "warned" if metadata.warning else "refused"
    frames = frames.numpy()
    if len(frames) < len(whole) or frames.shape[1:] != whole.shape[1:]:
        return "silent: fewer frames"
    if list(map(number_of, frames)) != list(map(number_of, whole)):
        return "silent: other frames"
    difference = np.abs(frames.astype(np.int16) - whole).mean((1, 2, 3))
    return "silent: other pixels" if (difference > 0.5).any() else "whole"


def main(file: str, count: str, seed: str) -> None:
    content, rng = Path(file).read_bytes(), random.Random(int(seed))
    whole = read_video(content, range)[0].numpy()
    for number in range(int(count)):
        kind, mutant = mutate(content, rng)
        started = time.perf_counter()
        row = {"mutation": kind, "outcome": outcome(mutant, whole)}
        print(json.dumps({"number": number, **row, "seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
