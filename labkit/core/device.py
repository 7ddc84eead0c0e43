"""The device that trains, by its name."""

from typing import TYPE_CHECKING

from labkit.core.values import LabkitError

if TYPE_CHECKING:
    import torch


class DeviceError(LabkitError, ValueError):
    """A device that this machine does not have."""


def find_device(name: str = "auto") -> "torch.device":
    """The device of that name; `auto` takes CUDA if there is one, else MPS, else the CPU.

    Raises:
        DeviceError: this machine has no such device.
    """
    import torch  # here, since what is recorded needs none of it

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


def check_device(name: str) -> None:
    """`find_device`, without torch where the name is one that every machine has."""
    if str(name).strip().lower() not in ("auto", "cpu"):
        find_device(name)
