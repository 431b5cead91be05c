"""Teach a pre-trained alignment branch which part of its prompt a clip got wrong, and how much that costs.

    python -m training.pretrain_mismatches --config training/configs/small/pretraining_mismatches.yaml --data DIR \\
        --init_from DIR --output DIR

What ratings of matching are to ImageReward, for data whose rows tell what of the prompt a clip got wrong (`failures`,
as the synthetic benchmark has them). Two losses, on all clips:
- label: the alignment score of the clip's own prompt is its label, that of another clip's prompt the lowest label;
- words: is what this word of the prompt says to be seen? Asked of the words of its parts (`prompt_parts`).
The layer that answers for the words is thrown away. Only the train part is read, and validation for the figures
printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter

import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.explain_words import FUNCTION_WORDS, word_spans
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from modeling_aigcvqa.presets import save_model_folder

from .arguments import parse_with_config, pretraining_parser
from .checkpoints import write_pretraining_record
from .data import load_clips, some_clips
from .models import initial_model
from .parameters import parameter_groups
from .pretrain_alignment import PromptedFrames, batch_order
from .prompt_parts import NOTHING, PARTS_OF_PROMPT, part_of_words

RIGHT, WRONG, UNKNOWN = 1.0, 0.0, -1.0
WRONG_IN_ALL = ("wrong_subject", "wrong_colour", "wrong_background")  # a clip of something else may share the rest


class Targets:
    """Labels of the clips, standardised (N,), and whether the tokens of their prompts are to be seen (N, L)."""

    def __init__(self, clips: Dataset, processor: AIGCVQAProcessor, label: str):
        values = torch.tensor(list(clips[label]), dtype=torch.float32)
        self.label = (values - values.mean()) / values.std()
        prompts, failures = list(clips["prompt"]), [json.loads(text) for text in clips["failures"]]
        tokens = processor.tokenizer(prompts, truncation=True, padding=True, return_offsets_mapping=True)
        rows = zip(prompts, failures, tokens["offset_mapping"])
        self.words = torch.tensor([self._seen(prompt, wrong, offsets) for prompt, wrong, offsets in rows])

    @staticmethod
    def _seen(prompt: str, failures: dict[str, float], offsets: list[tuple[int, int]]) -> list[float]:
        wrong = set(WRONG_IN_ALL if NOTHING in failures else failures)
        unknown = set(PARTS_OF_PROMPT) - wrong if NOTHING in failures else set()
        spans = [(a, b) for a, b in word_spans(prompt) if prompt[a:b].lower() not in FUNCTION_WORDS]
        parts = part_of_words(prompt, spans)
        seen = []
        for start, end in offsets:
            part = next((p for (a, b), p in zip(spans, parts) if a <= start and end <= b and end > start), None)
            known = part is not None and part not in unknown
            seen.append((WRONG if part in wrong else RIGHT) if known else UNKNOWN)
        return seen


def losses_of(
    model: AIGCVQAModel, words: nn.Linear, batch: tuple[Tensor, Tensor, Tensor, Tensor], targets: Targets
) -> tuple[dict[str, Tensor], Tensor]:
    """The losses, and the scores (B, P) without affine; frames (B, T, 3, H, W), prompts (B, P, L), indices (B,)."""
    frames, input_ids, attention_mask, indices = batch
    backbone = model.alignment_backbone
    tokens = backbone.encode_frames(imagenet_to_clip(frames)).flatten(1, 2)
    states = backbone.text_encoder(
        input_ids=input_ids.flatten(0, 1),
        attention_mask=attention_mask.flatten(0, 1),
        encoder_hidden_states=tokens.repeat_interleave(input_ids.shape[1], 0),
        return_dict=True,
    ).last_hidden_state.unflatten(0, input_ids.shape[:2])
    scores = model.alignment_head(states[:, :, 0])[..., 0]
    label = targets.label[indices]
    label_loss = F.mse_loss(scores[:, 0], label)
    if scores.shape[1] > 1:
        label_loss = label_loss + 0.3 * F.mse_loss(scores[:, 1:], targets.label.min().expand_as(scores[:, 1:]))
    length = min(input_ids.shape[-1], targets.words.shape[1])
    seen = targets.words[indices, :length]
    logits = words(states[:, 0, :length])[..., 0]
    known = (seen != UNKNOWN).float()
    word_loss = F.binary_cross_entropy_with_logits(logits, seen.clamp(min=0), weight=known, reduction="sum")
    return {"label": label_loss, "words": word_loss / known.sum().clamp(min=1)}, scores


def batches_of(clips: Dataset, processor: AIGCVQAProcessor, arguments: argparse.Namespace, epochs: range) -> DataLoader:
    """Batches (frames, input_ids, attention_mask, indices) in a random order a seed and epoch."""
    dataset = PromptedFrames(clips, processor, arguments.num_frames, arguments.negatives, arguments.seed)

    def collate(samples: list) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        text = processor(text=[prompt for _, prompts, _ in samples for prompt in prompts])
        ids, mask = (text[name].unflatten(0, (len(samples), -1)) for name in ("input_ids", "attention_mask"))
        indices = torch.tensor([index for _, _, index in samples])
        return torch.stack([frames for frames, _, _ in samples]), ids, mask, indices

    order = batch_order(len(clips), arguments.batch_size, arguments.seed, epochs)
    return DataLoader(Indexed(dataset), batch_sampler=order, collate_fn=collate, generator=torch.Generator())


class Indexed(torch.utils.data.Dataset):
    """Samples with their clip's number."""

    def __init__(self, dataset: PromptedFrames):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, list[str], int]:
        return *self.dataset[key], key[1]


