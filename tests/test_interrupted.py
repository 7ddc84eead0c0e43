"""Trainings that are killed, run out of memory or of disk: what goes on where, and what is said.

The same at length is `tests/benchmarks/torture.py`.
"""

import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jupyter_client
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torture
from helpers import (
    Bomb,
    RestrictedFileSize,
    interrupted,
    made_up_run,
    stop_after,
    train_run,
)

from labkit.core import model as models
from labkit.core.config import Config
from labkit.core.device import DeviceError
from labkit.core.evaluate import Predictions
from labkit.core.measures import STATISTICS
from labkit.core.train import fit, make_optimizer
from labkit.lab import experiment, state
from labkit.lab.training import threads
from labkit.store import checkpoint, inventory
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import Store, StoreError, StoreWarning

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of `torture.CONFIG` that was never interrupted."""
    return torture.reference(tmp_path_factory.mktemp("whole") / "runs")


@pytest.fixture(scope="module")
def uninterrupted(tiny):
    """The run of a config, trained once."""
    return functools.cache(lambda config: train_run(config, tiny, CPU))


def test_killed_at_random_moments_a_run_ends_with_the_same_bits(tmp_path, chance, whole):
    assert torture.kill(tmp_path, 2, chance, whole)["kills"] == 2


def test_of_two_processes_one_trains_and_the_other_reads(tmp_path, chance, whole):
    assert torture.race(tmp_path, 2, chance, whole)["races"] == 2


def test_no_damage_gives_a_wrong_number(tmp_path, chance):
    run = made_up_run(losses=(1.25, 0.5), wrong={(2, 7): 3})
    assert torture.damage(tmp_path, 100, chance, run)["noticed"] > 75


def test_the_stop_button_and_a_dead_kernel_lose_nothing(tmp_path, whole):
    """The same kernel goes on after an interrupt, and a new one after the old one's death."""
    source = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(Path(torture.__file__).parent)!r})
        from pathlib import Path
        import torture
        run = torture.train_here(Path({str(tmp_path / "runs")!r}))
    """)
    digest = torture.CONFIG.digest(torture.data.checksum("mnist-5k"))
    saved = tmp_path / "runs" / f"{digest}{SUFFIX}"

    def work_until(done: int) -> None:
        deadline = time.monotonic() + torture.PATIENCE
        while checkpoint.read_header(saved).get("iterations", [0])[0] < done:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def run_cell(manager, client, then=None):
        # Else what is sent right after an error is thrown away with all that was sent before.
        asked = client.execute(source, stop_on_error=False)
        if then:
            then(manager)
        while True:  # a late reply to a question asked before may come first
            reply = client.get_shell_msg(timeout=torture.PATIENCE)
            if reply["parent_header"]["msg_id"] == asked:
                return reply["content"]

    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")
    try:
        stop = run_cell(manager, client, lambda m: (work_until(2), m.interrupt_kernel()))
        assert stop["ename"] == "KeyboardInterrupt"
        (said,) = stop["traceback"]
        assert re.fullmatch(r"stopped at epoch \d, iteration \d; run again to go on", said)
        client.execute(source)  # in the same kernel
        work_until(checkpoint.read_header(saved)["iterations"][0] + 1)
    finally:
        manager.shutdown_kernel(now=True)
    assert saved.exists()
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")
    try:
        assert run_cell(manager, client)["status"] == "ok"
    finally:
        manager.shutdown_kernel(now=True)
    found = torture.find(tmp_path / "runs")
    assert len(found.provenance["resumed"]) == 2 and not saved.exists()
    ((run, weights),) = whole.runs
    assert torture.same(found, run)
    assert torture.weights_of(tmp_path / "runs").read_text() == weights


def stopping_at(monkeypatch, owner, name, at, times=1):
    """Let Ctrl-C be pressed so many times within a call of a function, and let the call go on."""
    function, calls = getattr(owner, name), itertools.count(1)

    def pressed(*arguments, **options):
        result = function(*arguments, **options)
        for _ in range(times if next(calls) == at else 0):
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(owner, name, pressed)


@pytest.mark.parametrize(
    ("owner", "name", "at", "place"),
    [
        (F, "cross_entropy", 6, "epoch 0, iteration 2"),  # in an update; the first four measure
        (state.TrainingState, "record", 4, "epoch 1, iteration 1"),
        (state.TrainingState, "measure", 5, "epoch 1, iteration 1"),
        (state.TrainingState, "diverged", 4, "epoch 1, iteration 0"),
        (state, "predict", 1, "epoch 1, iteration 0"),
        (state, "predict", 2, "epoch 2, iteration 0"),
    ],
)
def test_wherever_ctrl_c_comes_the_state_of_that_moment_is_saved(
    owner, name, at, place, tiny, tmp_path, monkeypatch, uninterrupted
):
    """Also if it comes again while that is done."""
    config = Config(batch_size=16, epochs=2, lr=0.001)
    whole = uninterrupted(config)
    saved = Checkpoint(tmp_path / f"{config.digest('small')}{SUFFIX}")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stop:
        stopping_at(patch, owner, name, at, times=2)
        stopping_at(patch, checkpoint.json, "dumps", 1)
        train_run(config, tiny, CPU, checkpoint=saved)
    assert stop.value.args == (place,)
    done, iterations, _ = checkpoint.read_header(saved.path)["iterations"]
    assert "epoch {}, iteration {}".format(*divmod(done, iterations)) == place
    assert torture.same(train_run(config, tiny, CPU, checkpoint=saved), whole)


def test_a_stop_that_cannot_be_saved_says_so(tiny, tiny_data, tmp_path, monkeypatch, own_store):
    config = Config(batch_size=16, epochs=2, lr=0.001)
    stopping_at(monkeypatch, state.TrainingState, "record", 4)
    said = "stopped at epoch 1, iteration 1 .not saved.; run again to go on"
    failing = pytest.warns(StoreWarning, match="no checkpoint")
    with RestrictedFileSize(10**6), failing, pytest.raises(KeyboardInterrupt, match=said):
        experiment.run(config, device="cpu", log="none")
    assert not list(own_store.glob(f"*{SUFFIX}"))


def test_before_the_first_update_there_is_nothing_to_save(tiny_data, monkeypatch, own_store):
    stopping_at(monkeypatch, state.TrainingState, "measure", 1)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped; run again to go on$"):
        experiment.run(Config(epochs=1), device="cpu", log="none")
    assert not list(own_store.glob(f"*{SUFFIX}"))


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_fit_goes_on_in_the_middle_of_an_epoch_with_the_same_bits(tiny, optimizer):
    config = Config(optimizer=optimizer, batch_size=16, epochs=2, seed=3, weight_decay=1e-3)
    whole = models.build(config)
    losses = list(fit(whole, make_optimizer(whole, config), tiny, config))
    first = models.build(config)
    before = make_optimizer(first, config)
    steps = fit(first, before, tiny, config)
    begun = [next(steps) for _ in range(4)]
    again = models.build(config.replace(seed=9))
    after = make_optimizer(again, config)
    again.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    assert begun + list(fit(again, after, tiny, config, done=4)) == losses and len(losses) == 6
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "OVERHEAD", 1e9)


@pytest.fixture
def dated(monkeypatch):
    """Trainings begin a second apart, which is how exact their dates are."""
    dates = iter([f"2026-01-01T00:00:0{second}+00:00" for second in range(10)])
    provenance = state.provenance
    monkeypatch.setattr(
        state, "provenance", lambda device: provenance(device) | {"date": next(dates)}
    )


def test_a_run_goes_on_and_says_when_it_was_taken_up(
    tiny, tmp_path, monkeypatch, capsys, uninterrupted
):
    config = Config(batch_size=16, epochs=2, lr=0.001)
    whole = uninterrupted(config)
    path = tmp_path / f"{config.digest('small')}{SUFFIX}"
    saved = interrupted(config, tiny, path, 4, monkeypatch)
    date = saved.started()
    monkeypatch.setattr("labkit.lab.provenance.processor", lambda: "another, AVX512")
    with threads(torch.get_num_threads() + 1):
        run = train_run(config, tiny, CPU, "epoch", saved)
    assert torture.same(run, whole)
    assert "goes on at epoch 1, iteration 1" in capsys.readouterr().out
    assert run.provenance["date"] == date
    (again,) = run.provenance["resumed"]
    assert again["device"] == "cpu (x86_64)" or again["device"].startswith("cpu")
    assert again["processor"] == "another, AVX512" != run.provenance["processor"]
    assert again["versions"]["torch"] == run.provenance["versions"]["torch"]
    assert again["threads"] == run.provenance["threads"] == torch.get_num_threads()
    assert run.provenance["seconds"] >= run.history["seconds"].sum()


@pytest.mark.parametrize(("lr", "at"), [(0.001, 5), (1e30, 1)])
def test_an_interruption_changes_neither_the_last_answers_nor_a_divergence(
    lr, at, tiny, tmp_path, monkeypatch, uninterrupted
):
    config = Config(batch_size=16, epochs=2, lr=lr)
    whole = uninterrupted(config)
    assert (whole.diverged is not None) == (lr == 1e30)
    path = tmp_path / f"{config.digest('small')}{SUFFIX}"
    saved = interrupted(config, tiny, path, at, monkeypatch)
    assert torture.same(train_run(config, tiny, CPU, checkpoint=saved), whole)


def checkpoint_of(config, path, **changes):
    """A checkpoint file with one tensor in it."""
    run = made_up_run(losses=(1.0,) * config.epochs, seed=config.seed)
    header = torture.header_of(run, 3) | changes
    saved = Checkpoint(path / f"{config.digest('made up')}{SUFFIX}")
    saved.save(header, {"weights": torch.ones(3)})
    return saved


def test_a_checkpoint_of_another_run_or_format_is_set_aside_or_refused(tmp_path, monkeypatch):
    saved = checkpoint_of(Config(seed=1), tmp_path)
    os.rename(saved.path, tmp_path / f"{Config().digest('made up')}{SUFFIX}")
    moved = Checkpoint(tmp_path / f"{Config().digest('made up')}{SUFFIX}")
    with pytest.warns(StoreWarning, match="of another run .* set aside"):
        assert moved.load(CPU) is None
    saved = checkpoint_of(Config(), tmp_path, format=0)
    with pytest.warns(StoreWarning, match="written by an older labkit"):
        assert saved.load(CPU) is None
    with pytest.raises(StoreError, match="written by a newer labkit"):
        checkpoint_of(Config(), tmp_path, format=10**6).load(CPU)


def test_a_checkpoint_is_read_without_executing_anything(tmp_path):
    saved = checkpoint_of(Config(), tmp_path)
    header, _ = saved.load(CPU)
    saved.save(header, {"weights": Bomb()})
    with pytest.warns(StoreWarning, match="holds more than tensors and plain values.* set aside"):
        assert saved.load(CPU) is None


def test_a_full_disk_stops_checkpoints_and_not_the_training(tiny, often, tmp_path, uninterrupted):
    config = Config(batch_size=16, epochs=1, lr=0.001)
    full = Checkpoint(tmp_path / f"{config.digest('small')}{SUFFIX}")
    with RestrictedFileSize(10**6), pytest.warns(StoreWarning, match="no checkpoint") as said:
        run = train_run(config, tiny, CPU, checkpoint=full)
    assert len(said) == 1 and "File too large" in str(said[0].message)
    assert torture.same(run, uninterrupted(config))
    assert list(tmp_path.iterdir()) == []  # no half a file


def test_checkpoints_are_seldom_on_a_slow_disk_and_frequent_on_a_fast_one(tmp_path, monkeypatch):
    saved = Checkpoint(tmp_path / "x")
    now = saved.last
    monkeypatch.setattr("time.monotonic", lambda: now)
    assert not saved.due()
    now += 46
    assert saved.due()
    saved.cost = 3.0
    assert not saved.due()
    now += 105  # three seconds are two per cent of 150
    assert saved.due()


@pytest.fixture
def tiny_data(tiny, monkeypatch):
    """Every dataset is the tiny one."""
    monkeypatch.setattr("labkit.core.data.load", lambda name: tiny)
    monkeypatch.setattr("labkit.core.data.checksum", lambda name: "small")


def test_a_retraining_goes_on_from_its_own_checkpoint_alone(
    tiny, tiny_data, dated, monkeypatch, own_store
):
    config = Config(batch_size=16, epochs=2, lr=0.001)
    path = own_store / f"{config.digest('small')}{SUFFIX}"
    own_store.mkdir()

    def times_resumed(**options) -> int:
        run = experiment.run(config, device="cpu", log="none", **options)
        return -1 if run.recorded else len(run.provenance.get("resumed", []))

    interrupted(config, tiny, path, 2, monkeypatch)  # begun at second 0
    assert times_resumed(retrain="2026-01-01T00:00:01") == 0  # it asks for what is later
    assert times_resumed() == -1 and not path.exists()
    interrupted(config, tiny, path, 2, monkeypatch)  # a retraining that was stopped
    assert times_resumed() == -1 and path.exists()
    assert times_resumed(retrain=True) == 1
    assert times_resumed(retrain=True) == 0
    assert not path.exists()


def test_a_long_retraining_goes_on_too(tiny, tiny_data, dated, monkeypatch, own_store):
    """Its header holds more epochs than fit into 64 kB."""
    monkeypatch.setattr(state, "predict", lambda *_: answers)
    labels = tiny.test.labels.numpy().astype("u1")
    right = Predictions(labels, labels, np.ones(len(labels), "f4"), labels * 0)
    answers = dict.fromkeys(STATISTICS, dict.fromkeys(("train", "test"), right))
    losses = torch.tensor(1.0)
    monkeypatch.setattr(
        state, "fit", lambda _, __, ___, c, done=0: itertools.repeat(losses, c.epochs - done)
    )
    config = Config(batch_size=200, epochs=500)
    experiment.run(config, device="cpu", log="none")
    path = own_store / f"{config.digest('small')}{SUFFIX}"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(401, patch)
        experiment.run(config, device="cpu", log="none", retrain=True)
    assert path.read_bytes().index(b"\n", 65) > 1 << 16
    assert checkpoint.read_header(path)["iterations"] == [401, 1, 500]
    statuses = inventory.listing(Store(shipped=None))["status"]
    assert sorted(statuses) == ["complete", "partial, 80% done"]
    again = experiment.run(config, device="cpu", log="none", retrain=True)
    assert len(again.provenance["resumed"]) == 1


def test_a_checkpoint_that_cannot_be_read_is_set_aside_and_not_deleted(tiny_data, often, own_store):
    config = Config(batch_size=16, epochs=1, lr=0.001)
    experiment.run(config, device="cpu", log="none")
    path = own_store / f"{config.digest('small')}{SUFFIX}"
    path.write_bytes(b"what a later version may write")
    with pytest.warns(StoreWarning, match="set aside"):
        experiment.run(config, device="cpu", log="none", retrain=True)
    (aside,) = own_store.glob("*.damaged-*")
    assert aside.read_bytes() == b"what a later version may write"


def test_a_checkpoint_left_by_a_kill_after_the_end_goes(tiny_data, often, monkeypatch, own_store):
    config = Config(batch_size=16, epochs=1, lr=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: None)
        experiment.run(config, device="cpu", log="none")
    assert list(own_store.glob(f"*{SUFFIX}"))
    assert experiment.run(config, device="cpu", log="none").recorded
    assert not list(own_store.glob(f"*{SUFFIX}"))


def test_too_little_memory_is_a_sentence_with_the_setting_to_lower(tmp_path):
    """A process that really has too little; the checkpoint beside it stays."""
    source = """
        import resource, sys, torch
        from labkit.__main__ import main
        from labkit.core import data
        from labkit.core.config import Config
        from labkit.core.device import DeviceError
        from labkit.lab import experiment
        loaded = data.load("mnist-5k")
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports more, which takes memory
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
        try:
            experiment.run(Config(batch_size=2000, epochs=1), device="cpu")
        except DeviceError as error:
            print("SENTENCE", error)
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("limits the memory as only Linux can")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True
    )
    assert (
        "SENTENCE the memory of the device cpu does not suffice for batch_size 2000; lower "
        "batch_size" in done.stdout
    ), done.stdout + done.stderr


