"""`pytest --nbval-lax notebooks`, called bare, sees the shipped records and keeps nothing."""

import os
import tempfile

import pytest

KEPT = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    folder = tempfile.TemporaryDirectory(prefix="labkit-nbval-")
    config.stash[KEPT] = folder
    os.environ["LABKIT_RUNS"] = folder.name  # not the user's own runs of the same settings


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[KEPT].cleanup()
