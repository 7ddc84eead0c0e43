"""`run` and `run_all`: from a config to a run, recorded or trained; where all the parts meet."""

import contextlib
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import torch

from labkit import data as datasets
from labkit import fast, parallel, progress, streams
from labkit import model as models
from labkit.checkpoint import SUFFIX, Checkpoint
from labkit.config import RECIPE, Config, ConfigError, flag, seed_range
from labkit.diagnostics import Diagnostics
from labkit.evaluate import NO_ANSWERS, Predictions, predict, twin_of
from labkit.fast import fit, slim
from labkit.measures import RECALIBRATED, RUNNING, STATISTICS
from labkit.provenance import provenance, resumed
from labkit.runs import HISTORY, RECALIBRATED_HISTORY, Run, utc_now
from labkit.store import DamagedError, Store, StoreError, StoreWarning, set_aside
from labkit.train import make_optimizer


def run(
    config: Config,
    *,
    device: str = "auto",
    retrain: bool | str = False,
    log: str = "epoch",
    store: Store | None = None,
) -> Run:
    """The run of `config`: read from the store, or trained on `device` and kept there.

    A training that was interrupted goes on from its last checkpoint, with as many threads as it
    began with, and ends with the same bits if the type of machine and the versions are the same
    too. While another process trains the same run, this one waits for it. Where the store cannot
    be written the run is trained all the same, and a warning says that it is not kept.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        retrain: train even if the run is recorded; the new run takes the old one's place. A date
            and time (ISO 8601, UTC) means: if it was recorded before then.
        log: `epoch` for a line an epoch (in JupyterLab a live curve), `iteration` for the
            original's line an iteration, `none` for silence.
        store: where runs are kept; by default this user's.

    Raises:
        LabkitError: the device or the data is not to be had, the device's memory does not
            suffice, or the run was recorded by a newer labkit.
    """
    return parallel.completed(running(config, device, retrain, log, store))


def running(
    config: Config, device: str, retrain: bool | str, log: str, store: Store | None
) -> parallel.Training:
    """`run`, step by step, so that others can go on in between."""
    store = store or Store()
    where = datasets.find_device(device)
    sha256 = datasets.checksum(config.dataset)
    before = retrain_before(retrain)
    digest = config.digest(sha256)
    checkpoint = Checkpoint(store.folder / f"{digest}{SUFFIX}")
    with contextlib.suppress(DamagedError):
        if current(found := store.get(digest), before):
            return already(found, checkpoint, log)
    with contextlib.ExitStack() as claimed:
        try:
            claimed.enter_context(store.claim(digest, log))
        except StoreError as error:
            warn(f"{error} Until then the run is trained in memory and not kept.")
            return (yield from training(config, datasets.load(config.dataset), where, log))
        try:
            found = store.get(digest)  # again: another process may have trained it meanwhile
        except DamagedError as error:
            set_aside(error)
            found = None
        if current(found, before):
            return already(found, checkpoint, log)
        # What a retraining may go on from is only what it has begun itself.
        started = checkpoint.started()  # "" if it cannot be read; then it is not deleted either
        if started and (
            (found and found.dated(started, utc_now())) or (before != ALWAYS and started < before)
        ):
            checkpoint.remove()
        data = datasets.load(config.dataset)
        trained = yield from training(config, data, where, log, checkpoint)
        try:
            trained = store.save(trained)
            checkpoint.remove()
        except StoreError as error:
            warn(f"{error} It is in memory alone.")
        return trained


def already(found: Run, checkpoint: Checkpoint, log: str) -> Run:
    """A recorded run, said to be so; the checkpoint goes that a kill after the end has left."""
    progress.say(log, f"{found.config.describe()}: recorded {found.provenance['date'][:10]}")
    with contextlib.suppress(OSError):
        if checkpoint.started() == found.provenance["date"]:
            checkpoint.remove()
    return found


def warn(sentence: str) -> None:
    """Warn of something about the kept runs that does not stop the training."""
    warnings.warn(sentence, StoreWarning, stacklevel=3)


def run_all(
    settings: Mapping[str, Config],
    *,
    seeds: int | Iterable[int] = 1,
    device: str = "auto",
    retrain: bool | str = False,
    log: str = "epoch",
    store: Store | None = None,
) -> dict[str, list[Run]]:
    """The runs of every setting with every seed: label → runs, in the order of the seeds.

    Several that must be trained are trained at once: on a CPU a process and a share of the cores
    for each, on an NVIDIA GPU in one process. The share follows from all the runs that are asked
    for, recorded or not: called again after a kill, each ends with the same bits. Asked for
    alone, a run has all the cores, and so other last bits. The other arguments are those of `run`.

    Args:
        seeds: how many (the seeds 0, 1, ...) or which.

    Raises:
        ConfigError: there are no such seeds.
        LabkitError: as `run`.
    """
    chosen = list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str) else None
    chosen = chosen or list(seed_range(seeds))
    groups = {
        label: [config.replace(seed=seed) for seed in chosen] for label, config in settings.items()
    }
    configs = list(dict.fromkeys(config for group in groups.values() for config in group))
    cores, each = torch.get_num_threads(), parallel.threads_each(configs)
    runs = at_once(configs, each, device, retrain, log, store or Store())
    for config in configs:
        if config not in runs:
            with threads(each if parallel.worth(config) else cores):
                runs[config] = run(config, device=device, retrain=retrain, log=log, store=store)
    return {label: [runs[config] for config in group] for label, group in groups.items()}


