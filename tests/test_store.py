"""The store: what is kept comes back as it was, or not at all; and who trains what when."""

import dataclasses
import json
import multiprocessing
import os
import threading
import warnings

import numpy as np
import pytest
import torture
from helpers import Bomb, RestrictedFileSize, forge, made_up_run, npz

from labkit import tables
from labkit.core.config import Config
from labkit.core.data import Split
from labkit.core.values import ConfigError
from labkit.lab import dispatch, experiment
from labkit.store import inventory
from labkit.store.audit import record_problems
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.files import write_atomically
from labkit.store.folder import DamagedError, Store, StoreError, StoreWarning, set_aside
from labkit.store.integrity import record_sha256


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "kept", shipped=None)


def test_a_run_comes_back_as_it_was_kept(store):
    run = made_up_run(losses=(1.25, 0.1), wrong={(2, 7): 3}, lr=0.1, seed=4)
    saved = store.save(run)
    path = store.folder / f"{run.digest}.json"
    found = store.find(run.config, run.data_sha256)
    assert found.recorded and not run.recorded
    assert found.checksum == saved.checksum == record_sha256(json.loads(path.read_text()))
    assert found.config == run.config and found.provenance == run.provenance
    assert found.history.equals(run.history)
    for name in ("iteration_loss", "test_labels", "test_predicted", "test_confidence"):
        kept, original = getattr(found, name), getattr(run, name)
        assert kept.dtype == original.dtype and np.array_equal(kept, original)
    assert np.array_equal(found.confusion["test"], run.confusion["test"])
    json.loads(path.read_text(), parse_constant=pytest.fail)  # standard JSON: no NaN in it


def test_a_loss_is_kept_to_its_last_bit(store):
    losses = [float(np.float32(loss)) for loss in (1 / 3, 1e-5 / 3, 1e-9 / 3, 1e-20 / 3)]
    run = made_up_run(losses=tuple(losses))
    run.history["seconds"] = [0.1 + 0.2, 1e-7 / 3, 1 / 7, 1e5 / 7]
    run.history["train_accuracy"] = [1 / 3, np.nan, 2 / 3, 1.0]
    store.save(run)
    found = store.get(run.digest)
    assert found.history.equals(run.history) and list(found.history["loss"]) == losses


def test_an_honest_run_with_small_losses_is_returned_as_it_is_read_and_verified(
    small, store, monkeypatch
):
    train = Split(small.train.images[:10], small.train.labels[:10])
    monkeypatch.setattr(
        "labkit.core.data.load", lambda name: dataclasses.replace(small, train=train)
    )
    monkeypatch.setattr("labkit.core.data.checksum", lambda name: "small")
    config = Config(batch_size=10, lr=0.001, epochs=18, epoch_accuracy=False)
    run = experiment.run(config, device="cpu", log="none", store=store)
    assert run.history["loss"].min() < 3e-4
    found = store.get(run.digest)
    assert found.history.equals(run.history) and found.checksum == run.checksum
    assert found.history.index.equals(run.history.index)
    assert found.provenance == run.provenance and torture.same(found, run)
    assert all(found.confusion[s].dtype == run.confusion[s].dtype for s in ("train", "test"))
    assert record_problems(store.folder / f"{run.digest}.json") == []


def test_missing_epoch_accuracies_survive_the_record(store):
    run = made_up_run()
    run.history["test_accuracy"] = [np.nan, 0.5]
    store.save(run)
    found = store.find(run.config, run.data_sha256)
    assert np.isnan(found.history["test_accuracy"][0])


def test_other_settings_or_other_data_never_find_it(store):
    run = made_up_run()
    store.save(run)
    assert store.find(run.config.replace(seed=1), run.data_sha256) is None
    assert store.find(run.config, "other data") is None


def test_a_new_recipe_never_finds_it(store, monkeypatch):
    run = made_up_run()
    store.save(run)
    monkeypatch.setattr("labkit.core.config.TRAINING_VERSION", 10**6)
    assert store.find(run.config, run.data_sha256) is None


def test_a_shipped_record_is_found_and_the_users_own_goes_first(tmp_path):
    shipped = Store(tmp_path / "shipped", shipped=None)
    shipped.save(made_up_run(losses=(1.0, 0.5)))
    store = Store(tmp_path / "own", shipped=tmp_path / "shipped")
    run = made_up_run(losses=(1.0, 0.25))
    assert store.find(run.config, run.data_sha256).history["loss"].iloc[-1] == 0.5
    store.save(run)
    assert store.find(run.config, run.data_sha256).history["loss"].iloc[-1] == 0.25


