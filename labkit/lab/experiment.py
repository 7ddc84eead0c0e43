"""`run` and `run_all`: from a config to a run, recorded or trained; where all the parts meet."""

import contextlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor

import torch

from labkit.core import data as datasets
from labkit.core.config import Config, seed_range
from labkit.core.device import find_device
from labkit.core.log import say
from labkit.core.model import build
from labkit.core.network import own
from labkit.core.values import ConfigError
from labkit.core.words import plural
from labkit.lab import cost, workers
from labkit.lab.progress import Log, shown
from labkit.lab.reuse import ALWAYS, recorded, retrain_before, undamaged, valid
from labkit.lab.training import Steps, finish, threads, training_steps
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import Store, StoreWarning
from labkit.store.record import StoreError
from labkit.store.run import Run, utc_now


def run(
    config: Config,
    *,
    device: str = "auto",
    retrain: bool | str = False,
    log: str = "epoch",
    store: Store | None = None,
) -> Run:
    """The run of `config`: read from the store, or trained on `device` and kept there.

    A training that was interrupted goes on from its last checkpoint, with as many threads as it
    began with, and ends with the same bits if the type of machine and the versions are the same
    too. Ctrl-C and JupyterLab's stop button write a checkpoint. While another process trains the
    same run, this one waits for it. Where the store cannot be written the run is trained all the
    same, and a warning says that it is not kept.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        retrain: train even if the run is recorded; the new run takes the old one's place. A date
            and time (ISO 8601, UTC) means: if it was recorded before then.
        log: `epoch` for a line per epoch (in JupyterLab a live display), `iteration` for the
            original's line per iteration, `none` for silence.
        store: where runs are kept; by default this user's.

    Raises:
        LabkitError: the device or the data is not to be had, the device's memory does not
            suffice, or the run was recorded by a newer labkit.
    """
    if not isinstance(config, Config):
        said = f"config is a {type(config).__name__}; it must be a Config"
        raise ConfigError(f"{said}. Several configs by name are for run_all(settings).")
    options = {"device": device, "retrain": retrain, "log": log, "store": store}
    return run_all({config.setting(): config}, seeds=[config.seed], **options)[config.setting()][0]


def run_steps(
    config: Config,
    device: str,
    retrain: bool | str,
    log: Log,
    store: Store,
    *,
    away: bool = False,
) -> Steps:
    """`run`, one iteration at a time, so that other runs can go on in between.

    Args:
        away: whether who asks for the run claims it meanwhile, perhaps in this very store; then
            only others that train it for somebody are waited for.
    """
    where = find_device(device)
    digest = config.digest(datasets.checksum(config.dataset))
    before = retrain_before(retrain)
    checkpoint = Checkpoint(store.folder / f"{digest}{SUFFIX}")
    if found := recorded(store, digest, before):
        return reuse(found, checkpoint, log)
    with contextlib.ExitStack() as claimed:
        try:
            claimed.enter_context(store.claim(f"{digest}-away" if away else digest, log))
        except StoreError as error:
            sentence = f"{error} Until then the run is trained in memory and not kept."
            warnings.warn(sentence, StoreWarning, stacklevel=2)
            return (yield from training_steps(config, datasets.load(config.dataset), where, log))
        older = undamaged(store, digest)  # again: another process may have trained it meanwhile
        if older and valid(older, before):
            return reuse(older, checkpoint, log)
        # What a retraining may go on from is only what it has begun itself.
        started = checkpoint.started()  # "" if it cannot be read; then it is not deleted either
        of_older_run = older is not None and older.dated(started, utc_now())
        if started and (of_older_run or (before != ALWAYS and started < before)):
            checkpoint.remove()
        data = datasets.load(config.dataset)
        trained = yield from training_steps(config, data, where, log, checkpoint)
        try:
            trained = store.save(trained)
            checkpoint.remove()
        except StoreError as error:
            warnings.warn(f"{error} The run is in memory only.", StoreWarning, stacklevel=2)
        return trained


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


