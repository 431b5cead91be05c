"""Work that the main process does for all processes of a run."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

Result = TypeVar("Result")


def on_main_process(accelerator: Accelerator, call: Callable[[], Result]) -> Result | None:
    """The result of `call` on the main process, None on the others. All processes wait for it and end if it fails.

    Raises:
        ValueError, OSError: what `call` raises, on the main process. The others exit in silence, so that the message
            is printed once.
    """
    result, error = None, None
    if accelerator.is_main_process:
        try:
            result = call()
        except (ValueError, OSError) as raised:
            error = raised
    (failed,) = broadcast_object_list([error is not None])
    if error is not None:
        raise error
    if failed:
        raise SystemExit(2)
    return result
