"""Several runs at once: a stream each on an NVIDIA GPU, elsewhere a process each, near or far."""

import contextlib
import dataclasses
import itertools
import json
import queue
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import psutil
import torch

from labkit.core import data as datasets
from labkit.core.config import Config
from labkit.core.log import plain, say
from labkit.core.values import LabkitError
from labkit.lab.progress import REPORT, Log, home, images
from labkit.lab.reuse import retrain_before, undamaged, valid
from labkit.lab.task import STOPPED, WARNING, train_one
from labkit.lab.training import Steps, deterministic, interrupt
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import BusyError, Store, StoreWarning
from labkit.store.record import MOST_SAID, Record, StoreError
from labkit.store.run import Run

#: What a run must have to train, in images times epochs, to be worth a process: it starts in
#: seconds, and trains some 500 images in one.
WORTH = 20_000
#: Of memory for each process on a CPU, in bytes: a run on the full MNIST takes 1.3 GB.
MEMORY = 1.5e9
#: Runs at once on a GPU: more do not go faster. On an H200 a step at batch 64 took 1.36 ms alone,
#: 0.55 among 4 runs, 0.43 among 8 and 0.42 among 25.
STREAMS = 8
#: Runs that are with an executor at once; each holds a file open here.
AWAY = 500


def in_streams(trainings: Sequence[Steps], device: torch.device) -> list[Run]:
    """Train all on one GPU, a step of each in turn; the runs in their order.

    A training is begun while the GPU's free memory suffices for one more as large as the largest
    so far. At batch 64 a step alone leaves most of a GPU idle.

    Raises:
        DeviceError: the memory does not suffice for one alone, or the device was lost.
    """
    waiting = list(enumerate(trainings))[::-1]
    active: dict[int, tuple[Steps, torch.cuda.Stream]] = {}
    done: dict[int, Run] = {}
    largest = 0
    with deterministic(), contextlib.ExitStack() as closing:
        for steps in trainings:
            closing.callback(steps.close)  # frees its lock if another fails
        try:
            while waiting or active:
                free = torch.cuda.mem_get_info(device)[0]
                if waiting and (not active or (free > 1.5 * largest and len(active) < STREAMS)):
                    number, steps = waiting.pop()
                    active[number] = steps, torch.cuda.Stream(device)
                for number, (steps, stream) in list(active.items()):
                    try:
                        with torch.cuda.stream(stream):
                            next(steps)
                    except StopIteration as end:
                        done[number] = end.value
                        del active[number]
                largest = max(largest, free - torch.cuda.mem_get_info(device)[0])
        except KeyboardInterrupt as stop:
            for steps, stream in active.values():
                with torch.cuda.stream(stream):
                    stop.args += interrupt(steps)
            raise
    return [done[number] for number in range(len(trainings))]


def worth(config: Config) -> bool:
    """Whether a run is long enough for a process of its own."""
    return images(config) >= WORTH


