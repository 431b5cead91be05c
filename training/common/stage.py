"""What is a stage's own, and everything that one run of it works with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor

from .arguments import StageArguments
from .batches import GlobalBatchSampler
from .checkpoints import Progress
from .losses import DualLoss
from .steps import FailedClips


@dataclass(frozen=True)
class Stage:
    """What is a stage's own.

    Args:
        name: of the stage, in messages and records.
        branches: that it trains, as far as the model has them. They decide which inputs are decoded and read.
        unfixed_ratio: share of every encoder that trains, counted from its output.
        terms: the scores whose losses are added up, of the branches that train; "quality" is their sum.
    """

    name: str
    branches: tuple[str, ...]
    unfixed_ratio: float
    terms: Callable[[list[str]], list[str]]


@dataclass
class TrainingRun:
    """Everything that one run works with. `trained` is what the optimiser sees, wrapped for several processes."""

    stage: Stage
    arguments: StageArguments
    accelerator: Accelerator
    model: AIGCVQAModel  # whole
    selected: AIGCVQAModel  # the branches that train, made of the model's own modules
    trained: nn.Module  # these, as accelerate prepared them
    average: AveragedModel | None
    processor: AIGCVQAProcessor
    clips: dict[str, Dataset]
    sampler: GlobalBatchSampler
    loader: DataLoader
    validation_loader: DataLoader
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    loss: DualLoss
    terms: list[str]
    negative_mos: float
    progress: Progress
    failed: FailedClips

    @property
    def last_step(self) -> int:
        return self.arguments.total_steps(self.sampler.batches_per_epoch)
