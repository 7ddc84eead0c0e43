"""What several test modules use: runs made up by hand, and what is to go wrong."""

import dataclasses
import hashlib
import io
import itertools
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

from labkit.core.config import DIGITS, Config
from labkit.lab.training import finish, training_steps
from labkit.store.checkpoint import Checkpoint
from labkit.store.integrity import ARRAYS, record_sha256
from labkit.store.run import Run

CPU = torch.device("cpu")
#: Images of each digit, 0 to 9, in the two splits of MNIST (LeCun et al., the files themselves).
CLASS_COUNTS = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}


def made_up_run(
    *,
    losses: tuple[float, ...] = (1.0, 0.5),
    wrong: dict[tuple[int, int], int] | None = None,
    wrong_train: dict[tuple[int, int], int] | None = None,
    wrong_running: dict[tuple[int, int], int] | None = None,
    recalibrated: bool = True,
    images: int = 100,
    classes: tuple[str, ...] = DIGITS,
    **settings: object,
) -> Run:
    """A run with the given epoch losses, and so many `images` of each class in either split.

    `wrong[true, predicted]` answers of each split are wrong (`wrong_train` of the training images,
    if given), with either kind of statistics (`wrong_running` by running averages, if given); all
    others are right. Without `recalibrated` the record is from before there were such answers.
    """
    labels = np.repeat(np.arange(len(classes), dtype=np.uint8), images)

    def answers(mistakes):
        predicted = labels.copy()
        for (true, answer), times in (mistakes or {}).items():
            free = np.flatnonzero((labels == true) & (predicted == true))
            predicted[free[:times]] = answer
        counts = np.zeros([len(classes)] * 2, dtype=int)
        np.add.at(counts, (labels, predicted), 1)
        return predicted, counts

    def share(counts):
        return float(np.trace(counts) / counts.sum())

    predicted, counts = answers(wrong)
    train_counts = counts if wrong_train is None else answers(wrong_train)[1]
    running, running_counts = (predicted, counts)
    running_train = train_counts
    if wrong_running is not None:
        running, running_counts = answers(wrong_running)
        running_train = running_counts
    confidence = np.linspace(0.5, 1, len(labels), dtype=np.float32)
    history = {
        "epoch": range(len(losses)),
        "loss": losses,
        "train_accuracy": share(running_train),
        "test_accuracy": share(running_counts),
        "seconds": 2.0,
    }
    confusion, measures = {"train": running_train, "test": running_counts}, {}
    if recalibrated:
        history["train_accuracy_recalibrated"] = share(train_counts)
        history["test_accuracy_recalibrated"] = share(counts)
        confusion |= {"train_recalibrated": train_counts, "test_recalibrated": counts}
        measures = {"recalibrated_predicted": predicted, "recalibrated_confidence": confidence}
    return Run(
        config=Config(epochs=len(losses), **settings),
        data_sha256="made up",
        classes=classes,
        iteration_loss=np.repeat(np.float32(losses)[:, None], 4, axis=1),
        history=pd.DataFrame(history),
        confusion=confusion,
        test_labels=labels,
        test_predicted=running,
        test_confidence=confidence,
        measures=measures,
        provenance={
            "date": "2026-01-02T03:04:05+00:00",
            "commit": "abc",
            "device": "cpu (x86_64)",
            "threads": 2,
            "seconds": 4.0,
            "versions": {"torch": "2.15.0"},
        },
    )


def diverged_run(**settings):
    run = made_up_run(losses=(9.0, float("nan")), **settings)
    run.iteration_loss[0, 3] = np.nan
    none = run.test_labels[:0]
    changes = {"test_labels": none, "test_predicted": none, "test_confidence": none.astype("f4")}
    changes["confusion"] = dict.fromkeys(run.confusion, np.zeros((10, 10), int))
    changes["measures"] = {name: array[:0] for name, array in run.measures.items()}
    run.history[run.history.columns.drop("epoch")] = np.nan
    return dataclasses.replace(run, **changes)


def npz(run, replaced=None, **arrays):
    """The arrays of a run as they are kept; with others, without those that are None, or with the
    bytes of some members replaced."""
    kept = {name: getattr(run, name) for name in ARRAYS} | arrays
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in kept.items():
            content = io.BytesIO()
            np.save(content, 0 if array is None else array)
            if array is not None:
                archive.writestr(
                    f"{name}.npy", (replaced or {}).get(f"{name}.npy") or content.getvalue()
                )
    return buffer.getvalue()


def forge(store, run, change=None, packed=None, stated=True):
    """Change the record of `run` or its arrays, and state every name and checksum to fit."""
    path = store.folder / f"{run.digest}.json"
    record = json.loads(path.read_text())
    if packed is not None:
        sha256 = hashlib.sha256(packed).hexdigest()
        (store.folder / record["arrays"]["file"]).unlink(missing_ok=True)
        record["arrays"] = {"file": f"{run.digest}-{sha256[:12]}.npz", "sha256": sha256}
        (store.folder / record["arrays"]["file"]).write_bytes(packed)
    if change:
        changed = change(record)
        record = changed if isinstance(changed, dict) and "format" in changed else record
    if stated:
        record["sha256"] = record_sha256(record)
    path.write_text(json.dumps(record, indent=1))


def train_run(*arguments, **options):
    """The run of `training_steps`, without a store."""
    return finish(training_steps(*arguments, **options))


class Bomb:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was executed",)


class RestrictedFileSize:
    """The system refuses to write files of more than so many bytes, as it does on a full disk."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        resource = pytest.importorskip("resource")
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def stop_after(at, patch):
    """Let a training save a checkpoint after `at` iterations, and stop there."""
    save, iterations = Checkpoint.save, itertools.count(1)

    def stop(self, header, tensors):
        save(self, header, tensors)
        raise KeyboardInterrupt

    patch.setattr(Checkpoint, "due", lambda self: next(iterations) == at)
    patch.setattr(Checkpoint, "save", stop)


def interrupted(config, data, path, at, monkeypatch, device=CPU):
    """The checkpoint of a training of `config` that was stopped after `at` iterations."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(at, patch)
        train_run(config, data, device, checkpoint=Checkpoint(path))
    return Checkpoint(path)
