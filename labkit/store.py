"""`Store`: the folder that keeps runs, finds them again, and notices when one is damaged."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import platformdirs
from filelock import FileLock, Timeout

from labkit import progress
from labkit.config import RECIPE, Config, LabkitError, identity
from labkit.runs import Run

FORMAT = 2  # of the files; every format states its checksum as this one does
SHIPPED = Path(__file__).parent / "records"  # the report's own runs, part of the package
ARRAYS = ("iteration_loss", "test_labels", "test_predicted", "test_confidence")


class StoreError(LabkitError):
    """A folder of runs that cannot be written, or a record in it that cannot be read."""


class DamagedError(StoreError):
    """A file that is not as it was written."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} is damaged: {reason}.")
        self.path = path


class StoreWarning(UserWarning):
    """Something about the kept runs that the user should know and that stops nothing."""


class Store:
    """A folder of finished runs, two files a run.

    `DIGEST.json` holds everything that a person may want to read, and names the npz file with the
    long arrays by its checksum. The JSON file is written last and replaced in one step: before
    that step the old run is there, after it the new one, and never half of either.

    Args:
        folder: where to write; by default the first folder of `$LABKIT_RUNS`, or this user's data
            folder. `$LABKIT_RUNS` may go on with folders to look into as well, as `$PATH` does.
        shipped: where to look last.
    """

    def __init__(self, folder: Path | None = None, shipped: Path | None = SHIPPED) -> None:
        default = str(platformdirs.user_data_path("labkit") / "runs")
        named = [str(folder)] if folder else os.environ.get("LABKIT_RUNS", "").split(os.pathsep)
        self.places = [Path(name).expanduser() for name in named if name] or [Path(default)]
        self.folder, self.shipped = self.places[0], shipped
        self.places += [shipped] if shipped else []

    def find(self, config: Config, data_sha256: str) -> Run | None:
        """The run of exactly this config, data and `RECIPE`; None if there is none.

        Raises:
            DamagedError: its record is damaged.
            StoreError: its record was written by a newer labkit.
        """
        return self.get(config.digest(data_sha256))

    def get(self, digest: str) -> Run | None:
        """The run that is kept under this name; None if there is none.

        A damaged record in a folder that is only read gets a warning, and the next is looked at.

        Raises:
            DamagedError: its record is damaged.
            StoreError: its record was written by a newer labkit.
        """
        for place in self.places:
            path = place / f"{digest}.json"
            try:
                if path.is_file():
                    return load(path)
            except DamagedError as error:
                if place == self.folder:
                    raise
                warnings.warn(f"{error} It is left out.", StoreWarning, stacklevel=2)
        return None

    def copy(self, digest: str, folder: Path) -> None:
        """Copy a record and its arrays, byte by byte, into another folder; nothing if not there."""
        for place in self.places:
            if (path := place / f"{digest}.json").is_file():
                arrays = json.loads(path.read_bytes())["arrays"]["file"]
                for name in (arrays, path.name):
                    write_atomically(folder / name, (place / name).read_bytes())
                return

    def save(self, run: Run) -> Run:
        """Keep `run`; the run with its checksum.

        Raises:
            StoreError: the folder cannot be written, or the disk is full.
        """
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(run, name) for name in ARRAYS})
        sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
        record = {
            "format": FORMAT,
            "recipe": RECIPE,
            "config": run.config.to_dict(),
            "data_sha256": run.data_sha256,
            "history": json.loads(run.history.to_json(orient="records", double_precision=15)),
            "confusion": {split: counts.tolist() for split, counts in run.confusion.items()},
            "provenance": run.provenance,
            "arrays": {"file": f"{run.digest}-{sha256[:12]}.npz", "sha256": sha256},
        }
        record["sha256"] = checksum(record)
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
                progress.say(log, f"another process trains {digest}; waiting until it is done")
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


def checksum(record: dict[str, Any]) -> str:
    """SHA-256 of a record's content, whatever its spaces and the order of its keys."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load(path: Path) -> Run:
    """The run whose record is the JSON file at `path`; nothing in it is executed.

    Raises:
        DamagedError: it is not as it was written, or not under the name that its content has.
        StoreError: it was written by a newer labkit.
    """
    try:
        record = json.loads(path.read_bytes())
        refuse_newer(path, record)
        if record["format"] < FORMAT:
            raise ValueError("it was written by an older labkit, in another format")
        if identity(record["config"], record["recipe"], record["data_sha256"]) != path.stem:
            raise ValueError("it is the record of another run than its name says")
        if record["sha256"] != checksum(record):
            raise ValueError("its content does not have the checksum that it states")
        packed = (path.parent / record["arrays"]["file"]).read_bytes()
        if hashlib.sha256(packed).hexdigest() != record["arrays"]["sha256"]:
            raise ValueError("its arrays do not have the checksum that it states")
        arrays = np.load(io.BytesIO(packed), allow_pickle=False)
        return Run(
            config=Config(**record["config"]),
            data_sha256=record["data_sha256"],
            history=pd.DataFrame(record["history"], dtype=float).astype({"epoch": int}),
            confusion={split: np.array(counts) for split, counts in record["confusion"].items()},
            provenance=record["provenance"],
            checksum=record["sha256"],
            recorded=True,
            **{name: arrays[name] for name in ARRAYS},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(path, error) from error


def refuse_newer(path: Path, record: dict[str, Any]) -> None:
    """Refuse a file of a format, or of a run with settings, that this version does not know.

    Raises:
        StoreError: the file was written by a newer labkit.
    """
    if (written := record["format"]) > FORMAT:
        raise StoreError(
            f"{path} was written by a newer labkit (format {written}; this one reads up to "
            f"{FORMAT}); update labkit, or set LABKIT_RUNS to another folder."
        )
    if unknown := set(record["config"]) - {field.name for field in dataclasses.fields(Config)}:
        raise StoreError(
            f"{path} is of a run with the setting {', '.join(sorted(unknown))}, which this labkit "
            "does not know: a newer labkit wrote it, or one with changes; use that one, or set "
            "LABKIT_RUNS to another folder."
        )


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` in one step when the block ends.

    A crash or an error in between leaves the old file whole.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private; records are meant to be shared
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` in one step."""
    with replacing(path) as file:
        file.write(content)
