"""The state of one training: what a checkpoint holds, and the run that comes of it."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from labkit.core import model as models
from labkit.core.config import TRAINING_VERSION, Config
from labkit.core.data import Data
from labkit.core.evaluate import NO_ANSWERS, Answers, predict, twin_of
from labkit.core.measures import MEASURES, RECALIBRATED, RUNNING, kept_as
from labkit.core.train import make_optimizer
from labkit.lab import streams
from labkit.lab.diagnostics import Diagnostics
from labkit.lab.graphs import fit
from labkit.lab.provenance import provenance
from labkit.lab.slim import slim
from labkit.lab.stopping import held
from labkit.store.checkpoint import Checkpoint
from labkit.store.run import HISTORY, RECALIBRATED_HISTORY, Run


class Stopwatch:
    """The seconds of a training: in all, of the current epoch's training alone, and aside."""

    def __init__(self, seconds: float = 0, epoch_seconds: float = 0, **spent: float) -> None:
        now = time.perf_counter()
        self.start, self.epoch_start = now - seconds, now - epoch_seconds
        self.spent = {"evaluation": 0.0, "diagnostics": 0.0} | spent

    @contextlib.contextmanager
    def aside(self, what: str = "") -> Iterator[None]:
        """Count the block as `what`, if given, and not among the epoch's seconds."""
        begun = time.perf_counter()
        yield
        taken = time.perf_counter() - begun
        self.epoch_start += taken
        if what:
            self.spent[what] += taken

    def seconds(self) -> dict[str, float]:
        """In all, and of the current epoch."""
        now = time.perf_counter()
        return {"seconds": now - self.start, "epoch_seconds": now - self.epoch_start}


