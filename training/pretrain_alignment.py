"""Teach an untrained alignment branch to match words and clips: what BLIP's pre-training is to the full model.

    python -m training.pretrain_alignment --config training/configs/small/pretraining_alignment.yaml --data DIR \\
        --init_from DIR --output DIR

Three losses on clips that show what their prompt says (a label of `--label` of at least `--min_label`):
- words: does the clip's own prompt have this word? Asked of each word of it and of other clips' prompts;
- matching: the clip's prompt must get a higher alignment score than the others (softmax over them);
- naming: which words of the training prompts belong to this frame, from the vision encoder's class token alone.
The layers that predict words are thrown away. Only the train part is read, and validation for the figures printed.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from modeling_aigcvqa.presets import save_model_folder
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_processing_aigcvqa import normalize, resize_frames
from modeling_aigcvqa.video_reading_aigcvqa import read_video

from .arguments import parse_with_config, pretraining_parser
from .checkpoints import write_pretraining_record
from .data import load_clips
from .models import initial_model
from .parameters import parameter_groups
from .whitening import patches_of, whiten

CANDIDATES = 4  # frames of a clip, evenly spread, of which each epoch draws some
WHITENING_CLIPS = 2000  # whose patches the vision encoder's patch embedding is set by, 40 of each
COMMON = 0.3  # words in more prompts than this share ("a", "the", ".") say nothing of a clip


class PromptedFrames(TorchDataset):
    """Some random frames of a clip (T, 3, H, W), ImageNet-normalised, its prompt first and then other clips' prompts.

    `CANDIDATES` frames a clip are decoded once and kept in memory, 0.6 MB a clip at 224 x 224.
    """

    def __init__(self, clips: Dataset, processor: AIGCVQAProcessor, num_frames: int, negatives: int, seed: int):
        self.options, self.num_frames, self.negatives, self.seed = (
            processor.video_processor,
            num_frames,
            negatives,
            seed,
        )
        self.prompts = list(clips["prompt"])
        self.frames = [self._decode(clip) for clip in tqdm(clips, desc="decoding", disable=None)]

    def _decode(self, clip: dict) -> Tensor:
        """(CANDIDATES, 3, H, W) uint8."""
        frames, _ = read_video(clip["video"], lambda total: sample_frame_indices(total, CANDIDATES))
        return resize_frames(frames, self.options.size, self.options.resample)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, list[str]]:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        chosen = sorted(rng.choice(CANDIDATES, self.num_frames, replace=False).tolist())
        view = normalize(self.frames[index][chosen], self.options.image_mean, self.options.image_std)
        others = [self.prompts[other] for other in rng.integers(len(self.prompts), size=self.negatives)]
        return view, [self.prompts[index], *others]


class WordTargets:
    """Which tokens of some prompts stand in the clip's own prompt, and which tokens tell anything."""

    def __init__(self, processor: AIGCVQAProcessor, prompts: list[str]):
        tokens = processor(text=prompts)["input_ids"]
        counts = Counter(token for row in tokens.tolist() for token in set(row))
        special = set(processor.tokenizer.all_special_ids)
        self.known = sorted(t for t, n in counts.items() if t not in special and n <= COMMON * len(prompts))
        self.place = torch.full((len(processor.tokenizer),), -1)
        self.place[self.known] = torch.arange(len(self.known))

    def of(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts (B, P, L), the clip's own first -> present (B, P, L), counts (B, P, L), the clip's words (B, K)."""
        place = self.place[input_ids]
        own = torch.zeros(len(input_ids), len(self.known) + 1).scatter_(1, place[:, 0].clamp(min=-1) + 1, 1.0)
        present = own.gather(1, (place + 1).flatten(1)).view_as(place)
        return present, (place >= 0).float(), own[:, 1:]


class WordHeads(nn.Module):
    """The layers that are thrown away afterwards."""

    def __init__(self, model: AIGCVQAModel, words: int):
        super().__init__()
        part = model.config.alignment_config
        self.present = nn.Linear(part.text_hidden_size, 1)
        self.naming = nn.Linear(part.vision_hidden_size, words)


def pretraining_losses(
    model: AIGCVQAModel, heads: WordHeads, batch: tuple[Tensor, Tensor, Tensor], targets: WordTargets
) -> tuple[dict[str, Tensor], Tensor]:
    """The three losses, and the alignment scores (B, P) without affine; frames (B, T, 3, H, W), prompts (B, P, L)."""
    frames, input_ids, attention_mask = batch
    backbone = model.alignment_backbone
    tokens = backbone.encode_frames(imagenet_to_clip(frames))
    joined = tokens.flatten(1, 2).repeat_interleave(input_ids.shape[1], 0)
    states = backbone.text_encoder(
        input_ids=input_ids.flatten(0, 1),
        attention_mask=attention_mask.flatten(0, 1),
        encoder_hidden_states=joined,
        return_dict=True,
    ).last_hidden_state
    present, counts, own = targets.of(input_ids)
    predicted = heads.present(states)[..., 0].view_as(present)
    words = F.binary_cross_entropy_with_logits(predicted, present, weight=counts, reduction="sum") / counts.sum()
    scores = model.alignment_head(states[:, 0])[:, 0].view(len(frames), -1)
    matching = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
    naming = F.binary_cross_entropy_with_logits(heads.naming(tokens[:, :, 0].mean(1)), own) * 10
    return {"words": words, "matching": matching, "naming": naming}, scores


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


def batches_of(clips: Dataset, processor: AIGCVQAProcessor, arguments: argparse.Namespace, epochs: range) -> DataLoader:
    """Batches (frames, input_ids, attention_mask) in a random order a seed and epoch."""
    dataset = PromptedFrames(clips, processor, arguments.num_frames, arguments.negatives, arguments.seed)

    def collate(samples: list) -> tuple[Tensor, Tensor, Tensor]:
        text = processor(text=[prompt for _, prompts in samples for prompt in prompts])
        ids, mask = (text[name].unflatten(0, (len(samples), -1)) for name in ("input_ids", "attention_mask"))
        return torch.stack([frames for frames, _ in samples]), ids, mask

    return DataLoader(
        dataset,
        batch_sampler=batch_order(len(clips), arguments.batch_size, arguments.seed, epochs),
        collate_fn=collate,
        generator=torch.Generator(),
    )


def whiten_from(embedding: nn.Conv2d, dataset: PromptedFrames, seed: int) -> None:
    """Set the patch embedding to the whitened components of patches of the clips."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randperm(len(dataset), generator=generator)[:WHITENING_CLIPS].tolist()
    options = dataset.options
    views = (normalize(dataset.frames[clip], options.image_mean, options.image_std) for clip in clips)
    patches = [patches_of(imagenet_to_clip(view), embedding, 40, generator) for view in views]
    whiten(embedding, torch.cat(patches), generator, constant=False)


def matching_accuracy(model: AIGCVQAModel, heads: WordHeads, loader: DataLoader, targets: WordTargets) -> float:
    """Share of wrong prompts that score below the clip's own."""
    model.eval()
    won = []
    with torch.no_grad():
        for batch in loader:
            scores = pretraining_losses(model, heads, batch, targets)[1]
            won.append((scores[:, :1] > scores[:, 1:]).float().mean().item())
    model.train()
    return sum(won) / len(won)


def faithful(clips: Dataset, column: str, minimum: float) -> Dataset:
    """The clips whose label is at least `minimum`."""
    if column not in clips.column_names:
        raise ValueError(f"--label {column!r}: the data set has no such column (it has {clips.column_names}).")
    chosen = [index for index, value in enumerate(clips[column]) if value is not None and value >= minimum]
    if len(chosen) < 2:
        raise ValueError(
            f"--min_label {minimum}: {len(chosen)} of {len(clips)} clips reach it in {column!r}; lower it."
        )
    return clips.select(chosen)


def pretrain(model: AIGCVQAModel, processor: AIGCVQAProcessor, parts: dict, arguments: argparse.Namespace) -> None:
    """Train the alignment branch of `model` in place."""
    torch.manual_seed(arguments.seed)
    targets = WordTargets(processor, parts["train"]["prompt"])
    branch = nn.ModuleList([model.alignment_backbone, model.alignment_head, WordHeads(model, len(targets.known))])
    heads = branch[2]
    weights = {"words": 1.0, "naming": 1.0, "matching": arguments.matching_weight}
    optimizer = torch.optim.AdamW(parameter_groups(branch, arguments.weight_decay), lr=arguments.learning_rate)
    loader = batches_of(parts["train"], processor, arguments, range(arguments.epochs))
    if arguments.whiten:
        whiten_from(model.alignment_backbone.visual_encoder.patch_embed.proj, loader.dataset, arguments.seed)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(loader) // 10, len(loader))
    model.train()
    sums: Counter = Counter()
    steps = 0
    for step, batch in enumerate(tqdm(loader, desc="pre-training", disable=None), 1):
        losses, _ = pretraining_losses(model, heads, batch, targets)
        torch.stack([weights[name] * value for name, value in losses.items()]).sum().backward()
        nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        sums.update({name: value.item() for name, value in losses.items()})
        steps += 1
        if step % arguments.report_steps == 0 or step == len(loader):
            means = ", ".join(f"{name} {value / steps:.3f}" for name, value in sums.items())
            print(f"step {step}/{len(loader)}: {means}", flush=True)
            sums, steps = Counter(), 0
    held_out = batches_of(parts["validation"], processor, arguments, range(1))
    print(f"wrong prompts below the right one, validation: {matching_accuracy(model, heads, held_out, targets):.3f}")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = pretraining_parser(__doc__)
    parser.set_defaults(epochs=20)
    parser.add_argument("--label", default="alignment_mos", help="column that says how well a clip follows its prompt")
    parser.add_argument("--min_label", type=float, default=80.0, help="clips below are left out")
    parser.add_argument("--num_frames", type=int, default=1, help=f"random frames of a clip, at most {CANDIDATES}")
    parser.add_argument("--negatives", type=int, default=3, help="other clips' prompts a clip")
    parser.add_argument("--matching_weight", type=float, default=0.1)
    parser.add_argument("--whiten", action="store_true", help="set the patch embedding by the clips' patches first")
    return parse_with_config(parser, argv, required=("data", "init_from", "output"))


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    model, processor = initial_model(arguments.init_from)
    parts = {
        part: faithful(load_clips(arguments.data, arguments.split_file, part), arguments.label, arguments.min_label)
        for part in ("train", "validation")
    }
    print(f"{len(parts['train'])} clips to train on, {len(parts['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, processor, parts, arguments)
    save_model_folder(model, processor, arguments.output)
    seconds = time.perf_counter() - started
    write_pretraining_record(arguments.output, "pre-training, alignment", arguments, seconds)


if __name__ == "__main__":
    main()