def test_an_interrupted_save_leaves_the_old_run_whole(store, monkeypatch):
    old, new = made_up_run(losses=(1.0, 0.5)), made_up_run(losses=(1.0, 0.25))
    store.save(old)
    replace = os.replace

    def power_cut(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", power_cut)
    with pytest.raises(KeyboardInterrupt):
        store.save(new)
    monkeypatch.undo()
    found = Store(store.folder, shipped=None).find(old.config, old.data_sha256)
    assert found.history["loss"].iloc[-1] == 0.5
    store.save(new)
    assert store.find(old.config, old.data_sha256).history["loss"].iloc[-1] == 0.25
    assert len(list(store.folder.iterdir())) == 2  # one record, no leftovers


@pytest.mark.parametrize("part", ["json", "npz"])
def test_a_damaged_record_is_named(store, part):
    run = made_up_run()
    store.save(run)
    (path,) = store.folder.glob(f"*.{part}")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedError, match=rf"{run.digest}.json is damaged: ") as caught:
        store.find(run.config, run.data_sha256)
    with pytest.warns(StoreWarning, match="set aside as .*damaged-20.* trained again"):
        set_aside(caught.value)
    assert store.find(run.config, run.data_sha256) is None
    assert len(list(store.folder.glob("*.json.damaged-*"))) == 1


def test_a_well_formed_record_with_another_number_is_noticed(store):
    run = made_up_run(wrong={(2, 7): 3})
    store.save(run)
    path = store.folder / f"{run.digest}.json"
    text = path.read_text()
    assert '"loss":0.5' in text.replace(" ", "")
    path.write_text(text.replace("0.5", "0.4", 1))
    with pytest.raises(DamagedError, match="does not have the checksum that it states"):
        store.get(run.digest)


@pytest.mark.parametrize(("part", "damaged"), [('"lr"', '"lp"'), ('"format": 2', '"format": 3')])
def test_a_damaged_letter_does_not_make_a_record_one_of_a_newer_labkit(store, part, damaged):
    run = made_up_run()
    store.save(run)
    path = store.folder / f"{run.digest}.json"
    assert part in path.read_text()
    path.write_text(path.read_text().replace(part, damaged))
    with pytest.raises(DamagedError, match="does not have the checksum that it states"):
        store.get(run.digest)


def test_a_record_under_another_runs_name_is_noticed(store):
    run, other = made_up_run(), made_up_run(seed=1)
    store.save(run)
    os.rename(store.folder / f"{run.digest}.json", store.folder / f"{other.digest}.json")
    with pytest.raises(DamagedError, match="of another run than its name says"):
        store.get(other.digest)


def test_a_damaged_record_that_ships_is_left_out_with_a_warning(tmp_path):
    run = made_up_run()
    Store(tmp_path / "shipped", shipped=None).save(run)
    (tmp_path / "shipped" / f"{run.digest}.json").write_text("{}")
    store = Store(tmp_path / "own", shipped=tmp_path / "shipped")
    with pytest.warns(StoreWarning, match="is damaged: .* left out"):
        assert store.get(run.digest) is None


def test_a_record_of_a_newer_version_is_refused_and_stays(store, monkeypatch):
    run = made_up_run()
    monkeypatch.setattr("labkit.store.record.FORMAT", 10**6)
    store.save(run)
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"written by a newer labkit .format 1000000; .* update"):
        store.get(run.digest)
    monkeypatch.setattr("labkit.core.data.checksum", lambda dataset: run.data_sha256)
    for retrain in (False, True):
        with pytest.raises(StoreError, match="written by a newer labkit"):
            experiment.run(run.config, device="cpu", store=store, retrain=retrain)
    assert len(list(store.folder.glob("*.json"))) == 1


def test_records_are_read_without_executing_anything(store):
    run = made_up_run()
    store.save(run)
    forge(store, run, packed=npz(run, iteration_loss=np.array([[Bomb()] * 4] * 2, dtype=object)))
    with pytest.raises(DamagedError, match=r"iteration_loss is object\[2, 4\] instead of <f4"):
        store.get(run.digest)


def test_several_folders_are_read_and_the_first_is_written(tmp_path, monkeypatch):
    run = made_up_run()
    Store(tmp_path / "second", shipped=None).save(run)
    places = [str(tmp_path / "first"), str(tmp_path / "second")]
    monkeypatch.setenv("LABKIT_RUNS", os.pathsep.join(places))
    store = Store(shipped=None)
    assert store.get(run.digest).recorded and store.folder == tmp_path / "first"
    store.save(run)
    assert (tmp_path / "first" / f"{run.digest}.json").exists()


