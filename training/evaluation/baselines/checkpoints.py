"""Published checkpoint files: every key is used, or left out for a reason."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from modeling_aigcvqa.conversion import CheckpointError
from modeling_aigcvqa.conversion.formats import StateDict
from modeling_aigcvqa.conversion.reading import read_checkpoint

__all__ = ["CheckpointError", "load_strictly", "read_weights", "split_attention"]


def read_weights(path: str | Path, unused: Mapping[str, str]) -> StateDict:
    """The tensors of a file, without those that are not used.

    Args:
        unused: key -> why it is not used.

    Raises:
        CheckpointError: if the file is no checkpoint; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"'{path}' is not a file; name the file with the published weights.")
    return {key: value for key, value in read_checkpoint(path).items() if key not in unused}


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load tensors into a network that has exactly these; buffers that hold positions are not stored in files.

    Raises:
        CheckpointError: for missing and unknown keys or other shapes; names some.
    """
    try:
        missing, unknown = network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"'{path}' holds tensors of other shapes ({str(error).splitlines()[1].strip()})"
        ) from error
    missing = [key for key in missing if not key.endswith("position_ids")]
    if missing or unknown:
        raise CheckpointError(
            f"'{path}' is not of a {type(network).__name__}: it lacks {missing[:3]} ({len(missing)}) and has "
            f"{unknown[:3]} ({len(unknown)}) beside it."
        )


def split_attention(key: str, value: Tensor) -> dict[str, Tensor]:
    """`in_proj_weight` or `in_proj_bias` of torch's attention -> the three projections of transformers' attention."""
    stem, _, kind = key.rpartition("in_proj_")
    return {f"{stem}{name}_proj.{kind}": part for name, part in zip("qkv", value.chunk(3))}
