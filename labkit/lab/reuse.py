"""Which recorded runs count, and which are trained again."""

import contextlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from labkit.core import data
from labkit.core.config import Config
from labkit.core.log import say
from labkit.core.values import ConfigError, flag
from labkit.core.words import plural
from labkit.lab.progress import Log
from labkit.store.checkpoint import Checkpoint
from labkit.store.folder import Store, set_aside
from labkit.store.record import DamagedError
from labkit.store.run import Run, utc_now

ALWAYS = "9999"  # later than any date: every recorded run is trained again


def valid(run: Run, before: str) -> bool:
    """Whether a recorded run need not be trained again; one dated in the future proves nothing."""
    return not before or run.dated(before, utc_now())


def on_record(configs: Iterable[Config], retrain: bool | str, store: Store) -> dict[Config, Run]:
    """Those runs of these configs that are recorded and count.

    Raises:
        DataError: they need images that are not to be had.
    """
    before = retrain_before(retrain)
    digests = {c: c.digest(data.checksum(c.dataset)) for c in dict.fromkeys(configs)}
    found = {config: recorded(store, digest, before) for config, digest in digests.items()}
    return {config: run for config, run in found.items() if run}


def recorded(store: Store, digest: str, before: str) -> Run | None:
    """The run that is kept under this name; None if it is missing, damaged or not `valid`."""
    with contextlib.suppress(DamagedError):
        found = store.get(digest)
        return found if found and valid(found, before) else None
    return None


def undamaged(store: Store, digest: str) -> Run | None:
    """The run that is kept under this name; a damaged one is set aside, and must be claimed."""
    try:
        return store.get(digest)
    except DamagedError as error:
        set_aside(error)
        return None


def retrain_before(retrain: bool | str) -> str:
    """The date before which recorded runs are trained again, as ISO text that can be compared.

    Raises:
        ConfigError: neither true, false nor a date.
    """
    with contextlib.suppress(ValueError):
        if isinstance(retrain, str):
            date = datetime.fromisoformat(retrain.strip())
            return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC).isoformat()
    try:
        return ALWAYS if flag("retrain", retrain) else ""
    except ConfigError:
        raise ConfigError(
            f"retrain is {retrain!r}; it must be true, false or a date as 2026-11-30T18:00."
        ) from None


def tell(log: Log, found: Sequence[Run]) -> None:
    """Say that runs are recorded, and since when."""
    dates = sorted({run.provenance["date"][:10] for run in found})
    what = found[0].config.describe() if len(found) == 1 else plural(len(found), "run")
    say(log, f"{what}: recorded {' to '.join(dict.fromkeys((dates[0], dates[-1])))}")


def reuse(found: Run, checkpoint: Checkpoint, log: Log) -> Run:
    """A recorded run; says so, and removes the checkpoint that a kill after its end has left."""
    tell(log, [found])
    with contextlib.suppress(OSError):
        if checkpoint.started() == found.provenance["date"]:
            checkpoint.remove()
    return found