def run_all(
    settings: Mapping[str, Config],
    *,
    seeds: int | Iterable[int] = 1,
    device: str = "auto",
    retrain: bool | str = False,
    log: str = "epoch",
    store: Store | None = None,
    executor: Executor | None = None,
) -> dict[str, list[Run]]:
    """The runs of every setting with every seed: label → runs, in the order of the seeds.

    Several that must be trained are trained at once: on a CPU a process and a share of the cores
    for each, on an NVIDIA GPU in one process. The share follows from all the runs that are asked
    for, recorded or not: called again after a kill, each ends with the same bits. Asked for
    alone, a run has all the cores, and so other last bits. The other arguments are those of `run`.

    Args:
        seeds: how many (the seeds 0, 1, ...) or which.
        executor: what trains the runs instead, here or on other machines that have labkit, each in
            a process with as many threads as OMP_NUM_THREADS says there, or one. Checkpoints and a
            copy of each record stay in the store of that machine, which may be this one's.

    Raises:
        ConfigError: there are no such settings or seeds, or a batch would be a single image.
        LabkitError: as `run`; or the executor could not train some, once all others are kept.
    """
    if not isinstance(settings, Mapping) or not settings:
        said = "{}" if isinstance(settings, Mapping) else f"a {type(settings).__name__}"
        raise ConfigError(
            f"settings is {said}; it must be configs by name, as vary gives them, such as "
            '{"baseline": config}. One config alone is for run(config).'
        )
    chosen = list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str) else None
    chosen = chosen or list(seed_range(seeds))
    groups = {
        label: [config.replace(seed=seed) for seed in chosen] for label, config in settings.items()
    }
    configs = list(dict.fromkeys(config for group in groups.values() for config in group))
    labels = {c: next(label for label in groups if c in groups[label]) for c in configs}
    store, before = store or Store(), retrain_before(retrain)
    where = find_device("cpu" if executor else device)
    digests = {config: config.digest(datasets.checksum(config.dataset)) for config in configs}
    for config in configs:
        config.check_batches(datasets.training_images(config.dataset))
    runs = {c: r for c, digest in digests.items() if (r := recorded(store, digest, before))}
    for found in runs.values():
        reuse(found, Checkpoint(store.folder / f"{found.digest}{SUFFIX}"), "none")
    missing = [config for config in configs if config not in runs]
    for config in {config.replace(seed=0) for config in missing if own(config.model)}:
        channels, *pixels, classes = datasets.sizes(config.dataset)
        build(config, channels, classes, tuple(pixels))  # whether it can be, before any is trained
    cores, each = torch.get_num_threads(), workers.threads_each(configs)
    at_once, words = 1, ""
    if missing and not executor:
        for dataset in dict.fromkeys(config.dataset for config in missing):
            datasets.load(dataset)  # what cannot be had is said before anything is trained
        at_once = workers.together(missing, where, log, store)
        words = cost.notice(missing, where, store, at_once)
    with shown(log, labels, missing) as log:
        if runs:
            tell(log, list(runs.values()))
        if words:
            say(log, words)
        request = {"device": device, "retrain": retrain}
        if executor:
            request |= {"threads": None, "places": None, "path": None, "log": "none"}
            runs |= workers.sent(executor, missing, request, store, log)
        elif at_once > 1:
            request |= {"threads": each, "places": [str(place) for place in store.places]}
            runs |= workers.in_processes(missing, at_once, request, store, log)
        elif len(missing) > 1 and where.type == "cuda":
            # By name, so that two processes that share some of the runs never wait for each other.
            missing.sort(key=digests.get)
            named = "named" if log == "epoch" else log
            steps = [run_steps(config, device, retrain, named, store) for config in missing]
            runs |= zip(missing, workers.in_streams(steps, where), strict=True)
        for config in missing:
            if config not in runs:
                with threads(each if workers.worth(config) else cores):
                    runs[config] = finish(run_steps(config, device, retrain, log, store))
    return {label: [runs[config] for config in group] for label, group in groups.items()}
