"""Several runs at once: the same runs as one after another, and none left behind."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from itertools import permutations
from pathlib import Path

import psutil
import pytest
import torch
import torture
from helpers import CPU, made_up_run

from labkit.core import model as models
from labkit.core.config import Config, vary
from labkit.core.data import CHECKSUMS
from labkit.lab import dispatch, experiment, task, workers
from labkit.lab.training import threads
from labkit.store.checkpoint import SUFFIX, read_header
from labkit.store.folder import Store, StoreWarning, lock_of

SETTINGS = vary(Config(epochs=1, batch_size=1000, epoch_accuracy=False), lr=[0.001, 0.01])


@pytest.fixture
def worth_it(monkeypatch):
    monkeypatch.setattr(workers, "WORTH", 0)
    monkeypatch.setattr(workers, "processes", lambda runs: max(min(runs, 2), 1))


@pytest.fixture
def small_trainings(monkeypatch, tmp_path):
    """Trainings, in this process and in others, are those of `torture.prepare`."""
    tiny = torture.small_data(torture.IMAGES)
    monkeypatch.setattr("labkit.core.data.load", lambda name: tiny)
    monkeypatch.setitem(models.ACTIVATION_MODULES, "relu", torture.dropping)
    monkeypatch.setattr(task, "COMMAND", torture.command("one", tmp_path / "runs", 1e9))


def test_processes_give_the_runs_that_one_process_gives(
    worth_it, small_trainings, own_store, tmp_path, capfd
):
    settings = vary(torture.CONFIG.replace(epochs=2), lr=[0.001, 0.01])
    for config in settings.values():  # a retraining takes the place of what was there
        older = made_up_run(losses=(1.0, 0.5))
        sha256 = CHECKSUMS[config.dataset]
        Store().save(dataclasses.replace(older, config=config, data_sha256=sha256))
    together = experiment.run_all(settings, seeds=1, device="cpu", retrain=True)
    said = capfd.readouterr().out
    assert "2 runs to train, 2 at a time" in said
    assert said.count("seed 0: Train Epoch: 1 Loss: ") == 2
    for label, config in settings.items():
        (run,) = together[label]
        assert not run.recorded and run.config == config
        assert run.provenance["date"] > older.provenance["date"]
        own = Store(tmp_path / "own")
        with threads(max(torch.get_num_threads() // 2, 1)):
            experiment.run(config, device="cpu", log="none", store=own)
        assert torture.same(run, own.get(run.digest))
    again = experiment.run_all(settings, seeds=1, device="cpu")
    for label, (run,) in again.items():
        assert run.recorded and torture.same(run, together[label][0])
    assert not list(own_store.glob("*.checkpoint"))


def in_processes(configs, store, log, retrain):
    places = [str(place) for place in store.places]
    request = {"device": "cpu", "retrain": retrain, "threads": 1, "places": places}
    return workers.in_processes(list(configs), 2, request, store, log)


def test_processes_look_where_this_one_does(worth_it, tmp_path, capsys):
    """Even if a folder's name has the sign that stands between two folders in LABKIT_RUNS."""
    store = Store(tmp_path / f"a{os.pathsep}b", shipped=tmp_path / "shipped")
    made = [
        made_up_run(losses=(1.0,), batch_size=1000, lr=lr, epoch_accuracy=False)
        for lr in (0.001, 0.01)
    ]
    made = [dataclasses.replace(run, data_sha256=CHECKSUMS["mnist-5k"]) for run in made]
    assert [run.config for run in made] == list(SETTINGS.values())
    store.save(made[0])
    Store(tmp_path / "shipped", shipped=None).save(made[1])
    runs = in_processes(SETTINGS.values(), store, "epoch", False)
    assert len(runs) == 2
    said = capsys.readouterr().out
    assert said.count("recorded 2026-01-02") == 2 and "Train Epoch" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{os.pathsep}b", "shipped"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The runs of a `run_all` that was never interrupted."""
    return torture.reference_of_all(tmp_path_factory.mktemp("whole") / "runs")


def wait_for(condition):
    deadline = time.monotonic() + torture.PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_last_run_missing_ends_with_the_bits_it_has_beside_others(whole, tmp_path, chance):
    runs = tmp_path / "runs"
    parent = torture.start(runs, "all", seconds=1e9)  # a checkpoint only where it stops
    wait_for(lambda: list(runs.glob("*.json")))
    parent.send_signal(chance.choice(torture.SIGNALS))
    parent.communicate(timeout=torture.PATIENCE)
    torture.assert_no_orphans(runs)
    kept = min(runs.glob("*.json")).stem
    for path in runs.glob("*.*"):
        if not path.name.startswith((kept, ".locks")):
            path.unlink()  # the other one may just have been done too
    assert [run for run, _ in torture.of_all(runs)].count(None) == 1
    torture.finish(torture.start(runs, "all", seconds=1e9))
    assert torture.all_same(runs, whole)


