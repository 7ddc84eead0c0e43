"""`Run`: what one training run left behind, as numbers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, get_type_hints

import numpy as np
import pandas as pd

from labkit.core.config import DIGITS, Config
from labkit.core.measures import MEASURES, RECALIBRATED, RUNNING, Measure, kept_as

#: The columns of `Run.history` that every record has; a later one has those below as well.
HISTORY = ["epoch", "loss", "train_accuracy", "test_accuracy", "seconds"]
RECALIBRATED_HISTORY = [kept_as(name, RECALIBRATED) for name in HISTORY if "accuracy" in name]


#: The fields that a record keeps as arrays; what they mean stands in `Run`.
Losses = Annotated[np.ndarray, Measure("<f4", ("epochs", "iterations"), "see Run")]
Classes = Annotated[np.ndarray, Measure("|u1", ("answers",), "see Run")]
Confidences = Annotated[np.ndarray, Measure("<f4", ("answers",), "see Run")]


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
            the training accuracy is that of a fixed part of the images, see
            `measures.sample_size`, and not measured with running averages.
        classes: what the labels stand for.
        confusion: for "train" and "test" the counts `[classes, classes]` by running averages, row
            true and column predicted; "train_recalibrated" and "test_recalibrated" the others. All
            zero for a run that diverged, which gives no answers (n = 0 below).
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
    iteration_loss: Losses
    history: pd.DataFrame
    confusion: dict[str, np.ndarray]
    test_labels: Classes
    test_predicted: Classes
    test_confidence: Confidences
    provenance: dict[str, Any]
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers: Mapping[str, list[str]] = field(default_factory=dict)
    classes: tuple[str, ...] = DIGITS
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
        """Confusion counts `[classes, classes]` on "train" or "test"; all zero where there are no
        answers."""
        none = np.zeros([len(self.classes)] * 2, int)
        return self.confusion.get(kept_as(split, statistics), none)

    def predicted(self, statistics: str = RECALIBRATED) -> np.ndarray:
        """The class that each test image is taken for, uint8 `[n]`."""
        if statistics == RUNNING:  # as old as records, and so no measure
            return self.test_predicted
        return self.measure(f"{statistics}_predicted")

    def confidence(self, statistics: str = RECALIBRATED) -> np.ndarray:
        """The softmax probability of each test image's predicted class, float32 `[n]`."""
        if statistics == RUNNING:
            return self.test_confidence
        return self.measure(f"{statistics}_confidence")

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


Runs = Mapping[str, Sequence[Run]]  # label of a setting → its runs, one per seed

#: The arrays that every record has, and all that one may have.
ARRAYS = {
    name: kind.__metadata__[0]
    for name, kind in get_type_hints(Run, include_extras=True).items()
    if hasattr(kind, "__metadata__")
}
ALL_ARRAYS = ARRAYS | MEASURES


def utc_now() -> str:
    """The date and time, as the dates of runs: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
