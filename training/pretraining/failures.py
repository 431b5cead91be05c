"""Pre-train the technical or the aesthetic branch on the failures of clips.

    python -m training.pretraining.failures --config training/configs/small/pretraining_technical.yaml --data DIR \\
        --init_from DIR --output DIR

The small model starts from random weights, so this takes the place of the full model's start from LSVQ weights. The
data needs a column `failures`, JSON {name: severity in 0..1}, as in the synthetic benchmark. First the patch embedding
is set from patches of the train part (see `whitening`); `--no-whiten` leaves out this step for a branch that is trained
already. Then the branch learns its own label and, through a layer that is thrown away, the severity of every failure.
Training reads the train part; the printed figures are of the validation part.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy.stats import spearmanr
from torch import Tensor, nn
from tqdm import tqdm

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_processing_aigcvqa import normalize, resize_frames, sample_fragments
from modeling_aigcvqa.video_reading_aigcvqa import read_video
from training.common.clips import some_clips
from training.common.models import initial_model

from .shared import base_parser, load_parts, optimise, parse, write_folder
from .whitening import whiten_from_clips

WHITEN_HELP = "first set the patch embedding from the clips' patches; --no-whiten for a branch that is trained already"
COMMON = 0.01  # by default, failures are learnt that at least this share of the clips has


class Views:
    """A branch's views of every clip, (variants, T, 3, H, W) uint8 per clip, and the clips' labels.

    Each clip is decoded once. A view takes 3 T H W bytes: 0.6 MB for the small model's 16 frames of 112 x 112.

    Args:
        variants: technical views per clip, each with other random fragments; 0 for one view with the centres of the
            cells. The aesthetic branch has one view per clip.
    """

    def __init__(
        self,
        clips: Dataset,
        processor: AIGCVQAProcessor,
        branch: str,
        label: str,
        num_frames: int | None = None,
        variants: int = 0,
        seed: int = 0,
    ):
        self.options, self.branch, self.seed = processor.video_processor, branch, seed
        self.num_frames = num_frames or self.options.num_frames
        self.variants = variants if branch == "technical" else 0
        for index, clip in enumerate(tqdm(clips, desc="decoding", disable=None)):
            view = self._decode(clip, index)
            if index == 0:
                self.views = torch.empty(len(clips), *view.shape, dtype=torch.uint8)
            self.views[index] = view
        self.label = torch.tensor(list(clips[label]), dtype=torch.float32)
        self.failures = [json.loads(text) for text in clips["failures"]]

    def _decode(self, clip: dict, index: int) -> Tensor:
        options = self.options
        frames, _ = read_video(clip["video"], lambda total: sample_frame_indices(total, self.num_frames))
        if self.branch == "aesthetic":
            return resize_frames(frames, options.size, options.resample)[None]
        grid, size = options.fragment_grid, options.fragment_size
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        noises = [torch.rand(2, grid, grid, generator=generator) for _ in range(self.variants)] or [None]
        views = torch.stack([sample_fragments(frames, grid, size, noise) for noise in noises])
        return views if views.dtype == torch.uint8 else (views * 255).round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self.views)

    def batch(self, indices: Sequence[int], rng: np.random.Generator | None) -> Tensor:
        """Normalised views (B, T, 3, H, W); with `rng`, a random variant, mirrored or reversed with probability 0.5."""
        chosen = []
        for index in indices:
            view = self.views[index, 0 if rng is None else rng.integers(max(self.variants, 1))]
            if rng is not None:
                mirrored, reversed_ = rng.random(2) < 0.5
                view = view.flip([axis for axis, flip in ((0, reversed_), (3, mirrored)) if flip])
            chosen.append(normalize(view, self.options.image_mean, self.options.image_std))
        return torch.stack(chosen)


def severities(failures: list[dict[str, float]], names: list[str]) -> Tensor:
    """The severity of each named failure, 0 where a clip does not have it: (N, failures)."""
    return torch.tensor([[row.get(name, 0.0) for name in names] for row in failures])


class Branch(nn.Module):
    """A branch's backbone and head, and the layer for the failures, which is thrown away after training."""

    def __init__(self, model: AIGCVQAModel, branch: str, num_failures: int):
        super().__init__()
        self.backbone, self.head = getattr(model, f"{branch}_backbone"), getattr(model, f"{branch}_head")
        self.failures = nn.Linear(self.backbone.num_features, num_failures)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Views (B, T, 3, H, W) -> scores without the affine (B,) and logits of the severities (B, failures)."""
        features = self.backbone(view.transpose(1, 2)).float()
        return self.head(features).mean((1, 2, 3)), self.failures(features.mean((1, 2, 3)))


def validate(branch: Branch, views: Views, names: list[str], batch_size: int) -> str:
    batches = torch.arange(len(views)).split(batch_size)
    scores, logits = map(torch.cat, zip(*(branch(views.batch(indices, None)) for indices in batches)))
    wanted = severities(views.failures, names)
    each = {name: spearmanr(logits[:, i], wanted[:, i]).statistic for i, name in enumerate(names)}
    figures = ", ".join(f"{name} {value:.2f}" for name, value in each.items())
    return f"SROCC with the label {spearmanr(scores, views.label).statistic:.3f}; failures: {figures}"


class Batches:
    """The batches of all epochs: views (B, T, 3, H, W) and clip indices (B,), in an order that the seed fixes."""

    def __init__(self, views: Views, arguments: argparse.Namespace):
        self.views, self.size = views, arguments.batch_size
        self.epochs, self.seed = arguments.epochs, arguments.seed

    def __len__(self) -> int:
        return self.epochs * (len(self.views) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        for epoch in range(self.epochs):
            rng = np.random.default_rng([self.seed, epoch])
            order = rng.permutation(len(self.views))
            for start in range(0, len(order) - self.size + 1, self.size):
                chosen = order[start : start + self.size]
                yield self.views.batch(chosen, rng), chosen


def pretrain(model: AIGCVQAModel, train: Views, validation: Views, arguments: argparse.Namespace) -> None:
    """Train the branch of `model` in place."""
    torch.manual_seed(arguments.seed)
    counts = Counter(name for row in train.failures for name in row)
    names = arguments.failures or sorted(name for name, count in counts.items() if count >= COMMON * len(train))
    absent = sorted(set(names) - set(counts))
    if absent:
        raise ValueError(f"--failures {absent}: no clip of the train part has them; choose from {sorted(counts)}.")
    wanted = severities(train.failures, names)
    label = (train.label - train.label.mean()) / train.label.std()
    branch = Branch(model, arguments.branch, len(names))
    if arguments.whiten:
        technical, backbone = arguments.branch == "technical", branch.backbone
        embedding = backbone.patch_embed.proj if technical else backbone.downsample_layers[0][0]
        whiten_from_clips(embedding, lambda i: train.batch([i], None)[0], len(train), arguments.seed, constant=True)

    def losses_of(batch: tuple[Tensor, np.ndarray]) -> dict[str, Tensor]:
        view, chosen = batch
        score, logits = branch(view)
        failures = F.binary_cross_entropy_with_logits(logits.float(), wanted[chosen])
        return {"label": F.mse_loss(score.float(), label[chosen]), "failures": failures}

    optimise(
        branch,
        Batches(train, arguments),
        losses_of,
        {"label": 1.0, "failures": arguments.failure_weight},
        lambda: validate(branch, validation, names, arguments.batch_size),
        arguments,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("--branch", choices=["technical", "aesthetic"], required=True)
    parser.add_argument("--label", help="column of the branch's label (default: BRANCH_mos)")
    parser.add_argument("--num_frames", type=int, help="frames per clip (default: as the processor)")
    parser.add_argument(
        "--variants", type=int, default=2, help="technical views per clip, with different random fragments"
    )
    parser.add_argument(
        "--failures", nargs="+", help="failures to learn (default: all that at least 1 %% of the clips have)"
    )
    parser.add_argument("--failure_weight", type=float, default=10.0)
    parser.add_argument("--whiten", action=argparse.BooleanOptionalAction, default=True, help=WHITEN_HELP)
    parser.add_argument("--max_clips", type=int, help="train on this many clips, drawn at random")
    parser.add_argument("--max_eval_clips", type=int, default=500, help="validate on this many clips, drawn at random")
    return parser


@exits_with_status("failures")
def main(argv: list[str] | None = None) -> None:
    arguments = parse(build_parser(), argv)
    model, processor = initial_model(arguments.init_from)
    label = arguments.label or f"{arguments.branch}_mos"
    views = {}
    for part, clips in load_parts(arguments, {"failures", label}).items():
        most, variants = (arguments.max_clips, arguments.variants) if part == "train" else (arguments.max_eval_clips, 0)
        clips = some_clips(clips, most, arguments.seed)
        options = (arguments.num_frames, variants, arguments.seed)
        views[part] = Views(clips, processor, arguments.branch, label, *options)
    print(f"{len(views['train'])} clips to train on, {len(views['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, views["train"], views["validation"], arguments)
    branch, labels = arguments.branch, {arguments.branch: label}
    write_folder(model, processor, branch, branch, labels, len(views["train"]), started, arguments)


if __name__ == "__main__":
    sys.exit(main())
