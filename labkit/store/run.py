"""`Run`: what one training run left behind, as numbers alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from labkit.core.config import Config
from labkit.core.measures import MEASURES, RECALIBRATED, RUNNING, kept_as
from labkit.core.words import plural

#: The columns of `Run.history` that every record has; a later one has those below as well.
HISTORY = ["epoch", "loss", "train_accuracy", "test_accuracy", "seconds"]
RECALIBRATED_HISTORY = [kept_as(name, RECALIBRATED) for name in HISTORY if "accuracy" in name]

#: For the caption of whatever shows both kinds of statistics.
BOTH = (
    "recalibrated: batch normalisation's statistics are estimated anew for the final weights; by "
    "running averages: as model.eval() answers"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One finished run: numbers only, so that tables and plots need neither torch nor the data.

    Batch normalisations answer with one of two kinds of statistics, see `measures.STATISTICS`: what
    was learnt shows with recalibrated ones, what `model.eval()` gives with running averages. Where
    the methods below take `statistics`, a record from before these were measured has no answers.

    Attributes:
        config: what was run.
        data_sha256: the checksum of the images.
        iteration_loss: mean cross-entropy of each batch in nats, float32 `[epochs, iterations]`.
            NaN from where the run diverged.
        history: one row per epoch: `epoch` (from 0), `loss` (the mean of its batch losses, nats),
            `seconds` (training alone); by running averages `train_accuracy`, `test_accuracy`
            (0..1; NaN where not measured), and the same two with `_recalibrated`. Between epochs
            the training accuracies are those of a fixed part of the images, see
            `measures.sample_size`.
        confusion: for "train" and "test" the counts `[10, 10]` by running averages, row true and
            column predicted; "train_recalibrated" and "test_recalibrated" the others. All zero for
            a run that diverged, which gives no answers (n = 0 below).
        test_labels, test_predicted: classes of the test images, uint8 `[n]`; predicted by running
            averages, as `test_confidence`, the predicted class's softmax probability.
        provenance: date of the start, commit, versions, device, processor, threads, seconds;
            `resumed` lists all but the seconds for every time that it went on from a checkpoint.
        measures: whatever else was recorded, by its name in `measures.MEASURES`.
        layers: the names of the layers along the axes of measures.
        checksum: SHA-256 of the record's content; "" for a run that is not kept.
        recorded: whether the run was found in a store, rather than trained just now.
    """

    config: Config
    data_sha256: str
    iteration_loss: np.ndarray
    history: pd.DataFrame
    confusion: dict[str, np.ndarray]
    test_labels: np.ndarray
    test_predicted: np.ndarray
    test_confidence: np.ndarray
    provenance: dict[str, Any]
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers: Mapping[str, list[str]] = field(default_factory=dict)
    checksum: str = ""
    recorded: bool = False

    @property
    def digest(self) -> str:
        """The name under which the store keeps the run."""
        return self.config.digest(self.data_sha256)

    @property
    def diverged(self) -> tuple[int, int] | None:
        """The epoch and the iteration in it whose loss was not finite; None for a good run."""
        places = np.argwhere(~np.isfinite(self.iteration_loss))
        return (int(places[0][0]), int(places[0][1])) if len(places) else None

    def counts(self, split: str, statistics: str = RECALIBRATED) -> np.ndarray:
        """Confusion counts `[10, 10]` on "train" or "test"; all zero where there are no answers."""
        return self.confusion.get(kept_as(split, statistics), np.zeros((10, 10), int))

    def predicted(self, statistics: str = RECALIBRATED) -> np.ndarray:
        """The class that each test image is taken for, uint8 `[n]`."""
        own = self.test_predicted if statistics == RUNNING else None
        return own if own is not None else self.measure(f"{statistics}_predicted")

    def confidence(self, statistics: str = RECALIBRATED) -> np.ndarray:
        """The softmax probability of each test image's predicted class, float32 `[n]`."""
        own = self.test_confidence if statistics == RUNNING else None
        return own if own is not None else self.measure(f"{statistics}_confidence")

    def right(self, statistics: str = RECALIBRATED) -> np.ndarray:
        """Whether each test image was answered rightly, bool `[n]`."""
        predicted = self.predicted(statistics)
        return predicted == self.test_labels[: len(predicted)]

    def measure(self, name: str) -> np.ndarray:
        """An array of `measures.MEASURES`; one of length 0 where it was not recorded."""
        return self.measures.get(name, np.zeros([0] * len(MEASURES[name].axes)))

    def dated(self, since: str, until: str) -> bool:
        """Whether the run was begun in that time; both ends are dates, ISO 8601 in UTC.

        A date that was still to come when somebody asks, and so is wrong, is never in it.
        """
        return since <= self.provenance["date"] <= until

    def accuracy(self, split: str, statistics: str = RECALIBRATED) -> float:
        """The share of right answers on "train" or "test" after the last epoch, 0..1.

        NaN where there are no answers.
        """
        counts = self.counts(split, statistics)
        return float(np.trace(counts) / counts.sum()) if counts.any() else float("nan")

    def accuracies(self, split: str, statistics: str = RECALIBRATED) -> np.ndarray:
        """The same after every epoch, `[epochs]`; NaN where it was not measured."""
        name = kept_as(f"{split}_accuracy", statistics)
        found = self.history.get(name, self.history["loss"] * np.nan).to_numpy(float, copy=True)
        found[-1] = self.accuracy(split, statistics)
        return found


def utc_now() -> str:
    """The date and time, as the dates of runs: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


Runs = Mapping[str, Sequence[Run]]  # label of a setting → its runs, one a seed


def total_confusion(group: Sequence[Run], split: str, statistics: str = RECALIBRATED) -> np.ndarray:
    """Confusion counts `[10, 10]` summed over runs of one setting."""
    return np.sum([run.counts(split, statistics) for run in group], axis=0)


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
    kept = {label: [run for run in group if not run.diverged] for label, group in runs.items()}
    return {label: group for label, group in kept.items() if group}


def answering(group: Sequence[Run], statistics: str = RECALIBRATED) -> list[Run]:
    """The runs of one setting that have answers with these statistics."""
    return [run for run in group if len(run.predicted(statistics))]


def answered(runs: Runs, statistics: str = RECALIBRATED) -> dict[str, list[Run]]:
    """The runs that have answers with these statistics, without settings of which none is left."""
    kept = {label: answering(group, statistics) for label, group in runs.items()}
    return {label: group for label, group in kept.items() if group}


def from_before(count: int, what: str) -> str:
    """That so many runs are from before something was recorded, as words; "" if none are."""
    is_left_out = "is left out" if count == 1 else "are left out"
    return f"{plural(count, 'run')} from before {what} {is_left_out}" if count else ""


def unanswered(runs: Runs) -> str:
    """How many runs that did not diverge are from before recalibration, as words; "" if none."""
    older = [r for group in finite(runs).values() for r in group if not len(r.predicted())]
    return from_before(len(older), "recalibration")


def left_out(runs: Runs) -> str:
    """Which runs diverged, and how many are from before recalibration, as words; "" if none."""
    return "; ".join(filter(None, (divergences(runs), unanswered(runs))))


def class_noun(run: Run) -> str:
    """What a class of the run's images is called."""
    return "digit" if run.config.dataset in ("mnist", "mnist-5k") else "class"


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


def off_diagonal(counts: np.ndarray) -> np.ndarray:
    """The mistakes of confusion counts: the same counts with zeros on the diagonal."""
    return counts - np.diag(np.diag(counts))
