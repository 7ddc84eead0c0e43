"""Runs trained by executors, on other machines or not; and what is said before any are trained."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
import torture
from filelock import FileLock
from helpers import CPU, made_up_run

from labkit.core import model as models
from labkit.core.config import Config, vary
from labkit.core.data import CHECKSUMS, DataError
from labkit.core.values import LabkitError
from labkit.judge.original import SECTIONS
from labkit.lab import cost, dispatch, experiment, task, workers
from labkit.lab.training import threads
from labkit.report import notebook
from labkit.report.build import write_report
from labkit.store.folder import Store, StoreWarning, lock_of
from labkit.store.record import DamagedError, Record

SHA256 = CHECKSUMS["mnist-5k"]
CONFIG = torture.CONFIG.replace(epochs=5)


def training_command(folder: Path) -> tuple[str, ...]:
    """What trains a run on the small data, with a checkpoint only where it stops.

    It leaves a line in `starts` when it begins, and its process's number after every epoch.
    """
    source = f"""
import os, sys; sys.path.insert(0, {str(Path(torture.__file__).parent)!r})
from pathlib import Path
import torture
folder = Path({str(folder)!r})
with (folder / "starts").open("a") as file:
    print("started", file=file)
torture.prepare(folder / "runs", 1e9)
predict = torture.state.predict
def noted(*arguments):
    (folder / f"trains-{{os.getpid()}}").touch()
    return predict(*arguments)
