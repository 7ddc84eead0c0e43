"""The device that trains, by its name."""

import torch

from labkit.core.values import LabkitError


class DeviceError(LabkitError, ValueError):
    """A device that this machine does not have."""


def find_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes CUDA if there is one, else MPS, else the CPU.

    Raises:
        DeviceError: this machine has no such device.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *present]
    text = str(name).strip().lower()
    if text == "auto":
        return torch.device(present[0])
    if text not in present:
        raise DeviceError(
            f"device is {name!r}; it must be one that this machine has: auto, {', '.join(present)}."
        )
    return torch.device(text)
