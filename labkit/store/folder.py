"""`Store`: the folder that keeps runs, finds them again, and notices when one is damaged."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import platformdirs
from filelock import FileLock, Timeout

from labkit.core.config import TRAINING_VERSION, Config
from labkit.core.log import plain, say
from labkit.core.values import LabkitError
from labkit.store.files import MOST_JSON, parse, read, version, write_atomically
from labkit.store.integrity import ARRAYS, MOST_ARRAYS, check_record, record_sha256, unpack
from labkit.store.run import Run

FORMAT = 2  # of the files; every format states its checksum as this one does
SHIPPED = Path(__file__).parent / "records"  # the report's own runs, part of the package
MOST_SAID = 400  # characters of what is wrong with a file
NAME = re.compile("[0-9a-f]{12}")  # of a run


class StoreError(LabkitError):
    """A folder of runs that cannot be written, or a record in it that cannot be read."""


class DamagedError(StoreError):
    """A file that is not as it was written."""

    def __init__(self, path: Path, reason: object) -> None:
        said = plain(str(reason)).rstrip(".")
        super().__init__(f"{path} is damaged: {said[:MOST_SAID]}.")
        self.path = path


class StoreWarning(UserWarning):
    """Something about the kept runs that the user should know and that stops nothing."""


class Record(NamedTuple):
    """A whole record: its two files as they are, what the first one says, and the run."""

    text: bytes
    packed: bytes
    content: dict[str, Any]
    run: Run


class Store:
    """A folder of finished runs, two files a run.

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
        self.folder, self.shipped = self.places[0], shipped
        self.places += [shipped] if shipped else []
        for place in self.places:
            try:
                place.stat()
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    raise StoreError(
                        f"LABKIT_RUNS names a folder {str(place)[:50]!r}...; no folder can have a "
                        f"name of {len(str(place)):,} characters."
                    ) from error

    def find(self, config: Config, data_sha256: str) -> Run | None:
        """The run of exactly this config, data and `TRAINING_VERSION`; None if there is none.

        Raises:
            DamagedError: its record is damaged.
            StoreError: its record was written by a newer labkit.
        """
        return self.get(config.digest(data_sha256))

    def get(self, digest: str) -> Run | None:
        """The run that is kept under this name; None if there is none.

        A record that cannot be read gets a warning if there is a good one in another folder. Two
        folders with other numbers of the run get a warning too, and the first one's are given.

        Raises:
            DamagedError: its record is damaged, and nowhere else is there a good one.
            StoreError: its record was written by a newer labkit.
        """
        found = self._first(digest)
        return found.run if found else None

    def copy(self, digest: str, folder: Path) -> None:
        """Copy the record that `get` reads, byte by byte, into another folder; nothing if none.

        Raises:
            OSError: the folder cannot be written.
            StoreError: as `get`.
        """
        if found := self._first(digest):
            write_atomically(folder / found.content["arrays"]["file"], found.packed)
            write_atomically(folder / f"{digest}.json", found.text)

    def _first(self, digest: str) -> Record | None:
        own: DamagedError | None = None
        for place in self.places if NAME.fullmatch(digest) else []:
            try:
                found = whole(place / f"{digest}.json")
            except FileNotFoundError:
                continue
            except StoreError as error:
                if place != self.folder:
                    _warn(f"{error} It is left out.")
                    continue
                if not isinstance(error, DamagedError):
                    raise
                own = error
                continue
            if own:
                _warn(f"{own} The one in {place} is used instead.")
            self._compare(found, place)
            return found
        if own:
            raise own
        return None

    def _compare(self, found: Record, place: Path) -> None:
        """Warn of a later folder with other numbers; the shipped ones are there to be replaced."""
        name = f"{found.run.digest}.json"
        for other in self.places[self.places.index(place) + 1 :]:
            if other not in (SHIPPED, self.shipped) and version(other / name):
                with contextlib.suppress(OSError, ValueError):  # the listing says so
                    arrays = parse(read(other / name, MOST_JSON)).get("arrays")
                    if arrays != found.content["arrays"]:
                        _warn(
                            f"the run {found.run.digest} has other numbers in {other} than in "
                            f"{place}; those in {place} are used."
                        )

    def save(self, run: Run) -> Run:
        """Keep `run`; the run with its checksum.

        Raises:
            StoreError: the folder cannot be written, or the disk is full.
        """
        buffer = io.BytesIO()
        arrays = {name: getattr(run, name) for name in ARRAYS}
        np.savez_compressed(buffer, **arrays, **run.measures)
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        record = {
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
        record["sha256"] = record_sha256(record)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / record["arrays"]["file"], buffer.getvalue())
            target = self.folder / f"{run.digest}.json"
            write_atomically(target, json.dumps(record, indent=1).encode())
            for stale in self.folder.glob(f"{run.digest}-*.npz"):
                if stale.name != record["arrays"]["file"]:
                    stale.unlink()
        except OSError as error:
            raise StoreError(
                f"the run could not be kept in {self.folder} ({error.strerror or error}); set "
                "LABKIT_RUNS to a folder that can be written."
            ) from error
        return dataclasses.replace(run, checksum=record["sha256"])

    def writable(self) -> bool:
        """Whether runs can be kept here."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError:
            return False
        return True

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
            raise StoreError(
                f"the folder of runs {self.folder} cannot be written ({error.strerror or error}); "
                "set LABKIT_RUNS to one that can."
            ) from error
        try:
            yield
        finally:
            lock.release()


def lock_of(folder: Path, digest: str) -> FileLock:
    """The lock of whoever trains this run; the system frees it when its process dies."""
    return FileLock(folder / ".locks" / f"{digest}.lock")


def load(path: Path) -> Run:
    """The run whose record is the JSON file at `path`; nothing in it is executed.

    Raises:
        DamagedError: it is not as it was written, or not under the name that its content has.
        FileNotFoundError: there is none.
        StoreError: it was written by a newer labkit.
    """
    return whole(path).run


def whole(path: Path) -> Record:
    """`load`, with the files themselves."""
    before = version(path)
    try:
        found = parts(path)
        if found.run.checksum != record_sha256(found.content):
            raise ValueError("its content does not have the checksum that it states")
        return found
    except (OSError, ValueError) as error:
        if version(path) != before:  # another process has just replaced it
            return whole(path)
        if not before and isinstance(error, FileNotFoundError | NotADirectoryError):
            raise FileNotFoundError(f"there is no {path}") from error
        raise DamagedError(path, error) from error


def parts(path: Path) -> Record:
    """A record, whose content need not have the checksum that it states.

    Raises:
        OSError: it cannot be read.
        StoreError: it was written by a newer labkit.
        ValueError: it is not as any record is; says where.
    """
    text = read(path, MOST_JSON)
    content = parse(text)
    refuse_other(path, content)
    config = check_record(content, path.stem)
    packed = read(path.parent / content["arrays"]["file"], MOST_ARRAYS)
    layers = content.get("layers", {})
    arrays = unpack(packed, content["arrays"]["sha256"], config, layers)
    run = Run(
        config=config,
        data_sha256=content["data_sha256"],
        history=pd.DataFrame(content["history"], dtype=float).astype({"epoch": int}),
        confusion={split: np.array(counts) for split, counts in content["confusion"].items()},
        provenance=content["provenance"],
        checksum=content["sha256"],
        recorded=True,
        layers=layers,
        measures={name: array for name, array in arrays.items() if name not in ARRAYS},
        **{name: arrays[name] for name in ARRAYS},
    )
    return Record(text, packed, content, run)


def refuse_other(path: Path, content: dict[str, Any]) -> None:
    """Refuse a file of another format than this version writes, or of settings it does not have.

    Raises:
        StoreError: it was written by a newer labkit.
        ValueError: by an older one, or it states no format; or it is damaged, and only seems so.
    """
    written = content.get("format")
    if not isinstance(written, int) or written < FORMAT:
        raise ValueError("it was written by an older labkit, in another format")
    settings = content.get("config")
    known = {field.name for field in dataclasses.fields(Config)}
    unknown = set(settings if isinstance(settings, dict) else ()) - known
    other = written > FORMAT or unknown
    if other and content.get("sha256", "") not in ("", record_sha256(content)):
        raise ValueError("its content does not have the checksum that it states")
    if written > FORMAT:
        raise StoreError(
            f"{path} was written by a newer labkit (format {written}; this one reads up to "
            f"{FORMAT}); update labkit, or set LABKIT_RUNS to another folder."
        )
    if unknown:
        raise StoreError(
            f"{path} is of a run with the setting {', '.join(sorted(unknown))[:200]}, which this "
            "labkit does not know: a newer labkit wrote it, or one with changes; use that one, or "
            "set LABKIT_RUNS to another folder."
        )


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
