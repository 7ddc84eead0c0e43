"""Which recipe was it? The original names neither optimizer, weight decay, initialisation nor the
scale of the pixels: candidates, and how far the training losses of each are from the printed ones.

Only training losses are compared, so that no test figure chooses a recipe.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from labkit.core.config import SCALES, Config, scale_name
from labkit.judge import claims, original
from labkit.store.groups import Runs, finite
from labkit.store.run import Run

#: The fields that a recipe decides; the others are the section's.
FIELDS = ("optimizer", "weight_decay", "init", "normalization", "max_pool", "model")
USUAL = {name: getattr(Config, name) for name in FIELDS}
#: What a tutorial may have together that follows the original's words, which name no max-pool.
TUTORIAL = {
    "optimizer": "adamw",
    "weight_decay": 0.01,  # PyTorch's own default
    "init": "default",
    "normalization": "-1-1",
    "max_pool": False,
}
#: Nearest of those with a max-pool when it was chosen, on three curves and one run each; without a
#: max-pool an epoch takes a CPU four times as long.
SECOND = {"init": "default", "normalization": "0-1"}
#: What each candidate changes of the default: one thing, or several that go together.
CANDIDATES = (
    {},
    {"weight_decay": 1e-5},
    {"weight_decay": 1e-4},
    {"weight_decay": 5e-4},
    {"init": "default"},
    {"normalization": "0-1"},
    SECOND,
    {"max_pool": False},
    TUTORIAL,
    {"optimizer": "momentum"},
    {"optimizer": "sgd"},
)
#: Those that are trained whole: in all sections, as many epochs as the original.
WHOLE = {}, SECOND
#: The sections in which `TUTORIAL` is, besides `RISING`: as many as there was time for.
FAR = {"1", "3.2"}
#: Of each section, how many epochs of all candidates are compared: where they differ most for the
#: time.
EPOCHS = {"1": 1, "2.1": 1, "2.2": 1, "3.1": 3, "3.2": 2}
#: The section whose loss drifts upwards, and from which epoch to which the original's does. What
#: changes the weight decay, which may be behind it, or the pixels is trained there as long.
RISING, RISE = "3.1", (1, 9)
AS_LONG = {"weight_decay", "normalization"}


def name(config: Config) -> str:
    """A recipe in words: all that decides a training, but for what the original varies."""
    usual = ["Adam"] if config.optimizer == "adam" else []
    return ", ".join([*usual, *config.unusual("epoch_accuracy")])


def settings(
    dataset: str, candidates: Iterable[dict[str, object]] = CANDIDATES
) -> dict[str, Config]:
    """The trainings that tell the candidates apart, labelled by recipe and section."""
    found = {}
    for changes in candidates:
        for section in original.SECTIONS:
            rising = section.number == RISING and bool(AS_LONG & set(changes))
            far = section.number in FAR and changes == TUTORIAL
            to_the_end = changes in WHOLE or rising or far
            config = Config(
                dataset=dataset,
                epochs=SCALES["paper"]["epochs"] if to_the_end else EPOCHS[section.number],
                activation=section.activation,
                lr=section.lr,
                batch_size=section.batch_size,
                epoch_accuracy=to_the_end,  # the same runs as the report's own
                **changes,
            )
            found[f"{name(config)}: {section.name}"] = config
    return found


def by_recipe(runs: Runs) -> dict[str, dict[str, list[Run]]]:
    """The runs by recipe and by the original's section."""
    found: dict[str, dict[str, list[Run]]] = {}
    for group in runs.values():
        for run in group:
            if section := original.section_of(run.config.replace(**USUAL)):
                of_recipe = found.setdefault(name(run.config), {})
                of_recipe.setdefault(section.number, []).append(run)
    return found


def curves(runs: Runs) -> dict[str, dict[str, list[Run]]]:
    """The runs by recipe and by the original's section; those that diverged are left out."""
    return by_recipe(finite(runs))


def long(runs: Runs) -> Runs:
    """The runs with all the original's epochs and images."""
    return {k: [run for run in v if scale_name(run.config) == "paper"] for k, v in runs.items()}


def whole(runs: Runs) -> dict[str, dict[str, list[Run]]]:
    """The `long` runs by recipe and by the original's section, of the recipes that have such runs
    of all its sections."""
    found = by_recipe(long(runs))
    return {recipe: c for recipe, c in found.items() if len(c) == len(original.SECTIONS)}


