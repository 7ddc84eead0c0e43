"""`labkit train`: the original's settings trained without a notebook."""

import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from labkit.core.config import SCALE_SEEDS, SCALES, Config, seed_range
from labkit.core.device import find_device
from labkit.core.values import LabkitError, choice
from labkit.core.words import plural
from labkit.judge.original import SECTIONS
from labkit.lab import cost, workers
from labkit.lab.cluster import dask as dask_executor
from labkit.lab.experiment import run_all
from labkit.lab.reuse import on_record
from labkit.report.notebook import check_names
from labkit.store.folder import Store
from labkit.store.groups import divergences


def train_all(
    *,
    scale: str = "paper",
    dataset: str | None = None,
    epochs: Any = None,
    seeds: Any = None,
    device: str = "auto",
    dask: str | None = None,
    retrain: bool = False,
    yes: bool = True,
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Train those runs of the original's five settings that are not recorded.

    `dataset`, `epochs` and `seeds` default to the scale's; `fields` of `Config` go to all settings.
    With `dask` see `cluster.dask`. Without `yes` it asks before long training, if there is a
    terminal.

    Raises:
        LabkitError: a value is not possible, it was stopped, or runs could not be trained.
    """
    scale = choice("scale", scale, SCALES)
    values = SCALES[scale] | {"dataset": dataset or SCALES[scale]["dataset"]}
    values |= {"epochs": epochs or SCALES[scale]["epochs"]}
    check_names(set(fields or {}), {field.name for field in dataclasses.fields(Config)} - {"seed"})
    varied = ("activation", "lr", "batch_size")
    named = [{name: getattr(section, name) for name in varied} for section in SECTIONS]
    configs = [Config(**values | setting | dict(fields or {})) for setting in named]
    settings = {config.setting(): config for config in configs}
    chosen = seed_range(seeds or SCALE_SEEDS[scale])
    wanted = [config.replace(seed=seed) for config in settings.values() for seed in chosen]
    store, where = Store(), find_device("cpu" if dask else device)
    kept = on_record(wanted, retrain, store)
    if missing := [config for config in wanted if config not in kept]:
        at_once = 1 if dask else workers.together(missing, where, "bar", store)
        seconds, words = cost.estimate(missing, where, store, at_once)
        cost.agreed(seconds, words + ", one after another" * bool(dask), yes)
    log = "bar" if sys.stderr.isatty() else "epoch"
    options = {"seeds": chosen, "device": device, "retrain": retrain, "log": log, "store": store}
    try:
        with contextlib.ExitStack() as closing:
            if dask and missing:
                executor = dask_executor(dask, len(missing), device)
                options["executor"] = closing.enter_context(executor)
            runs = run_all(settings, **options)
    except KeyboardInterrupt as stop:
        raise LabkitError(f"{', '.join(stop.args) or 'stopped; run again to go on'}.") from None
    print(f"{plural(len(wanted), 'run')} recorded, {len(missing)} of them now: {store.folder}")
    if lost := divergences(runs):
        print(lost)