def spoil(store, run, part):
    """Spoil the record of `run` in one of its two files, or lose its arrays."""
    name = "*.json" if part == "json" else "*.npz"
    (path,) = store.folder.glob(f"{run.digest}{name}")
    path.unlink() if part == "lost" else path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("part", ["json", "npz", "lost"])
@pytest.mark.parametrize("bad", [0, 1])
def test_a_bad_record_is_left_out_where_there_is_a_good_one(tmp_path, monkeypatch, part, bad):
    run, names = made_up_run(), ("own", "shared", "good")
    own, shared, good = (Store(tmp_path / name, shipped=None) for name in names)
    for each in ((own, shared)[bad], good):
        each.save(run)
    spoil((own, shared)[bad], run, part)
    monkeypatch.setenv("LABKIT_RUNS", os.pathsep.join(str(tmp_path / name) for name in names))
    store = Store(shipped=None)
    copies = tmp_path / "copies"
    copies.mkdir()
    named = rf"/{names[bad]}/{run.digest}.json is damaged: "
    with pytest.warns(StoreWarning, match=named):
        assert store.get(run.digest).checksum
    with pytest.warns(StoreWarning, match=named):
        store.copy(run.digest, copies)
    for path in copies.iterdir():
        assert path.read_bytes() == (good.folder / path.name).read_bytes()
    assert len(list(copies.iterdir())) == 2
    monkeypatch.setattr("labkit.core.data.checksum", lambda dataset: run.data_sha256)
    with pytest.warns(StoreWarning, match=named):
        assert experiment.run(run.config, device="cpu", log="none").recorded