def at_once(
    configs: list[Config], each: int, device: str, retrain: bool | str, log: str, store: Store
) -> dict[Config, Run]:
    """Those of the runs that are trained several at a time, on a CPU with `each` so many threads;
    the others are left out."""
    where = datasets.find_device(device)
    before = retrain_before(retrain)
    sha256 = {c.dataset: datasets.checksum(c.dataset) for c in configs}
    missing = []
    for config in configs:
        with contextlib.suppress(DamagedError):
            if current(store.find(config, sha256[config.dataset]), before):
                continue
        missing.append(config)
    if len(missing) < 2 or where.type not in ("cpu", "cuda"):
        return {}
    if where.type == "cpu":
        return parallel.in_processes(missing, each, sha256, store, log, retrain)
    # By name, so that two processes that share some of the runs never wait for each other.
    missing.sort(key=lambda config: config.digest(sha256[config.dataset]))
    named = {"epoch": "named"}.get(log, log)
    waiting = [running(config, device, retrain, named, store) for config in missing]
    return dict(zip(missing, parallel.in_streams(waiting, where), strict=True))


ALWAYS = "9999"  # later than any date: every recorded run is trained again


def current(found: Run | None, before: str) -> bool:
    """Whether there is a run that need not be trained again.

    A date that is still to come is wrong, and does not say that it was trained since `before`.
    """
    return found is not None and (not before or found.dated(before, utc_now()))


def retrain_before(retrain: bool | str) -> str:
    """The date before which recorded runs are trained again, as ISO text that can be compared.

    Raises:
        ConfigError: neither true, false nor a date.
    """
    try:
        if isinstance(retrain, str):
            date = datetime.fromisoformat(retrain.strip())
            return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC).isoformat()
    except ValueError:
        pass
    try:
        return ALWAYS if flag("retrain", retrain) else ""
    except ConfigError:
        raise ConfigError(
            f"retrain is {retrain!r}; it must be true, false or a date as 2026-11-30T18:00."
        ) from None


def train_run(
    config: Config,
    data: datasets.Data,
    device: torch.device,
    log: str = "none",
    checkpoint: Checkpoint | None = None,
    diagnose: bool = True,
) -> Run:
    """Train and evaluate `config` on `data` on `device`; see `training`."""
    return parallel.completed(training(config, data, device, log, checkpoint, diagnose))


def training(
    config: Config,
    data: datasets.Data,
    device: torch.device,
    log: str = "none",
    checkpoint: Checkpoint | None = None,
    diagnose: bool = True,
) -> parallel.Training:
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
                "recipe": RECIPE,
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

        stack.enter_context(fast.flushed_denormals(device))
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
                progress.say(log, f"{config.describe()}: diverged in epoch {epoch}")
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
    running, recalibrated = answers[RUNNING], answers[RECALIBRATED]
    seconds = {"seconds": time.perf_counter() - start}
    seconds |= {f"{what}_seconds": taken for what, taken in spent.items()}
    return Run(
        config=config,
        data_sha256=data.sha256,
        iteration_loss=kept,
        history=rows.assign(epoch=range(config.epochs)),
        confusion={split: said.confusion() for split, said in running.items()}
        | {f"{split}_{RECALIBRATED}": said.confusion() for split, said in recalibrated.items()},
        test_labels=running["test"].labels,
        test_predicted=running["test"].predicted,
        test_confidence=running["test"].confidence,
        measures=measures | answer_measures(answers),
        layers=diagnostics.layers if measures else {},
        provenance=header["provenance"] | {k: round(v, 2) for k, v in seconds.items()},
    )


def accuracies(answers: dict[str, dict[str, Predictions]]) -> dict[str, float]:
    """The accuracies of a row of `Run.history`."""
    return {
        f"{split}_accuracy" + f"_{statistics}" * (statistics != RUNNING): said.accuracy()
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
            raise datasets.DeviceError(
                f"the memory of the device {device} does not suffice for batch_size "
                f"{config.batch_size}; lower batch_size, or end other programs that use it."
            ) from error
        if isinstance(error, torch.AcceleratorError) or "CUDA error" in said:
            raise datasets.DeviceError(
                f"the device {device} was lost ({said.splitlines()[0]}); start again in a new "
                "process, and the training goes on from its last checkpoint."
            ) from error
        raise
