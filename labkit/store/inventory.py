"""`labkit runs`: the runs at hand, finished or not, whole or damaged."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import Timeout

from labkit.core.config import TRAINING_VERSION, Config
from labkit.core.log import plain
from labkit.core.measures import RECALIBRATED, RUNNING, kept_as
from labkit.core.values import LabkitError
from labkit.core.words import plural
from labkit.store.checkpoint import SUFFIX, header_of
from labkit.store.folder import SHIPPED, Store, lock_of
from labkit.store.record import DamagedError, StoreError, files, load
from labkit.store.run import utc_now

SETTINGS = [field.name for field in dataclasses.fields(Config)]
ACCURACIES = {
    kept_as(f"{split}_accuracy", statistics): kept_as(split, statistics)
    for statistics in (RUNNING, RECALIBRATED)
    for split in ("train", "test")
}
COLUMNS = ["record", "status", *SETTINGS, "loss", *ACCURACIES, "seconds"]
COLUMNS += ["device", "date", "commit", "size", "folder", "problem"]


def listing(store: Store | None = None) -> pd.DataFrame:
    """One row per run, checkpoint or damaged file, of this user's if no store is named; what is not
    known is missing.

    Columns: `record`, `status` (complete, diverged, partial, training now, damaged, set aside,
    newer; it says if the recipe is another one or the date still to come), the fields of `Config`,
    `loss` (mean of the last epoch, nats), `train_accuracy` and `test_accuracy` by running averages,
    and the same two with `_recalibrated` (0..1), `seconds`, `device`, `date` (of the start, ISO
    8601 in UTC), `commit`, `size` (bytes), `folder`, `problem` (why a file cannot be read, a
    sentence). Control characters are spelt out.
    """
    kinds = {"*.json": _record, f"*{SUFFIX}": _checkpoint, "*.damaged-*": _aside}
    rows = []
    for path, read in (
        (path, read)
        for place in (store or Store()).places
        for pattern, read in kinds.items()
        for path in sorted(place.glob(pattern))
    ):
        row = {"record": path.name.partition(".")[0], "size": 0}
        row["folder"] = "shipped" if path.parent == SHIPPED else str(path.parent)
        with contextlib.suppress(OSError):  # deleted meanwhile, or a link to nothing
            row["size"] = path.stat().st_size
        try:
            row |= read(path)
        except FileNotFoundError:  # deleted just now
            continue
        except StoreError as error:
            status = "damaged" if isinstance(error, DamagedError) else "newer"
            row |= {"status": status, "problem": str(error)}
        rows.append({k: plain(v) if isinstance(v, str) else v for k, v in row.items()})
    whole = ["epochs", "batch_size", "seed", "size"]
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(whole, "Int64"))


def _record(path: Path) -> dict[str, Any]:
    text, packed, content, config = files(path)
    recipe, provenance = content["recipe"], content["provenance"]
    loss, status = content["history"][-1]["loss"], "complete"
    if loss is None:  # where it diverged, the arrays say
        status = "diverged at epoch {}, iteration {}".format(*load(path).diverged)
    status += f", recipe {recipe}" * (recipe != TRAINING_VERSION)
    status += ", its date is still to come" * (provenance["date"] > utc_now())
    counted = {split: np.array(counts) for split, counts in content["confusion"].items()}
    return {
        "status": status,
        **config.to_dict(),
        "loss": loss,
        **{
            name: counts.trace() / counts.sum()
            for name, split in ACCURACIES.items()
            if (counts := counted.get(split, np.zeros((1, 1)))).any()
        },
        **{name: provenance[name] for name in ("seconds", "device", "date", "commit")},
        "size": len(text) + len(packed),
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    header = header_of(path)
    done, _, total = header["iterations"]
    what = "training now" if _trained_now(path.parent, path.stem) else "partial"
    return {
        "status": f"{what}, {done / total:.0%} done",
        **Config(**header["config"]).to_dict(),
        "seconds": header["seconds"],
        **{name: header["provenance"][name] for name in ("device", "date", "commit")},
    }


def _aside(path: Path) -> dict[str, Any]:
    return {"status": "set aside"}


def _trained_now(folder: Path, record: str) -> bool:
    lock = lock_of(folder, record)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except (OSError, Timeout) as error:
        return isinstance(error, Timeout)


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A listing for the terminal: fewer columns, and text for people.

    `test` is the recalibrated accuracy on the test images, `running` that by running averages.
    """

    def percent(share: float) -> str:
        return f"{100 * share:.2f} %" if pd.notna(share) else ""

    def size(number: int) -> str:
        return f"{number / 1e6:,.1f} MB" if number >= 1e5 else f"{number / 1e3:,.1f} kB"

    def setting(row: pd.Series) -> str:
        if pd.isna(row["seed"]):  # it could not be read
            return ""
        config = Config(**{name: row[name] for name in SETTINGS})
        return f"{config.dataset}, {plural(config.epochs, 'epoch')}, {config.setting()}"

    return pd.DataFrame(
        {
            "record": table["record"],
            "setting": [setting(row) for _, row in table.iterrows()],
            "seed": table["seed"].astype(object),
            "status": table["status"],
            "test": table["test_accuracy_recalibrated"].map(percent),
            "running": table["test_accuracy"].map(percent),
            "device": table["device"],
            "date (UTC)": table["date"].fillna("").map(lambda date: date[:16].replace("T", " ")),
            "size": table["size"].map(size),
        }
    ).fillna("")


def resolve(table: pd.DataFrame, start: str) -> str:
    """The one record of a listing whose name starts so.

    Raises:
        LabkitError: there is none, or more than one.
    """
    names = set(table["record"])
    found = [name for name in names if name.startswith(start)]
    if len(found) != 1:
        are = str(len(found)) if found else "none"
        raise LabkitError(
            f"{start!r} does not name one record: of {len(names)} in `labkit runs`, {are} "
            "start with it."
        )
    return found[0]


def leftovers(record: str) -> list[Path]:
    """What may be deleted of a run, in the folder that is written: its checkpoint, and what was set
    aside of it.

    Raises:
        LabkitError: a process trains it now.
    """
    folder = Store().folder
    found = [folder / f"{record}{SUFFIX}", *folder.glob(f"{record}.*.damaged-*")]
    found = [path for path in found if path.is_file()]
    if found and _trained_now(folder, record):
        raise LabkitError(f"{record} is being trained now; stop that first.")
    return found