class TrainingState:
    """One training, from one update to the next.

    Args:
        data: on the device that trains.

    Attributes:
        iterations: of one epoch; `total` of the whole training, `done` of those so far.
        losses: of every iteration, `[total]`, NaN for those still to come.
    """

    def __init__(self, config: Config, data: Data) -> None:
        self.config, self.data, self.device = config, data, data.train.labels.device
        self.iterations = -(-len(data.train) // config.batch_size)
        self.total, self.done = config.epochs * self.iterations, 0
        channels, *pixels = shape = tuple(data.train.images.shape[1:])
        plain = models.build(config, channels, len(data.classes), tuple(pixels)).to(self.device)
        with streams.in_use(streams.generators(config.seed, self.device, 4)):
            self.model = slim(plain, shape)
            self.twin = twin_of(self.model)
            self.diagnostics = Diagnostics(self.model, self.twin, data, config, self.total)
        self.optimizer = make_optimizer(self.model, config)
        self.losses = torch.full((self.total,), torch.nan, device=self.device)
        self.generators = streams.generators(config.seed, self.device)
        self.history: list[dict[str, float]] = []
        self.answers = NO_ANSWERS
        self.provenance = provenance(self.device)  # now: the files may change while it trains
        self.stopwatch = Stopwatch()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write everything that the rest of the training follows from."""
        header = {
            "recipe": TRAINING_VERSION,
            "config": self.config.to_dict(),
            "data_sha256": self.data.sha256,
            "provenance": self.provenance,
            "iterations": [self.done, self.iterations, self.total],
            "history": self.history,
            **self.stopwatch.seconds(),
            "spent": self.stopwatch.spent,
        }
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "streams": streams.states(self.generators),
            "diagnostics": self.diagnostics.table,
        }
        with self.stopwatch.aside():
            checkpoint.save(header, tensors)

    def restore(self, header: dict[str, Any], tensors: dict[str, Any]) -> None:
        """Go on from what `save` wrote."""
        began = header["provenance"]
        again = [*began.get("resumed", []), provenance(self.device)]
        self.provenance = began | {"resumed": again}
        self.done, self.history = header["iterations"][0], header["history"]
        times = header["seconds"], header["epoch_seconds"]
        self.stopwatch = Stopwatch(*times, **header.get("spent", {}))
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.losses = tensors["losses"]
        # A checkpoint from before there were streams or diagnostics used none, and has none.
        streams.restore(self.generators, tensors.get("streams", {}))
        self.diagnostics.table |= tensors.get("diagnostics", {})

    def updates(self) -> Iterator[Tensor]:
        """The losses of all updates that are still to come; each is made when it is asked for.

        An interrupt waits for the end of an update, so that at any other time the state is whole.
        """
        steps = fit(self.model, self.optimizer, self.data, self.config, self.done)
        steps = streams.drawing_from(self.generators, steps)
        while self.done < self.total:
            with held():
                loss = next(steps)
                self.record(loss)
            yield loss

    def measure(self) -> None:
        """To be called before each update: what the diagnostics need of the network as it is."""
        with self.stopwatch.aside("diagnostics"):
            self.diagnostics.before(self.done)

    def record(self, loss: Tensor) -> None:
        """Count an update."""
        self.losses[self.done] = loss
        self.done += 1
        with self.stopwatch.aside("diagnostics"):
            self.diagnostics.after(self.done)

    @property
    def epoch(self) -> int:
        """The epoch of the last update."""
        return (self.done - 1) // self.iterations

    @property
    def epoch_ends(self) -> bool:
        """Whether the last update was its epoch's last, and `end_epoch` has not been called."""
        return self.done == (len(self.history) + 1) * self.iterations

    def epoch_losses(self) -> Tensor:
        """The losses of the current epoch so far."""
        return self.losses[self.epoch * self.iterations : self.done]

    def diverged(self) -> bool:
        """Whether a loss of this epoch is not finite; then there are no answers.

        Looking at a loss waits for the device: on a GPU it is done once per epoch.
        """
        looked_at = self.epoch_ends or self.device.type == "cpu"
        if not looked_at or self.epoch_losses().isfinite().all():
            return False
        self.answers = NO_ANSWERS
        return True

    def settle(self) -> bool:
        """To be called after each update, and where a training goes on, since an interrupt may have
        come before it: ends the epoch if that is due. False if the training has diverged."""
        if self.diverged():
            return False
        if self.epoch_ends:
            self.end_epoch()
        return True

    def stop(self, checkpoint: Checkpoint | None) -> tuple[str, ...]:
        """Save an interrupted training, whatever interrupts come meanwhile; where it is.

        With its last epoch evaluated it has more than a checkpoint holds, and an older one stays.
        """
        if not self.done or len(self.history) == self.config.epochs:
            return ()
        place = "epoch {}, iteration {}".format(*divmod(self.done, self.iterations))
        if not checkpoint:
            return (f"{place} (not saved)",)
        with held() as came:
            checkpoint.broken = False
            self.save(checkpoint)
            came.clear()
        return (f"{place} (not saved)" if checkpoint.broken else place,)

    def end_epoch(self) -> None:
        """Add the epoch to the history; evaluate the network, if the config says so."""
        loss = self.epoch_losses().cpu().double().mean().item()
        row = {"epoch": self.epoch, "loss": loss}
        row["seconds"] = self.stopwatch.seconds()["epoch_seconds"]
        last = self.done == self.total
        if self.config.epoch_accuracy or last:
            own = streams.generators(self.config.seed, self.device, 3, self.done)
            with self.stopwatch.aside("evaluation"), streams.in_use(own):
                self.answers = predict(self.model, self.twin, self.data, self.config, last)
            row |= {
                kept_as(f"{split}_accuracy", statistics): predictions.accuracy()
                for statistics, splits in self.answers.items()
                for split, predictions in splits.items()
            }
        self.history.append(row)
        self.stopwatch.epoch_start = time.perf_counter()

    def run(self) -> Run:
        """The run, at its end."""
        losses = self.losses.cpu().numpy()
        lost = ~np.isfinite(losses)
        losses[lost.argmax() if lost.any() else losses.size :] = np.nan
        columns, epochs = [*HISTORY, *RECALIBRATED_HISTORY], range(self.config.epochs)
        history = pd.DataFrame(self.history, columns=columns, dtype=float).reindex(epochs)
        tested, classes = self.answers[RUNNING]["test"], len(self.data.classes)
        measures = self.diagnostics.arrays()
        seconds = {"seconds": self.stopwatch.seconds()["seconds"]}
        seconds |= {f"{what}_seconds": taken for what, taken in self.stopwatch.spent.items()}
        return Run(
            config=self.config,
            data_sha256=self.data.sha256,
            iteration_loss=losses.reshape(self.config.epochs, self.iterations),
            history=history.assign(epoch=epochs),
            classes=self.data.classes,
            confusion={
                kept_as(split, statistics): self.answers[statistics][split].confusion(classes)
                for statistics in (RUNNING, RECALIBRATED)
                for split in ("train", "test")
            },
            test_labels=tested.labels,
            test_predicted=tested.predicted,
            test_confidence=tested.confidence,
            measures=measures | answer_measures(self.answers),
            layers=self.diagnostics.layers if measures else {},
            provenance=self.provenance | {name: round(s, 2) for name, s in seconds.items()},
        )


def answer_measures(answers: Answers) -> dict[str, np.ndarray]:
    """What `Run.measures` holds of the answers after the last epoch."""
    found = {}
    for statistics, splits in answers.items():
        train, test = splits["train"], splits["test"]
        arrays = {
            "predicted": test.predicted,
            "confidence": test.confidence,
            "silent": test.silent,
            "train_predicted": train.by_class(),
            "train_confidence": train.confidences(),
        }
        found |= {f"{statistics}_{name}": array for name, array in arrays.items()}
    return {n: array for n, array in found.items() if n in MEASURES and array is not None}
