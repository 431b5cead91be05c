"""Teach a pre-trained alignment branch which part of its prompt a clip got wrong, and how much that costs.

    python -m training.pretraining.mismatches --config training/configs/small/pretraining_mismatches.yaml --data DIR \\
        --init_from DIR --output DIR

What ratings of matching are to ImageReward, for data whose rows tell what of the prompt a clip got wrong (`failures`,
as the synthetic benchmark has them). Two losses, on all clips:
- label: the alignment score of the clip's own prompt is its label, that of another clip's prompt the lowest label;
- words: is what this word of the prompt says to be seen? Asked of the words of its parts (`prompt_parts`).
The layer that answers for the words is thrown away. Only the train part is read, and validation for the figures
printed.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.utils.data import DataLoader

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.explain.words import FUNCTION_WORDS
from modeling_aigcvqa.modeling_aigcvqa import imagenet_to_clip
from training.common.clips import load_clips, some_clips
from training.common.models import initial_model
from training.common.prompt_parts import NOTHING, Spans, part_of, read_parts
from training.common.prompt_parts import WRONG as WRONG_PARTS

from .frames import Batch, PromptedFrames, make_batches
from .shared import base_parser, optimise, parse, write_folder

RIGHT, WRONG, UNKNOWN = 1.0, 0.0, -1.0
WRONG_IN_ALL = {"subject", "colour", "background"}  # of a clip of something else, which may share the rest


class Targets:
    """Labels of the clips, standardised (N,), and whether the tokens of their prompts are to be seen (N, L)."""

    def __init__(self, clips: Dataset, processor: AIGCVQAProcessor, label: str):
        values = torch.tensor(list(clips[label]), dtype=torch.float32)
        self.label = (values - values.mean()) / values.std()
        failures = [json.loads(text) for text in clips["failures"]]
        tokens = processor.tokenizer(list(clips["prompt"]), truncation=True, padding=True, return_offsets_mapping=True)
        rows = zip(clips["prompt"], map(read_parts, clips["prompt_parts"]), failures, tokens["offset_mapping"])
        self.words = torch.tensor([self._seen(*row) for row in rows])

    @staticmethod
    def _seen(prompt: str, parts: Spans, failures: dict, offsets: list[tuple[int, int]]) -> list[float]:
        """RIGHT, WRONG or UNKNOWN for each token of a prompt."""
        other_scene = NOTHING in failures
        wrong = WRONG_IN_ALL if other_scene else {WRONG_PARTS[name] for name in failures if name in WRONG_PARTS}
        seen = []
        for start, end in offsets:
            part = part_of(parts, start, end) if end > start else None
            known = part is not None and prompt[start:end].lower() not in FUNCTION_WORDS
            if other_scene and part not in wrong:
                known = False
            seen.append((WRONG if part in wrong else RIGHT) if known else UNKNOWN)
        return seen


def losses_of(
    model: AIGCVQAModel, words: nn.Linear, batch: Batch, targets: Targets
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


def validate(model: AIGCVQAModel, words: nn.Linear, loader: DataLoader, targets: Targets) -> str:
    scored = [(losses_of(model, words, batch, targets)[1], targets.label[batch[-1]]) for batch in loader]
    scores, labels = (torch.cat(values) for values in zip(*scored))
    swapped = (scores[:, :1] > scores[:, 1:])[labels > 0].float().mean()
    return f"SROCC with the label {spearmanr(scores[:, 0], labels).statistic:.3f}, wrong prompts below {swapped:.3f}"


def pretrain(model: AIGCVQAModel, processor: AIGCVQAProcessor, parts: dict, arguments: argparse.Namespace) -> None:
    """Train the alignment branch of `model` in place."""
    torch.manual_seed(arguments.seed)
    targets = {part: Targets(clips, processor, arguments.label) for part, clips in parts.items()}
    words = nn.Linear(model.config.alignment_config.text_hidden_size, 1)
    options = (processor, arguments.num_frames, arguments.negatives, arguments.seed)
    data = {part: PromptedFrames(clips, *options) for part, clips in parts.items()}
    held_out = make_batches(data["validation"], processor, arguments.batch_size, range(1))
    optimise(
        nn.ModuleList([model.alignment_backbone, model.alignment_head, words]),
        make_batches(data["train"], processor, arguments.batch_size, range(arguments.epochs)),
        lambda batch: losses_of(model, words, batch, targets["train"])[0],
        {"label": 1.0, "words": arguments.word_weight},
        lambda: validate(model, words, held_out, targets["validation"]),
        arguments,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.set_defaults(epochs=8)
    parser.add_argument("--label", default="alignment_mos", help="column of the label")
    parser.add_argument("--num_frames", type=int, default=2, help="random frames of a clip")
    parser.add_argument("--negatives", type=int, default=1, help="other clips' prompts per clip")
    parser.add_argument("--word_weight", type=float, default=1.0)
    parser.add_argument("--max_eval_clips", type=int, default=500)
    return parser


@exits_with_status("mismatches")
def main(argv: list[str] | None = None) -> None:
    arguments = parse(build_parser(), argv)
    model, processor = initial_model(arguments.init_from)
    parts = {part: load_clips(arguments.data, arguments.split_file, part) for part in ("train", "validation")}
    parts["validation"] = some_clips(parts["validation"], arguments.max_eval_clips, arguments.seed)
    missing = {"failures", "prompt_parts", arguments.label} - set(parts["train"].column_names)
    if missing:
        raise ValueError(f"--data '{arguments.data}' lacks the columns {sorted(missing)}.")
    print(f"{len(parts['train'])} clips to train on, {len(parts['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, processor, parts, arguments)
    labels = {"alignment": arguments.label}
    write_folder(model, processor, "alignment", "mismatches", labels, len(parts["train"]), started, arguments)


if __name__ == "__main__":
    sys.exit(main())
