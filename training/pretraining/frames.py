"""Frames of clips with their own and other clips' prompts, for pre-training the alignment branch."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_processing_aigcvqa import normalize, resize_frames
from modeling_aigcvqa.video_reading_aigcvqa import read_video

CANDIDATES = 4  # evenly spread frames kept per clip; every epoch draws some of them

# frames (B, T, 3, H, W), input_ids and attention_mask (B, P, L) with the clip's own prompt first, clip indices (B,)
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class PromptedFrames(TorchDataset):
    """Random frames of a clip (T, 3, H, W), ImageNet-normalised; its own prompt and then other clips'; its index.

    Each clip is decoded once and `CANDIDATES` frames of it are kept in memory: 0.6 MB per clip at 224 x 224.
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
        others = [self.prompts[other] for other in rng.integers(len(self.prompts), size=self.negatives)]
        return self.view(index, chosen), [self.prompts[index], *others], index

    def view(self, index: int, chosen: Sequence[int] = range(CANDIDATES)) -> Tensor:
        """The chosen frames of a clip (T, 3, H, W), ImageNet-normalised."""
        return normalize(self.frames[index][list(chosen)], self.options.image_mean, self.options.image_std)


def make_batches(dataset: PromptedFrames, processor: AIGCVQAProcessor, batch_size: int, epochs: int) -> DataLoader:
    """The batches of all epochs, in a random order that the data set's seed and the epoch fix.

    Clips that do not fill a batch are left out of the epoch.
    """

    def collate(samples: list) -> Batch:
        frames, prompts, indices = zip(*samples)
        text = processor(text=[prompt for of_clip in prompts for prompt in of_clip])
        ids, mask = (text[name].unflatten(0, (len(samples), -1)) for name in ("input_ids", "attention_mask"))
        return torch.stack(frames), ids, mask, torch.tensor(indices)

    batches = []
    for epoch in range(epochs):
        order = np.random.default_rng([dataset.seed, epoch]).permutation(len(dataset)).tolist()
        keys = [(epoch, index) for index in order]
        batches += [keys[start : start + batch_size] for start in range(0, len(keys) - batch_size + 1, batch_size)]
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())


def read_batch(model: AIGCVQAModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the alignment branch for every prompt of a batch.

    Returns:
        The frames' tokens (B, T, 1 + patches, vision width), the prompts' text states (B, P, L, text width) and the
        alignment scores before the affine (B, P).
    """
    frames, input_ids, attention_mask, _ = batch
    backbone = model.alignment_backbone
    tokens = backbone.encode_frames(imagenet_to_clip(frames))
    states = backbone.text_encoder(
        input_ids=input_ids.flatten(0, 1),
        attention_mask=attention_mask.flatten(0, 1),
        encoder_hidden_states=tokens.flatten(1, 2).repeat_interleave(input_ids.shape[1], 0),
        return_dict=True,
    ).last_hidden_state.unflatten(0, input_ids.shape[:2])
    return tokens, states, model.alignment_head(states[:, :, 0])[..., 0]
