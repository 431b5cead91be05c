"""The settings of a stage, and the objects of one training run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor

from .arguments import StageArguments
from .checkpoints import Progress
from .losses import Loss
from .mixtures import MixedBatchSampler
from .sources import Source, load_sources
from .steps import FailedClips
from .validation import chosen_figures


@dataclass(frozen=True)
class Stage:
    """The settings in which the stages differ.

    Args:
        name: name of the stage in messages and records.
        branches: branches that the stage trains, if the model has them. Only their inputs are decoded and read.
        unfixed_ratio: share of every encoder that trains, counted from its output.
        terms: returns the scores whose losses are added up, given the branches that train. "quality" is the sum of the
            branches.
        load_sources: loads the data sets, given the arguments, the scores that may have a loss and the accelerator.
    """

    name: str
    branches: tuple[str, ...]
    unfixed_ratio: float
    terms: Callable[[list[str]], list[str]]
    load_sources: Callable[[Any, list[str], Accelerator], list[Source]] = load_sources


@dataclass
class TrainingRun:
    """The objects of one training run."""

    stage: Stage
    arguments: StageArguments
    accelerator: Accelerator
    model: AIGCVQAModel  # with all its branches
    selected: AIGCVQAModel  # the branches that train; shares its modules with `model`
    trained: nn.Module  # `selected`, wrapped by accelerate
    average: AveragedModel | None
    processor: AIGCVQAProcessor
    sources: list[Source]
    sampler: MixedBatchSampler
    loader: DataLoader
    validation_loader: DataLoader
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    losses: list[Loss]  # of each source
    terms: list[str]
    negative_mos: list[float]  # of each source
    progress: Progress
    failed: FailedClips
    lock: IO[str] | None  # of the output folder, held until the run ends

    def loss_names(self, source: int) -> dict[str, str]:
        """The name of the loss of each score on a source."""
        suffix = f"@{self.sources[source].name}" if len(self.sources) > 1 else ""
        return {term: term + suffix for term in self.terms}

    @property
    def figures(self) -> list[str]:
        """The validation figures that decide which epoch is the best."""
        return chosen_figures(self.terms, self.sources)

    @property
    def last_step(self) -> int:
        return self.arguments.total_steps(self.sampler.batches_per_epoch)