def test_a_run_whose_process_was_killed_ends_with_the_bits_it_has_there(whole, tmp_path, chance):
    """Here it goes on from the checkpoint of the process that was killed."""
    runs = tmp_path / "runs"
    parent = torture.start(runs, "all")
    wait_for(lambda: torture.files(runs))
    torture.children(parent)[0].send_signal(chance.choice(torture.SIGNALS))
    torture.finish(parent)
    assert torture.all_same(runs, whole)


def test_what_the_moment_brings_changes_no_runs_threads(monkeypatch, tmp_path, own_store):
    """Nor does the log: threads follow from all that a call asks for."""
    used = {}

    def training(config, data, *rest):
        used[config.lr, config.epochs] = torch.get_num_threads()
        yield
        run = made_up_run(losses=(1.0,) * config.epochs)
        return dataclasses.replace(run, config=config, data_sha256=data.sha256)

    monkeypatch.setattr(dispatch, "training_steps", training)
    monkeypatch.setattr(task, "COMMAND", ("false",))
    settings = vary(Config(epochs=5), lr=[0.001, 0.01])
    short = {"short": Config(epochs=4)}  # is worth no process
    kept, expected = Store(tmp_path / "kept"), {(0.001, 5): 2, (0.01, 5): 2}
    (tmp_path / "file").write_text("")

    def threads_of(called, **options) -> dict[tuple[float, int], int]:
        used.clear()
        with threads(4), warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            experiment.run_all(called, device="cpu", log="none", **options)
        return dict(used)

    assert threads_of(settings | short) == expected | {(0.01, 4): 4}
    assert threads_of(settings, retrain=True) == expected
    assert threads_of(settings, store=Store(tmp_path / "file" / "runs")) == expected
    monkeypatch.setattr(workers, "processes", lambda runs: 1)  # too little memory
    assert threads_of(settings, store=kept) == expected
    experiment.run(
        settings["learning rate 0.001"].replace(seed=1), device="cpu", log="none", store=kept
    )
    assert threads_of(settings, seeds=[1], store=kept) == {(0.01, 5): 2}
    assert threads_of({"alone": settings["baseline"]}, seeds=[9]) == {(0.01, 5): 4}


def test_where_a_process_fails_the_run_is_trained_in_this_one(worth_it, tmp_path, monkeypatch):
    broken = "import sys; print('no such library', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(task, "COMMAND", (sys.executable, "-c", broken))
    trained = []

    def training(config, *rest):
        trained.append(config.lr)
        yield
        return made_up_run(losses=(1.0,), lr=config.lr)

    monkeypatch.setattr(dispatch, "training_steps", training)
    with pytest.warns(StoreWarning, match=r"failed \(no such library\); it is trained in this"):
        runs = experiment.run_all(SETTINGS, device="cpu", log="none")
    assert trained == [0.001, 0.01] and [len(group) for group in runs.values()] == [1, 1]


@pytest.mark.parametrize("command", [("false",), ("no such command",), ("true",)])
def test_an_older_record_is_not_taken_for_what_a_failed_process_trained(
    command, worth_it, own_store, monkeypatch
):
    older = dataclasses.replace(made_up_run(), data_sha256=CHECKSUMS["mnist-5k"])
    Store().save(older)
    monkeypatch.setattr(task, "COMMAND", command)
    with pytest.warns(StoreWarning, match="process that trained it failed"):
        trained = in_processes([older.config, older.config.replace(seed=1)], Store(), "none", True)
    assert trained == {}


def test_a_run_that_its_process_cannot_keep_comes_home_all_the_same(
    worth_it, own_store, tmp_path, monkeypatch
):
    source = """
        import dataclasses, sys; sys.path.insert(0, HELPERS)
        from helpers import CPU, made_up_run
        from labkit.lab import dispatch, worker
        from labkit.store.folder import Store, StoreError
        def full(*_):
            raise StoreError("the disk is full.")
        def training(config, data, *_):
            yield
            return dataclasses.replace(made_up_run(), config=config, data_sha256=data.sha256)
        Store.save, dispatch.training_steps = full, training
        worker.child()
    """
    source = textwrap.dedent(source).replace("HELPERS", repr(str(Path(__file__).parent)))
    monkeypatch.setattr(task, "COMMAND", (sys.executable, "-c", source))
    configs = [Config(epochs=2, seed=seed) for seed in range(2)]
    with pytest.warns(StoreWarning, match=r"the disk is full\. The run is in memory only"):
        runs = in_processes(configs, Store(), "none", False)
    for config in configs:
        kept = Store().find(config, CHECKSUMS["mnist-5k"])
        assert torture.same(kept, runs[config]) and kept.checksum == runs[config].checksum


def test_what_is_soon_done_and_what_cannot_be_kept_takes_no_process(
    worth_it, monkeypatch, tmp_path
):
    configs = list(SETTINGS.values())
    (tmp_path / "file").write_text("")
    unwritable = Store(tmp_path / "file" / "runs")
    assert workers.together(configs, CPU, "none", Store()) == 2
    with monkeypatch.context() as patch:
        assert workers.together(configs, CPU, "none", unwritable) == 1
        assert workers.together(configs, CPU, "iteration", Store()) == 1
        patch.setattr(workers, "WORTH", 4001)
        assert workers.together(configs, CPU, "none", Store()) == 1


