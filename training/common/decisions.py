"""Decisions that the main process takes for all processes of a run."""

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list


def main_decides(accelerator: Accelerator, call: Callable[[], Any]) -> Any:
    """The result of `call` on the main process, for all processes. All end if it raises ValueError or OSError.

    The error is raised on the main process; the others exit in silence, so that it is printed once.
    """
    result, error = None, None
    if accelerator.is_main_process:
        try:
            result = call()
        except (ValueError, OSError) as raised:
            error = raised
    result, failed = broadcast_object_list([result, error is not None])
    if error is not None:
        raise error
    if failed:
        raise SystemExit(2)
    return result