def verdicts(runs: Runs) -> dict[str, dict[str, claims.Part]]:
    """Recipe → every comparison behind the claims, by what it compares, in the ledger's order; of
    the recipes that are `whole`.

    What the original's recipe was is not known: a verdict that one recipe alone gives may be the
    recipe's.
    """
    return {
        recipe: {
            part.what: part
            for claim in claims.CLAIMS
            for part in claims.judged(claim, {k: by_section[k] for k in claim.needs}).parts
        }
        for recipe, by_section in whole(runs).items()
    }


def rises(runs: Runs) -> dict[str, list[float]]:
    """Recipe → of each of its runs that are long enough, by which factor the loss of section
    `RISING` changes over the epochs of `RISE`."""
    first, last = RISE
    found = {
        recipe: [
            float(run.history["loss"][last] / run.history["loss"][first])
            for run in by_section.get(RISING, [])
            if len(run.history) > last
        ]
        for recipe, by_section in curves(runs).items()
    }
    return {recipe: factors for recipe, factors in found.items() if factors}


def _square(run: Run, length: int) -> float:
    """The mean square of ln(ours) - ln(theirs) over so many first epochs."""
    theirs = original.section_of(run.config.replace(**USUAL)).epoch_loss
    return float(np.mean(np.log(run.history["loss"].to_numpy()[:length] / theirs[:length]) ** 2))


def distances(runs: Runs, all_epochs: bool = False) -> pd.DataFrame:
    """How far each recipe's training losses are from the original's, nearest first.

    Of a run: the root mean square over the epochs of ln(ours) - ln(theirs). Of a curve: the root
    mean square over its runs. Of a recipe (`all`): that over the seeds that all curves have and
    over the curves, each with the same weight; NaN where a curve is missing. `low` and `high` are
    those of the single seeds. Columns: the sections' numbers, `all`, `low`, `high`, `n` (the seeds
    that all its curves have).

    Args:
        all_epochs: the `long` runs alone, and every epoch; else those epochs that all runs have.
    """
    found = curves(long(runs) if all_epochs else runs)
    numbers = [number for number in EPOCHS if any(number in c for c in found.values())]
    epochs = {
        number: min(len(run.history) for c in found.values() for run in c.get(number, []))
        for number in numbers
    }
    rows = {}
    for recipe, by_section in found.items():
        squares = pd.DataFrame(
            {
                number: {run.config.seed: _square(run, epochs[number]) for run in group}
                for number, group in (dict.fromkeys(numbers, ()) | by_section).items()
            }
        )
        complete = squares.dropna().mean(axis=1)  # by seed
        over_all = {"all": complete.mean(), "low": complete.min(), "high": complete.max()}
        seeds = squares.dropna(axis=1, how="all").dropna()
        rows[recipe] = {**(pd.Series({**squares.mean(), **over_all}) ** 0.5), "n": len(seeds)}
    columns = [*numbers, "all", "low", "high", "n"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("recipe")
    frame.attrs["epochs"] = epochs
    return frame.sort_values("all", kind="stable")


def noise(runs: Runs, own: Runs, all_epochs: bool = False) -> pd.DataFrame:
    """p-values for each recipe (rows) and curve (columns): whether its distance from the original
    is what two runs of one recipe have between them.

    That is judged by `own`, runs of the default with several seeds: if the original is one more run
    of the recipe, the difference of the logarithms has twice the variance that ln(loss) has over
    seeds, here pooled over the epochs, which count as independent (of ours they are: neighbours
    correlate by -0.3 to 0.3). So the mean of its squares by twice that variance follows an F
    distribution. NaN with fewer than two seeds. For `all_epochs` see `distances`.
    """
    found = distances(runs, all_epochs)
    p = found[list(found.attrs["epochs"])].astype(float)
    for number, length in found.attrs["epochs"].items():
        group = curves(own).get(name(Config()), {}).get(number, [])
        logs = np.log([run.history["loss"].to_numpy()[:length] for run in group])
        if len(group) > 1:
            ratio = p[number] ** 2 / (2 * logs.var(0, ddof=1).mean())
            p[number] = stats.f.sf(ratio, length, length * (len(group) - 1))
        else:
            p[number] = np.nan
    return p