def validate(model: AIGCVQAModel, words: nn.Linear, loader: DataLoader, targets: Targets) -> str:
    model.eval()
    scores, labels = [], []
    with torch.no_grad():
        for batch in loader:
            scores.append(losses_of(model, words, batch, targets)[1])
            labels.append(targets.label[batch[-1]])
    model.train()
    scores, labels = torch.cat(scores), torch.cat(labels)
    swapped = (scores[:, :1] > scores[:, 1:])[labels > 0].float().mean()
    return f"SROCC with the label {spearmanr(scores[:, 0], labels).statistic:.3f}, wrong prompts below {swapped:.3f}"


def pretrain(model: AIGCVQAModel, processor: AIGCVQAProcessor, parts: dict, arguments: argparse.Namespace) -> None:
    """Train the alignment branch of `model` in place."""
    torch.manual_seed(arguments.seed)
    targets = {part: Targets(clips, processor, arguments.label) for part, clips in parts.items()}
    words = nn.Linear(model.config.alignment_config.text_hidden_size, 1)
    branch = nn.ModuleList([model.alignment_backbone, model.alignment_head, words])
    optimizer = torch.optim.AdamW(parameter_groups(branch, arguments.weight_decay), lr=arguments.learning_rate)
    loader = batches_of(parts["train"], processor, arguments, range(arguments.epochs))
    held_out = batches_of(parts["validation"], processor, arguments, range(1))
    schedule = get_cosine_schedule_with_warmup(optimizer, len(loader) // 20, len(loader))
    model.train()
    sums: Counter = Counter()
    for step, batch in enumerate(tqdm(loader, desc="pre-training", disable=None), 1):
        losses, _ = losses_of(model, words, batch, targets["train"])
        (losses["label"] + arguments.word_weight * losses["words"]).backward()
        nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        sums.update({"steps": 1, **{name: value.item() for name, value in losses.items()}})
        if step % arguments.report_steps == 0 or step == len(loader):
            means = ", ".join(f"{name} {value / sums['steps']:.3f}" for name, value in sums.items() if name != "steps")
            found = validate(model, words, held_out, targets["validation"])
            print(f"step {step}/{len(loader)}: {means}; validation {found}", flush=True)
            sums = Counter()


def main(argv: list[str] | None = None) -> None:
    parser = pretraining_parser(__doc__)
    parser.set_defaults(epochs=8)
    parser.add_argument("--label", default="alignment_mos", help="column of the label")
    parser.add_argument("--num_frames", type=int, default=2, help="random frames of a clip")
    parser.add_argument("--negatives", type=int, default=1, help="other clips' prompts a clip")
    parser.add_argument("--word_weight", type=float, default=1.0)
    parser.add_argument("--max_eval_clips", type=int, default=500)
    arguments = parse_with_config(parser, argv, required=("data", "init_from", "output"))
    model, processor = initial_model(arguments.init_from)
    parts = {part: load_clips(arguments.data, arguments.split_file, part) for part in ("train", "validation")}
    parts["validation"] = some_clips(parts["validation"], arguments.max_eval_clips, arguments.seed)
    missing = {"failures", arguments.label} - set(parts["train"].column_names)
    if missing:
        raise ValueError(f"--data '{arguments.data}' lacks the columns {sorted(missing)}.")
    print(f"{len(parts['train'])} clips to train on, {len(parts['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, processor, parts, arguments)
    save_model_folder(model, processor, arguments.output)
    seconds = time.perf_counter() - started
    write_pretraining_record(arguments.output, "pre-training, mismatches", arguments, seconds)


if __name__ == "__main__":
    main()
