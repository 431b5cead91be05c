"""Share out the GPUs of a machine among the processes of a service."""

import os
from pathlib import Path

import torch

from ..scoring.score_file import lock
from .settings import ServiceSettings

FOLDER = "AIGCVQA_SERVICE_FOLDER"  # of the files that the processes of a service share
_claims = []  # open files: a lock lasts as long as its process


def device_of_this_process(settings: ServiceSettings) -> str:
    """The device that is asked for; with several GPUs and processes, the next GPU in turn.

    A process holds the lock of its place. When it is killed, the one that is started instead finds the place free.
    """
    count = torch.cuda.device_count() if settings.scorer.device in ("auto", "cuda") else 0
    if count < 2 or settings.workers < 2:
        return settings.scorer.device
    return f"cuda:{claimed_place(Path(os.environ[FOLDER]), settings.workers) % count}"


def claimed_place(folder: Path, places: int) -> int:
    """The first place that no process has claimed.

    Raises:
        ValueError: if all are claimed.
    """
    for place in range(places):
        file = (folder / f"place{place}").open("a")
        try:
            lock(file, folder)
        except ValueError:
            file.close()
            continue
        _claims.append(file)
        return place
    raise ValueError(f"all {places} places in '{folder}' are taken.")
