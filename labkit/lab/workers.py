"""Several runs at once: on a CPU a process each, on an NVIDIA GPU a stream each."""

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import torch

from labkit.core.config import DATASETS, Config
from labkit.core.log import say
from labkit.store.folder import Store, StoreWarning
from labkit.store.run import Run

#: What a run must have to train, in images times epochs, to be worth a process: it starts in
#: seconds, and trains some 500 images in one.
WORTH = 20_000
#: Of memory for each process on a CPU, in bytes: a run on the full MNIST takes 1.3 GB.
MEMORY = 1.5e9
#: Runs at once on a GPU: more do not go faster.
STREAMS = 25
WARNING = "warning: "
#: What starts a process that trains one run; see `worker`.
COMMAND = (sys.executable, "-m", "labkit.lab.worker")

Training = Generator[None, None, Run]  # trains while it is iterated over, and returns its run


def completed(training: Training) -> Run:
    """Train to the end."""
    with deterministic():
        while True:
            try:
                next(training)
            except StopIteration as end:
                return end.value


def deterministic() -> contextlib.AbstractContextManager[None]:
    """In it one seed gives one result on a GPU too; it holds for all runs that go on within."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False)


def in_streams(waiting: Sequence[Training], device: torch.device) -> list[Run]:
    """Train all on one GPU, a step of each in turn; the runs in their order.

    A training is begun while the GPU's free memory suffices for one more as large as the largest
    so far. At batch 64 a step alone leaves most of a GPU idle.

    Raises:
        DeviceError: the memory does not suffice for one alone, or the device was lost.
    """
    queued = list(enumerate(waiting))[::-1]
    active: dict[int, tuple[Training, torch.cuda.Stream]] = {}
    done: dict[int, Run] = {}
    largest = 0
    with deterministic(), contextlib.ExitStack() as closing:
        for training in waiting:
            closing.callback(training.close)  # frees its lock if another fails
        while queued or active:
            free = torch.cuda.mem_get_info(device)[0]
            if queued and (not active or (free > 1.5 * largest and len(active) < STREAMS)):
                number, training = queued.pop()
                active[number] = training, torch.cuda.Stream(device)
            for number, (training, stream) in list(active.items()):
                try:
                    with torch.cuda.stream(stream):
                        next(training)
                except StopIteration as end:
                    done[number] = end.value
                    del active[number]
            largest = max(largest, free - torch.cuda.mem_get_info(device)[0])
    return [done[number] for number in range(len(waiting))]


def worth(config: Config) -> bool:
    """Whether a run is long enough for a process of its own."""
    return DATASETS[config.dataset][0] * config.epochs >= WORTH


def threads_each(configs: Iterable[Config]) -> int:
    """The threads of each run of one call that is worth a process: its share of the cores.

    A core trains more images with a run of its own than as a part of all cores on one run, since
    the small maps of the last groups are hard to share.

    Sums come out the same to the last bit only if as many threads share them. So the threads
    follow from all that the call asks for, and from nothing that another call of the same may find
    changed: what is recorded already, how much memory is free, which process failed.
    """
    return max(torch.get_num_threads() // max(sum(map(worth, configs)), 1), 1)


def processes(runs: int) -> int:
    """How many of `runs` go at once on this CPU: as many as cores and free memory allow."""
    fit = int(psutil.virtual_memory().available // MEMORY)
    return max(min(runs, torch.get_num_threads(), fit), 1)


def writable(store: Store) -> bool:
    """Whether runs can be kept there, and so be handed on from one process to another."""
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=store.folder).close()
    except OSError:
        return False
    return True


def in_processes(
    configs: Iterable[Config],
    threads: int,
    sha256: dict[str, str],
    store: Store,
    log: str,
    retrain: Any,
) -> dict[Config, Run]:
    """Train on the CPU, a process for each run, and keep them in `store`.

    A run whose process failed is left out, with a warning; its checkpoint stays. Where this process
    ends, the others do.

    Args:
        configs: of runs that are to be trained.
        threads: of each.
        sha256: the checksum of each dataset.
    """
    configs = list(filter(worth, configs))
    many = processes(len(configs))
    if many < 2 or log == "iteration" or not writable(store):
        return {}
    say(log, f"{len(configs)} runs to train, {many} at a time")
    log = "none" if log == "none" else "named"
    places = [str(place) for place in store.places]
    request = {"threads": threads, "log": log, "retrain": retrain, "places": places}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    children: list[subprocess.Popen[str]] = []
    failed: dict[Config, str] = {}
    stopped = threading.Event()

    def train(config: Config) -> None:
        with contextlib.ExitStack() as ending:
            ending.callback(lines.put, None)
            if stopped.is_set():
                return
            failed[config] = "it could not be started"
            errors = ending.enter_context(tempfile.TemporaryFile("w+"))
            child = subprocess.Popen(
                COMMAND,
                env=environment,
                stdin=subprocess.PIPE,  # stays open: it ends when this process does
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            children.append(child)
            if stopped.is_set():
                child.kill()
            with contextlib.suppress(BrokenPipeError), child:
                text = json.dumps(request | {"config": config.to_dict()})
                print(text, file=child.stdin, flush=True)
                for line in child.stdout:
                    lines.put(line.rstrip("\n"))
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"exit code {child.returncode}"]
            failed[config] = said[-1]
            if child.returncode == 0:
                del failed[config]

    with ThreadPoolExecutor(many) as pool, contextlib.ExitStack() as ending:
        ending.callback(lambda: [child.kill() for child in children])
        ending.callback(stopped.set)
        for config in configs:
            pool.submit(train, config)
        running = len(configs)
        while running:
            line = lines.get()
            if line is None:
                running -= 1
            elif line.startswith(WARNING):
                warnings.warn(line.removeprefix(WARNING), StoreWarning, stacklevel=3)
            else:
                say(log, line)
    for config, reason in failed.items():
        warnings.warn(
            f"{config.describe()}: the process that trained it failed ({reason}); it is trained "
            "in this one.",
            StoreWarning,
            stacklevel=3,
        )
    kept = {c: store.find(c, sha256[c.dataset]) for c in configs if c not in failed}
    return {c: dataclasses.replace(run, recorded=False) for c, run in kept.items() if run}
