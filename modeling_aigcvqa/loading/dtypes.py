"""Find the dtype in which a device computes fastest."""

import time

import torch
from transformers.utils import logging

from ..common import choices

DTYPES = {name: getattr(torch, name) for name in choices.DTYPES}
SLOW = 2.0  # warn of a dtype that takes more than this many times as long as float32
logger = logging.get_logger(__name__)


def fastest_dtype(device: torch.device) -> tuple[str, str]:
    """The faster of bfloat16 and float32 on this device, and the reason.

    A matrix product is timed in both, because a processor may accept bfloat16 and emulate it. Scores in bfloat16 differ
    from scores in float32 by about a hundredth of their spread (docs/speed.md).
    """
    ratio = time_against_float32(torch.bfloat16, device)
    chosen = "bfloat16" if ratio < 0.75 else "float32"
    return chosen, f"a matrix product in bfloat16 takes {ratio:.2g} times as long as in float32 on this {device.type}."


def time_against_float32(dtype: torch.dtype, device: torch.device) -> float:
    """Time of a matrix product in `dtype`, divided by its time in float32."""
    seconds = {}
    size = 512 if device.type == "cpu" else 4096  # large enough to time, small enough for an emulated dtype
    for kind in (torch.float32, dtype):
        left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            (left @ right.mT).sum().item()  # transposed as in a linear layer
            times.append(time.perf_counter() - start)
            if len(times) > 1 and times[-1] > 10 * seconds.get(torch.float32, times[-1]):
                break  # emulated; the first product does not count, because it includes the set-up
        seconds[kind] = min(times)
    return seconds[dtype] / seconds[torch.float32]


def warn_of_emulation(dtype: torch.dtype, device: torch.device) -> None:
    """Warn if this device computes much more slowly in the dtype of the model than in float32."""
    ratio = 1.0 if dtype == torch.float32 else time_against_float32(dtype, device)
    if ratio > SLOW:
        name = str(dtype).removeprefix("torch.")
        logger.warning(
            f"dtype {name}: a matrix product takes {ratio:.2g} times as long as in float32 on this {device.type}; "
            "dtype 'float32' or 'auto' is faster."
        )
