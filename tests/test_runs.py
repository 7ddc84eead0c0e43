import json
import os

import numpy as np
import pytest
from conftest import made_up_run

from labkit import experiment
from labkit.config import Config, ConfigError
from labkit.runs import Store, StoreError, write_atomically


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "kept", shipped=None)


def test_a_run_comes_back_as_it_was_kept(store):
    run = made_up_run(losses=(1.25, 0.1), wrong={(2, 7): 3}, lr=0.1, seed=4)
    path = store.save(run)
    found = store.find(run.config, run.data_sha256)
    assert found.recorded and not run.recorded
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
    with pytest.raises(StoreError, match=r"the record .* is damaged"):
        store.find(run.config, run.data_sha256)


def test_a_folder_that_cannot_be_written_is_a_sentence_before_training(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setattr(experiment, "train_run", lambda *_: pytest.fail("it trained"))
    with pytest.raises(StoreError, match="cannot be written"):
        experiment.run(Config(), device="cpu", store=Store(blocked / "runs"))


def test_write_atomically_replaces_in_one_step_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "page.html"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["page.html"]


def counting(monkeypatch):
    trained = []

    def train_run(config, data, log="none"):
        trained.append(config)
        return made_up_run(losses=(1.0,) * config.epochs, seed=config.seed, lr=config.lr)

    monkeypatch.setattr(experiment, "train_run", train_run)
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
