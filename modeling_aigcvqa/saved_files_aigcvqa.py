"""Checks of what a saved folder holds, so that a damaged one is one clear error and never a wrong score."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from torch import nn

from .names_aigcvqa import BRANCHES, shortened

WEIGHTS = "model*.safetensors"  # one file, or its shards
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class SavedFileError(ValueError):
    """A saved model that cannot be used; names the folder, the field or tensor, the value and the remedy."""


@contextmanager
def clear_errors(problem: str, remedy: str = "save or download it again.") -> Iterator[None]:
    """Turns any error in the block into a `SavedFileError` of one line that begins with `problem`.

    The libraries that read and build a model fail with almost any class of error when a file is damaged.
    """
    try:
        yield
    except (SavedFileError, ImportError):
        raise
    except Exception as error:
        raise SavedFileError(f"{problem} ({one_line(error)}); {remedy}") from error


def one_line(error: BaseException) -> str:
    """The message of an error in one line, with its class if the message alone says little."""
    text = shortened(" ".join(str(error).split()), 400).rstrip(".")
    says_all = text and isinstance(error, ValueError | OSError | StrictDataclassError)
    return text if says_all else f"{type(error).__name__}: {text}".rstrip(": ")


def stored_dtypes(folder: Path) -> dict[str, str]:
    """The dtype of every tensor in the weight files of a folder, by its name, as safetensors spells it.

    Raises:
        SavedFileError: if there are no safetensors files, or one is damaged; names the file.
    """
    files = sorted(folder.glob(WEIGHTS))
    if not files:
        pickles = [file.name for file in sorted(folder.glob("*")) if file.suffix in PICKLES]
        found = f", and '{pickles[0]}' is not loaded, because such files can run code" if pickles else ""
        raise SavedFileError(
            f"'{folder}' has no weights (model.safetensors){found}; write the folder with save_pretrained."
        )
    dtypes = {}
    for file in files:
        with clear_errors(f"'{file}' is damaged"), safe_open(file, "pt") as tensors:
            dtypes |= {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    return dtypes


def check_weights(model: nn.Module, info: dict[str, Any], dtypes: dict[str, str], name: str) -> None:
    """Refuse weights that are not those of the model.

    Args:
        info: the loading info of `from_pretrained`.
        dtypes: `stored_dtypes`, as far as they are known.
        name: the model, for messages.

    Raises:
        SavedFileError: if tensors are missing, unknown, of another shape, integers in place of floats, NaN or infinite.
    """
    remedy = "save, export or convert the model again."
    left_out = tuple(f"{branch}_" for branch in BRANCHES if branch not in model.config.branches)
    unknown = sorted(key for key in info["unexpected_keys"] if not key.startswith(left_out or ("\0",)))
    for key, found, expected in sorted(info["mismatched_keys"]):
        raise SavedFileError(
            f"'{name}': {key} has the shape {tuple(found)}, config.json asks for {tuple(expected)}; {remedy}"
        )
    for problem, keys in (("lacks the weights", sorted(info["missing_keys"])), ("has unknown weights", unknown)):
        if keys:
            raise SavedFileError(f"'{name}' {problem} {', '.join(keys[:3])} ({len(keys)} in all); {remedy}")
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "F" not in dtypes.get(key, "F"):
            raise SavedFileError(f"'{name}': {key} is stored as {dtypes[key]}, not as floating-point numbers; {remedy}")
    check_finite(model, name, remedy)


def check_finite(model: nn.Module, name: str, remedy: str) -> None:
    """Raise SavedFileError, which names the tensor, if a weight is NaN or infinite."""
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            continue
        if not all(bound.isfinite() for bound in tensor.aminmax()):  # one pass, without a tensor of booleans
            raise SavedFileError(f"'{name}': {key} holds NaN or infinite {tensor.dtype} numbers; {remedy}")


def check_fit(config: Any, processor: Any, name: str) -> None:
    """Refuse a processor whose output the model cannot take.

    Raises:
        SavedFileError: if the tokenizer knows more or longer texts than the text encoder, or views have another size.
    """
    if "alignment" not in config.branches:
        return
    part, tokenizer, size = config.alignment_config, processor.tokenizer, processor.video_processor.size
    limits = {
        "tokens in the tokenizer": (len(tokenizer), "vocab_size", part.vocab_size),
        "model_max_length of the tokenizer": (
            tokenizer.model_max_length,
            "max_position_embeddings",
            part.max_position_embeddings,
        ),
    }
    for what, (value, field, limit) in limits.items():
        if value > limit:
            raise SavedFileError(
                f"'{name}': {what}: {value}, above alignment_config.{field}={limit} in config.json; save the model and "
                "its processor together again."
            )
    if (size["height"], size["width"]) != (part.image_size, part.image_size):
        raise SavedFileError(
            f"'{name}': size={dict(size)} in processor_config.json, but alignment_config.image_size={part.image_size} "
            "in config.json; set both to the same size."
        )
    if 2 * len(tokenizer) < part.vocab_size:  # transformers makes an empty one if its file is missing
        raise SavedFileError(
            f"'{name}': the tokenizer knows {len(tokenizer)} of alignment_config.vocab_size={part.vocab_size} tokens; "
            "save the model and its processor together again, with tokenizer.json or vocab.txt."
        )
    if tokenizer.pad_token_id is None:
        raise SavedFileError(f"'{name}': the tokenizer has no pad_token; set it in tokenizer_config.json.")


__all__ = ["SavedFileError", "check_finite", "check_fit", "check_weights", "clear_errors", "one_line", "stored_dtypes"]
