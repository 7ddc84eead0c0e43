"""`labkit new`: a lab of one's own."""

import shutil
from pathlib import Path

from labkit.core.values import LabkitError

LAB = Path(__file__).parent / "lab"  # a notebook, its claims, and what to do with them


def lay_out(folder: Path) -> None:
    """Write a lab of one's own into a folder: a notebook, its claims, and what to do with them.

    Raises:
        LabkitError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise LabkitError(f"{folder} is not empty; a new lab needs a folder of its own.")
    shutil.copytree(LAB, folder, dirs_exist_ok=True)
