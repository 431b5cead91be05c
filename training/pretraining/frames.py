"""Frames of clips with their own and other clips' prompts, for pre-training the alignment branch."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from modeling_aigcvqa import AIGCVQAProcessor
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_processing_aigcvqa import normalize, resize_frames
from modeling_aigcvqa.video_reading_aigcvqa import read_video

CANDIDATES = 4  # frames of a clip, evenly spread, of which each epoch draws some

# frames (B, T, 3, H, W), input_ids and attention_mask (B, P, L), the clips' numbers (B,)
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class PromptedFrames(TorchDataset):
    """Some random frames of a clip (T, 3, H, W), ImageNet-normalised; its prompt and then other clips'; its number.

    `CANDIDATES` frames a clip are decoded once and kept in memory, 0.6 MB a clip at 224 x 224.
    """

    def __init__(self, clips: Dataset, processor: AIGCVQAProcessor, num_frames: int, negatives: int, seed: int):
        self.options, self.num_frames = processor.video_processor, num_frames
        self.negatives, self.seed = negatives, seed
        self.prompts = list(clips["prompt"])
        self.frames = [self._decode(clip) for clip in tqdm(clips, desc="decoding", disable=None)]

    def _decode(self, clip: dict) -> Tensor:
        """(CANDIDATES, 3, H, W) uint8."""
        frames, _ = read_video(clip["video"], lambda total: sample_frame_indices(total, CANDIDATES))
        return resize_frames(frames, self.options.size, self.options.resample)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, list[str], int]:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        chosen = sorted(rng.choice(CANDIDATES, self.num_frames, replace=False).tolist())
        view = normalize(self.frames[index][chosen], self.options.image_mean, self.options.image_std)
        others = [self.prompts[other] for other in rng.integers(len(self.prompts), size=self.negatives)]
        return view, [self.prompts[index], *others], index


def batch_order(num_clips: int, batch_size: int, seed: int, epochs: range) -> list[list[tuple[int, int]]]:
    """Batches of `(epoch, index)`, in a random order a seed and epoch; what fills no batch is left out."""
    order = []
    for epoch in epochs:
        indices = np.random.default_rng([seed, epoch]).permutation(num_clips).tolist()
        order += [
            [(epoch, index) for index in indices[start : start + batch_size]]
            for start in range(0, num_clips - batch_size + 1, batch_size)
        ]
    return order


def make_batches(
    dataset: PromptedFrames, processor: AIGCVQAProcessor, batch_size: int, epochs: Sequence[int]
) -> DataLoader:
    """Batches in a random order that the data set's seed and the epoch fix."""

    def collate(samples: list) -> Batch:
        frames, prompts, numbers = zip(*samples)
        text = processor(text=[prompt for of_clip in prompts for prompt in of_clip])
        ids, mask = (text[name].unflatten(0, (len(samples), -1)) for name in ("input_ids", "attention_mask"))
        return torch.stack(frames), ids, mask, torch.tensor(numbers)

    order = batch_order(len(dataset), batch_size, dataset.seed, epochs)
    return DataLoader(dataset, batch_sampler=order, collate_fn=collate, generator=torch.Generator())
