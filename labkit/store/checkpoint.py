"""The state of a training that is not finished, on disk, so that a killed one can go on."""

import contextlib
import hashlib
import io
import json
import pickle
import time
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.store.files import MOST_JSON, opened, parse, read, replacing
from labkit.store.folder import StoreWarning, set_aside
from labkit.store.integrity import check
from labkit.store.record import FORMAT, DamagedError, StoreError, refuse_other

if TYPE_CHECKING:
    import torch

#: Seconds between checkpoints: what a kill costs at most, but for `OVERHEAD`.
EVERY = 45.0
#: The share of the time that writing checkpoints may take; a slow disk gets fewer of them.
OVERHEAD = 0.02
SUFFIX = ".checkpoint"
MOST_BYTES = 2**29  # four times the largest
LAYOUT = 2  # of the state inside: 2 has an optimizer's state for the weights that can learn alone


class Checkpoint:
    """The file with the latest state of one training, replaced in one step.

    Its first line is the SHA-256 of all that follows, the second one JSON for whoever lists the
    runs, the rest a torch file that is read with `weights_only`: nothing in it is executed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last, self.cost, self.broken = time.monotonic(), 0.0, False

    def due(self) -> bool:
        """Whether it is time to save again."""
        wait = max(EVERY, self.cost / OVERHEAD)
        return not self.broken and time.monotonic() - self.last >= wait

    def save(self, header: dict[str, Any], state: dict[str, Any]) -> None:
        """Replace the file; where that fails the training goes on, and a warning says so once.

        Args:
            header: plain values, readable without torch.
            state: tensors and plain values.
        """
        import torch  # here, since listing runs needs none of it, and would wait a second

        start, content = time.monotonic(), io.BytesIO()
        try:
            text = json.dumps({"format": FORMAT, "layout": LAYOUT, **header})
            content.write(text.encode() + b"\n")
            torch.save(state, content)
            with replacing(self.path) as file:
                file.write(hashlib.sha256(content.getbuffer()).hexdigest().encode() + b"\n")
                file.write(content.getbuffer())
        except (OSError, MemoryError) as error:
            self.broken = True
            said = getattr(error, "strerror", None) or "too little memory"
            warnings.warn(
                f"no checkpoint can be written to {self.path.parent} ({said}); the training goes "
                "on, but if it is interrupted it starts from the beginning.",
                StoreWarning,
                stacklevel=2,
            )
        self.last = time.monotonic()
        self.cost = self.last - start

    def load(self, device: "torch.device") -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Header and state, its tensors on `device`; None if there is no file.

        A damaged file is set aside with a warning.

        Raises:
            StoreError: it was written by a newer labkit.
        """
        import torch

        try:
            sha256, _, content = read(self.path, MOST_BYTES).partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != sha256:
                raise ValueError("it does not have the checksum that it states")
            text, _, packed = content.partition(b"\n")
            header = _checked(self.path, text)
            if header.get("layout") != LAYOUT:
                raise ValueError("it was written by another version of labkit")
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:  # its state, as large as it says
                if any(member.compress_type for member in archive.infolist()):
                    raise ValueError("its state is packed, which torch never does")
            state = torch.load(io.BytesIO(packed), map_location=device, weights_only=True)
        except FileNotFoundError:
            return None
        except (StoreError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # as many kinds as there are ways to spoil a file
            unpickling = isinstance(error, pickle.UnpicklingError)
            reason = "it holds more than tensors and plain values" if unpickling else error
            set_aside(DamagedError(self.path, reason))
            return None
        return header, state

    def started(self) -> str:
        """When its training began, ISO 8601 in UTC; "" if there is none that can be read."""
        header = read_header(self.path)
        return header["provenance"]["date"] if header else ""

    def remove(self) -> None:
        """Delete the file: its run is complete."""
        self.path.unlink(missing_ok=True)


def header_of(path: Path) -> dict[str, Any]:
    """A checkpoint's second line, without its tensors.

    Raises:
        DamagedError: the file is damaged, as far as that line tells.
        FileNotFoundError: there is none.
        StoreError: it was written by a newer labkit.
    """
    try:
        with opened(path) as file:
            file.readline(80)
            return _checked(path, file.readline(MOST_JSON))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedError(path, error) from error


def read_header(path: Path) -> dict[str, Any]:
    """`header_of`; `{}` if it cannot be read."""
    with contextlib.suppress(FileNotFoundError, StoreError):
        return header_of(path)
    return {}


def _checked(path: Path, text: bytes) -> dict[str, Any]:
    header = parse(text)
    refuse_other(path, header)
    check("checkpoint", header, path.stem)
    return header
