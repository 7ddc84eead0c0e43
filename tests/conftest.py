"""What the tests share: a store of their own, a small dataset, and runs made up by hand."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import alterations
import pytest
import torture

from labkit.__main__ import main
from labkit.core import data
from labkit.core.data import Data

# Where the suite runs in the background, a shell has it ignore this, and its children with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
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


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command `labkit` with some words, in this process; what it exits with."""

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, words)])
        with pytest.raises(SystemExit) as ending:
            main()
        return ending.value.code

    return run


@pytest.fixture(scope="session")
def tiny() -> Data:
    """40 of these training images: an epoch of 16 has a short last batch of 8."""
    return dataclasses.replace(torture.small_data(40), sha256="small")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module's tests go to one worker, which makes once what they share; so do those of the two
    modules that need the costly `page`. (xdist's own groups do not work with pytest 9.2.)"""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid).replace("test_verify", "test_report")

    return Scheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", default="0", help="what the tests' random choices follow from")


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What a test draws its random choices from."""
    seed = request.config.getoption("--seed")
    print(f"pytest --seed {seed} makes the same choices again")  # shown if the test fails
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a smoke run, made by the command itself; one of its five runs is trained."""
    folder = tmp_path_factory.mktemp("report")
    command = [sys.executable, "-m", "labkit", "report", "--scale", "quick"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_SMOKE", "1")
        patch.setenv("LABKIT_RUNS", f"{folder / 'runs'}{os.pathsep}{alterations.RECORDS}")
        done = subprocess.run(
            [*command, "--output", folder / "out", "-p", "lr", "0.1"],
            capture_output=True,
            text=True,
            cwd=folder,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    path = folder / "out" / "lab-report.html"
    assert str(path) in done.stdout  # it says where the page is
    return path


@pytest.fixture(scope="session")
def short_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report of one short notebook, with two runs and something of every kind."""
    return alterations.short_report(tmp_path_factory.mktemp("short"))
