"""What a teacher gives a clip: its scores and its maps, computed once per clip and kept in a folder."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from tqdm import tqdm

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.common.files import sweep_folder, whole_file
from modeling_aigcvqa.configuration_aigcvqa import BRANCHES

from .arguments import SUM
from .batches import ClipDataset, make_loader
from .fingerprints import model_fingerprint, video_mark
from .steps import inputs_of, to_device

MAPS = ("technical_map", "aesthetic_map")


def ask_teacher(
    model: AIGCVQAModel,
    processor: AIGCVQAProcessor,
    clips: Dataset,
    folder: Path,
    accelerator: Accelerator,
    batch_size: int,
    num_workers: int,
) -> tuple[Dataset, list[str]]:
    """The clips that the teacher could score, with the columns `teacher_SCORE`, `mos` (its quality) and `teacher_maps`.

    The processes share the clips. Each result is a file of the folder, so that an interrupted call goes on.

    Args:
        clips: rows with `id`, `video` and `prompt`.
        folder: holds one `.npz` per clip: scores by name, and maps (T/2, 7, 7).

    Returns:
        The clips, and messages about those that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        sweep_folder(folder)
    identity = json.dumps(model_fingerprint(model, processor))
    files = [folder / f"{_key(identity, clip)}.npz" for clip in clips.select_columns(["video", "prompt"])]
    accelerator.wait_for_everyone()
    todo = [index for index, file in enumerate(files) if not file.exists()]
    accelerator.wait_for_everyone()  # before any process writes
    share = todo[accelerator.process_index :: accelerator.num_processes]
    failed = _score(model, processor, clips, files, share, accelerator, batch_size, num_workers)
    accelerator.wait_for_everyone()
    there = [index for index, file in enumerate(files) if file.exists()]
    rows = clips.select(there).select_columns(["id", "video", "prompt"])
    scores = [dict(np.load(files[index])) for index in there]
    for name in (SUM, *model.config.branches):
        rows = rows.add_column(f"teacher_{name}", [float(row[f"{name}_score"]) for row in scores])
    rows = rows.add_column("mos", rows[f"teacher_{SUM}"][:])
    return rows.add_column("teacher_maps", [str(files[index]) for index in there]), failed


@torch.no_grad()
def _score(
    model: AIGCVQAModel,
    processor: AIGCVQAProcessor,
    clips: Dataset,
    files: list[Path],
    share: list[int],
    accelerator: Accelerator,
    batch_size: int,
    num_workers: int,
) -> list[str]:
    """Write the files of this process's share of the clips; returns messages about clips that cannot be read."""
    if not share:
        return []
    model = model.to(accelerator.device).eval()
    dataset = ClipDataset(clips, processor, {}, model.config.inputs)
    batches = [
        [(0, index) for index in share[start : start + batch_size]] for start in range(0, len(share), batch_size)
    ]
    failed: list[str] = []
    names = [f"{name}_score" for name in (SUM, *model.config.branches)]
    names += [name for name in MAPS if name.removesuffix("_map") in model.config.branches]
    bar = tqdm(batches, desc="teacher", disable=not accelerator.is_main_process or None)
    for wanted, batch in zip(bar, make_loader(dataset, batches, num_workers)):
        failed += batch["failed"]
        outputs = model(**inputs_of(to_device(batch, accelerator.device)))
        for row, ((_, index), taken) in enumerate(zip(wanted, batch["index"].tolist())):
            if taken == index:  # otherwise another clip took its place
                values = {name: outputs[name][row].float().cpu().numpy() for name in names}
                with whole_file(files[index], durable=False) as partial:
                    np.savez(partial, **values)
    model.cpu()
    return failed


def _key(identity: str, clip: dict) -> str:
    content = json.dumps([identity, video_mark(clip["video"]), clip["prompt"]])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def maps_of(branches: list[str]) -> list[str]:
    """The maps of some branches; the alignment branch has none."""
    return [f"{branch}_map" for branch in BRANCHES if f"{branch}_map" in MAPS and branch in branches]
