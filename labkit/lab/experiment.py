"""`run` and `run_all`: from a config to a run, recorded or trained; where all the parts meet."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor

from labkit.core import data
from labkit.core.config import Config, seed_range
from labkit.core.device import check_device
from labkit.core.values import ConfigError
from labkit.lab.progress import shown
from labkit.lab.reuse import on_record, reuse, tell
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import Store
from labkit.store.run import Run


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
    too. Ctrl-C and JupyterLab's stop button write a checkpoint. While another process trains the
    same run, this one waits for it. Where the store cannot be written the run is trained all the
    same, and a warning says that it is not kept.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        retrain: train even if the run is recorded; the new run takes the old one's place. A date
            and time (ISO 8601, UTC) means: if it was recorded before then.
        log: `epoch` for a line per epoch (in JupyterLab a live display), `iteration` for the
            original's line per iteration, `none` for silence.
        store: where runs are kept; by default this user's.

    Raises:
        LabkitError: the device or the data is not to be had, the device's memory does not
            suffice, or the run was recorded by a newer labkit.
    """
    if not isinstance(config, Config):
        said = f"config is a {type(config).__name__}; it must be a Config"
        raise ConfigError(f"{said}. Several configs by name are for run_all(settings).")
    options = {"device": device, "retrain": retrain, "log": log, "store": store}
    return run_all({config.setting(): config}, seeds=[config.seed], **options)[config.setting()][0]


def run_all(
    settings: Mapping[str, Config],
    *,
    seeds: int | Iterable[int] = 1,
    device: str = "auto",
    retrain: bool | str = False,
    log: str = "epoch",
    store: Store | None = None,
    executor: Executor | None = None,
) -> dict[str, list[Run]]:
    """The runs of every setting with every seed: label → runs, in the order of the seeds.

    Several that must be trained are trained at once: on a CPU a process and a share of the cores
    for each, on an NVIDIA GPU in one process. The share follows from all the runs that are asked
    for, recorded or not: called again after a kill, each ends with the same bits. Asked for
    alone, a run has all the cores, and so other last bits. The other arguments are those of `run`.

    Args:
        seeds: how many (the seeds 0, 1, ...) or which.
        executor: what trains the runs instead, here or on other machines that have labkit, each in
            a process with as many threads as OMP_NUM_THREADS says there, or one. Checkpoints and a
            copy of each record stay in the store of that machine, which may be this one's.

    Raises:
        ConfigError: there are no such settings or seeds, or a batch would be a single image.
        LabkitError: as `run`; or the executor could not train some, once all others are kept.
    """
    if not isinstance(settings, Mapping) or not settings:
        said = "{}" if isinstance(settings, Mapping) else f"a {type(settings).__name__}"
        raise ConfigError(
            f"settings is {said}; it must be configs by name, as vary gives them, such as "
            '{"baseline": config}. One config alone is for run(config).'
        )
    chosen = list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str) else None
    chosen = chosen or list(seed_range(seeds))
    groups = {
        label: [config.replace(seed=seed) for seed in chosen] for label, config in settings.items()
    }
    configs = list(dict.fromkeys(config for group in groups.values() for config in group))
    labels = {c: next(label for label in groups if c in groups[label]) for c in configs}
    store = store or Store()
    check_device("cpu" if executor else device)
    runs = on_record(configs, retrain, store)
    for config in configs:
        config.check_batches(data.training_images(config.dataset))
    for found in runs.values():
        reuse(found, Checkpoint(store.folder / f"{found.digest}{SUFFIX}"), "none")
    missing = [config for config in configs if config not in runs]
    if missing:
        from labkit.lab import dispatch  # here, since what is recorded needs no torch

        plan = dispatch.planned(missing, configs, device, log, store, executor)
    with shown(log, labels, missing) as log:
        if runs:
            tell(log, list(runs.values()))
        if missing:
            runs |= dispatch.train(missing, plan, device, retrain, log, store, executor)
    return {label: [runs[config] for config in group] for label, group in groups.items()}
