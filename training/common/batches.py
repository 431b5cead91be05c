"""Samples and batches of clips for training. Only the seed decides their order and content."""

import hashlib
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data import Dataset as TorchDataset

from modeling_aigcvqa import AIGCVQAProcessor
from modeling_aigcvqa.common.files import sweep_folder, whole_file
from modeling_aigcvqa.pipeline_aigcvqa import VIEW
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

REPLACEMENTS = 10  # clips to try in place of a clip that cannot be read


class FrameCache:
    """Keeps the decoded frames of each clip, (T, H, W, 3) uint8, in a `.npy` file, so that each clip is decoded once.

    A file takes T x H x W x 3 bytes: 12.6 MB for 16 frames of 512 x 512. Its name depends on the number of frames and
    on the size and modification time of the video file, so a changed video is decoded again.
    """

    def __init__(self, folder: str | Path, processor: AIGCVQAProcessor):
        self.folder, self.num_frames = Path(folder), processor.video_processor.num_frames
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_folder(self.folder)

    def frames(self, clip: dict) -> np.ndarray:
        """The frames of a row of the data set."""
        path = self.folder / f"{self._key(clip)}.npy"
        if path.exists():
            return np.load(path)
        frames = read_video(clip["video"], lambda total: sample_frame_indices(total, self.num_frames))[0].numpy()
        with whole_file(path, durable=False) as file:  # other processes may write the same file
            np.save(file, frames)
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
    """Samples of clips: the views that the model needs, prompts and labels.

    The key of an item is `(epoch, index)`. Random fragments depend on the seed, the epoch and the clip, not on the
    process, the worker or the items read before. A clip that cannot be read is named in `failed`, and the next
    readable clip of the data set takes its place.

    Args:
        clips: the clips, from `load_clips`.
        processor: the model's processor, which decodes and samples.
        labels: the label column of each score ("technical", "aesthetic", "alignment", "quality"); an empty
            label becomes NaN.
        inputs: names of the model's inputs. Only these views are computed; prompts are read only for "input_ids".
        seed: seed of the random fragments; None takes the centre of every cell, as in evaluation.
        prompt_negatives: number of other prompts of the data set drawn for each clip.
        cache: keeps decoded frames; None decodes every time.
        maps: names of maps that are labels too, from the file that the column `teacher_maps` names.
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
        maps: Sequence[str] = (),
    ):
        missing = sorted(set(labels.values()) - set(clips.column_names))
        if missing:
            raise ValueError(f"labels={labels}: the data set has no column {missing} (it has {clips.column_names}).")
        self.clips, self.processor, self.labels, self.seed = clips, processor, labels, seed
        self.prompt_negatives, self.cache, self.maps = prompt_negatives, cache, maps
        self.view_options = {"views": [name.removeprefix(VIEW) for name in inputs if name.startswith(VIEW)]}
        self.reads_prompts = "input_ids" in inputs
        self.prompts = list(clips["prompt"])  # `datasets` reads a column again at every access
        if self.reads_prompts and prompt_negatives and len(set(self.prompts)) < 2:
            raise ValueError(
                f"prompt_negatives={prompt_negatives} scores clips with prompts of other clips, but all {len(self)} "
                f"clips have the prompt {self.prompts[0]!r}; set it to 0, or add clips with other prompts."
            )

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
            labels = {name: math.nan if clip[column] is None else clip[column] for name, column in self.labels.items()}
            labels = {name: float(label) for name, label in labels.items()} | self._maps(clip)
            prompts = [clip["prompt"], *self._negatives(clip["prompt"], epoch, index)] if self.reads_prompts else []
            return {**views, "prompts": prompts, "labels": labels, "index": taken, "failed": failed}
        raise ValueError(f"{len(failed)} clips in a row cannot be read, the first is {failed[0]}. Check the data set.")

    def _maps(self, clip: dict) -> dict[str, torch.Tensor]:
        """The maps (T/2, 7, 7) of a clip."""
        if not self.maps:
            return {}
        with np.load(clip["teacher_maps"]) as found:
            return {name: torch.from_numpy(found[name]) for name in self.maps}

    def _views(self, clip: dict, epoch: int, index: int) -> dict[str, torch.Tensor]:
        options = dict(self.view_options)
        if self.seed is not None:
            seed = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)[0]
            options |= {"fragment_sampling": "random", "seed": int(seed)}
        video = clip["video"] if self.cache is None else self.cache.frames(clip)
        return {name: view[0] for name, view in self.processor.video_processor(video, **options).items()}

    def _negatives(self, prompt: str, epoch: int, index: int) -> list[str]:
        """Prompts of other clips, each clip equally likely; never the clip's own prompt."""
        generator = np.random.default_rng([self.seed or 0, epoch, index, 1])
        negatives: list[str] = []
        while len(negatives) < self.prompt_negatives:
            other = self.prompts[int(generator.integers(len(self.prompts)))]
            if other != prompt:
                negatives.append(other)
        return negatives


def collate(samples: list[dict[str, Any]], processor: AIGCVQAProcessor) -> dict[str, Any]:
    """Samples -> a batch: views (B, T, 3, H, W), tokens of the prompts (B, L) or (B, 1 + negatives, L), labels (B,).

    `source` is the number of the data set that all samples come from.
    """
    prompts = [prompt for sample in samples for prompt in sample["prompts"]]
    tokens = processor(text=prompts) if prompts else {}
    if len(prompts) > len(samples):
        tokens = {name: values.unflatten(0, (len(samples), -1)) for name, values in tokens.items()}
    names = [name for name in samples[0] if name.startswith(VIEW)]
    return {
        **{name: default_collate([sample[name] for sample in samples]) for name in (*names, "labels", "index")},
        **tokens,
        "source": samples[0].get("source", 0),
        "failed": [message for sample in samples for message in sample["failed"]],
    }


def make_loader(
    dataset: TorchDataset, sampler: Sampler | list, num_workers: int, pin_memory: bool = False
) -> DataLoader:
    """A loader that follows the order of the sampler. Its own generator leaves the global random state untouched."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=partial(collate, processor=dataset.processor),
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,  # new workers would start at every epoch and validation
        generator=torch.Generator(),
    )
