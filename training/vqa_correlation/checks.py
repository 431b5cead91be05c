"""Arguments of the metric: arrays of any kind become checked numpy vectors, or an error that names them."""

from typing import Any

import numpy as np

MIN_SAMPLES = 2
PREFERENCES = {"a": 1, "b": -1, "same": 0, "tie": 0, "1": 1, "-1": -1, "0": 0}


def as_array(values: Any) -> np.ndarray:
    """An array of any sequence or tensor; tensors may live on a device, carry gradients or be bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values)


def check_shape(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}; pass a 1-D array (N,), one value per sample, for example by squeeze(-1)."
        )
    return array


def as_vector(values: Any, name: str) -> np.ndarray:
    """Finite float64 values of shape (N,), or a ValueError that names the argument."""
    if values is None:
        raise ValueError(f"{name} is missing; pass one number per sample.")
    try:
        array = check_shape(as_array(values), name).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a 1-D array (N,) of numbers: {error}") from error
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"{name} holds {bad.size} NaN or infinite values (first: {array[bad[0]]} at index {bad[0]}); "
            "score those samples again or leave them out of every column."
        )
    return array


def check_lengths(columns: dict[str, Any]) -> None:
    first, *others = columns
    for name in others:
        if len(columns[name]) != len(columns[first]):
            raise ValueError(
                f"{first} has {len(columns[first])} samples but {name} has {len(columns[name])}; "
                "pass exactly one value of each per sample, in the same order."
            )


def check_enough(array: np.ndarray, name: str) -> None:
    if array.size < MIN_SAMPLES:
        raise ValueError(
            f"{name} has {array.size} samples; at least {MIN_SAMPLES} are needed, add more before compute."
        )


def is_constant(array: np.ndarray) -> bool:
    """Whether (N,) values are equal up to rounding, the limit below which scipy calls an input nearly constant."""
    return bool(np.ptp(array) <= 1e-13 * np.abs(array).max())


def check_varies(array: np.ndarray, name: str, remedy: str) -> None:
    if is_constant(array):
        raise ValueError(
            f"{name} is constant (all {array.size} values are {array[0]}), so no correlation is defined; {remedy}."
        )


def check_bootstrap(num_bootstrap: int, confidence_level: float) -> None:
    if num_bootstrap != int(num_bootstrap) or num_bootstrap < 0:
        raise ValueError(f"num_bootstrap={num_bootstrap} must be a whole number; pass 0 for no intervals, or 1000.")
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level={confidence_level} must lie between 0 and 1; pass 0.95 for 95 %.")


def as_groups(values: Any, name: str, num_samples: int) -> np.ndarray:
    """Group names, strings (N,); None and "" mean that the sample belongs to no group."""
    if isinstance(values, str):
        raise TypeError(f"{name}={values!r} is one string; pass a list with one string per sample.")
    groups = np.array(["" if value is None else str(value) for value in values], dtype=object)
    if groups.size != num_samples:
        raise ValueError(
            f"{name} has {groups.size} samples but predictions has {num_samples}; pass one per sample. Where samples "
            "come by add_batch or from several processes, load config_name='grouped' and pass it to add_batch."
        )
    return groups


def as_preferences(values: Any) -> np.ndarray:
    """Human labels as int64 (N,): 1 prefers A, -1 prefers B, 0 is a tie."""
    array = check_shape(np.asarray(values) if not hasattr(values, "detach") else as_array(values), "preferences")
    keys = [value.strip().lower() if isinstance(value, str) else f"{value:g}" for value in array.tolist()]
    for index, key in enumerate(keys):
        if key not in PREFERENCES:
            raise ValueError(
                f"preferences holds {array.tolist()[index]!r} at index {index}; "
                "write 'A', 'B' or 'same' (or 1, -1 or 0)."
            )
    return np.array([PREFERENCES[key] for key in keys], dtype=np.int64)


def floats(values: dict[str, float]) -> dict[str, float | None]:
    """Plain floats, ready for JSON; what is undefined is None."""
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
