"""Clips of a prepared folder for training: samples and batches whose order and content depend on the seed alone."""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset, DatasetDict, Video, concatenate_datasets, load_dataset
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from modeling_aigcvqa import AIGCVQAProcessor
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

PARTS = ("train", "validation", "test")
REPLACEMENTS = 10  # other clips tried in the place of one that cannot be read


def load_clips(data: str, split_file: str | Path | None = None, part: str | None = None) -> Dataset:
    """Labelled clips: `id`, `video` undecoded (`{"bytes", "path"}`), `prompt`, `mos` and what else the data set has.

    Args:
        data: folder written by a preparer of `dataset_scripts`, or the Hub id of such a data set.
        split_file: CSV `id,split` as `dataset_scripts.make_splits` writes it; None for the data set's own splits.
        part: "train", "validation" or "test"; None for all clips.

    Raises:
        ValueError: for a missing column, an unknown part, an id that the data set lacks, a part without clips.
    """
    if part is not None and part not in PARTS:
        raise ValueError(f"part={part!r}: expected one of {list(PARTS)}.")
    splits = _load(data)
    if split_file is not None:
        clips = _take(concatenate_datasets(list(splits.values())), data, split_file, part)
    elif part is None:
        clips = concatenate_datasets(list(splits.values()))
    elif part in splits:
        clips = splits[part]
    else:
        raise ValueError(f"the data set '{data}' has the splits {list(splits)}, not {part!r}; pass --split_file.")
    labelled = [index for index, mos in enumerate(clips["mos"]) if mos is not None]
    if not labelled:
        raise ValueError(f"the {part or 'whole'} part of '{data}' has no clip with a MOS (of {len(clips)} clips).")
    return clips.select(labelled)


def _load(data: str) -> DatasetDict:
    if not Path(data).exists() and (data.startswith((".", "/")) or data.count("/") != 1):
        raise ValueError(f"--data '{data}': no such folder, and not a Hub id (owner/name).")
    splits = load_dataset(data, cache_dir=_cache_of(Path(data)) if Path(data).is_dir() else None)
    for name, rows in splits.items():
        missing = {"id", "video", "prompt", "mos"} - set(rows.column_names)
        if missing:
            raise ValueError(
                f"'{data}', split {name!r}, has no column {sorted(missing)}; prepare it (dataset_scripts)."
            )
    return DatasetDict({name: rows.cast_column("video", Video(decode=False)) for name, rows in splits.items()})


def _cache_of(folder: Path) -> str:
    """A cache for this folder as it is: its place, and its metadata files' sizes and times of change.

    `datasets` keys its own by the folder's name and card alone, and so gives a folder that was moved, or prepared anew,
    the paths and labels of the old one.
    """
    files = sorted(file for suffix in ("parquet", "jsonl", "csv") for file in folder.rglob(f"*.{suffix}"))
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.blake2b(f"{folder.resolve()} {state}".encode(), digest_size=16).hexdigest()
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "aigcvqa" / key)


def _take(clips: Dataset, data: str, split_file: str | Path, part: str | None) -> Dataset:
    """The rows of one part of a split file, in the file's order."""
    with Path(split_file).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or not {"id", "split"} <= set(reader.fieldnames):
            raise ValueError(f"--split_file '{split_file}' has the columns {reader.fieldnames}; expected id,split.")
        wanted = [row["id"] for row in reader if part is None or row["split"] == part]
    place = {clip_id: index for index, clip_id in enumerate(clips["id"])}
    unknown = [clip_id for clip_id in wanted if clip_id not in place]
    if unknown:
        raise ValueError(
            f"--split_file '{split_file}' names {len(unknown)} clips that '{data}' lacks, such as {unknown[0]!r}."
        )
    if not wanted:
        raise ValueError(f"--split_file '{split_file}' has no clip in its part {part!r}.")
    return clips.select([place[clip_id] for clip_id in wanted])


def some_clips(clips: Dataset, number: int | None, seed: int) -> Dataset:
    """`number` of the clips, drawn by the seed, in their order; all of them for None."""
    if number is None or number >= len(clips):
        return clips
    return clips.select(sorted(np.random.default_rng(seed).choice(len(clips), number, replace=False).tolist()))


