"""Dask as what trains: on this machine, on a scheduler that is there, or on a SLURM cluster."""

import contextlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import torch

from labkit.core.values import LabkitError
from labkit.lab.workers import processes

PATIENCE = "10s"  # for a scheduler to answer
#: How often a run is tried again whose process failed; where a worker dies, Dask does so itself.
RETRIES = 2


@contextlib.contextmanager
def dask(where: str, runs: int, device: str = "auto") -> Iterator[Executor]:
    """An executor for `run_all`; the workers that it started end with the block.

    Args:
        where: "local" for workers of this machine, one per GPU or else per core; "slurm" for as
            many jobs as `runs` need, each as ~/.config/dask/jobqueue.yaml describes it; or the
            address of a scheduler, such as "tcp://host:8786".

    Raises:
        LabkitError: Dask is not installed, or there is no such cluster.
    """
    with contextlib.ExitStack() as closing:
        try:
            from distributed import Client  # here, since it is an extra

            cluster: Any = where
            if where in ("local", "slurm"):
                start = local if where == "local" else slurm
                cluster = closing.enter_context(start(runs, device))
            client = closing.enter_context(Client(cluster, timeout=PATIENCE))
        except ImportError as error:
            raise LabkitError(
                f"Dask is not installed ({error}); install it with: pip install 'labkit[cluster]'."
            ) from error
        except (OSError, ValueError, TypeError) as error:  # an address, or a setting of SLURM
            said = str(error).partition("\n")[0].rstrip(".")
            raise LabkitError(
                f"dask is {where!r}; it must be local, slurm or the address of a scheduler that "
                f"answers, such as tcp://host:8786 ({said})."
            ) from error
        yield client.get_executor(pure=False, retries=RETRIES)


def local(runs: int, device: str) -> Any:
    """A Dask cluster of this machine: a worker for each GPU, which sees no other, or each core."""
    from distributed import Nanny, Scheduler, SpecCluster

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    named = [seen[i] if seen[0] else str(i) for i in range(gpus)]
    own = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in named] or [{}] * processes(runs)
    # Loopback, since whoever reaches a scheduler can run anything.
    place = {"host": "127.0.0.1", "dashboard": False}
    usual = {"nthreads": 1, "memory_limit": None, "silence_logs": logging.ERROR}
    workers = [usual | place | {"env": env} for env in own]
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": place | {"port": 0}},
        workers={i: {"cls": Nanny, "options": options} for i, options in enumerate(workers)},
        silence_logs=logging.ERROR,
    )


def slurm(runs: int, device: str) -> Any:
    """A Dask cluster of SLURM jobs, begun while there are runs to train."""
    import dask
    from dask_jobqueue import SLURMCluster

    # Else Dask takes runs for short, and asks for a job or two.
    dask.config.set({"distributed.scheduler.unknown-task-duration": "1h"})
    cluster = SLURMCluster()
    cluster.adapt(maximum_jobs=runs)
    return cluster
