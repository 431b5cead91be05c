"""Pre-train the alignment branch to match words with clips.

    python -m training.pretraining.alignment --config training/configs/small/pretraining_alignment.yaml --data DIR \\
        --init_from DIR --output DIR

The small model starts from random weights, so this takes the place of the full model's start from BLIP. It trains on
the clips that show what their prompt says: their `--label` is at least `--min_label`. There are three losses:
- words: for every word of the clip's own prompt and of other clips' prompts, is the word in the own prompt?
- matching: the own prompt must get a higher alignment score than the other prompts (softmax over the scores);
- naming: which words of the training prompts belong to these frames? Answered from the vision encoder's class token.
The layers that predict words are thrown away. Training reads the train part; the printed figures are of the validation
part.
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
from training.common.models import initial_model

from .frames import CANDIDATES, Batch, PromptedFrames, make_batches, read_batch
from .shared import base_parser, load_parts, optimise, parse, write_folder
from .whitening import whiten_from_clips

COMMON = 0.3  # a word in a larger share of the prompts ("a", "the", ".") says nothing about a clip


class WordTargets:
    """Which tokens of prompts are in the clip's own prompt; tokens in most training prompts do not count."""

    def __init__(self, processor: AIGCVQAProcessor, prompts: list[str]):
        tokens = processor(text=prompts)["input_ids"]
        counts = Counter(token for row in tokens.tolist() for token in set(row))
        special = set(processor.tokenizer.all_special_ids)
        self.known = sorted(t for t, n in counts.items() if t not in special and n <= COMMON * len(prompts))
        if not self.known:
            raise ValueError(f"every word is in over {COMMON:.0%} of the training prompts; train on more prompts.")
        self.place = torch.full((len(processor.tokenizer),), -1)
        self.place[self.known] = torch.arange(len(self.known))

    def of(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Targets of prompts (B, P, L), the clip's own first.

        Returns:
            Whether each token is in the own prompt (B, P, L), whether the token counts (B, P, L), and the words of the
            own prompt among all words that count (B, words).
        """
        place = self.place[input_ids]
        own = torch.zeros(len(input_ids), len(self.known) + 1).scatter_(1, place[:, 0] + 1, 1.0)
        present = own.gather(1, (place + 1).flatten(1)).view_as(place)
        return present, (place >= 0).float(), own[:, 1:]


class WordHeads(nn.Module):
    """The layers that predict words; they are thrown away after training."""

    def __init__(self, model: AIGCVQAModel, words: int):
        super().__init__()
        part = model.config.alignment_config
        self.present = nn.Linear(part.text_hidden_size, 1)
        self.naming = nn.Linear(part.vision_hidden_size, words)


def losses_of(model: AIGCVQAModel, heads: WordHeads, batch: Batch, targets: WordTargets) -> dict[str, Tensor]:
    tokens, states, scores = read_batch(model, batch)
    present, counts, own = targets.of(batch[1])
    words = F.binary_cross_entropy_with_logits(heads.present(states)[..., 0], present, weight=counts, reduction="sum")
    matching = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
    naming = F.binary_cross_entropy_with_logits(heads.naming(tokens[:, :, 0].mean(1)), own) * 10
    return {"words": words / counts.sum().clamp(min=1), "matching": matching, "naming": naming}


def validate(model: AIGCVQAModel, loader: DataLoader) -> str:
    """The share of wrong prompts that score below the clip's own prompt."""
    all_scores = [read_batch(model, batch)[2] for batch in loader]
    won = [(scores[:, :1] > scores[:, 1:]).float().mean().item() for scores in all_scores]
    return f"wrong prompts below the right one {sum(won) / len(won):.3f}"


def faithful(clips: Dataset, column: str, minimum: float) -> Dataset:
    """The clips whose label is at least `minimum`."""
    chosen = [index for index, value in enumerate(clips[column]) if value is not None and value >= minimum]
    if len(chosen) < 2:
        raise ValueError(f"--min_label {minimum}: {len(chosen)} clips reach it in {column!r}, not 2; lower it.")
    return clips.select(chosen)


def pretrain(model: AIGCVQAModel, processor: AIGCVQAProcessor, parts: dict, arguments: argparse.Namespace) -> None:
    """Train the alignment branch of `model` in place."""
    torch.manual_seed(arguments.seed)
    targets = WordTargets(processor, parts["train"]["prompt"])
    heads = WordHeads(model, len(targets.known))
    options = (processor, arguments.num_frames, arguments.negatives, arguments.seed)
    train, validation = (PromptedFrames(parts[part], *options) for part in ("train", "validation"))
    if arguments.whiten:
        embedding = model.alignment_backbone.visual_encoder.patch_embed.proj
        whiten_from_clips(embedding, lambda i: imagenet_to_clip(train.view(i)), len(train), arguments.seed)
    held_out = make_batches(validation, processor, arguments.batch_size, epochs=1)
    optimise(
        nn.ModuleList([model.alignment_backbone, model.alignment_head, heads]),
        make_batches(train, processor, arguments.batch_size, arguments.epochs),
        lambda batch: losses_of(model, heads, batch, targets),
        {"words": 1.0, "matching": arguments.matching_weight, "naming": 1.0},
        lambda: validate(model, held_out),
        arguments,
        warmup=10,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.set_defaults(epochs=20)
    parser.add_argument("--label", default="alignment_mos", help="column that says how well a clip follows its prompt")
    parser.add_argument("--min_label", type=float, default=80.0, help="clips with a lower label are left out")
    parser.add_argument("--num_frames", type=int, default=1, help=f"random frames per clip, at most {CANDIDATES}")
    parser.add_argument("--negatives", type=int, default=3, help="other clips' prompts per clip")
    parser.add_argument("--matching_weight", type=float, default=0.1, help="weight of the loss `matching`")
    parser.add_argument("--whiten", action="store_true", help="first set the patch embedding from the clips' patches")
    return parser


@exits_with_status("alignment")
def main(argv: list[str] | None = None) -> None:
    arguments = parse(build_parser(), argv)
    model, processor = initial_model(arguments.init_from)
    parts = load_parts(arguments, {arguments.label})
    parts = {part: faithful(clips, arguments.label, arguments.min_label) for part, clips in parts.items()}
    print(f"{len(parts['train'])} clips to train on, {len(parts['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, processor, parts, arguments)
    write_folder(model, processor, "alignment", "alignment", {}, len(parts["train"]), started, arguments)


if __name__ == "__main__":
    sys.exit(main())