def test_of_two_folders_with_other_numbers_the_first_is_read_and_both_are_named(
    tmp_path, monkeypatch
):
    run = made_up_run(losses=(1.0, 0.5))
    first = Store(tmp_path / "first", shipped=None)
    second = Store(tmp_path / "second", shipped=None)
    first.save(run)
    monkeypatch.setenv("LABKIT_RUNS", f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
    store = Store(shipped=tmp_path / "shipped")
    Store(tmp_path / "shipped", shipped=None).save(made_up_run(losses=(1.0, 0.1)))  # goes last
    second.save(dataclasses.replace(run, provenance=run.provenance | {"commit": "other"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get(run.digest).provenance["commit"] == "abc"  # the same numbers
    second.save(made_up_run(losses=(1.0, 0.25)))
    with pytest.warns(StoreWarning, match="different numbers in .*/second and in .*/first;"):
        assert store.get(run.digest).history["loss"][1] == 0.5


def test_a_record_that_is_being_replaced_is_read_all_the_same(tmp_path):
    """Another process replaces it all the time; whoever reads gets the one or the other."""
    runs = [made_up_run(losses=(1.0, 0.5)), made_up_run(losses=(1.0, 0.25))]
    store, path, seen = Store(tmp_path, shipped=None), tmp_path / f"{runs[0].digest}.json", set()
    store.save(runs[0])

    def replace_it():
        os.fsync = lambda file: None  # only a power cut needs it
        for number in range(300):
            store.save(runs[number % 2])

    writer = multiprocessing.get_context("fork").Process(target=replace_it)
    writer.start()
    while writer.is_alive():
        seen.add(store.get(runs[0].digest).history["loss"][1])
        assert record_problems(path) == []
    writer.join()
    assert writer.exitcode == 0 and seen == {0.5, 0.25}


def test_a_lock_is_waited_for_said_so_and_freed(store, capsys):
    order = []

    def second():
        with Store(store.folder, shipped=None).claim("abc", "epoch"):
            order.append("second")

    with store.claim("abc"), store.claim("other"):  # another run's lock is another lock
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.6)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert "another process trains abc; waiting until it is done" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_trains_in_memory_and_says_so(tmp_path, monkeypatch):
    trained = counting(monkeypatch)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.warns(StoreWarning, match="cannot be written .* in memory and not kept"):
        run = experiment.run(Config(), device="cpu", store=Store(blocked / "runs"))
    assert len(trained) == 1 and not run.recorded
    assert blocked.read_text() == "not a folder"
    assert not Store(blocked / "runs").writable() and Store(tmp_path / "new").writable()


def test_a_full_disk_keeps_what_was_there_and_the_run_in_memory(store, monkeypatch):
    trained = counting(monkeypatch)
    experiment.run(Config(epochs=1), device="cpu", store=store)
    content = {path: path.read_bytes() for path in store.folder.glob("[!.]*")}
    with RestrictedFileSize(100), pytest.warns(StoreWarning, match="File too large.*memory only"):
        run = experiment.run(Config(epochs=1), device="cpu", store=store, retrain=True)
    assert len(trained) == 2 and not run.recorded
    assert {path: path.read_bytes() for path in store.folder.glob("[!.]*")} == content


def test_write_atomically_replaces_in_one_step_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "page.html"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["page.html"]


def counting(monkeypatch):
    trained = []

    def training(config, *rest):
        trained.append(config)
        yield
        return made_up_run(losses=(1.0,) * config.epochs, seed=config.seed, lr=config.lr)

    monkeypatch.setattr(dispatch, "training_steps", training)
    monkeypatch.setattr("labkit.core.data.checksum", lambda dataset: "made up")
    return trained


def test_a_recorded_run_is_not_trained_again_unless_asked(monkeypatch, capsys):
    trained = counting(monkeypatch)
    config = Config(epochs=1)
    assert not experiment.run(config, device="cpu").recorded
    assert experiment.run(config, device="cpu").recorded
    assert len(trained) == 1
    assert "recorded 2026-01-02" in capsys.readouterr().out
    experiment.run(config, device="cpu", retrain=True)
    assert len(trained) == 2
    experiment.run(config, device="cpu", retrain="2026-01-02T03:04:05+00:00")  # recorded just then
    experiment.run(config, device="cpu", retrain="2026-01-02T04:04:05+01:00")  # the same moment
    assert len(trained) == 2
    experiment.run(config, device="cpu", retrain="2026-01-02T03:04:06")
    assert len(trained) == 3
    with pytest.raises(ConfigError, match="retrain is 'maybe'; it must be true, false or a date"):
        experiment.run(config, device="cpu", retrain="maybe")


def test_a_record_dated_in_the_future_does_not_count_as_trained_since(monkeypatch, own_store):
    trained = counting(monkeypatch)
    run, ahead = made_up_run(losses=(1.0,)), "2999-01-01T00:00:00+00:00"
    forged = dataclasses.replace(run, provenance=run.provenance | {"date": ahead})
    store = Store(shipped=None)
    for retrain in ("2026-01-02T03:04:05", True):
        store.save(forged)
        options = {"device": "cpu", "log": "none", "store": store}
        assert experiment.run(run.config, **options).provenance["date"] == ahead
        state = Checkpoint(store.folder / f"{run.digest}{SUFFIX}")
        state.save(torture.header_of(run, 1), {})  # of a retraining that was killed
        removed = []
        monkeypatch.setattr(Checkpoint, "remove", lambda _, to=removed: to.append(len(trained)))
        assert not experiment.run(run.config, retrain=retrain, **options).recorded
        assert removed == [len(trained)]  # not before the end
        assert store.get(run.digest).provenance["date"] == "2026-01-02T03:04:05+00:00"
    assert len(trained) == 2
    found = tables.provenance({"": [dataclasses.replace(forged, recorded=True)]}, "2026", "2027")
    assert list(found.frame["source"]) == ["recorded"]
    store.save(forged)
    assert inventory.listing(store)["status"][0] == "complete, its date is still to come"


def test_run_all_gives_every_setting_every_seed(monkeypatch):
    trained = counting(monkeypatch)
    base = Config(epochs=1)
    settings = {"a": base, "b": base.replace(lr=0.1)}
    runs = experiment.run_all(settings, seeds=2, device="cpu", log="none")
    assert [[r.config.seed for r in group] for group in runs.values()] == [[0, 1], [0, 1]]
    assert [c.lr for c in trained] == [0.01, 0.01, 0.1, 0.1]
    runs = experiment.run_all(settings, seeds=[5], device="cpu", log="none")
    assert [r.config.seed for r in runs["b"]] == [5]
    for bad in (0, "two", []):
        with pytest.raises(ConfigError, match="seeds is"):
            experiment.run_all(settings, seeds=bad, device="cpu")


def test_a_damaged_record_is_trained_again(monkeypatch, own_store):
    trained = counting(monkeypatch)
    first = experiment.run(Config(epochs=1), device="cpu")
    (own_store / f"{first.digest}.json").write_text('{"format": 2, "sha256"')
    with pytest.warns(StoreWarning, match="is damaged: .* trained again"):
        assert not experiment.run(Config(epochs=1), device="cpu").recorded
    assert len(trained) == 2
    assert experiment.run(Config(epochs=1), device="cpu").recorded


def test_a_record_of_an_older_recipe_is_copied_under_its_own_name(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("labkit.core.config.TRAINING_VERSION", 0)
        patch.setattr("labkit.store.record.TRAINING_VERSION", 0)
        name = store.save(made_up_run()).digest
    copies = tmp_path / "copies"
    copies.mkdir()
    store.copy(name, copies)
    assert {path.name: path.read_bytes() for path in copies.iterdir()} == {
        path.name: path.read_bytes() for path in store.folder.iterdir()
    }
