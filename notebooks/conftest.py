"""`pytest --nbval-lax notebooks`, called bare, runs at a small scale and keeps nothing."""

import os
import tempfile

import pytest

KEPT = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    folder = tempfile.TemporaryDirectory(prefix="labkit-nbval-")
    config.stash[KEPT] = folder
    os.environ["LABKIT_RUNS"] = folder.name  # one store, so that the baseline is trained once
    os.environ.setdefault("LABKIT_SMOKE", "1")  # one epoch of one seed


def pytest_collectstart(collector: pytest.Collector) -> None:
    # What is shown is compared; the settings it came from are smaller here than in the notebook.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/vnd.labkit+json",)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[KEPT].cleanup()
