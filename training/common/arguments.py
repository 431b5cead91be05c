"""The arguments of a stage: a dataclass, its YAML file, and the command line, which has the last word."""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from transformers import HfArgumentParser

from modeling_aigcvqa.configuration_aigcvqa import BRANCHES

SUM = "quality"
TERMS = (SUM, *BRANCHES)  # the scores that a loss can be taken of, each with labels of its own


@dataclass
class StageArguments:
    """Arguments that every stage has; a stage's own defaults stand in its YAML file (paper section 4.2)."""

    data: str = field(metadata={"help": "prepared folder, or Hub id of a data set"})
    output: str = field(metadata={"help": "folder for the model, the checkpoints and the logs"})
    config: str | None = field(default=None, metadata={"help": "YAML file with any of these arguments"})
    init_from: str | None = field(default=None, metadata={"help": "folder or Hub id of the model to start from"})
    split_file: str | None = field(default=None, metadata={"help": "CSV id,split; else the data set's own splits"})
    branches: list[str] | None = field(
        default=None, metadata={"help": "branches that train; by default the stage's, as far as the model has them"}
    )
    labels: list[str] = field(
        default_factory=list,
        metadata={"help": "SCORE=COLUMN: labels of a branch other than mos, e.g. technical=technical_mos"},
    )
    unfixed_ratio: float | None = field(
        default=None, metadata={"help": "share of every encoder that trains, from its end; default: the stage's"}
    )
    epochs: int = 50
    max_steps: int | None = field(default=None, metadata={"help": "stop after so many steps; the schedule ends there"})
    batch_size: int = field(
        default=8, metadata={"help": "clips that a loss compares: all processes, all micro-batches"}
    )
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "parts of a batch; the loss stays the same"})
    learning_rate: float = 3e-5
    weight_decay: float = 0.05
    warmup_epochs: float = 2.5
    max_grad_norm: float = 1.0
    plcc_weight: float = 1.0
    rank_weight: float = 1.0
    prompt_negatives: int = field(default=0, metadata={"help": "other prompts scored on each clip as wrong ones"})
    negative_mos: float | None = field(default=None, metadata={"help": "label of a wrong prompt; default: lowest MOS"})
    mixed_precision: str | None = field(default=None, metadata={"help": "no, bf16 or fp16; default: accelerate's"})
    gradient_checkpointing: bool = False
    ema_decay: float = field(default=0.0, metadata={"help": "above 0: a moving average of the weights is kept"})
    num_workers: int = 2
    cache: str | None = field(default=None, metadata={"help": "folder that keeps decoded frames"})
    max_failed_clips: int = field(default=10, metadata={"help": "clips that may be unreadable, in all"})
    checkpoint_steps: int = field(default=500, metadata={"help": "a checkpoint every so many steps and every epoch"})
    checkpoints_kept: int = 2
    eval_epochs: int = field(default=1, metadata={"help": "validate every so many epochs, and after the last"})
    eval_batch_size: int = 8
    max_eval_clips: int | None = field(default=None, metadata={"help": "validate on so many clips, drawn by the seed"})
    log_with: str | None = field(default=None, metadata={"help": "tensorboard, trackio, wandb, ..."})
    caveat: str | None = field(
        default=None, metadata={"help": "words of your own that the model shows beside its scores"}
    )
    seed: int = 0

    def __post_init__(self):
        positive = ("epochs", "gradient_accumulation_steps", "learning_rate", "checkpoint_steps", "checkpoints_kept")
        for name in (*positive, "eval_epochs", "eval_batch_size", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number above 0.")
        for name in ("weight_decay", "warmup_epochs", "plcc_weight", "rank_weight", "prompt_negatives", "num_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: expected at least 1.")
        if self.max_eval_clips is not None and self.max_eval_clips < 3:
            raise ValueError(f"max_eval_clips={self.max_eval_clips}: a correlation needs at least 3.")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size}: the losses compare clips and need at least 2.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: expected a number in [0, 1).")
        if self.unfixed_ratio is not None and not 0 <= self.unfixed_ratio <= 1:
            raise ValueError(f"unfixed_ratio={self.unfixed_ratio}: expected a share between 0 and 1.")
        unknown = [label for label in self.labels if label.partition("=")[0] not in TERMS or "=" not in label]
        if unknown:
            raise ValueError(f"labels={unknown}: expected SCORE=COLUMN with a score of {list(TERMS)}.")

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimiser steps of the whole run."""
        steps = self.epochs * batches_per_epoch
        return min(steps, self.max_steps) if self.max_steps else steps

    def label_columns(self, scores: Iterable[str]) -> dict[str, str]:
        """The column of each score's label; `mos` where `labels` names no other."""
        named = dict(label.split("=", 1) for label in self.labels)
        return {score: named.get(score, "mos") for score in scores}


def build_parser(description: str) -> argparse.ArgumentParser:
    """The parser of a stage."""
    return HfArgumentParser(StageArguments, description=description)


def parse_arguments(description: str, argv: list[str] | None = None) -> StageArguments:
    """Defaults, then the YAML file of --config, then the command line.

    Exits as argparse does, with status 2, for a value that no stage can use.
    """
    parser = build_parser(description)
    values = vars(parse_with_config(parser, argv))
    try:
        return StageArguments(**values)
    except ValueError as error:
        parser.error(str(error))


def parse_with_config(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Defaults, then the YAML file of --config, then the command line; for any parser that has the option.

    A required argument may stand in the file instead. Exits as argparse does, with status 2, for an unknown key of the
    file or a missing argument.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    config = finder.parse_known_args(argv)[0].config
    if config:
        values = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        known = sorted(action.dest for action in parser._actions if action.dest != "help")
        unknown = sorted(set(values) - set(known)) if isinstance(values, dict) else [values]
        if unknown:
            parser.error(f"--config '{config}' has the keys {unknown}; expected any of {known}.")
        parser.set_defaults(**values)
        for action in parser._actions:
            action.required = action.required and action.dest not in values
    return parser.parse_args(argv)
