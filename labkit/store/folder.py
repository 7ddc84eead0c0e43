"""`Store`: the folder that keeps runs, finds them again, and notices when one is damaged."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import platformdirs
from filelock import FileLock, Timeout

from labkit.core.config import TRAINING_VERSION, Config
from labkit.core.log import plain, say
from labkit.core.values import LabkitError
from labkit.store.files import MOST_JSON, parse, read, version, write_atomically
from labkit.store.integrity import ARRAYS, MOST_ARRAYS, check, record_sha256, unpack
from labkit.store.run import Run

FORMAT = 2  # of the files; every format states its checksum as this one does
SHIPPED = Path(__file__).parent / "records"  # the report's own runs, part of the package
MOST_SAID = 400  # characters of what is wrong with a file
MOST_NAME = 255  # characters of a folder's name
NAME = re.compile("[0-9a-f]{12}")  # of a run


class StoreError(LabkitError):
    """A folder of runs that cannot be written, or a record in it that cannot be read."""


class DamagedError(StoreError):
    """A file that is not as it was written."""

    def __init__(self, path: Path, reason: object) -> None:
        self.path, self.reason = path, plain(str(reason)).rstrip(".")[:MOST_SAID]
        super().__init__(f"{path} is damaged: {self.reason}.")


class StoreWarning(UserWarning):
    """Something about the kept runs that the user should know and that stops nothing."""


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
            content = parse(text)
            refuse_other(path, content)
            config = check("record", content, path.stem)
            packed = read(path.parent / content["arrays"]["file"], MOST_ARRAYS)
            layers = content.get("layers", {})
            arrays = unpack(packed, content["arrays"]["sha256"], config, layers)
            if not altered and content["sha256"] != record_sha256(content):
                raise ValueError("its content does not have the checksum that it states")
        except (OSError, ValueError) as error:
            if version(path) != before:  # another process has just replaced it
                return cls.read(path, altered=altered)
            if not before and isinstance(error, FileNotFoundError | NotADirectoryError):
                raise FileNotFoundError(f"there is no {path}") from error
            raise DamagedError(path, error) from error
        run = Run(
            config=config,
            data_sha256=content["data_sha256"],
            history=pd.DataFrame(content["history"], dtype=float).astype({"epoch": int}),
            confusion={split: np.array(counts) for split, counts in content["confusion"].items()},
            provenance=content["provenance"],
            checksum=content["sha256"],
            recorded=True,
            layers=layers,
            **{name: arrays.pop(name) for name in ARRAYS},
            measures=arrays,
        )
        return cls(text, packed, content, run)

    def write(self, folder: Path) -> None:
        """Keep both files in `folder`, each replaced in one step, the one with the name last.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        write_atomically(folder / self.content["arrays"]["file"], self.packed)
        write_atomically(folder / f"{self.run.digest}.json", self.text)


def load(path: Path) -> Run:
    """The run whose record is the JSON file at `path`; raises as `Record.read`."""
    return Record.read(path).run


