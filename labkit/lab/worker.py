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


def child() -> None:
    """Train the one run that the first line of the standard input asks for."""
    request = json.loads(sys.stdin.readline())

    def end_with_parent() -> None:
        while os.read(0, 1):  # until its end is closed
            pass
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    warnings.showwarning = lambda message, *_: print(f"{WARNING}{message}", flush=True)
    torch.set_num_threads(request["threads"])
    store = Store(Path(request["places"][0]), shipped=None)
    store.places = [Path(place) for place in request["places"]]
    options = {"device": "cpu", "retrain": request["retrain"], "log": request["log"]}
    try:
        if not run(Config(**request["config"]), store=store, **options).checksum:
            sys.exit("it could not keep the run")  # an older one may be there, and is not it
    except DeviceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    child()
