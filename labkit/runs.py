"""`Run`: what one training run left behind; `Store`: the folder that keeps and finds runs."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import platformdirs

from labkit.config import RECIPE, Config, LabkitError

FORMAT = 1  # of the record files
SHIPPED = Path(__file__).parent / "records"  # the report's own runs, part of the package


class StoreError(LabkitError):
    """A folder of runs that cannot be written, or a record in it that cannot be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One finished run: numbers only, so that tables and plots need neither torch nor the data.

    Attributes:
        config: what was run.
        data_sha256: the checksum of the images.
        iteration_loss: mean cross-entropy of each batch in nats, float32 `[epochs, iterations]`.
            NaN from where the run diverged.
        history: one row per epoch: `epoch` (from 0), `loss` (the mean of its batch losses, nats),
            `train_accuracy`, `test_accuracy` (0..1; NaN where not measured), `seconds` (training).
        confusion: for "train" and "test" the counts `[10, 10]`, row true and column predicted;
            all zero for a run that diverged, which gives no answers (n = 0 below).
        test_labels, test_predicted: classes of the test images, uint8 `[n]`.
        test_confidence: softmax probability of the predicted class, float32 `[n]`.
        provenance: date, commit, versions, device, threads, seconds.
        recorded: whether the run was found in a store, rather than trained just now.
    """

    config: Config
    data_sha256: str
    iteration_loss: np.ndarray
    history: pd.DataFrame
    confusion: dict[str, np.ndarray]
    test_labels: np.ndarray
    test_predicted: np.ndarray
    test_confidence: np.ndarray
    provenance: dict[str, Any]
    recorded: bool = False

    @property
    def digest(self) -> str:
        """The name under which the store keeps the run."""
        return self.config.digest(self.data_sha256)

    @property
    def diverged(self) -> tuple[int, int] | None:
        """The epoch and the iteration in it whose loss was not finite; None for a good run."""
        places = np.argwhere(~np.isfinite(self.iteration_loss))
        return (int(places[0][0]), int(places[0][1])) if len(places) else None

    def accuracy(self, split: str) -> float:
        """The share of right answers on "train" or "test" after the last epoch, 0..1.

        NaN for a run that diverged.
        """
        counts = self.confusion[split]
        return float(np.trace(counts) / counts.sum()) if counts.any() else float("nan")


Runs = Mapping[str, Sequence[Run]]  # label of a setting → its runs, one a seed


def total_confusion(group: Sequence[Run], split: str) -> np.ndarray:
    """Confusion counts `[10, 10]` summed over runs of one setting."""
    return np.sum([run.confusion[split] for run in group], axis=0)


def divergences(runs: Runs) -> str:
    """Which runs diverged and where, as words; "" if none did."""
    return "; ".join(
        f"{label}, seed {run.config.seed}, diverged at epoch {run.diverged[0]}, "
        f"iteration {run.diverged[1]}"
        for label, group in runs.items()
        for run in group
        if run.diverged
    )


def class_noun(run: Run) -> str:
    """What a class of the run's images is called."""
    return "digit" if run.config.dataset in ("mnist", "mnist-5k") else "class"


def off_diagonal(counts: np.ndarray) -> np.ndarray:
    """The mistakes of confusion counts: the same counts with zeros on the diagonal."""
    return counts - np.diag(np.diag(counts))


class Store:
    """A folder of finished runs; two files a run.

    `DIGEST.json` holds everything that a person may want to read, and names the npz file with the
    long arrays by its checksum. The JSON file is written last and replaced in one step: before
    that step the old run is there, after it the new one, and never half of either.

    Args:
        folder: where to write; by default `$LABKIT_RUNS`, or this user's data folder.
        shipped: where to look as well, read only.
    """

    def __init__(self, folder: Path | None = None, shipped: Path | None = SHIPPED) -> None:
        default = platformdirs.user_data_path("labkit") / "runs"
        self.folder = Path(folder or os.environ.get("LABKIT_RUNS") or default).expanduser()
        self.places = [self.folder, shipped] if shipped else [self.folder]

    def find(self, config: Config, data_sha256: str) -> Run | None:
        """The run of exactly this config, data and `RECIPE`; None if there is none.

        Raises:
            StoreError: its record is damaged.
        """
        return self.get(config.digest(data_sha256))

    def get(self, digest: str) -> Run | None:
        """The run that is kept under this name; None if there is none.

        Raises:
            StoreError: its record is damaged.
        """
        for place in self.places:
            if (place / f"{digest}.json").is_file():
                return load(place / f"{digest}.json")
        return None

    def save(self, run: Run) -> Path:
        """Keep `run`; the path of its record.

        Raises:
            StoreError: the folder cannot be written.
        """
        arrays = {
            "iteration_loss": run.iteration_loss,
            "test_labels": run.test_labels,
            "test_predicted": run.test_predicted,
            "test_confidence": run.test_confidence,
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
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
        target = self.folder / f"{run.digest}.json"
        self.check_writable()
        try:
            write_atomically(self.folder / record["arrays"]["file"], buffer.getvalue())
            write_atomically(target, json.dumps(record, indent=1).encode())
            for stale in self.folder.glob(f"{run.digest}-*.npz"):
                if stale.name != record["arrays"]["file"]:
                    stale.unlink()
        except OSError as error:
            raise StoreError(f"the run could not be kept in {self.folder}: {error}.") from error
        return target

    def check_writable(self) -> None:
        """Make the folder if need be; fail before training rather than after.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise StoreError(
                f"the folder of runs {self.folder} cannot be written ({error.strerror}); set "
                "LABKIT_RUNS to one that can."
            ) from error


def load(path: Path) -> Run:
    """The run whose record is the JSON file at `path`; nothing in it is executed.

    Raises:
        StoreError: the record is damaged.
    """
    try:
        record = json.loads(path.read_bytes())
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
            recorded=True,
            **{name: arrays[name] for name in arrays.files},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the record {path} is damaged ({error}); delete it to train this run again."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` in one step; a crash leaves the old file whole."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private; records are meant to be shared
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
