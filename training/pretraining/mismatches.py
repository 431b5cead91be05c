"""Pre-train the alignment branch on the parts of a prompt that a clip got wrong.

    python -m training.pretraining.mismatches --config training/configs/small/pretraining_mismatches.yaml --data DIR \\
        --init_from DIR --output DIR

Follows `alignment` and takes the place of the full model's start from ImageReward. The data needs the columns
`failures` (what a clip got wrong) and `prompt_parts`, as in the synthetic benchmark. There are two losses:
- label: the alignment score of a clip's own prompt must be the clip's label, the score of another clip's prompt the
  lowest label;
- words: for every word in one of the prompt's parts, does the clip show what the word says?
The layer that predicts the words' answers is thrown away. Training reads the train part; the printed figures are of the
validation part.
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
from training.common.clips import some_clips
from training.common.models import initial_model
from training.common.prompt_parts import NOTHING, Spans, part_of, read_parts
from training.common.prompt_parts import WRONG as WRONG_PARTS

from .frames import CANDIDATES, Batch, PromptedFrames, make_batches, read_batch
from .shared import base_parser, load_parts, optimise, parse, write_folder

RIGHT, WRONG, UNKNOWN = 1.0, 0.0, -1.0
WRONG_IN_ALL = {
    "subject",
    "colour",
    "background",
}  # parts that a clip of another scene gets wrong; it may share the others


class Targets:
    """Standardised labels of the clips (N,), and whether a clip shows what each token of its prompt says (N, L)."""

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


def losses_of(model: AIGCVQAModel, words: nn.Linear, batch: Batch, targets: Targets) -> dict[str, Tensor]:
    _, states, scores = read_batch(model, batch)
    indices = batch[-1]
    label_loss = F.mse_loss(scores[:, 0], targets.label[indices])
    if scores.shape[1] > 1:
        label_loss = label_loss + 0.3 * F.mse_loss(scores[:, 1:], targets.label.min().expand_as(scores[:, 1:]))
    length = min(states.shape[2], targets.words.shape[1])
    seen = targets.words[indices, :length]
    logits = words(states[:, 0, :length])[..., 0]
    known = (seen != UNKNOWN).float()
    word_loss = F.binary_cross_entropy_with_logits(logits, seen.clamp(min=0), weight=known, reduction="sum")
    return {"label": label_loss, "words": word_loss / known.sum().clamp(min=1)}


def validate(model: AIGCVQAModel, loader: DataLoader, targets: Targets) -> str:
    scored = [(read_batch(model, batch)[2], targets.label[batch[-1]]) for batch in loader]
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
    held_out = make_batches(data["validation"], processor, arguments.batch_size, epochs=1)
    optimise(
        nn.ModuleList([model.alignment_backbone, model.alignment_head, words]),
        make_batches(data["train"], processor, arguments.batch_size, arguments.epochs),
        lambda batch: losses_of(model, words, batch, targets["train"]),
        {"label": 1.0, "words": arguments.word_weight},
        lambda: validate(model, held_out, targets["validation"]),
        arguments,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.set_defaults(epochs=8)
    parser.add_argument("--label", default="alignment_mos", help="column of the label")
    parser.add_argument("--num_frames", type=int, default=2, help=f"random frames per clip, at most {CANDIDATES}")
    parser.add_argument("--negatives", type=int, default=1, help="other clips' prompts per clip")
    parser.add_argument("--word_weight", type=float, default=1.0, help="weight of the loss `words`")
    parser.add_argument("--max_eval_clips", type=int, default=500, help="validate on this many clips, drawn at random")
    return parser


@exits_with_status("mismatches")
def main(argv: list[str] | None = None) -> None:
    arguments = parse(build_parser(), argv)
    model, processor = initial_model(arguments.init_from)
    parts = load_parts(arguments, {"failures", "prompt_parts", arguments.label})
    parts["validation"] = some_clips(parts["validation"], arguments.max_eval_clips, arguments.seed)
    print(f"{len(parts['train'])} clips to train on, {len(parts['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, processor, parts, arguments)
    labels = {"alignment": arguments.label}
    write_folder(model, processor, "alignment", "mismatches", labels, len(parts["train"]), started, arguments)


if __name__ == "__main__":
    sys.exit(main())