def test_as_many_processes_as_cores_runs_and_memory_allow(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [workers.processes(runs) for runs in (0, 1, 3, 9)] == [1, 1, 3, 4]
    memory = psutil.virtual_memory()._replace(available=3.2e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert workers.processes(9) == 2


def test_an_interrupt_ends_the_processes_too_which_save_and_free_their_runs(own_store):
    """A kill does so in `test_the_last_run_missing_ends_with_the_bits_it_has_beside_others`."""
    source = f"""
        import sys; sys.path.insert(0, {str(Path(torture.__file__).parent)!r})
        from pathlib import Path
        import torture
        from labkit.core.config import vary
        from labkit.lab import task, workers
        from labkit.lab.experiment import run_all
        folder = Path({str(own_store)!r})
        torture.prepare(folder, 1e9)  # nothing is saved but where it stops
        workers.WORTH, workers.processes = 0, lambda runs: 2
        task.COMMAND = torture.command("one", folder, 1e9)
        try:
            run_all(vary(torture.CONFIG.replace(epochs=99), lr=[0.001, 0.01, 0.1]), device="cpu")
        except KeyboardInterrupt as stop:
            print(stop)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True
    )
    lines = (line for line in parent.stdout if "Train Epoch: 0" in line)
    next(lines), next(lines)
    children = psutil.Process(parent.pid).children()
    assert len(children) == 2
    parent.send_signal(signal.SIGINT)
    said, _ = parent.communicate(timeout=torture.PATIENCE)
    assert not any(map(psutil.pid_exists, (child.pid for child in children)))
    configs = [torture.CONFIG.replace(epochs=99, lr=lr) for lr in (0.001, 0.01, 0.1)]
    digests = [config.digest(CHECKSUMS["mnist-5k"]) for config in configs]
    headers = [read_header(own_store / f"{digest}{SUFFIX}") for digest in digests]
    at = [divmod(*header["iterations"][:2]) for header in headers[:2]]
    places = dict.fromkeys(f"epoch {epoch}, iteration {i}" for epoch, i in at)
    found = {f"stopped at {' and '.join(p)}; run again to go on" for p in permutations(places)}
    assert said.splitlines()[-1] in found and not headers[2]
    for digest in digests:
        with lock_of(own_store, digest).acquire(timeout=5):
            pass


def test_an_interrupt_on_a_gpu_stops_every_run_that_has_begun(monkeypatch):
    stopped = []

    def training(number):
        try:
            yield
            while not number:
                yield
            raise KeyboardInterrupt
        except KeyboardInterrupt as stop:
            stopped.append(number)
            stop.args = (f"epoch {number}",)
            raise

    pretend_gpu(monkeypatch, lambda: 100)
    with pytest.raises(KeyboardInterrupt) as stop:
        workers.in_streams([training(0), training(1), training(2)], torch.device("cuda"))
    assert sorted(stopped) == [0, 1] and sorted(stop.value.args) == ["epoch 0", "epoch 1"]


def made_up_trainings(steps: list[int], order: list[int]):
    def training(number: int, count: int):
        for _ in range(count):
            order.append(number)
            yield
        return number

    return [training(number, count) for number, count in enumerate(steps)]


def pretend_gpu(monkeypatch, free):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free(), 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)


def test_on_a_gpu_runs_take_turns_and_start_while_memory_is_left(monkeypatch):
    order: list[int] = []
    # Each that was begun holds 30 of 100.
    pretend_gpu(monkeypatch, lambda: 100 - 30 * len(set(order)))
    runs = workers.in_streams(made_up_trainings([4, 4, 2], order), torch.device("cuda"))
    assert runs == [0, 1, 2]
    assert order[:5] == [0, 0, 1, 0, 1]  # 40 are left: less than one and a half
    assert order.index(2) > max(i for i, number in enumerate(order) if number == 0)
    assert sorted(order) == [0] * 4 + [1] * 4 + [2] * 2


def test_a_failing_run_on_a_gpu_frees_the_others(monkeypatch):
    order: list[int] = []
    closed = []

    def failing():
        yield
        raise MemoryError("none left")

    def other():
        try:
            while True:
                yield
        finally:
            closed.append(True)

    pretend_gpu(monkeypatch, lambda: 100)
    with pytest.raises(MemoryError):
        workers.in_streams([other(), failing()], torch.device("cuda"))
    assert closed == [True] and not order


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_real_gpu_runs_side_by_side_are_those_one_after_another(tmp_path):
    together = experiment.run_all(SETTINGS, device="cuda", log="none")
    for label, config in SETTINGS.items():
        alone = experiment.run(config, device="cuda", log="none", store=Store(tmp_path / "own"))
        assert torture.same(together[label][0], alone)
