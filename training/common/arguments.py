"""The arguments of the training stages: a dataclass whose values come from a YAML file and the command line."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import HfArg

from modeling_aigcvqa.configuration_aigcvqa import BRANCHES

SUM = "quality"
PREFERENCE = "preference"  # the column of the overall preference, and the prefix of those of single dimensions
OWN = "own"  # stands for the splits of a data set itself
ENCODERS = ("technical", "aesthetic", "alignment_vision", "alignment_text")
LISTS = ("lora_encoders", "data", "preferences", "weights", "split_file", "labels")
WEIGHTS = ("plcc_weight", "rank_weight", "preference_weight")  # of the losses
TERMS = (SUM, *BRANCHES)  # the scores that can have a loss, each with its own label column


@dataclass
class StageArguments:
    """Arguments of every stage. The paper's settings (section 4.2) are in each stage's YAML file."""

    # HfArg is `dataclasses.field` with a help text, so a mutable type (RUF009) is as safe as there.
    output: str = HfArg(help="folder for the model, the checkpoints and the logs")
    data: list[str] = HfArg(  # noqa: RUF009
        default_factory=list, help="prepared folders, or Hub ids, of data sets with a MOS"
    )
    preferences: list[str] = HfArg(  # noqa: RUF009
        default_factory=list, help="prepared folders, or Hub ids, of data sets with pairs and preferences"
    )
    weights: list[float] = HfArg(  # noqa: RUF009
        default_factory=list,
        help="how often each data set is seen in an epoch, those of --data first; 1 for each if it is left out",
    )
    config: str | None = HfArg(default=None, help="YAML file that sets any of these arguments")
    init_from: str | None = HfArg(default=None, help="folder or Hub id of the model to start from; None: untrained")
    split_file: list[str] = HfArg(  # noqa: RUF009
        default_factory=list,
        help=f"CSV file id,split of each data set, those of --data first; '{OWN}', or left out: the data set's splits",
    )
    branches: list[str] | None = HfArg(default=None, help="branches to train; None: those of the stage")  # noqa: RUF009
    labels: list[str] = HfArg(  # noqa: RUF009
        default_factory=list,
        help="SCORE=COLUMN, such as technical=technical_mos: labels of a score other than mos. A COLUMN that begins "
        "with preference is one of --preferences",
    )
    unfixed_ratio: float | None = HfArg(
        default=None, help="share of every encoder that trains, counted from its output; None: the share of the stage"
    )
    lora_rank: int = HfArg(default=0, help="above 0: LoRA adapters of this rank train in place of encoders' weights")
    lora_alpha: float | None = HfArg(default=None, help="factor of the adapters, times rank; None: twice the rank")
    lora_encoders: list[str] = HfArg(  # noqa: RUF009
        default_factory=lambda: list(ENCODERS[2:]), help=f"encoders with adapters, of {', '.join(ENCODERS)}"
    )
    epochs: int = 50
    max_steps: int | None = HfArg(default=None, help="stop after this many steps; the schedule ends there too")
    batch_size: int = HfArg(default=8, help="clips per loss, over all processes and micro-batches")
    gradient_accumulation_steps: int = HfArg(default=1, help="micro-batches per batch; the loss stays the same")
    learning_rate: float = 3e-5
    weight_decay: float = 0.05
    warmup_epochs: float = 2.5
    max_grad_norm: float = 1.0
    plcc_weight: float = 1.0
    rank_weight: float = 1.0
    preference_weight: float = HfArg(default=1.0, help="weight of the loss on pairs")
    tie_margin: float = HfArg(
        default=1.0, help="difference of two scores, in deviations of the labels, below which a tie is likely"
    )
    prompt_negatives: int = HfArg(default=0, help="prompts of other clips scored on each clip as wrong prompts")
    negative_mos: float | None = HfArg(default=None, help="label of a wrong prompt; None: the lowest MOS")
    mixed_precision: str | None = HfArg(default=None, help="no, bf16 or fp16; None: the setting of accelerate")
    gradient_checkpointing: bool = False
    ema_decay: float = HfArg(default=0.0, help="above 0: save a moving average of the weights, with this decay")
    num_workers: int = 2
    cache: str | None = HfArg(default=None, help="folder in which decoded frames are kept")
    max_failed_clips: int = HfArg(default=10, help="stop when more clips than this cannot be read")
    checkpoint_steps: int = HfArg(default=500, help="write a checkpoint every N steps, and after every epoch")
    checkpoints_kept: int = 2
    eval_epochs: int = HfArg(default=1, help="validate every N epochs, and after the last step")
    patience: int | None = HfArg(default=None, help="stop after this many validations without a better epoch")
    eval_batch_size: int = 8
    max_eval_clips: int | None = HfArg(default=None, help="validate on this many clips, drawn with the seed")
    log_steps: int = HfArg(default=10, help="fetch the losses every N steps; each time waits for the device")
    log_with: str | None = HfArg(default=None, help="tensorboard, trackio, wandb, ...")
    caveat: str | None = HfArg(default=None, help="your own words that the model shows beside its scores")
    seed: int = 0

    def __post_init__(self):
        for name in LISTS:  # a YAML file may hold a single value
            value = getattr(self, name)
            setattr(self, name, list(value) if isinstance(value, list | tuple) else [] if value is None else [value])
        self._check_data()
        positive = ("epochs", "gradient_accumulation_steps", "learning_rate", "checkpoint_steps", "checkpoints_kept")
        for name in (*positive, "log_steps", "eval_epochs", "eval_batch_size", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number above 0.")
        for name in ("weight_decay", "warmup_epochs", *WEIGHTS, "prompt_negatives", "num_workers", "lora_rank"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: expected at least 1.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience={self.patience}: expected at least 1.")
        if self.max_eval_clips is not None and self.max_eval_clips < 3:
            raise ValueError(f"max_eval_clips={self.max_eval_clips}: a correlation needs at least 3.")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size}: the losses compare clips and need at least 2.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: expected a number in [0, 1).")
        if self.unfixed_ratio is not None and not 0 <= self.unfixed_ratio <= 1:
            raise ValueError(f"unfixed_ratio={self.unfixed_ratio}: expected a share between 0 and 1.")
        strange = sorted(set(self.lora_encoders) - set(ENCODERS))
        if strange or (self.lora_rank and not self.lora_encoders):
            raise ValueError(f"lora_encoders={self.lora_encoders}: expected some of {list(ENCODERS)}.")
        if self.lora_alpha is not None and not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha={self.lora_alpha}: expected a number above 0.")
        unknown = [label for label in self.labels if label.partition("=")[0] not in TERMS or "=" not in label]
        if unknown:
            raise ValueError(f"labels={unknown}: expected SCORE=COLUMN, where SCORE is one of {list(TERMS)}.")

    def _check_data(self) -> None:
        """Raises ValueError for data sets, weights and split files that do not fit each other."""
        number = len(self.all_data)
        if not number:
            raise ValueError("no data set; pass --data for clips with a MOS, --preferences for pairs, or both.")
        for name, values in (("weights", self.weights), ("split_file", self.split_file)):
            if values and len(values) != number:
                raise ValueError(f"{name}={values}: expected {number}, one per data set, or none.")
        if any(not weight > 0 for weight in self.weights):
            raise ValueError(f"weights={self.weights}: expected numbers above 0; leave a data set out instead.")
        if self.preferences and self.batch_size % 2:
            raise ValueError(f"batch_size={self.batch_size}: a batch of pairs needs an even number of clips.")
        if not self.tie_margin > 0:
            raise ValueError(f"tie_margin={self.tie_margin}: expected a number above 0.")

    @property
    def all_data(self) -> list[str]:
        """All data sets, those with a MOS first."""
        return [*self.data, *self.preferences]

    @property
    def all_weights(self) -> list[float]:
        """The weight of each data set."""
        return self.weights or [1.0] * len(self.all_data)

    @property
    def split_files(self) -> list[str | None]:
        """The split file of each data set; None for the data set's own splits."""
        return [None if file == OWN else file for file in self.split_file] or [None] * len(self.all_data)

    @property
    def lora_factor(self) -> float:
        """What the product of the matrices of an adapter is multiplied by."""
        alpha = 2.0 * self.lora_rank if self.lora_alpha is None else self.lora_alpha
        return alpha / self.lora_rank if self.lora_rank else 0.0

    @property
    def adapted_encoders(self) -> list[str]:
        """The encoders that get adapters."""
        return [name.replace("_", " ") for name in self.lora_encoders] if self.lora_rank else []

    def total_steps(self, batches_per_epoch: int) -> int:
        """Number of optimiser steps of the whole run."""
        steps = self.epochs * batches_per_epoch
        return min(steps, self.max_steps) if self.max_steps else steps

    def label_columns(self, scores: Iterable[str]) -> dict[str, str]:
        """The column of the MOS of each score: the one that `labels` names, otherwise `mos`."""
        return self._columns(scores, "mos", lambda column: not column.startswith(PREFERENCE))

    def preference_columns(self, scores: Iterable[str]) -> dict[str, str]:
        """The column of the preferences of each score: the one that `labels` names, otherwise `preference`."""
        return self._columns(scores, PREFERENCE, lambda column: column.startswith(PREFERENCE))

    def _columns(self, scores: Iterable[str], default: str, is_wanted: Callable[[str], bool]) -> dict[str, str]:
        named = dict(label.split("=", 1) for label in self.labels if is_wanted(label.split("=", 1)[1]))
        return {score: named.get(score, default) for score in scores}


Arguments = TypeVar("Arguments", bound=StageArguments)


def build_parser(description: str, kind: type[StageArguments] = StageArguments) -> argparse.ArgumentParser:
    """The parser of a stage, whose arguments are those of `kind`."""
    return HfArgumentParser(kind, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def parse_arguments(
    parser: argparse.ArgumentParser, argv: list[str] | None = None, kind: type[Arguments] = StageArguments
) -> Arguments:
    """The arguments of a stage, see `parse_with_config`. A value that no stage can use exits with status 2 too."""
    values = vars(parse_with_config(parser, argv))
    try:
        return kind(**values)
    except ValueError as error:
        parser.error(str(error))


def parse_with_config(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of any parser that has the option --config.

    The command line overrides the YAML file, which overrides the defaults. The file may set required arguments. An
    unknown key in the file or a missing argument exits with status 2, as argparse does.
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
