"""Read checkpoints from strangers: tensors alone, no code, no more memory than the file has."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..saved_files_aigcvqa import one_line
from .formats import CheckpointError, StateDict

WRAPPERS = ("state_dict", "model")


class Ignored:
    """Stands for the numbers of numpy in a checkpoint, such as its best validation result, which are not used.

    numpy's own classes are not called with arguments from a file.
    """

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


SAFE_GLOBALS = [
    (Ignored, name)
    for name in (
        *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("numpy.dtypes.Float64DType", "numpy.dtypes.Float32DType"),
    )
]


def read_checkpoint(path: Path) -> StateDict:
    """The state dict in a safetensors file or a torch file. Code in the file is not executed.

    Raises:
        CheckpointError: if the file is damaged or is anything else; names the file.
    """
    with path.open("rb") as file:
        head = file.read(9)
    is_zip = head.startswith(b"PK")
    try:
        if head[8:9] == b"{":
            content = load_file(path)
        elif is_zip or head.startswith(b"\x80"):  # torch's formats: a zip, and the pickle of old versions
            sizes = _record_sizes(path) if is_zip else None
            with torch.serialization.safe_globals(SAFE_GLOBALS), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the pickle protocol and of sparse tensors, which are refused
                # From a mapped file torch takes no byte beyond its end, whatever sizes the pickle names.
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        else:
            raise CheckpointError(f"'{path}' is not a checkpoint: neither a safetensors nor a torch file.")
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # a class or a function that torch does not allow
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            raise CheckpointError(
                f"'{path}' wants to run code when it is read ({wanted[1] if wanted else one_line(error)}) and was "
                "refused; use a file of tensors alone."
            ) from error
        raise CheckpointError(f"'{path}' is not a checkpoint ({one_line(error)}).") from error
    except Exception as error:  # damaged files end in almost any class: IndexError, KeyError, struct.error, ...
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint ({one_line(error)}); it may be truncated: fetch it again."
        ) from error
    state = unwrap(content, path)
    _check_tensors(state, path, sizes if is_zip else None)
    return state


def _record_sizes(path: Path) -> set[int]:
    """The sizes of the records in torch's zip. torch stores them as they are, so none may be larger than the file."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    compressed = [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]
    total, size = sum(record.file_size for record in records), path.stat().st_size
    if compressed or total > size:
        found = f"the record {compressed[0]!r} is compressed" if compressed else f"{total:,} bytes in {size:,}"
        raise CheckpointError(f"'{path}' inflates when it is read ({found}), unlike torch's files; it was refused.")
    return {record.file_size for record in records}


def _check_tensors(state: StateDict, path: Path, sizes: set[int] | None) -> None:
    """Refuse tensors that are not plain arrays in memory, or whose data are not one record of the file."""
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
            kind = "quantized" if tensor.is_quantized else "without data" if tensor.is_meta else str(tensor.layout)
            raise CheckpointError(f"'{path}': the tensor {key!r} is {kind}; save it as a plain one.")
        stored = tensor.untyped_storage().nbytes()
        if sizes is not None and stored not in {*sizes, 0}:
            raise CheckpointError(f"'{path}': the tensor {key!r} claims {stored:,} bytes, which no record has.")


def unwrap(content: object, path: Path) -> StateDict:
    """The state dict in {"state_dict": ...} or {"model": ...}, without the prefix "module." of DataParallel."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"'{path}' does not hold a state dict (but a {type(content).__name__}).")
    strange = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, torch.Tensor))]
    if strange:
        raise CheckpointError(f"'{path}': the entry {strange[0]!r} is not a tensor; this is not a state dict.")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content
