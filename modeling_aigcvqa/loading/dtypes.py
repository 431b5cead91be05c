"""Which number format a device computes fastest in."""

import time

import torch
from transformers.utils import logging

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SLOW = 2.0  # times as long as float32: what takes longer is warned of
logger = logging.get_logger(__name__)


def fastest_dtype(device: torch.device) -> tuple[str, str]:
    """bfloat16 where this device computes faster in it, else float32; and the reason.

    Decided by a matrix product timed in both: a processor may accept bfloat16 and emulate it. Scores in bfloat16 differ
    from float32's by about a hundredth of their spread (README, Speed).
    """
    ratio = time_against_float32(torch.bfloat16, device)
    chosen = "bfloat16" if ratio < 0.75 else "float32"
    return chosen, f"a matrix product in bfloat16 takes {ratio:.2g} times as long as in float32 on this {device.type}."


def time_against_float32(dtype: torch.dtype, device: torch.device) -> float:
    """Time of a matrix product in `dtype` over that in float32."""
    seconds = {}
    size = 512 if device.type == "cpu" else 4096  # long enough to time; short where the dtype is emulated
    for kind in (torch.float32, dtype):
        left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            (left @ right.mT).sum().item()  # as a linear layer has it
            times.append(time.perf_counter() - start)
            if len(times) > 1 and times[-1] > 10 * seconds.get(torch.float32, times[-1]):  # the first one sets up
                break  # emulated
        seconds[kind] = min(times)
    return seconds[dtype] / seconds[torch.float32]


def warn_of_emulation(dtype: torch.dtype, device: torch.device) -> None:
    """A model can be stored, or asked for, in a dtype that this processor computes many times slower."""
    ratio = 1.0 if dtype == torch.float32 else time_against_float32(dtype, device)
    if ratio > SLOW:
        name = str(dtype).removeprefix("torch.")
        logger.warning(
            f"dtype {name}: a matrix product takes {ratio:.2g} times as long as in float32 on this {device.type}; "
            "dtype 'float32' or 'auto' is faster."
        )
