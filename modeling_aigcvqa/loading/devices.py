"""Find the device to compute on."""

import torch


def chosen_device(name: str) -> torch.device:
    """The device `name`; "auto" for a GPU if there is one.

    Raises:
        ValueError: for a name that is no device, or a device that is not here or cannot compute; names those that are.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # fails for a missing GPU, and for "meta", which holds no numbers
    except Exception as error:  # the class depends on the kind of device
        raise ValueError(
            f"device={name!r}: there is no such device here; expected one of {['auto', *devices_here()]}."
        ) from error
    return device


def devices_here() -> list[str]:
    """The devices of this machine: "cpu", and its GPUs or other accelerators with their numbers."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    return ["cpu"] + ([f"{kind.type}:{number}" for number in range(torch.accelerator.device_count())] if kind else [])
