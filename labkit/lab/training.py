"""`training`: one run trained and measured, with its checkpoints; knows of no store."""

import contextlib
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from labkit.core import model as models
from labkit.core.config import TRAINING_VERSION, Config
from labkit.core.data import Data
from labkit.core.device import DeviceError
from labkit.core.evaluate import NO_ANSWERS, Predictions, predict, twin_of
from labkit.core.log import say
from labkit.core.measures import RECALIBRATED, RUNNING, STATISTICS, kept_as
from labkit.core.train import make_optimizer
from labkit.lab import progress, streams, workers
from labkit.lab.diagnostics import Diagnostics
from labkit.lab.graphs import fit, flushed_denormals
from labkit.lab.provenance import provenance, resumed
from labkit.lab.slim import slim
from labkit.store.checkpoint import Checkpoint
from labkit.store.run import HISTORY, RECALIBRATED_HISTORY, Run


def train_run(
    config: Config,
    data: Data,
    device: torch.device,
    log: str = "none",
    checkpoint: Checkpoint | None = None,
    diagnose: bool = True,
) -> Run:
    """Train and evaluate `config` on `data` on `device`; see `training`."""
    return workers.completed(training(config, data, device, log, checkpoint, diagnose))


def training(
    config: Config,
    data: Data,
    device: torch.device,
    log: str = "none",
    checkpoint: Checkpoint | None = None,
    diagnose: bool = True,
) -> workers.Training:
    """Train and evaluate `config` on `data` on `device`; keeps nothing but `checkpoint`.

    A generator that pauses after every iteration, and returns the run.

    Goes on where `checkpoint` holds a state, with the same numbers as if nothing had been in
    between, and saves one now and then. A loss that is not finite ends the training; the run then
    says where it diverged, and has no answers. What is measured on the way, and whether, changes
    nothing of what is trained: it is measured on a copy, with random streams of its own.

    Raises:
        DeviceError: the device's memory does not suffice, or the device was lost.
    """
    iterations = -(-len(data.train) // config.batch_size)
    total = config.epochs * iterations
    nothing = {"train": NO_ANSWERS, "test": NO_ANSWERS}
    answers: dict[str, dict[str, Predictions]] = dict.fromkeys(STATISTICS, nothing)
    with contextlib.ExitStack() as stack:
        stack.enter_context(named_failure(config, device))
        data = data.to(device)
        model = slim(models.build(config).to(device))
        twin = twin_of(model)
        diagnostics = Diagnostics(model, twin, data, config, total) if diagnose else None
        optimizer = make_optimizer(model, config)
        losses = torch.full((total,), torch.nan, device=device)
        own = streams.generators(config.seed, device)
        if checkpoint and (saved := checkpoint.load(device)):
            header, state = saved
            began = header["provenance"]
            # Sums come out the same only if as many threads share them.
            stack.enter_context(threads(began["threads"]))
            header["provenance"] = resumed(began, provenance(device))
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            losses = state["losses"]
            # One from before there were streams or diagnostics used none, and has none.
            streams.restore(own, state.get("streams", {}))
            if diagnostics:
                diagnostics.table |= state.get("diagnostics", {})
        else:
            header = {
                "recipe": TRAINING_VERSION,
                "config": config.to_dict(),
                "data_sha256": data.sha256,
                "provenance": provenance(device),  # now: the files may change while it trains
                "iterations": [0, iterations, total],  # done, of an epoch, in all
                "history": [],
                "seconds": 0.0,
                "epoch_seconds": 0.0,
                "spent": {"evaluation": 0.0, "diagnostics": 0.0},
            }
        history, done = header["history"], header["iterations"][0]
        spent = header.setdefault("spent", {"evaluation": 0.0, "diagnostics": 0.0})
        start = time.perf_counter() - header["seconds"]
        epoch_start = time.perf_counter() - header["epoch_seconds"]

        @contextlib.contextmanager
        def aside(what: str) -> Iterator[None]:
            """Count what is done in it as `what`, and not among an epoch's seconds of training."""
            nonlocal epoch_start
            begun = time.perf_counter()
            yield
            taken = time.perf_counter() - begun
            spent[what] += taken
            epoch_start += taken

        stack.enter_context(flushed_denormals(device))
        if diagnostics:
            with aside("diagnostics"):
                diagnostics.before(done)
        steps = streams.drawing_from(own, fit(model, optimizer, data, config, done))
        for loss in progress.track(steps, config, iterations, log, losses[:done].tolist()):
            losses[done] = loss
            done += 1
            if diagnostics:
                with aside("diagnostics"):
                    diagnostics.after(done)
            epoch, last = (done - 1) // iterations, done % iterations == 0
            so_far = losses[epoch * iterations : done]
            # Looking at a loss waits for the device: on a GPU once an epoch is enough.
            if (last or device.type == "cpu") and not so_far.isfinite().all():
                say(log, f"{config.describe()}: diverged in epoch {epoch}")
                answers = dict.fromkeys(STATISTICS, nothing)
                break
            if last:
                row = {"epoch": epoch, "loss": so_far.cpu().double().mean().item()}
                row["seconds"] = time.perf_counter() - epoch_start
                if config.epoch_accuracy or done == total:
                    with aside("evaluation"):
                        answers = predict(model, twin, data, config, done == total)
                    row |= accuracies(answers)
                history.append(row)
                epoch_start = time.perf_counter()
            if checkpoint and done < total and checkpoint.due():
                now = time.perf_counter()
                header |= {"iterations": [done, iterations, total], "history": history}
                header |= {"seconds": now - start, "epoch_seconds": now - epoch_start}
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {"losses": losses, "streams": streams.states(own)}
                if diagnostics:
                    state["diagnostics"] = diagnostics.table
                checkpoint.save(header, state)
                epoch_start += checkpoint.cost  # an epoch's seconds are those of training alone
            if diagnostics:
                with aside("diagnostics"):
                    diagnostics.before(done)
            yield
        kept = losses.view(config.epochs, iterations).cpu().numpy()
        measures = diagnostics.arrays() if diagnostics else {}

    lost = ~np.isfinite(kept.ravel())
    kept.ravel()[lost.argmax() if lost.any() else kept.size :] = np.nan
    columns = [*HISTORY, *RECALIBRATED_HISTORY]
    rows = pd.DataFrame(history, columns=columns, dtype=float).reindex(range(config.epochs))
    tested = answers[RUNNING]["test"]
    seconds = {"seconds": time.perf_counter() - start}
    seconds |= {f"{what}_seconds": taken for what, taken in spent.items()}
    return Run(
        config=config,
        data_sha256=data.sha256,
        iteration_loss=kept,
        history=rows.assign(epoch=range(config.epochs)),
        confusion={
            kept_as(split, statistics): answers[statistics][split].confusion()
            for statistics in (RUNNING, RECALIBRATED)
            for split in ("train", "test")
        },
        test_labels=tested.labels,
        test_predicted=tested.predicted,
        test_confidence=tested.confidence,
        measures=measures | answer_measures(answers),
        layers=diagnostics.layers if measures else {},
        provenance=header["provenance"] | {k: round(v, 2) for k, v in seconds.items()},
    )


def accuracies(answers: dict[str, dict[str, Predictions]]) -> dict[str, float]:
    """The accuracies of a row of `Run.history`."""
    return {
        kept_as(f"{split}_accuracy", statistics): said.accuracy()
        for statistics, by_split in answers.items()
        for split, said in by_split.items()
    }


def answer_measures(answers: dict[str, dict[str, Predictions]]) -> dict[str, np.ndarray]:
    """What a record has of the answers after the last epoch, see `measures`."""
    found = {}
    for statistics, said in answers.items():
        train, test = said["train"], said["test"]
        found |= {
            f"{statistics}_silent": test.silent,
            f"{statistics}_train_predicted": train.by_class(),
            f"{statistics}_train_confidence": train.confidences(),
        }
        if statistics != RUNNING:
            found |= {
                f"{statistics}_predicted": test.predicted,
                f"{statistics}_confidence": test.confidence,
            }
    return found


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def named_failure(config: Config, device: torch.device) -> Iterator[None]:
    """Turn what torch raises when memory or a device gives out into a sentence.

    Raises:
        DeviceError: names the setting to lower, or what to do.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        memory = ("out of memory", "not enough memory", "allocate memory")
        if isinstance(error, MemoryError) or any(words in said for words in memory):
            raise DeviceError(
                f"the memory of the device {device} does not suffice for batch_size "
                f"{config.batch_size}; lower batch_size, or end other programs that use it."
            ) from error
        if isinstance(error, torch.AcceleratorError) or "CUDA error" in said:
            raise DeviceError(
                f"the device {device} was lost ({said.splitlines()[0]}); start again in a new "
                "process, and the training goes on from its last checkpoint."
            ) from error
        raise
