"""`train_one`, which an executor is given: a run trained in a process of its own, here or anywhere.

It needs no torch, so that what calls it is small and soon there.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.core.values import LabkitError

WARNING, STOPPED = "warning: ", "stopped: "  # how a line of a process begins that is one
#: What starts a process that trains one run; see `worker`.
COMMAND = (sys.executable, "-m", "labkit.lab.worker")


class WorkerError(LabkitError):
    """A run whose process failed."""


def train_one(
    request: Mapping[str, Any],
    lines: queue.SimpleQueue[tuple[str, str | subprocess.Popen[str]]] | None = None,
) -> tuple[bytes, bytes]:
    """Train a run in a process of its own; the two files of its record.

    The process ends when this one does, however it ends, and saves its state first.

    Args:
        request: plain values, read by `worker.child`: `config`, `digest`, `device`, `retrain`,
            `log`; `threads`, or None for as many as OMP_NUM_THREADS says here, else one; `places`,
            the folders of the store, or None for that of this machine; `path`, where Python
            finds modules, or None for as here.
        lines: gets the digest with the process, and then with each line that it prints; by default
            they are printed.

    Raises:
        WorkerError: the process failed; its last words.
    """
    threads = request["threads"] or os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0]
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as errors:
        try:
            child = subprocess.Popen(
                COMMAND,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                stdin=subprocess.PIPE,  # stays open: it ends when this process does
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        except OSError as error:
            raise WorkerError("it could not be started") from error
        with contextlib.suppress(BrokenPipeError), child:
            if lines:
                lines.put((request["digest"], child))
            asked = {**request, "threads": int(threads), "home": home}
            print(json.dumps(asked), file=child.stdin, flush=True)
            for line in child.stdout:
                if lines:
                    lines.put((request["digest"], line.rstrip("\n")))
                else:
                    print(line, end="", flush=True)
        files = [next(Path(home).glob(f"*{end}"), None) for end in (".json", ".npz")]
        if child.returncode or not all(files):
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"exit code {child.returncode}"]
            raise WorkerError(said[-1])
        text, packed = (path.read_bytes() for path in files)
        return text, packed
