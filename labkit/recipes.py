"""Which recipe was it? The original names neither optimizer, weight decay, initialisation nor the
scale of the pixels: candidates, and how far the training losses of each are from the printed ones.

Only training losses are compared, so that no test figure chooses a recipe.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from labkit import published
from labkit.config import Config
from labkit.runs import Run, Runs, finite

#: The fields that a recipe decides; the others are the section's.
FIELDS = ("optimizer", "weight_decay", "init", "normalization", "max_pool")
#: What each candidate changes of the default, one thing at a time.
CANDIDATES = (
    {},
    {"weight_decay": 1e-5},
    {"weight_decay": 1e-4},
    {"weight_decay": 5e-4},
    {"init": "default"},
    {"normalization": "0-1"},
    {"max_pool": False},
    {"optimizer": "momentum"},
    {"optimizer": "sgd"},
)
#: Of each section, how many epochs are compared: where the candidates differ most for the time.
EPOCHS = {"1": 1, "3.1": 3, "3.2": 2}


def name(config: Config) -> str:
    """A recipe in words."""
    optimizer = {"adam": "Adam", "sgd": "SGD", "momentum": "SGD, momentum 0.9"}[config.optimizer]
    parts = [optimizer]
    if config.weight_decay:
        parts.append(f"weight decay {config.weight_decay:g}")
    if config.init == "default":
        parts.append("PyTorch's initialisation")
    if config.normalization == "0-1":
        parts.append("pixels 0 to 1")
    if not config.max_pool:
        parts.append("no max-pool")
    return ", ".join(parts)


def settings(
    dataset: str, candidates: Iterable[dict[str, object]] = CANDIDATES
) -> dict[str, Config]:
    """The trainings that tell the candidates apart, labelled by recipe and section."""
    found = {}
    for changes in candidates:
        for section in published.SECTIONS:
            if section.number in EPOCHS:
                config = Config(
                    dataset=dataset,
                    epochs=EPOCHS[section.number],
                    activation=section.activation,
                    lr=section.lr,
                    batch_size=section.batch_size,
                    epoch_accuracy=False,
                    **changes,
                )
                found[f"{name(config)}: {section.name}"] = config
    return found


def curves(runs: Runs) -> dict[str, dict[str, list[Run]]]:
    """The runs by recipe and by the original's section; those that diverged are left out."""
    found: dict[str, dict[str, list[Run]]] = {}
    for group in finite(runs).values():
        for run in group:
            if section := published.section_of(run.config):
                of_recipe = found.setdefault(name(run.config), {})
                of_recipe.setdefault(section.number, []).append(run)
    return found


def distances(runs: Runs) -> pd.DataFrame:
    """How far each recipe's training losses are from the original's, nearest first.

    Of a curve: the root mean square over the epochs of ln(ours) - ln(theirs), ours the mean of the
    seeds. Of a recipe (`all`): the root mean square over its curves, each with the same weight;
    NaN where a curve is missing. `low` and `high` are those of the single seeds. Columns: the
    sections' numbers, `all`, `low`, `high`, `n` (seeds of every curve).
    """
    found = curves(runs)
    numbers = [s.number for s in published.SECTIONS if any(s.number in c for c in found.values())]
    epochs = {
        number: min(
            len(run.history) for c in found.values() for run in c.get(number, []) if number in c
        )
        for number in numbers
    }
    printed = {section.number: np.log(section.epoch_loss) for section in published.SECTIONS}
    rows = {}
    for recipe, by_section in found.items():
        logs = {
            number: {
                run.config.seed: np.log(run.history["loss"].to_numpy()[: epochs[number]])
                for run in group
            }
            for number, group in by_section.items()
        }
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in logs.values())))

        def off(number: str, curve: np.ndarray) -> float:
            return float(np.sqrt(np.mean((curve - printed[number][: epochs[number]]) ** 2)))

        row = {
            number: off(number, np.mean(list(logs[number].values()), axis=0))
            if number in logs
            else np.nan
            for number in numbers
        }
        each = [np.sqrt(np.mean([off(n, logs[n][s]) ** 2 for n in logs])) for s in seeds]
        whole = len(logs) == len(numbers)
        rows[recipe] = row | {
            "all": np.sqrt(np.mean([d**2 for d in row.values()])),
            "low": min(each) if whole and each else np.nan,
            "high": max(each) if whole and each else np.nan,
            "n": len(seeds),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("recipe")
    frame.attrs["epochs"] = epochs
    return frame.sort_values("all", kind="stable") if len(frame) else frame