FAILURES = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "lower batch_size"),
    (MemoryError(), "lower batch_size"),
    (torch.AcceleratorError("CUDA error: unspecified launch failure"), "was lost"),
    (RuntimeError("CUDA error: device-side assert triggered\nmore"), "was lost"),
]


def test_failures_of_the_hardware_keep_the_checkpoint(
    tiny, often, tmp_path, monkeypatch, uninterrupted
):
    """One after each iteration, and the training goes on every time."""
    config = Config(batch_size=16, epochs=2, lr=0.001)
    path = tmp_path / f"{config.digest('small')}{SUFFIX}"
    for error, said in FAILURES:

        def failing(*arguments, error=error):
            yield next(fit(*arguments))
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(state, "fit", failing)
            with pytest.raises(DeviceError, match=said):
                train_run(config, tiny, CPU, checkpoint=Checkpoint(path))
    run = train_run(config, tiny, CPU, checkpoint=Checkpoint(path))
    assert torture.same(run, uninterrupted(config))
    assert len(run.provenance["resumed"]) == len(FAILURES)


def test_other_errors_are_not_taken_for_the_hardwares(tiny, monkeypatch):
    def failing(*_):
        raise RuntimeError("shapes do not match")
        yield

    monkeypatch.setattr(state, "fit", failing)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train_run(Config(epochs=1), tiny, CPU)


def test_a_checkpoint_header_can_be_read_alone_and_never_fails(tmp_path):
    saved = checkpoint_of(Config(), tmp_path)
    assert checkpoint.read_header(saved.path)["iterations"] == [3, 5, 50]
    for content in (b"", b"\n\n", b"x\n{", b"x\n[1]\n", bytes(500)):
        saved.path.write_bytes(content)
        assert checkpoint.read_header(saved.path) == {}
        assert saved.started() == ""
    assert checkpoint.read_header(tmp_path / "none") == {}
    assert json.dumps(checkpoint.read_header(saved.path)) == "{}"
    assert Store(tmp_path, shipped=None).get(Config().digest("made up")) is None
