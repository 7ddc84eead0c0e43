"""Training the runs that are not recorded: one after another, or several at once."""

import contextlib
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch

from labkit.core import data
from labkit.core.config import Config
from labkit.core.device import find_device
from labkit.core.log import say
from labkit.core.model import build
from labkit.core.network import own
from labkit.lab import cost, workers
from labkit.lab.progress import Log
from labkit.lab.reuse import ALWAYS, recorded, retrain_before, reuse, undamaged, valid
from labkit.lab.training import Steps, finish, threads, training_steps
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import Store, StoreWarning
from labkit.store.record import StoreError
from labkit.store.run import Run, utc_now


@dataclass(frozen=True)
class Plan:
    """How runs are to be trained.

    Attributes:
        where: by which device.
        each: the threads of each run that is worth a process.
        at_once: how many processes.
        words: what is said beforehand; "" where there is nothing to say.
    """

    where: torch.device
    each: int
    at_once: int = 1
    words: str = ""


def planned(
    missing: Sequence[Config],
    configs: Sequence[Config],
    device: str,
    log: str,
    store: Store,
    executor: Executor | None,
) -> Plan:
    """How to train the runs that are `missing` of those that are asked for, `configs`.

    Raises:
        LabkitError: the device or some images are not to be had, or a network cannot be built: said
            before anything is trained.
    """
    where, each = find_device("cpu" if executor else device), workers.threads_each(configs)
    for config in {config.replace(seed=0) for config in missing if own(config.model)}:
        channels, *pixels, classes = data.sizes(config.dataset)
        build(config, channels, classes, tuple(pixels))
    if executor:
        return Plan(where, each)
    for dataset in dict.fromkeys(config.dataset for config in missing):
        data.load(dataset)
    at_once = workers.together(missing, where, log, store)
    return Plan(where, each, at_once, cost.notice(missing, where, store, at_once))


def train(
    missing: Sequence[Config],
    plan: Plan,
    device: str,
    retrain: bool | str,
    log: Log,
    store: Store,
    executor: Executor | None,
) -> dict[Config, Run]:
    """Train them all, and keep them; the arguments are those of `run_all`."""
    if plan.words:
        say(log, plan.words)
    runs: dict[Config, Run] = {}
    request = {"device": device, "retrain": retrain}
    if executor:
        request |= {"threads": None, "places": None, "path": None, "log": "none"}
        runs = workers.sent(executor, missing, request, store, log)
    elif plan.at_once > 1:
        request |= {"threads": plan.each, "places": [str(place) for place in store.places]}
        runs = workers.in_processes(missing, plan.at_once, request, store, log)
    elif len(missing) > 1 and plan.where.type == "cuda":
        # By name, so that two processes that share some of the runs never wait for each other.
        missing = sorted(missing, key=lambda c: c.digest(data.checksum(c.dataset)))
        named = "named" if log == "epoch" else log
        steps = [run_steps(config, device, retrain, named, store) for config in missing]
        runs = dict(zip(missing, workers.in_streams(steps, plan.where), strict=True))
    cores = torch.get_num_threads()
    for config in missing:
        if config not in runs:
            with threads(plan.each if workers.worth(config) else cores):
                runs[config] = finish(run_steps(config, device, retrain, log, store))
    return runs


def run_steps(
    config: Config,
    device: str,
    retrain: bool | str,
    log: Log,
    store: Store,
    *,
    away: bool = False,
) -> Steps:
    """`experiment.run`, one iteration at a time, so that other runs can go on in between.

    Args:
        away: whether who asks for the run claims it meanwhile, perhaps in this very store; then
            only others that train it for somebody are waited for.
    """
    where = find_device(device)
    digest = config.digest(data.checksum(config.dataset))
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
            return (yield from training_steps(config, data.load(config.dataset), where, log))
        older = undamaged(store, digest)  # again: another process may have trained it meanwhile
        if older and valid(older, before):
            return reuse(older, checkpoint, log)
        # What a retraining may go on from is only what it has begun itself.
        started = checkpoint.started()  # "" if it cannot be read; then it is not deleted either
        of_older_run = older is not None and older.dated(started, utc_now())
        if started and (of_older_run or (before != ALWAYS and started < before)):
            checkpoint.remove()
        images = data.load(config.dataset)
        trained = yield from training_steps(config, images, where, log, checkpoint)
        try:
            trained = store.save(trained)
            checkpoint.remove()
        except StoreError as error:
            warnings.warn(f"{error} The run is in memory only.", StoreWarning, stacklevel=2)
        return trained
