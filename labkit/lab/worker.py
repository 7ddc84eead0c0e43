"""The process that trains one run, see `task.train_one`."""

import _thread
import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import torch

from labkit.core.config import Config
from labkit.core.data import checksum
from labkit.core.values import LabkitError
from labkit.lab.dispatch import run_steps
from labkit.lab.task import STOPPED, WARNING
from labkit.lab.training import finish
from labkit.store.folder import Store
from labkit.store.record import Record


def end_with_parent() -> None:
    """Stop when the process that started this one ends, and so closes the standard input."""
    while os.read(0, 1):
        pass
    _thread.interrupt_main(signal.SIGTERM)


def child() -> None:
    """Train the one run that the first line of the standard input asks for."""
    # Ctrl-C reaches the parent too, which then says when to stop, and waits for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    warnings.showwarning = lambda message, *_: print(f"{WARNING}{message}", flush=True)
    torch.set_num_threads(request["threads"])
    sys.path[:] = request["path"] or sys.path  # where a network of the user's own is found
    try:
        found = train(request)
    except KeyboardInterrupt as stop:
        print(*(f"{STOPPED}{place}" for place in stop.args), sep="\n", flush=True)
        sys.exit("it was stopped")
    except LabkitError as error:
        sys.exit(str(error))
    found.write(Path(request["home"]))


def train(request: dict[str, Any]) -> Record:
    """The record of the run that is asked for, found or trained.

    Raises:
        LabkitError: as `run`; or this machine's images or labkit are others.
    """
    store, away = Store(), request["places"] is None
    if not away:
        places = [Path(place) for place in request["places"]]
        store = Store(places[0], shipped=None)
        store.places = places
    config, digest = Config(**request["config"]), request["digest"]
    if config.digest(checksum(config.dataset)) != digest:
        raise LabkitError(
            "the images or the labkit of the worker are other than those of who asks it; install "
            "the same there"
        )
    options = request["device"], request["retrain"], request["log"], store
    trained = finish(run_steps(config, *options, away=away))
    kept = store.record(digest) if trained.checksum else None
    return kept or Record.of(trained)


if __name__ == "__main__":
    child()
