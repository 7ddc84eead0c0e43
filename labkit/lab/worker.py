"""The process that trains one run, see `workers.in_processes`."""

import json
import os
import sys
import threading
import warnings
from pathlib import Path

import torch

from labkit.core.config import Config
from labkit.core.device import DeviceError
from labkit.lab.experiment import run
from labkit.lab.workers import WARNING
from labkit.store.folder import Store


def end_with_parent() -> None:
    """End this process when the one that started it ends, and so closes the standard input."""
    while os.read(0, 1):
        pass
    os._exit(1)


def child() -> None:
    """Train the one run that the first line of the standard input asks for."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    warnings.showwarning = lambda message, *_: print(f"{WARNING}{message}", flush=True)
    torch.set_num_threads(request["threads"])
    places = [Path(place) for place in request["places"]]
    store = Store(places[0], shipped=None)
    store.places = places
    options = {name: request[name] for name in ("retrain", "log")}
    try:
        trained = run(Config(**request["config"]), device="cpu", store=store, **options)
    except DeviceError as error:
        sys.exit(str(error))
    if not trained.checksum:
        sys.exit("it could not keep the run")  # an older one may be there, and is not it


if __name__ == "__main__":
    child()
