"""The surroundings of the original's points: more learning rates and batch sizes, trained briefly.

Two points are no trend. Of the original's own settings the first epochs of the report's whole runs
count, which are the same.
"""

import math
from collections.abc import Iterable

import pandas as pd

from labkit.core.config import SCALES, Config
from labkit.core.measures import STATISTICS
from labkit.judge import original
from labkit.store.groups import Runs, finite

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # half decades
BATCH_SIZES = (16, 64, 256, 1024, 4096)  # powers of four
EPOCHS = 2
#: The original's sections that lie on the line of a field.
SECTIONS = {"lr": ("1", "3.1"), "batch_size": ("1", "3.2")}
NAMES = {"lr": "learning rate", "batch_size": "batch size"}
FIXED, SCALED = "learning rate 0.01", "learning rate 0.01 × √(batch/64)"


def learning_rates() -> dict[str, Config]:
    """The baseline with each learning rate, by name."""
    return _named(_config(lr, 64) for lr in LEARNING_RATES)


def batch_sizes() -> dict[str, Config]:
    """The baseline with each batch size and the original's 1000, at its own learning rate and at
    `scaled`, by name."""
    pairs = [(0.01, size) for size in sorted({*BATCH_SIZES, 1000})]
    pairs += [(scaled(size), size) for size in BATCH_SIZES]
    return _named(_config(lr, size) for lr, size in pairs)


def scaled(batch_size: int) -> float:
    """The baseline's learning rate times √(batch/64), to three digits.

    It is the rule for Adam (Malladi et al. 2022, arXiv:2205.10287), without what that says of β and
    ε, which matters less.
    """
    return float(f"{0.01 * math.sqrt(batch_size / 64):.3g}")


def _named(configs: Iterable[Config]) -> dict[str, Config]:
    return {config.setting(): config for config in configs}


def _config(lr: float, batch_size: int) -> Config:
    whole = Config(**SCALES["paper"], lr=lr, batch_size=batch_size)
    return whole if original.section_of(whole) else whole.replace(epochs=EPOCHS)


def points(runs: Runs, field: str) -> pd.DataFrame:
    """What the runs have after `EPOCHS` epochs, one row each, but for those that diverged or
    are shorter.

    Columns: `line` ("" for learning rates; for batches `FIXED` or `SCALED`, a run with 64 images
    stands in both), `value` of `field`, `loss` (mean of the last of these epochs, nats), and by
    either kind of statistics the test error in percent, NaN where it was not measured.
    """
    rows = []
    for group in finite(runs).values():
        for run in (run for run in group if len(run.history) >= EPOCHS):
            config, last = run.config, EPOCHS - 1
            lines = {"": field == "lr"}
            if field == "batch_size":
                lines = {FIXED: config.lr == 0.01, SCALED: config.lr == scaled(config.batch_size)}
            errors = {s: 100 - 100 * run.accuracies("test", s)[last] for s in STATISTICS}
            row = {"value": getattr(config, field), "loss": run.history["loss"][last], **errors}
            rows += [{"line": line} | row for line, belongs in lines.items() if belongs]
    return pd.DataFrame(rows, columns=["line", "value", "loss", *STATISTICS])
