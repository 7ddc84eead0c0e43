"""A store of a thousand small runs, and what labkit does with it.

Trains one epoch of mnist-5k for each of two settings, and writes the records again under many
seeds, each with other losses: what listing, finding and showing cost does not depend on how they
were trained.

    python tests/benchmarks/thousand.py FOLDER

With LABKIT_RUNS=FOLDER, their page is that of
`labkit report notebooks/03_lr.ipynb --scale quick --epochs 1 --seeds 500`.
"""

import dataclasses
import time
from pathlib import Path

import click
import numpy as np

from labkit.core.config import Config, vary
from labkit.lab.experiment import run_all
from labkit.store.folder import Store
from labkit.store.inventory import listing, overview


def fill(folder: Path, seeds: int) -> list[str]:
    """Write so many records of each of the two settings; their names."""
    store, names, chance = Store(folder, shipped=None), [], np.random.default_rng(0)
    trained = run_all(vary(Config(epochs=1), lr=[0.01, 0.1]), device="cpu", store=store)
    for (run,) in trained.values():
        names.append(run.digest)
        for seed in range(1, seeds):
            loss = run.iteration_loss * chance.uniform(0.95, 1.05)
            history = run.history.assign(loss=loss.mean(1, dtype=float))
            changes = {"config": run.config.replace(seed=seed), "iteration_loss": loss}
            names.append(store.save(dataclasses.replace(run, **changes, history=history)).digest)
    return names


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seeds", default=500, show_default=True)
def main(folder: Path, seeds: int) -> None:
    names = fill(folder, seeds)
    store = Store(folder, shipped=None)
    size = sum(path.stat().st_size for path in folder.glob("*.*")) / len(names)
    print(f"{len(names)} records, {size / 1e3:.0f} kB each")
    start = time.perf_counter()
    table = overview(listing(store))
    print(f"listed in {time.perf_counter() - start:.2f} s ({len(table)} rows)")
    start = time.perf_counter()
    for name in names[:100]:
        store.get(name)
    print(f"found in {(time.perf_counter() - start) * 10:.1f} ms each")


if __name__ == "__main__":
    main()
