"""Teach an untrained alignment branch to match words and clips: what BLIP's pre-training is to the full model.

    python -m training.pretraining.alignment --config training/configs/small/pretraining_alignment.yaml --data DIR \\
        --init_from DIR --output DIR

Three losses on clips that show what their prompt says (a label of `--label` of at least `--min_label`):
- words: does the clip's own prompt have this word? Asked of each word of it and of other clips' prompts;
- matching: the clip's prompt must get a higher alignment score than the others (softmax over them);
- naming: which words of the training prompts belong to this frame, from the vision encoder's class token alone.
The layers that predict words are thrown away. Only the train part is read, and validation for the figures printed.
"""

import argparse
import sys
import time
from collections import Counter

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from modeling_aigcvqa.video_processing_aigcvqa import normalize
from training.common.clips import load_clips
from training.common.models import initial_model

from .frames import CANDIDATES, Batch, PromptedFrames, make_batches
from .shared import base_parser, optimise, parse, write_folder
from .whitening import patches_of, whiten

WHITENING_CLIPS = 2000  # whose patches the vision encoder's patch embedding is set by, 40 of each
COMMON = 0.3  # words in more prompts than this share ("a", "the", ".") say nothing of a clip


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
    model: AIGCVQAModel, heads: WordHeads, batch: Batch, targets: WordTargets
) -> tuple[dict[str, Tensor], Tensor]:
    """The three losses, and the alignment scores (B, P) without affine; frames (B, T, 3, H, W), prompts (B, P, L)."""
    frames, input_ids, attention_mask, _ = batch
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
    all_scores = (pretraining_losses(model, heads, batch, targets)[1] for batch in loader)
    won = [(scores[:, :1] > scores[:, 1:]).float().mean().item() for scores in all_scores]
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
    options = (processor, arguments.num_frames, arguments.negatives, arguments.seed)
    data = {part: PromptedFrames(clips, *options) for part, clips in parts.items()}
    if arguments.whiten:
        whiten_from(model.alignment_backbone.visual_encoder.patch_embed.proj, data["train"], arguments.seed)
    held_out = make_batches(data["validation"], processor, arguments.batch_size, range(1))

    def validate() -> str:
        return f"wrong prompts below the right one {matching_accuracy(model, branch[2], held_out, targets):.3f}"

    optimise(
        branch,
        make_batches(data["train"], processor, arguments.batch_size, range(arguments.epochs)),
        lambda batch: pretraining_losses(model, branch[2], batch, targets)[0],
        {"words": 1.0, "matching": arguments.matching_weight, "naming": 1.0},
        validate,
        arguments,
        warmup=10,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.set_defaults(epochs=20)
    parser.add_argument("--label", default="alignment_mos", help="column that says how well a clip follows its prompt")
    parser.add_argument("--min_label", type=float, default=80.0, help="clips below are left out")
    parser.add_argument("--num_frames", type=int, default=1, help=f"random frames of a clip, at most {CANDIDATES}")
    parser.add_argument("--negatives", type=int, default=3, help="other clips' prompts per clip")
    parser.add_argument("--matching_weight", type=float, default=0.1)
    parser.add_argument("--whiten", action="store_true", help="set the patch embedding by the clips' patches first")
    return parser


@exits_with_status("alignment")
def main(argv: list[str] | None = None) -> None:
    arguments = parse(build_parser(), argv)
    model, processor = initial_model(arguments.init_from)
    parts = {
        part: faithful(load_clips(arguments.data, arguments.split_file, part), arguments.label, arguments.min_label)
        for part in ("train", "validation")
    }
    print(f"{len(parts['train'])} clips to train on, {len(parts['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, processor, parts, arguments)
    write_folder(model, processor, "alignment", "alignment", {}, len(parts["train"]), started, arguments)


if __name__ == "__main__":
    sys.exit(main())
