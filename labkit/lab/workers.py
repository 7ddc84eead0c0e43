"""Several runs at once: on a CPU a process each, on an NVIDIA GPU a stream each."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Sequence
from typing import IO

import psutil
import torch

from labkit.core.config import Config
from labkit.core.log import say
from labkit.lab.progress import REPORT, Log, images
from labkit.lab.stopping import held
from labkit.lab.training import Steps, deterministic, interrupt
from labkit.store.folder import Store, StoreWarning
from labkit.store.run import Run

#: What a run must have to train, in images times epochs, to be worth a process: it starts in
#: seconds, and trains some 500 images in one.
WORTH = 20_000
#: Of memory for each process on a CPU, in bytes: a run on the full MNIST takes 1.3 GB.
MEMORY = 1.5e9
#: Runs at once on a GPU: more do not go faster.
STREAMS = 25
WARNING, STOPPED = "warning: ", "stopped: "  # how a line of a process begins that is one
#: What starts a process that trains one run; see `worker`.
COMMAND = (sys.executable, "-m", "labkit.lab.worker")


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


def processes(runs: int) -> int:
    """How many of `runs` go at once on this CPU: as many as cores and free memory allow."""
    fit = int(psutil.virtual_memory().available // MEMORY)
    return max(min(runs, torch.get_num_threads(), fit), 1)


def in_processes(
    configs: Iterable[Config], threads: int, store: Store, log: Log, retrain: bool | str
) -> list[Config]:
    """Train on the CPU, a process with so many `threads` for each run, and keep them in `store`;
    which were trained.

    A run whose process failed is left out, with a warning; its checkpoint stays. Where this process
    ends, the others do.
    """
    waiting = list(filter(worth, configs))[::-1]
    at_once = processes(len(waiting))
    if at_once < 2 or log == "iteration" or not store.writable():
        return []
    say(log, f"{len(waiting)} runs to train, {at_once} at a time")
    request = {"threads": threads, "retrain": retrain, "path": sys.path}
    request["log"] = {"none": "none", "epoch": "named"}.get(log, "report")
    request["places"] = [str(place) for place in store.places]
    lines: queue.SimpleQueue[tuple[Config, str | None]] = queue.SimpleQueue()  # None: it has ended
    active: dict[Config, subprocess.Popen[str]] = {}
    followers: list[threading.Thread] = []
    trained: list[Config] = []
    failed: dict[Config, str] = {}

    def follow(config: Config, child: subprocess.Popen[str], errors: IO[str]) -> None:
        """What the thread of a child does: pass on what it says."""
        failed[config] = "it could not be followed"
        try:
            with contextlib.suppress(BrokenPipeError), child:
                text = json.dumps(request | {"config": config.to_dict()})
                print(text, file=child.stdin, flush=True)
                for line in child.stdout:
                    lines.put((config, line.rstrip("\n")))
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"exit code {child.returncode}"]
            failed[config] = said[-1]
            if child.returncode == 0:
                del failed[config]
                trained.append(config)
        finally:
            errors.close()
            lines.put((config, None))

    try:
        while waiting or active:
            if waiting and len(active) < at_once:
                config = waiting.pop()
                errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (`follow` closes it)
                try:
                    with held():  # none is started that is not followed
                        active[config] = subprocess.Popen(
                            COMMAND,
                            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                            stdin=subprocess.PIPE,  # stays open: it ends when this process does
                            stdout=subprocess.PIPE,
                            stderr=errors,
                            text=True,
                        )
                        arguments = config, active[config], errors
                        followers.append(
                            threading.Thread(target=follow, args=arguments, daemon=True)
                        )
                        followers[-1].start()
                except OSError:
                    failed[config] = "it could not be started"
                continue
            config, line = lines.get()
            if line is None:
                del active[config]
            elif line.startswith(WARNING):
                warnings.warn(line.removeprefix(WARNING), StoreWarning, stacklevel=3)
            elif line.startswith(REPORT):
                log.note(config, *json.loads(line.removeprefix(REPORT)))
            else:
                say(log, line)
    except KeyboardInterrupt as stop:
        for child in active.values():
            child.terminate()  # it saves its state first
        for follower in followers:
            follower.join()
        while not lines.empty():
            line = lines.get()[1] or ""
            stop.args += (line.removeprefix(STOPPED),) * line.startswith(STOPPED)
        raise
    finally:
        for child in active.values():
            child.kill()
            child.wait()
    for config, reason in failed.items():
        warnings.warn(
            f"{config.describe()}: the process that trained it failed ({reason}); it is trained "
            "in this one.",
            StoreWarning,
            stacklevel=3,
        )
    return trained
