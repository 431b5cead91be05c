"""Fields of the configs that are checked whenever they are set, and the checks."""

import dataclasses
import math
from typing import Any

from huggingface_hub.dataclasses import as_validated_field
from transformers import PreTrainedConfig

Sizes = list[int] | tuple[int, ...]

MAX_SIZE = 2**20  # a channel, a vocabulary; far above every model, and far below what would exhaust the memory
MAX_LAYERS = 256  # in a stage or an encoder
MAX_STAGES = 8
MAX_WINDOW = 4096  # positions in a window, whose attention has a table of their pairs
# What transformers and older versions write to config.json besides the fields.
BOOKKEEPING = {
    *("model_type", "auto_map", "custom_pipelines", "name_or_path", "_name_or_path", "_commit_hash", "torch_dtype"),
    *("weights_note", "num_labels", "output_attentions", "attn_implementation", "experts_implementation"),
    *("quantization_config", "tie_word_embeddings", "use_cache", "pruned_heads"),
}


@as_validated_field
def finite(value: float):
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number (got {value}).")


@as_validated_field
def positive(value: float | None):
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"expected a number above 0 (got {value}).")


@as_validated_field
def not_negative(value: float):
    if not 0 <= value < math.inf:
        raise ValueError(f"expected a finite number of at least 0 (got {value}).")


@as_validated_field
def rate(value: float):
    if not 0 <= value < 1:
        raise ValueError(f"expected a rate in [0, 1) (got {value}).")


@as_validated_field
def size(value: int | None):
    if value is not None and not 1 <= value <= MAX_SIZE:
        raise ValueError(f"expected a number above 0 and up to {MAX_SIZE} (got {value}).")


@as_validated_field
def layer_count(value: int):
    if not 1 <= value <= MAX_LAYERS:
        raise ValueError(f"expected a number of layers in 1..{MAX_LAYERS} (got {value}).")


@as_validated_field
def size_list(values: Sizes):
    if not 1 <= len(values) <= MAX_STAGES or min(values) < 1 or max(values) > MAX_SIZE:
        raise ValueError(f"expected 1 to {MAX_STAGES} integers in 1..{MAX_SIZE} (got {values}).")


@as_validated_field
def layer_counts(values: Sizes):
    if not 1 <= len(values) <= MAX_STAGES or min(values) < 1 or max(values) > MAX_LAYERS:
        raise ValueError(f"expected 1 to {MAX_STAGES} numbers of layers in 1..{MAX_LAYERS} (got {values}).")


@as_validated_field
def odd_sizes(values: Sizes):
    if not 1 <= len(values) <= MAX_STAGES or any(not 1 <= value < 1000 or value % 2 == 0 for value in values):
        raise ValueError(f"expected odd positive integers, so that a convolution keeps the size (got {values}).")


@as_validated_field
def sizes_3d(values: Sizes):
    if len(values) != 3 or min(values) < 1 or max(values) > MAX_SIZE:
        raise ValueError(f"expected 3 integers in 1..{MAX_SIZE}, for time, height and width (got {values}).")


@as_validated_field
def window(values: Sizes):
    if len(values) != 3 or min(values) < 1 or math.prod(values) > MAX_WINDOW:
        raise ValueError(
            f"expected 3 positive integers, for time, height and width, with a product of at most {MAX_WINDOW} "
            f"(got {values})."
        )


def check_length(config: PreTrainedConfig, field: str, like: str) -> None:
    """Raise ValueError unless the lists in `field` and in `like` have the same length."""
    values, length = getattr(config, field), len(getattr(config, like))
    if len(values) != length:
        raise ValueError(f"{field}={values}: expected {length} values, as many as in `{like}`.")


def check_names(config_class: type[PreTrainedConfig], names: Any, where: str) -> None:
    """Raise ValueError for names that are no field of the config: a mistyped field must not be ignored."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(names) - fields - BOOKKEEPING)
    if unknown:
        known = sorted(config_class.__annotations__)
        raise ValueError(f"{where} has no field {unknown}; {config_class.__name__} knows {known}.")
