"""Runs of several settings side by side: which of them count, and what they sum up to."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np

from labkit.core.config import DATASETS, MNIST
from labkit.core.measures import RECALIBRATED, RUNNING
from labkit.core.values import ConfigError
from labkit.core.words import plural
from labkit.store.run import Run, Runs

#: For the caption of whatever shows both kinds of statistics.
BOTH = (
    "recalibrated: with normalisation statistics estimated anew; by running averages: as "
    "model.eval() answers"
)


def divergences(runs: Runs) -> str:
    """Which runs diverged and where, as words; "" if none did."""
    return "; ".join(
        f"{label}, seed {run.config.seed}, diverged at epoch {run.diverged[0]}, "
        f"iteration {run.diverged[1]}"
        for label, group in runs.items()
        for run in group
        if run.diverged
    )


def finite(runs: Runs) -> dict[str, list[Run]]:
    """The runs without those that diverged, and without settings of which none is left."""
    return _only(runs, lambda run: not run.diverged)


def answering(group: Sequence[Run], statistics: str = RECALIBRATED) -> list[Run]:
    """The runs of one setting that have answers with these statistics."""
    return [run for run in group if len(run.predicted(statistics))]


def answered(runs: Runs, statistics: str = RECALIBRATED) -> dict[str, list[Run]]:
    """The runs that have answers with these statistics, without settings of which none is left."""
    return _only(runs, lambda run: len(run.predicted(statistics)) > 0)


def _only(runs: Runs, good: Callable[[Run], bool]) -> dict[str, list[Run]]:
    kept = {label: list(filter(good, group)) for label, group in runs.items()}
    return {label: group for label, group in kept.items() if group}


def from_before(count: int, what: str) -> str:
    """That so many runs are from before something was recorded, as words; "" if none are."""
    is_left_out = "is left out" if count == 1 else "are left out"
    return f"{plural(count, 'run')} made before {what} {is_left_out}" if count else ""


def unanswered(runs: Runs) -> str:
    """How many runs that did not diverge are from before recalibration, as words; "" if none."""
    older = [r for group in finite(runs).values() for r in group if not len(r.predicted())]
    return from_before(len(older), "labkit recalibrated")


def without_norms(group: Sequence[Run]) -> bool:
    """Whether the network of a setting has no batch normalisations, whose running averages could
    lag; records from before layers were named do not say so."""
    return any(run.layers and "normalizations" not in run.layers for run in group)


def left_out(runs: Runs) -> str:
    """Which runs diverged, and how many are from before recalibration, as words; "" if none."""
    return "; ".join(filter(None, (divergences(runs), unanswered(runs))))


def at_once(runs: Runs) -> str:
    """How many of the runs shared a device at most, as words that follow their seconds; "" if none
    did. It follows from when each began and how long it took."""
    spans: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for run in {run.digest: run for group in runs.values() for run in group}.values():
        kept = run.provenance
        begun = datetime.fromisoformat(kept["date"]).timestamp()  # to the second, downwards
        spans[kept["device"], kept.get("processor", "")].append(
            (begun, begun + kept["seconds"] - 1)
        )
    most = max(
        (sum(a <= begun < b for a, b in group) for group in spans.values() for begun, _ in group),
        default=0,
    )
    return f", with up to {most} of these runs on the device at once" if most > 1 else ""


def trained_on(run: Run) -> int:
    """How many images an epoch has; of own images that of a run which diverged is not known: 0."""
    own = run.counts("train", RUNNING).sum(), 0
    return DATASETS.get(run.config.dataset, own)[0]


def class_noun(run: Run) -> str:
    """What a class of the run's images is called."""
    return "digit" if run.config.dataset in MNIST else "class"


def classes_of(runs: Runs) -> tuple[str, ...]:
    """The names of the classes of all runs.

    Raises:
        ConfigError: they are not the same.
    """
    first, *others = dict.fromkeys(run.classes for group in runs.values() for run in group)
    if others:
        raise ConfigError(
            f"the runs have the classes {', '.join(first)[:100]} and {', '.join(others[0])[:100]}; "
            "class by class only runs of the same images can be compared."
        )
    return first


def total_confusion(group: Sequence[Run], split: str, statistics: str = RECALIBRATED) -> np.ndarray:
    """Confusion counts `[classes, classes]` summed over the runs of one setting."""
    return np.sum([run.counts(split, statistics) for run in group], axis=0)


def off_diagonal(counts: np.ndarray) -> np.ndarray:
    """The mistakes of confusion counts: the same counts with zeros on the diagonal."""
    return counts - np.diag(np.diag(counts))


def shares_of(counts: np.ndarray) -> np.ndarray:
    """The accuracy of each class and, last, in total, in percent; NaN where nothing was asked."""
    right, asked = np.diag(counts), counts.sum(1)
    right, asked = np.append(right, right.sum()), np.append(asked, asked.sum())
    return 100 * np.divide(right, asked, out=np.full(len(right), np.nan), where=asked > 0)


def most_mistaken(group: Sequence[Run], most: int) -> dict[int, Counter[int]]:
    """The test images that most often got a wrong answer: image → the wrong answers' counts.

    Most often mistaken first, at most `most` of them; empty if nothing was wrong. With recalibrated
    statistics, of runs that have such answers.
    """
    wrong = np.array([~run.right() for run in group] or [[]], bool)
    times = wrong.sum(0)
    chosen = [int(i) for i in np.argsort(-times, kind="stable")[:most] if times[i]]
    return {
        i: Counter(int(run.predicted()[i]) for run, w in zip(group, wrong, strict=True) if w[i])
        for i in chosen
    }
