"""Distillation: a small model learns from the scores and the maps of a large one, on clips that nobody rated.

    accelerate launch training/distill.py --teacher DIR --data CLIPS --init_from small --output DIR --epochs 20

CLIPS is a CSV or JSONL file with the columns `file` and `prompt`, a prepared folder or a Hub id; a MOS is not read. The
teacher scores each clip once, which is kept in OUTPUT/teacher. The student then trains on these as on opinions: PLCC
and rank loss of the sum and of every branch (paper eq. 6 and 7), and the mean squared error of the technical and the
aesthetic map in units of the deviation of the teacher's quality (--map_weight). Its figures on validation are its
agreement with the teacher, not with people.

--init_from is the student: a folder, a Hub id or a name; `aigcvqa init` writes untrained ones. It must have the
branches that train. Maps are learned where the student reads as many frames as the teacher. All weights train unless
--unfixed_ratio or --lora_rank says otherwise. Run the same command again to resume an interrupted run.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

if __name__ == "__main__":  # the folder of a script comes first on sys.path, where evaluate.py would hide `evaluate`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets
from transformers.hf_argparser import HfArg

from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.manifests import SUFFIXES, clip_of, read_manifest
from modeling_aigcvqa.common.signals import unwinding
from modeling_aigcvqa.loading import load_model
from training.common import arguments
from training.common.arguments import SUM, StageArguments
from training.common.clips import data_name, load_splits, rows_of_part
from training.common.loop import train
from training.common.sources import Source, check_numbers
from training.common.stage import Stage
from training.common.teacher import ask_teacher, maps_of


@dataclasses.dataclass
class DistillArguments(StageArguments):
    """The arguments of the stages, and those of the teacher."""

    teacher: str | None = HfArg(default=None, help="folder, Hub id or name of the model to learn from")
    map_weight: float = HfArg(default=1.0, help="weight of the loss on the maps; 0 to learn from scores alone")
    validation_share: float = HfArg(
        default=0.1, help="share of the clips for validation, where neither the data nor --split_file has that part"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.teacher is None:
            raise ValueError("no teacher; pass --teacher MODEL.")
        if self.preferences or len(self.data) > 1 or self.labels or self.prompt_negatives:
            raise ValueError(
                "distillation takes one --data, and neither --preferences, --labels nor --prompt_negatives."
            )
        if self.map_weight < 0:
            raise ValueError(f"map_weight={self.map_weight}: expected at least 0.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share}: expected a number between 0 and 1.")


def load_unrated(options: DistillArguments) -> dict[str, Dataset]:
    """The clips of the parts "train" and "validation": rows with `id`, `video` and `prompt`."""
    (data,), (split_file,) = options.data, options.split_files
    if data.lower().endswith(SUFFIXES):
        manifest = Path(data)
        rows = read_manifest(manifest)
        files = [clip_of(row, manifest) for row in rows]
        prompts = [row.get("prompt") or "" for row in rows]
        videos = [{"bytes": None, "path": file} for file in files]
        clips = Dataset.from_dict(
            {"id": [str(row.get("id") or file) for row, file in zip(rows, files)], "video": videos}
        )
        return divided(clips.add_column("prompt", prompts), options)
    splits = load_splits(data)
    if split_file is None and "validation" not in splits:
        return divided(concatenate_datasets(list(splits.values())), options)
    return {part: rows_of_part(splits, data, split_file, part) for part in ("train", "validation")}


def divided(clips: Dataset, options: DistillArguments) -> dict[str, Dataset]:
    """Some clips, drawn with the seed, for validation, and the others for training."""
    order = np.random.default_rng(options.seed).permutation(len(clips))
    number = round(options.validation_share * len(clips))
    return {"train": clips.select(sorted(order[number:])), "validation": clips.select(sorted(order[:number]))}


def load_taught(options: DistillArguments, scores: list[str], accelerator: Accelerator) -> list[Source]:
    """The clips with the teacher's scores as labels.

    Raises:
        ValueError: if the teacher lacks a branch, or too few clips can be read.
    """
    model, processor = load_model(options.teacher)
    missing = [name for name in scores if name not in (SUM, *model.config.branches)]
    if missing:
        raise ValueError(f"--teacher '{options.teacher}' has no {missing}; choose --branches that it has.")
    with accelerator.main_process_first():
        parts = load_unrated(options)
    clips, failed = {}, []
    for part, rows in parts.items():
        folder = Path(options.output) / "teacher"
        clips[part], unread = ask_teacher(
            model.float(), processor, rows, folder, accelerator, options.eval_batch_size, options.num_workers
        )
        failed += unread
    for message in dict.fromkeys(failed):
        print(f"left out: {message}", flush=True)
    check_numbers(options.data[0], "clips that can be read", clips, options.batch_size)
    columns = {name: f"teacher_{name}" for name in scores}
    name = data_name(options.data[0])
    maps = tuple(maps_of(scores)) if options.map_weight else ()
    teacher = model.config.get_provenance()
    return [Source(name, columns, clips, maps=maps, map_weight=options.map_weight, teacher=teacher)]


def make_stage(options: DistillArguments) -> Stage:
    """The stage of a distillation; its terms include the maps unless they have no weight."""

    def terms(branches: list[str]) -> list[str]:
        maps = maps_of(branches) if options.map_weight else []
        return [SUM, *branches, *maps] if len(branches) > 1 else [SUM, *maps]

    return Stage(
        name="distill",
        branches=("technical", "aesthetic", "alignment"),
        unfixed_ratio=1.0,
        terms=terms,
        load_sources=load_taught,
    )


def with_caveat(options: DistillArguments) -> DistillArguments:
    """The arguments with words that say whose scores the student learned."""
    own = f"It learned from the scores of {data_name(options.teacher)}, not from people."
    return dataclasses.replace(options, caveat=" ".join(filter(None, (own, options.caveat))))


def build_parser() -> argparse.ArgumentParser:
    return arguments.build_parser(__doc__, DistillArguments)


def main(argv: list[str] | None = None) -> None:
    with unwinding():
        options = with_caveat(arguments.parse_arguments(build_parser(), argv, DistillArguments))
        train(make_stage(options), options)


if __name__ == "__main__":
    sys.exit(exits_with_status("distill")(main)())