class Store:
    """A folder of finished runs, two files per run.

    `DIGEST.json` holds everything that a person may want to read, and names the npz file with the
    long arrays by its checksum. The JSON file is written last and replaced in one step: before
    that step the old run is there, after it the new one, and never half of either.

    Args:
        folder: where to write; by default the first folder of `$LABKIT_RUNS`, or this user's data
            folder. `$LABKIT_RUNS` may go on with folders to look into as well, as `$PATH` does.
        shipped: where to look last.

    Raises:
        StoreError: a name is too long for a folder.
    """

    def __init__(self, folder: Path | None = None, shipped: Path | None = SHIPPED) -> None:
        default = str(platformdirs.user_data_path("labkit") / "runs")
        named = [str(folder)] if folder else os.environ.get("LABKIT_RUNS", "").split(os.pathsep)
        self.places = [Path(name).expanduser() for name in named if name] or [Path(default)]
        for place in self.places:
            if any(len(part) > MOST_NAME for part in place.parts):
                raise StoreError(
                    f"LABKIT_RUNS names a folder {str(place)[:50]!r}...; no folder can have a "
                    f"name of {len(str(place)):,} characters."
                )
        self.folder, self.shipped = self.places[0], shipped
        self.places += [shipped] if shipped else []

    def find(self, config: Config, data_sha256: str) -> Run | None:
        """The run of exactly this config, data and `TRAINING_VERSION`, as `get`."""
        return self.get(config.digest(data_sha256))

    def get(self, digest: str) -> Run | None:
        """The run that is kept under this name; None if there is none. Raises as `record`."""
        found = self.record(digest)
        return found.run if found else None

    def copy(self, digest: str, folder: Path) -> None:
        """Copy the record that `get` reads, byte by byte, into another folder; nothing if none."""
        if found := self.record(digest):
            found.write(folder)

    def record(self, digest: str) -> Record | None:
        """The record in the first folder that has a good one.

        One that cannot be read gets a warning if there is a good one in another folder. Two folders
        with other numbers of the run get a warning too.

        Raises:
            DamagedError: it is damaged, and nowhere else is there a good one.
            StoreError: it was written by a newer labkit.
        """
        found: Record | None = None
        own: DamagedError | None = None
        for place in self.places if NAME.fullmatch(digest) else []:
            if found and place in (SHIPPED, self.shipped):  # these are there to be replaced
                continue
            try:
                record = Record.read(place / f"{digest}.json")
            except FileNotFoundError:
                continue
            except StoreError as error:
                if place != self.folder:
                    if not found:  # else the listing says so
                        _warn(f"{error} It is left out.")
                elif isinstance(error, DamagedError):
                    own = error
                else:
                    raise
                continue
            if not found:
                found, first = record, place
            elif record.content["arrays"] != found.content["arrays"]:
                _warn(
                    f"the run {digest} has other numbers in {place} than in {first}; those in "
                    f"{first} are used."
                )
        if own and not found:
            raise own
        if own:
            _warn(f"{own} The one in {first} is used instead.")
        return found

    def save(self, run: Run) -> Run:
        """Keep `run`; the run with its checksum.

        Raises:
            StoreError: the folder cannot be written, or the disk is full.
        """
        record = Record.of(run)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            record.write(self.folder)
            for stale in self.folder.glob(f"{run.digest}-*.npz"):
                if stale.name != record.content["arrays"]["file"]:
                    stale.unlink()
        except OSError as error:
            raise self._unwritable(error) from error
        return record.run

    @contextlib.contextmanager
    def claim(self, digest: str, log: str = "none") -> Iterator[None]:
        """Hold a run, so that no other process trains it; waits, and says so, while one does.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            lock = lock_of(self.folder, digest)
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                say(log, f"another process trains {digest}; waiting until it is done")
                lock.acquire(poll_interval=0.2)
            for leftover in self.folder.glob(f".{digest}*"):  # of a process that died as it wrote
                leftover.unlink()
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def writable(self) -> bool:
        """Whether runs can be kept in the folder."""
        try:
            with self.claim("writable"):
                return True
        except StoreError:
            return False

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"the folder of runs {self.folder} cannot be written ({error.strerror or error}); set "
            "LABKIT_RUNS to one that can."
        )


def lock_of(folder: Path, digest: str) -> FileLock:
    """The lock of whoever trains this run; the system frees it when its process dies."""
    return FileLock(folder / ".locks" / f"{digest}.lock")


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


def _warn(sentence: str) -> None:
    warnings.warn(sentence, StoreWarning, stacklevel=5)


def set_aside(error: DamagedError) -> None:
    """Rename the damaged file and warn of it, so that its run can be trained again."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = error.path.with_name(f"{error.path.name}.damaged-{now}")
    os.replace(error.path, aside)
    warnings.warn(
        f"{error} It was set aside as {aside.name}, and its run is trained again.",
        StoreWarning,
        stacklevel=2,
    )
