"""What the tests share: a store of their own, a small dataset, and runs made up by hand."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import alterations
import numpy as np
import pandas as pd
import pytest
import torture

from labkit.core import data
from labkit.core.config import Config
from labkit.core.data import Data
from labkit.store.run import Run

load = data.load  # as it is when no test has replaced it


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No test reads or writes the user's runs."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("LABKIT_SMOKE", raising=False)
    yield tmp_path / "runs"
    load.cache_clear()


@pytest.fixture(scope="session")
def small() -> Data:
    """120 training and 50 test images of mnist-5k: an epoch of 64 has a short last batch of 56."""
    return dataclasses.replace(torture.small_data(), sha256="small")


def made_up_run(
    *,
    losses: tuple[float, ...] = (1.0, 0.5),
    wrong: dict[tuple[int, int], int] | None = None,
    wrong_train: dict[tuple[int, int], int] | None = None,
    wrong_running: dict[tuple[int, int], int] | None = None,
    recalibrated: bool = True,
    images: int = 100,
    **settings: object,
) -> Run:
    """A run with the given epoch losses, and so many `images` of each digit in either split.

    `wrong[true, predicted]` answers of each split are wrong (`wrong_train` of the training images,
    if given), with either kind of statistics (`wrong_running` by running averages, if given); all
    others are right. Without `recalibrated` the record is from before there were such answers.
    """
    labels = np.repeat(np.arange(10, dtype=np.uint8), images)

    def answers(mistakes):
        predicted = labels.copy()
        for (true, answer), times in (mistakes or {}).items():
            free = np.flatnonzero((labels == true) & (predicted == true))
            predicted[free[:times]] = answer
        counts = np.zeros((10, 10), dtype=int)
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


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a smoke run, made by the command itself."""
    folder = tmp_path_factory.mktemp("report")
    command = [sys.executable, "-m", "labkit", "report", "--output", folder / "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_SMOKE", "1")
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        done = subprocess.run(
            [*command, "-p", "lr", "0.1"], capture_output=True, text=True, cwd=folder
        )
    assert done.returncode == 0, done.stdout + done.stderr
    path = folder / "out" / "lab-report.html"
    assert str(path) in done.stdout  # it says where the page is
    return path


@pytest.fixture(scope="session")
def short_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report of one short notebook, with two runs and something of every kind."""
    return alterations.short_report(tmp_path_factory.mktemp("short"))