def threads_each(configs: Iterable[Config]) -> int:
    """The threads of each run of one call that is worth a process: its share of the cores.

    A core trains more images with a run of its own than as a part of all cores on one run, since
    the small maps of the last groups are hard to share.

    Sums come out the same to the last bit only if as many threads share them. So the threads
    follow from all that the call asks for, and from nothing that another call of the same may find
    changed: what is recorded already, how much memory is free, which process failed.
    """
    return max(torch.get_num_threads() // max(sum(map(worth, configs)), 1), 1)


def together(missing: Sequence[Config], where: torch.device, log: Log, store: Store) -> int:
    """How many runs are trained at once here, each in a process of its own."""
    if where.type != "cpu" or log == "iteration" or not store.writable():
        return 1
    return processes(sum(map(worth, missing)))


def processes(runs: int) -> int:
    """How many of `runs` go at once on this CPU: as many as cores and free memory allow."""
    fit = int(psutil.virtual_memory().available // MEMORY)
    return max(min(runs, torch.get_num_threads(), fit), 1)


def in_processes(
    missing: Sequence[Config], at_once: int, request: dict[str, Any], store: Store, log: Log
) -> dict[Config, Run]:
    """Train on the CPU, a process for each run that is worth one, and keep them.

    A run whose process failed is left out, with a warning; its checkpoint stays.
    """
    request["path"] = sys.path
    request["log"] = {"none": "none", "epoch": "named"}.get(log, "report")
    requests = ((config, request | asked(config)) for config in filter(worth, missing))
    runs = {}
    with (
        ThreadPoolExecutor(at_once) as threads,
        contextlib.closing(in_executor(threads, requests, at_once, log, here=True)) as coming,
    ):
        for config, came in coming:
            if isinstance(came, str):
                sentence = f"the process that trained it failed ({came}); it is trained in this one"
                warnings.warn(f"{config.describe()}: {sentence}.", StoreWarning, stacklevel=4)
            else:
                runs[config] = kept(store, came)
    return runs


def sent(
    executor: Executor, missing: Sequence[Config], request: dict[str, Any], store: Store, log: Log
) -> dict[Config, Run]:
    """Let an executor train the runs, wherever it does; keep what comes home.

    While a run is away it is claimed here, so that nobody else trains it. Those that another
    process has claimed come last.

    Raises:
        LabkitError: names the runs that could not be trained; all others are kept.
    """
    before = retrain_before(request["retrain"])
    runs: dict[Config, Run] = {}
    failed: dict[Config, str] = {}
    claims = {config: contextlib.ExitStack() for config in missing}

    def claimed(configs: Sequence[Config], wait: bool) -> Iterator[tuple[Config, dict[str, Any]]]:
        for config in configs:
            named = asked(config)
            with contextlib.suppress(BusyError):
                claims[config].enter_context(store.claim(named["digest"], log, wait))
                found = undamaged(store, named["digest"])
                if found and valid(found, before):  # trained by another process meanwhile
                    runs[config] = found
                    claims[config].close()
                else:
                    yield config, request | named

    left, wait = list(missing), False
    try:
        while left:
            # Who waits for a claim must hold none, or two processes may wait for each other.
            requests = claimed(left[:1] if wait else left, wait)
            for config, came in in_executor(executor, requests, AWAY, log):
                if isinstance(came, str):
                    failed[config] = came
                    sentence = f"{config.describe()} could not be trained: {came}."
                    warnings.warn(sentence, StoreWarning, stacklevel=4)
                else:
                    runs[config] = kept(store, came)
                    home(log, runs[config])
                claims[config].close()
            rest = [config for config in left if config not in runs and config not in failed]
            wait, left = len(rest) == len(left), rest
    finally:
        for claim in claims.values():
            claim.close()
    if failed:
        named = "; ".join(f"{config.describe()} ({why})" for config, why in failed.items())
        raise LabkitError(
            f"{len(failed)} of {len(missing)} runs could not be trained: {named[:MOST_SAID]}. What "
            "was trained is kept; the same call trains the others."
        )
    return runs


def asked(config: Config) -> dict[str, Any]:
    """What a request says of the run of `config`."""
    return {"config": config.to_dict(), "digest": config.digest(datasets.checksum(config.dataset))}


def kept(store: Store, record: Record) -> Run:
    """The run of a record that was trained in another process; keeps it."""
    checksum = record.run.checksum
    try:
        store.keep(record)
        Checkpoint(store.folder / f"{record.run.digest}{SUFFIX}").remove()
    except StoreError as error:
        warnings.warn(f"{error} The run is in memory only.", StoreWarning, stacklevel=2)
        checksum = ""
    return dataclasses.replace(record.run, recorded=False, checksum=checksum)


def in_executor(
    executor: Executor,
    requests: Iterable[tuple[Config, dict[str, Any]]],
    at_once: int,
    log: Log,
    *,
    here: bool = False,
) -> Iterator[tuple[Config, Record | str]]:
    """Let an executor `train_one` for each request, at most so many at once; as they come, each
    run's record, checked, or why there is none.

    At an interrupt, whose arguments then say where runs were, none is begun any more. Those of
    other machines go on to their end, or until their executor stops them.

    Args:
        requests: taken one by one, when there is room.
        here: whether the executor's tasks are threads of this process, which can say how far they
            are, and be stopped.
    """
    requests = iter(requests)
    lines: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()  # None: it has ended
    active: dict[str, tuple[Config, Future[tuple[bytes, bytes]]]] = {}
    children: dict[str, subprocess.Popen[str]] = {}
    try:
        while True:
            for config, request in itertools.islice(requests, at_once - len(active)):
                name = request["digest"]
                future = executor.submit(train_one, request, *[lines] * here)
                active[name] = config, future
                future.add_done_callback(lambda _, name=name: lines.put((name, None)))
            if not active:
                return
            name, said = lines.get()
            config, future = active[name]
            if isinstance(said, subprocess.Popen):
                children[name] = said
            elif said is None:
                del active[name]
                yield config, outcome(name, future)
            elif said.startswith(WARNING):
                warnings.warn(said.removeprefix(WARNING), StoreWarning, stacklevel=4)
            elif said.startswith(REPORT):
                log.note(config, *json.loads(said.removeprefix(REPORT)))
            else:
                say(log, said)
    except BaseException as stop:
        for child in children.values():
            child.terminate()  # it saves its state first
        for _, future in active.values():
            future.cancel()
        while here and active:
            name, said = lines.get()
            if isinstance(said, subprocess.Popen):
                said.terminate()
            elif said is None:
                del active[name]
            elif said.startswith(STOPPED):
                stop.args += (said.removeprefix(STOPPED),)
        raise
    finally:
        for child in children.values():
            child.kill()


def outcome(digest: str, future: Future[tuple[bytes, bytes]]) -> Record | str:
    """The record that a future brings home, or why there is none."""
    try:
        return Record.received(digest, *future.result())
    except Exception as error:  # as many kinds as there are executors
        said = str(error).splitlines() or [type(error).__name__]
        return plain(said[0]).rstrip(".")[:MOST_SAID]
