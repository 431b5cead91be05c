"""Samples and batches of clips for training. Their order and content depend on the seed alone."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from modeling_aigcvqa import AIGCVQAProcessor
from modeling_aigcvqa.common.files import whole_file
from modeling_aigcvqa.pipeline_aigcvqa import VIEW
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

REPLACEMENTS = 10  # other clips tried in the place of one that cannot be read


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
        with whole_file(path) as partial:  # other processes may write it too
            np.save(partial, frames)
        return frames

    def _key(self, clip: dict) -> str:
        video = clip["video"]
        if video["bytes"] is not None:
            content = video["bytes"]
        else:
            status = os.stat(video["path"])
            content = f"{video['path']} {status.st_size} {status.st_mtime_ns}".encode()
        return hashlib.blake2b(content + f" {self.num_frames}".encode(), digest_size=16).hexdigest()


class ClipDataset(TorchDataset):
    """Samples of clips: the model's inputs that are asked for, and the labels.

    An item is asked for by `(epoch, index)`: random fragments depend on the seed, the epoch and the clip, not on the
    process, the worker or what was read before. A clip that cannot be read is named in `failed` and another takes its
    place, the next one in the data set that can be.

    Args:
        clips: as `load_clips` gives them.
        processor: of the model; decodes and samples.
        labels: column of the label, by score ("technical", "aesthetic", "alignment", "quality").
        inputs: names of the model's inputs; views that are not among them are not computed, and prompts are not read.
        seed: of the random fragments; None for the centre of every cell, as in evaluation.
        prompt_negatives: other prompts of the data set drawn for each clip, see `prompts`.
        cache: keeps decoded frames; None decodes every time.
    """

    def __init__(
        self,
        clips: Dataset,
        processor: AIGCVQAProcessor,
        labels: dict[str, str],
        inputs: Sequence[str],
        seed: int | None = None,
        prompt_negatives: int = 0,
        cache: FrameCache | None = None,
    ):
        missing = sorted(set(labels.values()) - set(clips.column_names))
        if missing:
            raise ValueError(f"labels={labels}: the data set has no column {missing} (it has {clips.column_names}).")
        self.clips, self.processor, self.labels, self.seed = clips, processor, labels, seed
        self.inputs, self.prompt_negatives, self.cache = list(inputs), prompt_negatives, cache
        self.view_options = {"views": [name.removeprefix(VIEW) for name in inputs if name.startswith(VIEW)]}
        self.reads_prompts = "input_ids" in inputs
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
            prompts = [clip["prompt"], *self._negatives(clip["prompt"], epoch, index)] if self.reads_prompts else []
            return {**views, "prompts": prompts, "labels": labels, "index": taken, "failed": failed}
        raise ValueError(f"{len(failed)} clips in a row cannot be read, from {failed[0]}. Check the data set.")

    def _views(self, clip: dict, epoch: int, index: int) -> dict[str, torch.Tensor]:
        options = dict(self.view_options)
        if self.seed is not None:
            options |= {"fragment_sampling": "random", "seed": _seed(self.seed, epoch, index)}
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
    """Samples -> a batch: views (B, T, 3, H, W), prompts as tokens (B, L) or (B, 1 + negatives, L), labels (B,).

    Prompts become tokens only where the samples have any.
    """

    def __init__(self, processor: AIGCVQAProcessor):
        self.processor = processor

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        prompts = [prompt for sample in samples for prompt in sample["prompts"]]
        tokens = self.processor(text=prompts) if prompts else {}
        if len(prompts) > len(samples):
            tokens = {name: values.unflatten(0, (len(samples), -1)) for name, values in tokens.items()}
        names = [name for name in samples[0] if name.startswith(VIEW)]
        return {
            **{name: default_collate([sample[name] for sample in samples]) for name in (*names, "labels", "index")},
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
