"""Checks of the metric's arguments: they return numpy arrays, or raise an error that names the argument."""

from typing import Any

import numpy as np

MIN_SAMPLES = 2
PREFERENCES = {"a": 1, "b": -1, "same": 0, "tie": 0, "1": 1, "-1": -1, "0": 0}


def as_array(values: Any) -> np.ndarray:
    """A sequence or tensor as an array. Tensors may be on any device, require gradients or be bfloat16."""
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
    """The argument `name` as finite float64 values (N,). Raises ValueError if it is missing, not 1-D or not finite."""
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
            "score these samples again or leave them out of every column."
        )
    return array


def as_vectors(first: Any, second: Any, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Two arguments as finite float64 values (N,), both of the same length."""
    vectors = as_vector(first, names[0]), as_vector(second, names[1])
    check_lengths(dict(zip(names, vectors)))
    return vectors


def check_lengths(columns: dict[str, Any]) -> None:
    first, *others = columns
    for name in others:
        if len(columns[name]) != len(columns[first]):
            raise ValueError(
                f"{first} has {len(columns[first])} samples but {name} has {len(columns[name])}; "
                "pass exactly one value per sample in each, in the same order."
            )


def check_enough(array: np.ndarray, name: str) -> None:
    if array.size < MIN_SAMPLES:
        raise ValueError(f"{name} has {array.size} samples; pass at least {MIN_SAMPLES}.")


def is_constant(array: np.ndarray) -> bool:
    """Whether the values (N,) are equal up to rounding: the range for which scipy warns of a nearly constant input."""
    return bool(np.ptp(array) <= 1e-13 * np.abs(array).max())


def check_varies(array: np.ndarray, name: str, remedy: str) -> None:
    if is_constant(array):
        raise ValueError(
            f"{name} is constant (all {array.size} values are {array[0]}), so no correlation is defined; {remedy}."
        )


def check_bootstrap(num_bootstrap: int, confidence_level: float) -> None:
    if num_bootstrap != int(num_bootstrap) or num_bootstrap < 0:
        raise ValueError(f"num_bootstrap={num_bootstrap} must be a whole number, at least 0; pass 0 for no intervals.")
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level={confidence_level} must lie between 0 and 1; pass 0.95 for 95 % intervals.")


def as_groups(values: Any, name: str, num_samples: int) -> np.ndarray:
    """Group names as strings (N,). None becomes "", the name for a sample without a group."""
    if isinstance(values, str):
        raise TypeError(f"{name}={values!r} is one string; pass a list with one string per sample.")
    groups = np.array(["" if value is None else str(value) for value in values], dtype=object)
    if groups.size != num_samples:
        raise ValueError(
            f"{name} has {groups.size} samples but predictions has {num_samples}; pass one per sample. With add_batch "
            "or several processes, load config_name='grouped', which has columns for the group names."
        )
    return groups


def as_preferences(values: Any) -> np.ndarray:
    """Human preferences as int64 (N,): 1 for A, -1 for B, 0 for a tie."""
    array = check_shape(as_array(values), "preferences")
    keys = [value.strip().lower() if isinstance(value, str) else f"{value:g}" for value in array.tolist()]
    for index, key in enumerate(keys):
        if key not in PREFERENCES:
            value = array.tolist()[index]
            raise ValueError(f"preferences holds {value!r} at index {index}; pass 'A', 'B', 'same', 1, -1 or 0.")
    return np.array([PREFERENCES[key] for key in keys], dtype=np.int64)


def floats(values: dict[str, float]) -> dict[str, float | None]:
    """The values as floats that JSON can hold: NaN and infinity become None."""
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