torture.state.predict = noted
torture.worker.child()
"""
    return sys.executable, "-c", source


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


@pytest.fixture
def small(monkeypatch):
    """What this process trains is what `training_command` does."""
    data = torture.small_data(torture.IMAGES)
    monkeypatch.setattr("labkit.core.data.load", lambda name: data)
    monkeypatch.setitem(models.ACTIVATION_MODULES, "relu", torture.dropping)


@contextlib.contextmanager
def dask_workers(folder: Path, count: int, **environment: str):
    """Workers that are processes with a scheduler in this one; an executor."""
    distributed = pytest.importorskip("distributed")
    preload = f"from labkit.lab import task; task.COMMAND = {training_command(folder)!r}"
    options = {"threads_per_worker": 1, "dashboard_address": None, "preload": preload}
    with (
        distributed.LocalCluster(count, env=environment, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


@contextlib.contextmanager
def spawned(folder: Path, count: int, **environment: str):
    context = multiprocessing.get_context("spawn")
    given = training_command(folder), environment
    with ProcessPoolExecutor(count, context, prepare_worker, given) as executor:
        yield executor


def prepare_worker(command: tuple[str, ...], environment: dict[str, str]) -> None:
    task.COMMAND = command
    os.environ.update(environment)


def test_a_killed_dask_worker_loses_nothing_and_no_run_is_trained_twice(small, own_store, tmp_path):
    seeds, killed = range(4), []

    def kill_one():
        while not (training := list(tmp_path.glob("trains-*"))):
            time.sleep(0.01)
        killed.append(psutil.Process(int(training[0].name.partition("-")[2])).ppid())
        os.kill(killed[0], signal.SIGKILL)

    with dask_workers(tmp_path, 2) as executor:
        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        together = experiment.run_all({"": CONFIG}, seeds=seeds, executor=executor, log="none")
        killer.join()
    assert killed and starts(tmp_path) == 5  # one of them twice, the second time from there on
    times = [len(run.provenance.get("resumed", [])) for run in together[""]]
    assert sorted(times) == [0, 0, 0, 1]
    for seed, run in zip(seeds, together[""], strict=True):
        assert run.provenance["threads"] == 1 and not run.recorded
        assert torture.same(Store().get(run.digest), run)
        if seed and not run.provenance.get("resumed"):
            continue  # of those that nothing happened to, one will do
        with threads(1):
            config, own = CONFIG.replace(seed=seed), Store(tmp_path / "alone")
            alone = experiment.run(config, device="cpu", log="none", store=own)
        assert torture.same(alone, run)
    assert not list(own_store.glob("*.checkpoint"))


@pytest.mark.parametrize("workers_of", [dask_workers, spawned])
def test_records_come_home_without_a_shared_folder(workers_of, small, own_store, tmp_path):
    there = tmp_path / "there"
    with workers_of(tmp_path, 1, LABKIT_RUNS=str(there)) as executor:
        (run,) = experiment.run_all({"": CONFIG}, executor=executor, log="none")[""]
        kept = Store().get(run.digest)
        assert torture.same(kept, run) and kept.checksum == run.checksum
        assert torture.same(Store(there).get(run.digest), run) and starts(tmp_path) == 1
        for path in own_store.glob(f"{run.digest}*"):
            path.unlink()
        (again,) = experiment.run_all({"": CONFIG}, executor=executor, log="none")[""]
    assert again.provenance["date"] == run.provenance["date"]  # the worker had it: sent home again
    assert again.checksum == Store().get(run.digest).checksum == run.checksum


def record_of(config: Config) -> Record:
    run = made_up_run(losses=(1.0,) * config.epochs)
    return Record.of(dataclasses.replace(run, config=config, data_sha256=SHA256))


def test_the_others_go_on_when_a_run_fails_and_the_error_names_what_is_missing(
    own_store, monkeypatch
):
    def train_one(request):
        config = Config(**request["config"])
        if config.seed == 1:
            raise MemoryError("the memory does not suffice")
        # The files of another run than the one that was asked for are no good.
        record = record_of(config.replace(seed=9) if config.seed == 2 else config)
        return record.text, record.packed

    monkeypatch.setattr(workers, "train_one", train_one)
    config = Config(epochs=1, lr=0.02)
    with (
        ThreadPoolExecutor(2) as executor,
        pytest.warns(StoreWarning, match="seed 1 could not be trained: the memory does not suff"),
        pytest.raises(LabkitError, match=r"2 of 4 runs .*seed 1 \(the m.*seed 2 \(.*another run"),
    ):
        experiment.run_all({"": config}, seeds=4, executor=executor, log="none")
    names = [config.replace(seed=seed).digest(SHA256) for seed in (0, 3)]
    assert sorted(path.stem for path in own_store.glob("*.json")) == sorted(names)


def test_what_another_process_trains_is_awaited_and_not_sent_away(own_store, monkeypatch):
    config, asked = Config(epochs=1, lr=0.02), []

    def train_one(request):
        asked.append(request["config"]["seed"])
        record = record_of(Config(**request["config"]))
        if request["config"]["seed"] == 1:  # meanwhile the other process comes to its end
            Store().keep(record_of(config))
            other.release()
        return record.text, record.packed

    monkeypatch.setattr(workers, "train_one", train_one)
    held = Path(lock_of(own_store, config.digest(SHA256)).lock_file)
    held.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as executor, FileLock(held, thread_local=False) as other:
        runs = experiment.run_all({"": config}, seeds=3, executor=executor, log="none")
    assert sorted(asked) == [1, 2] and [run.recorded for run in runs[""]] == [True, False, False]


def test_a_damaged_record_is_set_aside_before_its_run_is_sent_away(own_store, monkeypatch):
    record = record_of(Config(epochs=1, lr=0.02))
    monkeypatch.setattr(workers, "train_one", lambda request: (record.text, record.packed))
    own_store.mkdir()
    (own_store / f"{record.run.digest}.json").write_text("{")
    with ThreadPoolExecutor(1) as executor, pytest.warns(StoreWarning, match="set aside"):
        experiment.run_all({"": record.run.config}, executor=executor, log="none")
    assert len(list(own_store.glob("*.damaged-*"))) == 1
    assert torture.same(Store().get(record.run.digest), record.run)


class NeverDone(Executor):
    """Takes runs, and never trains them."""

    def __init__(self):
        self.futures = []

    def submit(self, *_):
        self.futures.append(Future())
        return self.futures[-1]


def test_an_interrupt_calls_back_what_has_not_begun_and_frees_the_claims(own_store):
    executor, config = NeverDone(), Config(epochs=1, lr=0.02)
    stop = threading.main_thread().ident, signal.SIGINT
    threading.Timer(0.5, signal.pthread_kill, stop).start()
    with pytest.raises(KeyboardInterrupt):
        experiment.run_all({"": config}, seeds=3, executor=executor, log="none")
    assert [future.cancelled() for future in executor.futures] == [True] * 3
    for seed in range(3):
        with Store().claim(config.replace(seed=seed).digest(SHA256), wait=False):
            pass


def test_a_record_that_was_damaged_on_its_way_is_refused():
    record = record_of(Config(epochs=1))
    digest = record.run.digest
    assert torture.same(Record.received(digest, record.text, record.packed).run, record.run)
    for text, packed in (
        (record.text.replace(b"cpu", b"gpu"), record.packed),
        (record.text, record.packed[:-1] + b"x"),
        (b"{", record.packed),
    ):
        with pytest.raises(DamagedError):
            Record.received(digest, text, packed)


@pytest.fixture
def trained_at_once(monkeypatch):
    """No training takes any time."""

    def training(config, data, *_):
        yield
        return dataclasses.replace(record_of(config).run, checksum="", recorded=False)

    monkeypatch.setattr(dispatch, "training_steps", training)
    monkeypatch.setattr(workers, "processes", lambda runs: 1)


def test_labkit_train_fills_the_store(trained_at_once, own_store, command, capsys):
    words = ["train", "--scale", "quick", "--epochs", 1, "--seeds", 2, "-p", "optimizer", "sgd"]
    assert command(*words) == 0
    assert "10 runs to train, about" in capsys.readouterr().out
    for section in SECTIONS:
        setting = {"activation": section.activation, "lr": section.lr}
        setting |= {"batch_size": section.batch_size, "optimizer": "sgd", "epochs": 1}
        assert all(Store().find(Config(**setting, seed=seed), SHA256) for seed in range(2))
    assert command(*words) == 0
    assert "10 runs recorded, 0 of them now" in capsys.readouterr().out
    assert command("train", "-p", "optimiser", "sgd") == 1
    assert "Did you mean optimizer?" in capsys.readouterr().err


def test_what_dask_lacks_is_said(own_store, command, capsys, monkeypatch):
    words = ["train", "--scale", "quick", "--epochs", 2, "--dask"]
    monkeypatch.setattr("labkit.lab.cluster.PATIENCE", "1s")
    if "distributed" in sys.modules or pytest.importorskip("distributed"):
        assert command(*words, "tcp://127.0.0.1:9") == 1
        assert "dask is 'tcp://127.0.0.1:9'; it must be local, slurm or" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert command(*words, "local") == 1
    assert "pip install 'labkit[cluster]'" in capsys.readouterr().err


def test_gpus_get_a_worker_each_that_sees_no_other(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    made = []
    monkeypatch.setattr(distributed, "SpecCluster", lambda **spec: made.append(spec))
    from labkit.lab.cluster import local

    local(9, "auto")
    local(1, "cpu")
    seen = [[w["options"]["env"] for w in spec["workers"].values()] for spec in made]
    assert seen == [[{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}], [{}]]


def timed(speed: float, place: dict[str, object], **settings: object) -> Record:
    """The record of a run that passed so many images per second through the network."""
    run = record_of(Config(epochs=5, **settings)).run
    seconds = {"seconds": 20_000 / speed}
    return Record.of(dataclasses.replace(run, provenance=run.provenance | place | seconds))


def test_what_a_training_will_take_follows_from_the_records_most_like_it(own_store):
    store, here = Store(), cost.provenance(CPU)
    place = {"device": here["device"], "processor": here["processor"]}
    for seed, speed in enumerate((90, 100, 400)):
        store.keep(timed(speed, place, seed=seed))
    store.keep(timed(7, place, batch_size=1000))
    store.keep(timed(1, {"processor": "an abacus, BEADS"}, seed=9))
    runs = [Config(epochs=10, seed=seed) for seed in range(3)]  # 40,000 images each
    seconds, words = cost.estimate(runs, CPU, store, 2)
    assert seconds == pytest.approx(3 * 40_000 / 100 / 2)
    assert words == (
        "3 runs to train, 2 at a time, about 10 min on this machine (by 4 records of its own)"
    )
    seconds, _ = cost.estimate([Config(epochs=1, batch_size=1000, lr=0.1)], CPU, store)
    assert seconds == pytest.approx(4_000 / 7)
    seconds, words = cost.estimate(runs[:1], CPU, Store(own_store / "none"))
    assert seconds > 0 and " by the records that ship" in words


def test_times_are_said_as_people_say_them():
    assert [cost.in_words(s) for s in (0.2, 40, 720, 3590, 8640)] == [
        "1 s", "40 s", "12 min", "1 h 0 min", "2 h 24 min",
    ]  # fmt: skip


def test_only_a_terminal_is_asked_and_only_for_long(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(cost.click, "confirm", lambda words, abort: asked.append(words))
    cost.agreed(601, "Much", yes=False)  # under pytest there is no terminal
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    cost.agreed(601, "Much", yes=True)
    cost.agreed(599, "Little", yes=False)
    assert not asked and capsys.readouterr().out == "Much.\nMuch.\nLittle.\n"
    cost.agreed(601, "Much", yes=False)
    assert asked == ["Much. Train them?"]


def test_what_a_notebook_trains_at_least_follows_from_its_parameters(monkeypatch):
    values = {"dataset": "mnist-5k", "epochs": 3, "seeds": "2", "lr": 0.1, "device": "cpu"}
    expected = {Config(epochs=3, lr=lr, seed=seed) for lr in (0.01, 0.1) for seed in (0, 1)}
    assert set(notebook.trained(values)) == expected
    assert notebook.trained({"device": "cpu"}) == []
    values |= {"activations": "relu gelu"}
    assert {config.activation for config in notebook.trained(values)} == {"relu", "gelu"}
    monkeypatch.setenv("LABKIT_SMOKE", "1")
    assert {(c.epochs, c.seed) for c in notebook.trained(values)} == {(1, 0)}


def test_images_that_are_not_to_be_had_are_named_before_the_first_notebook(
    own_store, tmp_path, monkeypatch, capsys
):
    def load(name):
        raise DataError(f"{name} is not in the data folder.")

    monkeypatch.setattr("labkit.core.data.load", load)
    with pytest.raises(DataError, match="mnist is not in the data folder"):
        write_report(tmp_path / "out", seeds=20)  # more than ship
    assert "[1/" not in capsys.readouterr().out and not (tmp_path / "out").exists()
    with pytest.raises(DataError):
        experiment.run_all(vary(Config(epochs=1), lr=[0.02, 0.03]), log="none")
