"""Teach an untrained technical or aesthetic branch to see failures: what LSVQ's weights are to the full model.

    python -m training.pretraining.failures --config training/configs/small/pretraining_technical.yaml --data DIR \\
        --init_from DIR --output DIR

For data sets whose rows tell what is wrong with a clip (`failures`, JSON {name: severity in 0..1}), as those of the
synthetic benchmark do. First the patch embedding is set by the train part's patches (`whitening`); a branch that has
learnt from other clips goes on with `--no-whiten`. Then the branch learns its own label and, through a layer that is
thrown away, every failure's severity. Only the train part is read, and validation for the figures printed.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator

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
from training.common.clips import load_clips, some_clips
from training.common.models import initial_model

from .shared import base_parser, optimise, parse, write_folder
from .whitening import patches_of, whiten

WHITEN_HELP = "set the patch embedding by the clips' patches first; --no-whiten for a branch that has learnt already"
WHITENING_CLIPS = 2000  # whose patches the embedding is set by, 40 of each


class Views:
    """The branch's view of every clip, decoded once: (variants, T, 3, H, W) uint8 a clip, with its labels.

    T H W x 3 bytes a variant: 0.6 MB for the small model's 16 frames of 112 x 112.

    Args:
        variants: technical views with other random fragments of each clip; 0 for one view of the centres.
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

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None) -> Tensor:
        """(B, T, 3, H, W), normalised; with `rng` a random variant, mirrored or reversed in time half of the times."""
        chosen = []
        for index in indices:
            view = self.views[index, 0 if rng is None else rng.integers(max(self.variants, 1))]
            if rng is not None:
                mirrored, reversed_ = rng.random(2) < 0.5
                view = view.flip([axis for axis, flip in ((0, reversed_), (3, mirrored)) if flip])
            chosen.append(normalize(view, self.options.image_mean, self.options.image_std))
        return torch.stack(chosen)


def whiten_from(embedding: nn.Conv3d, views: Views, seed: int) -> None:
    """Set a patch embedding to the whitened components of patches of the clips."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randperm(len(views), generator=generator)[:WHITENING_CLIPS].numpy()
    patches = [patches_of(views.batch(clips[i : i + 1], None)[0], embedding, 40, generator) for i in range(len(clips))]
    whiten(embedding, torch.cat(patches), generator, constant=True)


def patch_embedding(model: AIGCVQAModel, branch: str) -> nn.Conv3d:
    backbone = getattr(model, f"{branch}_backbone")
    return backbone.patch_embed.proj if branch == "technical" else backbone.downsample_layers[0][0]


def severities(failures: list[dict[str, float]], names: list[str]) -> Tensor:
    """(N, failures)."""
    return torch.tensor([[row.get(name, 0.0) for name in names] for row in failures])


def common_failures(failures: list[dict[str, float]], least: float = 0.01) -> list[str]:
    """Names of the failures that at least this share of the clips has, sorted."""
    counts = Counter(name for row in failures for name in row)
    return sorted(name for name, count in counts.items() if count >= least * len(failures))


class Branch(nn.Module):
    """A branch's backbone and head, and the layer for the failures, which is thrown away afterwards."""

    def __init__(self, model: AIGCVQAModel, branch: str, num_failures: int):
        super().__init__()
        self.backbone, self.head = getattr(model, f"{branch}_backbone"), getattr(model, f"{branch}_head")
        self.failures = nn.Linear(self.backbone.num_features, num_failures)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 3, H, W) -> raw score (B,) and logits of the severities (B, failures)."""
        features = self.backbone(view.transpose(1, 2)).float()
        return self.head(features).mean((1, 2, 3)), self.failures(features.mean((1, 2, 3)))


def validate(branch: Branch, views: Views, names: list[str], batch_size: int) -> str:
    scores, logits = [], []
    for start in range(0, len(views), batch_size):
        found = branch(views.batch(np.arange(start, min(start + batch_size, len(views))), None))
        scores.append(found[0])
        logits.append(found[1])
    wanted, logits = severities(views.failures, names), torch.cat(logits)
    each = {name: spearmanr(logits[:, i], wanted[:, i]).statistic for i, name in enumerate(names)}
    figures = ", ".join(f"{name} {value:.2f}" for name, value in each.items())
    return f"SROCC with the label {spearmanr(torch.cat(scores), views.label).statistic:.3f}; failures: {figures}"


class Batches:
    """The batches of all epochs: views (B, T, 3, H, W) and the clips' numbers (B,), in an order that the seed fixes."""

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
    names = arguments.failures or common_failures(train.failures)
    absent = sorted(set(names) - {name for row in train.failures for name in row})
    if absent:
        raise ValueError(f"--failures {absent}: no clip of the train part has them.")
    wanted = severities(train.failures, names)
    label = (train.label - train.label.mean()) / train.label.std()
    if arguments.whiten:
        whiten_from(patch_embedding(model, arguments.branch), train, arguments.seed)
    branch = Branch(model, arguments.branch, len(names))

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
    parser.add_argument("--num_frames", type=int, help="frames of a clip (default: the processor's)")
    parser.add_argument("--variants", type=int, default=2, help="random fragments kept of each clip")
    parser.add_argument("--failures", nargs="+", help="names of those to learn (default: each that 1 %% of clips have)")
    parser.add_argument("--failure_weight", type=float, default=10.0)
    parser.add_argument("--whiten", action=argparse.BooleanOptionalAction, default=True, help=WHITEN_HELP)
    parser.add_argument("--max_clips", type=int, help="train on so many clips, drawn by the seed")
    parser.add_argument("--max_eval_clips", type=int, default=500)
    return parser


@exits_with_status("failures")
def main(argv: list[str] | None = None) -> None:
    arguments = parse(build_parser(), argv)
    model, processor = initial_model(arguments.init_from)
    label = arguments.label or f"{arguments.branch}_mos"
    parts = {}
    for part, most in (("train", arguments.max_clips), ("validation", arguments.max_eval_clips)):
        clips = some_clips(load_clips(arguments.data, arguments.split_file, part), most, arguments.seed)
        missing = {"failures", label} - set(clips.column_names)
        if missing:
            raise ValueError(
                f"--data '{arguments.data}' has no column {sorted(missing)} (it has {clips.column_names})."
            )
        variants = arguments.variants if part == "train" else 0
        options = (arguments.num_frames, variants, arguments.seed)
        parts[part] = Views(clips, processor, arguments.branch, label, *options)
    print(f"{len(parts['train'])} clips to train on, {len(parts['validation'])} to validate")
    started = time.perf_counter()
    pretrain(model, parts["train"], parts["validation"], arguments)
    branch, labels = arguments.branch, {arguments.branch: label}
    write_folder(model, processor, branch, branch, labels, len(parts["train"]), started, arguments)


if __name__ == "__main__":
    sys.exit(main())
