"""The store: what is kept comes back as it was, or not at all; and who trains what when."""

import hashlib
import io
import json
import os
import threading

import numpy as np
import pytest
from conftest import made_up_run

from labkit import experiment
from labkit.config import Config, ConfigError
from labkit.store import (
    DamagedError,
    Store,
    StoreError,
    StoreWarning,
    checksum,
    set_aside,
    write_atomically,
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "kept", shipped=None)


def test_a_run_comes_back_as_it_was_kept(store):
    run = made_up_run(losses=(1.25, 0.1), wrong={(2, 7): 3}, lr=0.1, seed=4)
    saved = store.save(run)
    path = store.folder / f"{run.digest}.json"
    found = store.find(run.config, run.data_sha256)
    assert found.recorded and not run.recorded
    assert found.checksum == saved.checksum == checksum(json.loads(path.read_text()))
    assert found.config == run.config and found.provenance == run.provenance
    assert found.history.equals(run.history)
    for name in ("iteration_loss", "test_labels", "test_predicted", "test_confidence"):
        kept, original = getattr(found, name), getattr(run, name)
        assert kept.dtype == original.dtype and np.array_equal(kept, original)
    assert np.array_equal(found.confusion["test"], run.confusion["test"])
    json.loads(path.read_text(), parse_constant=pytest.fail)  # standard JSON: no NaN in it


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
    monkeypatch.setattr("labkit.config.RECIPE", 10**6)
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


def test_a_record_under_another_runs_name_is_noticed(store):
    run, other = made_up_run(), made_up_run(seed=1)
    store.save(run)
    os.rename(store.folder / f"{run.digest}.json", store.folder / f"{other.digest}.json")
    with pytest.raises(DamagedError, match="the record of another run than its name says"):
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
    monkeypatch.setattr("labkit.store.FORMAT", 10**6)
    store.save(run)
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"written by a newer labkit .format 1000000; .* update"):
        store.get(run.digest)
    monkeypatch.setattr("labkit.data.checksum", lambda dataset: run.data_sha256)
    for retrain in (False, True):
        with pytest.raises(StoreError, match="written by a newer labkit"):
            experiment.run(run.config, device="cpu", store=store, retrain=retrain)
    assert len(list(store.folder.glob("*.json"))) == 1


def test_records_are_read_without_executing_anything(store):
    run = made_up_run()
    store.save(run)
    (path,) = store.folder.glob("*.npz")
    packed = io.BytesIO()
    np.savez(packed, iteration_loss=np.array([Bomb()], dtype=object))
    path.write_bytes(packed.getvalue())
    record = json.loads((store.folder / f"{run.digest}.json").read_text())
    record["arrays"]["sha256"] = hashlib.sha256(packed.getvalue()).hexdigest()
    record["sha256"] = checksum(record)
    (store.folder / f"{run.digest}.json").write_text(json.dumps(record))
    with pytest.raises(DamagedError, match="allow_pickle"):
        store.get(run.digest)


class Bomb:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was executed",)


def test_several_folders_are_read_and_the_first_is_written(tmp_path, monkeypatch):
    run = made_up_run()
    Store(tmp_path / "second", shipped=None).save(run)
    places = [str(tmp_path / "first"), str(tmp_path / "second")]
    monkeypatch.setenv("LABKIT_RUNS", os.pathsep.join(places))
    store = Store(shipped=None)
    assert store.get(run.digest).recorded and store.folder == tmp_path / "first"
    store.save(run)
    assert (tmp_path / "first" / f"{run.digest}.json").exists()


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


def test_a_full_disk_keeps_what_was_there_and_the_run_in_memory(store, monkeypatch):
    trained = counting(monkeypatch)
    experiment.run(Config(epochs=1), device="cpu", store=store)
    content = {path: path.read_bytes() for path in store.folder.glob("[!.]*")}
    with RestrictedFileSize(100), pytest.warns(StoreWarning, match="File too large.*memory alone"):
        run = experiment.run(Config(epochs=1), device="cpu", store=store, retrain=True)
    assert len(trained) == 2 and not run.recorded
    assert {path: path.read_bytes() for path in store.folder.glob("[!.]*")} == content


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

    monkeypatch.setattr(experiment, "training", training)
    monkeypatch.setattr("labkit.data.checksum", lambda dataset: "made up")
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
