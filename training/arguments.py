"""The arguments of a stage: a dataclass, its YAML file, and the command line, which has the last word."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from transformers import HfArgumentParser

from modeling_aigcvqa.configuration_aigcvqa import BRANCHES

SCORES = (*BRANCHES, "quality")


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
    unfixed_ratio: float = field(default=1.0, metadata={"help": "share of every encoder that trains, from its end"})
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
    weights_note: str | None = field(default=None, metadata={"help": "caveat that the model shows beside its scores"})
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
        if not 0 <= self.unfixed_ratio <= 1:
            raise ValueError(f"unfixed_ratio={self.unfixed_ratio}: expected a share between 0 and 1.")
        unknown = [label for label in self.labels if label.partition("=")[0] not in SCORES or "=" not in label]
        if unknown:
            raise ValueError(f"labels={unknown}: expected SCORE=COLUMN with a score of {list(SCORES)}.")

    def label_columns(self, scores: list[str]) -> dict[str, str]:
        """The column of each score's label; `mos` where `labels` names no other."""
        named = dict(label.split("=", 1) for label in self.labels)
        return {score: named.get(score, "mos") for score in scores}


def parse_arguments(description: str, argv: list[str] | None = None) -> StageArguments:
    """Defaults, then the YAML file of --config, then the command line.

    Raises:
        ValueError: for a key of the file that is no argument.
    """
    parser = HfArgumentParser(StageArguments, description=description)
    argv = sys.argv[1:] if argv is None else argv
    for position, argument in enumerate(argv):
        if argument == "--config" and position + 1 < len(argv):
            _take_defaults(parser, argv[position + 1])
        elif argument.startswith("--config="):
            _take_defaults(parser, argument.removeprefix("--config="))
    return parser.parse_args_into_dataclasses(argv)[0]


def _take_defaults(parser: HfArgumentParser, path: str) -> None:
    with open(path, encoding="utf-8") as file:
        values = yaml.safe_load(file) or {}
    names = [item.name for item in dataclasses.fields(StageArguments)]
    unknown = sorted(set(values) - set(names)) if isinstance(values, dict) else [values]
    if unknown:
        raise ValueError(f"--config '{path}' has the keys {unknown}; expected any of {names}.")
    parser.set_defaults(**values)
    for action in parser._actions:  # given in the file, no longer required on the command line
        action.required = action.required and action.dest not in values


def pretraining_parser(docstring: str) -> argparse.ArgumentParser:
    """The arguments that every `pretrain_*` script has, described by its docstring's first line."""
    parser = argparse.ArgumentParser(description=docstring.split("\n")[0])
    parser.add_argument("--data", help="prepared folder or Hub id")
    parser.add_argument("--split_file", help="CSV id,split")
    parser.add_argument("--init_from", help="model folder, for example from `aigcvqa init --preset small`")
    parser.add_argument("--output", type=Path, help="new folder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--weight_decay", type=float, default=0.05)
    parser.add_argument("--report_steps", type=int, default=200, help="print figures every so many steps")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def parse_with_config(
    parser: argparse.ArgumentParser, argv: list[str] | None, required: tuple[str, ...]
) -> argparse.Namespace:
    """Defaults, then the YAML file of the parser's --config, then the command line; `--output` must be new.

    Exits as argparse does, with status 2, for an unknown key of the file, an argument of `required` that is in neither,
    or a folder --output that is not empty.
    """
    parser.add_argument("--config", type=Path, help="YAML file with any of these arguments")
    known, _ = parser.parse_known_args(argv)
    if known.config:
        values = yaml.safe_load(known.config.read_text(encoding="utf-8")) or {}
        unknown = sorted(set(values) - set(vars(known)))
        if unknown:
            parser.error(f"--config '{known.config}' has the keys {unknown}; expected any of {sorted(vars(known))}.")
        parser.set_defaults(**values)
    arguments = parser.parse_args(argv)
    missing = [name for name in required if getattr(arguments, name) is None]
    if missing:
        parser.error(f"missing: {', '.join('--' + name for name in missing)}")
    if arguments.output.exists() and any(arguments.output.iterdir()):
        parser.error(f"--output '{arguments.output}' is not empty; name a new folder.")
    return arguments
