"""`Record`: the two files that keep a run, written and read."""

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from labkit.core.config import DIGITS, TRAINING_VERSION, Config
from labkit.core.log import plain
from labkit.core.values import LabkitError
from labkit.store.files import MOST_JSON, parse, read, version, write_atomically
from labkit.store.integrity import MOST_ARRAYS, check, record_sha256, unpack
from labkit.store.run import ARRAYS, Run

FORMAT = 2  # of the files; every format states its checksum as this one does
MOST_SAID = 400  # characters of what is wrong with a file


class StoreError(LabkitError):
    """A folder of runs that cannot be written, or a record in it that cannot be read."""


class DamagedError(StoreError):
    """A file that is not as it was written."""

    def __init__(self, path: Path, reason: object) -> None:
        self.path, self.reason = path, plain(str(reason)).rstrip(".")[:MOST_SAID]
        super().__init__(f"{path} is damaged: {self.reason}.")


@dataclass(frozen=True)
class Record:
    """A run and the two files that keep it: `text`, which says `content`, and `packed`."""

    text: bytes
    packed: bytes
    content: dict[str, Any]
    run: Run

    @classmethod
    def of(cls, run: Run) -> Self:
        """The record of a run that was trained just now."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(run, name) for name in ARRAYS}, **run.measures)
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        content = {
            "format": FORMAT,
            "recipe": TRAINING_VERSION,
            "config": run.config.to_dict(),
            "data_sha256": run.data_sha256,
            "history": [
                {name: value if np.isfinite(value) else None for name, value in row.items()}
                for row in run.history.to_dict("records")
            ],
            "confusion": {split: counts.tolist() for split, counts in run.confusion.items()},
            **({"classes": list(run.classes)} if run.classes != DIGITS else {}),
            **({"layers": run.layers} if run.layers else {}),
            "provenance": run.provenance,
            "arrays": {"file": f"{run.digest}-{sha256[:12]}.npz", "sha256": sha256},
        }
        content["sha256"] = record_sha256(content)
        text = json.dumps(content, indent=1).encode()
        kept = dataclasses.replace(run, checksum=content["sha256"])
        return cls(text, buffer.getvalue(), content, kept)

    @classmethod
    def read(cls, path: Path, *, altered: bool = False) -> Self:
        """The record whose JSON file is at `path`; nothing in it is executed.

        Raises as `files`, for arrays as well.
        """
        found = files(path, altered=altered)
        try:
            return cls._unpacked(*found)
        except ValueError as error:
            raise DamagedError(path, error) from error

    @classmethod
    def received(cls, digest: str, text: bytes, packed: bytes) -> Self:
        """The record of the run `digest` whose two files came from another machine.

        Raises:
            StoreError: they are not as they were written, or are of another run.
        """
        path = Path(f"{digest}.json")
        try:
            content, config = _stated(path, text)
            _check_arrays(packed, content)
            return cls._unpacked(text, packed, content, config)
        except ValueError as error:
            raise DamagedError(path, error) from error

    @classmethod
    def _unpacked(cls, text: bytes, packed: bytes, content: dict[str, Any], config: Config) -> Self:
        layers, classes = content.get("layers", {}), content.get("classes", DIGITS)
        arrays = unpack(packed, config, layers, len(classes))
        run = Run(
            config=config,
            data_sha256=content["data_sha256"],
            history=pd.DataFrame(content["history"], dtype=float).astype({"epoch": int}),
            confusion={split: np.array(counts) for split, counts in content["confusion"].items()},
            provenance=content["provenance"],
            checksum=content["sha256"],
            recorded=True,
            layers=layers,
            classes=tuple(classes),
            **{name: arrays.pop(name) for name in ARRAYS},
            measures=arrays,
        )
        return cls(text, packed, content, run)

    def write(self, folder: Path) -> None:
        """Keep both files in `folder`, each replaced in one step, the one with the name last.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        file = self.content["arrays"]["file"]
        write_atomically(folder / file, self.packed)
        write_atomically(folder / f"{file.partition('-')[0]}.json", self.text)


def files(path: Path, *, altered: bool = False) -> tuple[bytes, bytes, dict[str, Any], Config]:
    """The two files of the record whose JSON file is at `path`, what that says, and its config.

    All of it is checked, but for what the arrays hold: only their checksum is compared.

    Args:
        altered: whether it may lack the checksum that it states.

    Raises:
        DamagedError: it is not as it was written, or not under the name that its content has.
        FileNotFoundError: there is none.
        StoreError: it was written by a newer labkit.
    """
    before = version(path)
    try:
        text = read(path, MOST_JSON)
        content, config = _stated(path, text, altered)
        packed = read(path.parent / content["arrays"]["file"], MOST_ARRAYS)
        _check_arrays(packed, content)
    except (OSError, ValueError) as error:
        if version(path) != before:  # another process has just replaced it
            return files(path, altered=altered)
        if not before and isinstance(error, FileNotFoundError | NotADirectoryError):
            raise FileNotFoundError(f"there is no {path}") from error
        raise DamagedError(path, error) from error
    return text, packed, content, config


def _stated(path: Path, text: bytes, altered: bool = False) -> tuple[dict[str, Any], Config]:
    content = parse(text)
    refuse_other(path, content)
    config = check("record", content, path.stem)
    if not altered and content["sha256"] != record_sha256(content):
        raise ValueError("its content does not have the checksum that it states")
    return content, config


def _check_arrays(packed: bytes, content: dict[str, Any]) -> None:
    if hashlib.sha256(packed).hexdigest() != content["arrays"]["sha256"]:
        raise ValueError("arrays: they do not have the checksum that the record states")


def load(path: Path) -> Run:
    """The run whose record is the JSON file at `path`; raises as `Record.read`."""
    return Record.read(path).run


def refuse_other(path: Path, content: dict[str, Any]) -> None:
    """Refuse a file of another format than this version writes, or of settings it does not have.

    Raises:
        StoreError: it was written by a newer labkit.
        ValueError: by an older one, or it states no format; or it is damaged, and only seems so.
    """
    written, settings = content.get("format"), content.get("config")
    if not isinstance(written, int) or written < FORMAT:
        raise ValueError("it was written by an older labkit, in another format")
    known = {field.name for field in dataclasses.fields(Config)}
    unknown = sorted(set(settings if isinstance(settings, dict) else ()) - known)
    if written > FORMAT:
        said = f"was written by a newer labkit (format {written}; this one reads up to {FORMAT}); "
        said += "update labkit"
    elif unknown:
        said = f"is of a run with the setting {', '.join(unknown)[:200]}, which this labkit does "
        said += "not know: a newer labkit wrote it, or one with changes; use that one"
    else:
        return
    if content.get("sha256", "") not in ("", record_sha256(content)):
        raise ValueError("its content does not have the checksum that it states")
    raise StoreError(f"{path} {said}, or set LABKIT_RUNS to another folder.")