class ClipDataset(TorchDataset):
    """Samples of clips: both views, the prompt and the labels.

    An item is asked for by `(epoch, index)`: random fragments depend on the seed, the epoch and the clip, not on the
    process, the worker or what was read before. A clip that cannot be read is named in `failed` and another takes its
    place, the next one in the data set that can be.

    Args:
        clips: as `load_clips` gives them.
        processor: of the model; decodes and samples.
        labels: column of the label, by score ("technical", "aesthetic", "alignment", "quality").
        seed: of the random fragments; None for the centre of every cell, as in evaluation.
        prompt_negatives: other prompts of the data set drawn for each clip, see `prompts`.
        cache: keeps decoded frames; None decodes every time.
    """

    def __init__(
        self,
        clips: Dataset,
        processor: AIGCVQAProcessor,
        labels: dict[str, str],
        seed: int | None = None,
        prompt_negatives: int = 0,
        cache: FrameCache | None = None,
    ):
        missing = sorted(set(labels.values()) - set(clips.column_names))
        if missing:
            raise ValueError(f"labels={labels}: the data set has no column {missing} (it has {clips.column_names}).")
        self.clips, self.processor, self.labels, self.seed = clips, processor, labels, seed
        self.prompt_negatives, self.cache = prompt_negatives, cache
        self.prompts = list(clips["prompt"])  # a column of `datasets` is read anew at every access

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        failed = []
        for place in range(min(REPLACEMENTS + 1, len(self))):
            taken = (index + place) % len(self)
            clip = self.clips[taken]
            try:
                views = self._views(clip, epoch, index)
            except (ValueError, OSError) as error:
                failed.append(f"{clip['id']}: {error}")
                continue
            labels = {name: float(clip[column]) for name, column in self.labels.items()}
            return {
                **views,
                "prompts": [clip["prompt"], *self._negatives(clip["prompt"], epoch, index)],
                "labels": labels,
                "index": taken,
                "failed": failed,
            }
        raise ValueError(f"{len(failed)} clips in a row cannot be read, from {failed[0]}. Check the data set.")

    def _views(self, clip: dict, epoch: int, index: int) -> dict[str, torch.Tensor]:
        options = {}
        if self.seed is not None:
            options = {"fragment_sampling": "random", "seed": _seed(self.seed, epoch, index)}
        video = clip["video"] if self.cache is None else self.cache.frames(clip)
        return {name: view[0] for name, view in self.processor.video_processor(video, **options).items()}

    def _negatives(self, prompt: str, epoch: int, index: int) -> list[str]:
        """Prompts of other clips, drawn evenly over the clips; never the clip's own."""
        generator = np.random.default_rng([self.seed or 0, epoch, index, 1])
        negatives: list[str] = []
        while len(negatives) < self.prompt_negatives:
            other = self.prompts[int(generator.integers(len(self.prompts)))]
            if other != prompt:
                negatives.append(other)
        return negatives


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class FrameCache:
    """The frames that the model sees, (T, H, W, 3) uint8, one `.npy` a clip: nothing is decoded after the first epoch.

    T H W x 3 bytes a clip: 16 frames of 512 x 512 take 12.6 MB. Entries depend on the number of frames and, for a
    file, on its size and time of change, so that a changed file is read again.
    """

    def __init__(self, folder: str | Path, processor: AIGCVQAProcessor):
        self.folder, self.num_frames = Path(folder), processor.video_processor.num_frames
        self.folder.mkdir(parents=True, exist_ok=True)

    def frames(self, clip: dict) -> np.ndarray:
        """Frames of a row of the data set."""
        path = self.folder / f"{self._key(clip)}.npy"
        if path.exists():
            return np.load(path)
        frames = read_video(clip["video"], lambda total: sample_frame_indices(total, self.num_frames))[0].numpy()
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False) as file:
            np.save(file, frames)
        os.replace(file.name, path)  # whole or not at all, whoever else writes it
        return frames

    def _key(self, clip: dict) -> str:
        video = clip["video"]
        if video["bytes"] is not None:
            content = video["bytes"]
        else:
            status = os.stat(video["path"])
            content = f"{video['path']} {status.st_size} {status.st_mtime_ns}".encode()
        return hashlib.blake2b(content + f" {self.num_frames}".encode(), digest_size=16).hexdigest()


class GlobalBatchSampler(Sampler):
    """One process's share of every global batch, as `(epoch, index)`, in an order that the seed and the epoch fix.

    All processes together see the same global batches whatever their number; a last batch that is not full is left
    out. `start_batch` skips batches without reading them, to resume in the middle of an epoch.
    """

    def __init__(self, num_clips: int, batch_size: int, seed: int, rank: int, num_processes: int):
        self.num_clips, self.batch_size, self.seed = num_clips, batch_size, seed
        self.share = slice(rank * batch_size // num_processes, (rank + 1) * batch_size // num_processes)
        self.epoch = self.start_batch = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_clips)
        for number in range(self.start_batch, self.batches_per_epoch):
            batch = order[number * self.batch_size :][: self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[self.share]]

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start_batch

    @property
    def batches_per_epoch(self) -> int:
        return self.num_clips // self.batch_size


class Collate:
    """Samples -> a batch: views (B, T, 3, H, W), prompts as tokens (B, L) or (B, 1 + negatives, L), labels (B,)."""

    def __init__(self, processor: AIGCVQAProcessor):
        self.processor = processor

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        tokens = self.processor(text=[prompt for sample in samples for prompt in sample["prompts"]])
        if len(samples[0]["prompts"]) > 1:
            tokens = {name: values.unflatten(0, (len(samples), -1)) for name, values in tokens.items()}
        names = ("pixel_values_fragments", "pixel_values_resized", "labels", "index")
        return {
            **{name: default_collate([sample[name] for sample in samples]) for name in names},
            **tokens,
            "failed": [message for sample in samples for message in sample["failed"]],
        }


def make_loader(
    dataset: ClipDataset, sampler: Sampler | list, num_workers: int, pin_memory: bool = False
) -> DataLoader:
    """A loader whose order is the sampler's. Its own generator: it leaves the global random state alone."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=Collate(dataset.processor),
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),
        prefetch_factor=2 if num_workers else None,
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)  # workers run side by side
