"""The process that trains one run, see `workers.in_processes`."""

import _thread
import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

import torch

from labkit.core.config import Config
from labkit.core.values import LabkitError
from labkit.lab.experiment import run_steps
from labkit.lab.training import finish
from labkit.lab.workers import STOPPED, WARNING
from labkit.store.folder import Store


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
    sys.path[:] = request["path"]  # where a network of the user's own is found
    places = [Path(place) for place in request["places"]]
    store = Store(places[0], shipped=None)
    store.places = places
    config, options = Config(**request["config"]), (request["retrain"], request["log"])
    try:
        trained = finish(run_steps(config, "cpu", *options, store))
    except KeyboardInterrupt as stop:
        print(*(f"{STOPPED}{place}" for place in stop.args), sep="\n", flush=True)
        sys.exit("it was stopped")
    except LabkitError as error:
        sys.exit(str(error))
    if not trained.checksum:
        sys.exit("it could not keep the run")  # an older one may be there, and is not it


if __name__ == "__main__":
    child()
