"""`Store`: the folders that keep runs, and find them again."""

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from labkit.core.config import Config
from labkit.core.log import say
from labkit.store.record import DamagedError, Record, StoreError
from labkit.store.record import load as load  # until report.verify imports it from there
from labkit.store.run import Run

SHIPPED = Path(__file__).parent / "records"  # the report's own runs, part of the package
MOST_NAME = 255  # characters of a folder's name
NAME = re.compile("[0-9a-f]{12}")  # of a run


class StoreWarning(UserWarning):
    """Something about the kept runs that the user should know and that stops nothing."""


class BusyError(StoreError):
    """A run that another process trains now."""


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
                    f"the run {digest} has different numbers in {place} and in {first}; those in "
                    f"{first} are used."
                )
        if own and not found:
            raise own
        if own:
            _warn(f"{own} The one in {first} is used instead.")
        return found

    def save(self, run: Run) -> Run:
        """Keep `run`; the run with its checksum. Raises as `keep`."""
        return self.keep(Record.of(run))

    def keep(self, record: Record) -> Run:
        """Keep the two files of a record, byte by byte; its run.

        Raises:
            StoreError: the folder cannot be written, or the disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            record.write(self.folder)
            for stale in self.folder.glob(f"{record.run.digest}-*.npz"):
                if stale.name != record.content["arrays"]["file"]:
                    stale.unlink()
        except OSError as error:
            raise self._unwritable(error) from error
        return record.run

    @contextlib.contextmanager
    def claim(self, digest: str, log: str = "none", wait: bool = True) -> Iterator[None]:
        """Hold a run, so that no other process trains it; waits, and says so, while one does.

        Raises:
            BusyError: another process trains it, and this one should not `wait`.
            StoreError: the folder cannot be written.
        """
        try:
            lock = lock_of(self.folder, digest)
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise BusyError(f"another process trains {digest}.") from None
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
