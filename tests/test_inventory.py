"""`labkit runs`: what is at hand, whole, unfinished or damaged."""

import io
import subprocess
import sys

import pandas as pd
import pytest
import torch
import torture
from click.testing import CliRunner
from helpers import made_up_run

from labkit.__main__ import cli
from labkit.core.values import LabkitError
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import DamagedError, Store, set_aside
from labkit.store.inventory import listing, overview


@pytest.fixture
def store(own_store, monkeypatch):
    """A complete run, one of another recipe, one damaged, one partial, and a file set aside."""
    store = Store(shipped=None)
    store.save(made_up_run(wrong={(2, 7): 5}))
    with monkeypatch.context() as patch:
        patch.setattr("labkit.core.config.TRAINING_VERSION", 0)
        patch.setattr("labkit.store.record.TRAINING_VERSION", 0)
        store.save(made_up_run(seed=1))
    damaged = store.save(made_up_run(seed=2))
    (store.folder / f"{damaged.digest}.json").write_text("{")
    partial(store, seed=3)
    aside = store.save(made_up_run(seed=4))
    with pytest.warns(UserWarning, match="set aside"):
        set_aside(DamagedError(store.folder / f"{aside.digest}.json", "a test"))
    return store


def partial(store: Store, **settings: object) -> str:
    """A checkpoint of a run that is 30 % done; the name of its record."""
    run = made_up_run(**settings)
    state = Checkpoint(store.folder / f"{run.digest}{SUFFIX}")
    state.save(torture.header_of(run, 3), {"w": torch.ones(2)})
    return run.digest


def labkit(*words: str, given: str = ""):
    return CliRunner().invoke(cli, ["runs", *words], input=given)


def test_every_run_is_listed_with_its_status(store):
    table = listing(store)
    assert sorted(table["status"]) == [
        "complete",
        "complete, recipe 0",
        "damaged",
        "partial, 30% done",
        "set aside",
    ]
    row = table[table["status"] == "complete"].iloc[0]
    assert row["test_accuracy"] == 0.995 and row["seed"] == 0 and row["loss"] == 0.5
    assert row["test_accuracy_recalibrated"] == 0.995
    files = [path for path in store.folder.glob(f"{row['record']}*") if path.is_file()]
    assert row["size"] == sum(path.stat().st_size for path in files)
    shown = labkit().output
    assert str(store.folder) in shown and "99.50 %" in shown and "partial, 30% done" in shown
    assert "nan" not in shown.lower() and "<na>" not in shown.lower()


def test_the_two_accuracies_are_told_apart_and_an_old_record_has_one(own_store):
    store = Store(shipped=None)
    run = store.save(made_up_run(wrong={(2, 7): 5}, wrong_train={}, wrong_running={(2, 7): 90}))
    old = store.save(made_up_run(wrong={(2, 7): 7}, recalibrated=False, seed=1))
    columns = [f"{s}_accuracy{e}" for e in ("", "_recalibrated") for s in ("train", "test")]
    table = listing(store).set_index("record")[columns]
    assert table.loc[run.digest].tolist() == [0.91, 0.91, 1.0, 0.995]
    assert table.loc[old.digest, columns[:2]].tolist() == [0.993, 0.993]
    assert table.loc[old.digest, columns[2:]].isna().all()
    shown = overview(listing(store)).set_index("record")[["test", "running"]]
    assert shown.loc[run.digest].tolist() == ["99.50 %", "91.00 %"]
    assert shown.loc[old.digest].tolist() == ["", "99.30 %"]
    assert "99.30" in labkit("show", old.digest).output


def test_a_run_that_is_being_trained_is_said_to_be(store):
    name = partial(store, seed=9)
    with store.claim(name):
        statuses = listing(store).set_index("record")["status"]
        assert statuses[name] == "training now, 30% done"
        refused = labkit("delete", name, "--yes")
        assert isinstance(refused.exception, LabkitError)
        assert "is being trained now" in str(refused.exception)
    assert listing(store).set_index("record")["status"][name] == "partial, 30% done"


def test_a_folder_with_nothing_but_damaged_files_is_listed(own_store):
    own_store.mkdir()
    (own_store / "x.json").write_text("{")
    assert overview(listing(Store(shipped=None))).iloc[0, :5].tolist() == [
        "x",
        "",
        "",
        "damaged",
        "",
    ]
    assert "x.json is damaged: " in labkit().output


def test_no_runs_is_a_sentence():
    assert labkit().output.startswith("There are no runs in ")
    assert labkit("delete").output == "There is nothing to delete.\n"


def test_one_run_is_shown_by_the_first_letters_of_its_name(store):
    name = made_up_run().digest
    shown = labkit("show", name[:6]).output
    assert shown.startswith(f"{name}: complete") and "batch_size 64" in shown
    assert "99.50" in shown and "cpu (x86_64)" in shown
    shown = labkit("show", partial(store, seed=8)).output
    assert "partial, 30% done" in shown and "seed 8" in shown
    shown = labkit("show", made_up_run(seed=2).digest).output
    assert "damaged" in shown and "cannot be read as JSON" in shown
    for start, said in (("zzz", "none start with it"), ("", "start with it")):
        refused = labkit("show", start)
        assert isinstance(refused.exception, LabkitError) and said in str(refused.exception)


def test_the_export_is_a_csv_with_full_precision(store, tmp_path):
    table = pd.read_csv(io.StringIO(labkit("export").output))
    assert list(table.columns) == list(listing(store).columns)
    assert table.set_index("record").loc[made_up_run().digest, "test_accuracy"] == 0.995
    assert labkit("export", str(tmp_path / "runs.csv")).exit_code == 0
    assert pd.read_csv(tmp_path / "runs.csv").equals(table)


def test_deleting_asks_and_takes_only_what_is_partial_or_set_aside(store):
    before = sorted(path.name for path in store.folder.iterdir())
    refused = labkit("delete", given="n\n")
    assert refused.exit_code == 1 and "Delete these? [y/N]" in refused.output
    assert sorted(path.name for path in store.folder.iterdir()) == before
    done = labkit("delete", given="y\n")
    assert done.exit_code == 0
    gone = set(before) - {path.name for path in store.folder.iterdir()}
    assert len(gone) == 2 and all(SUFFIX in name or ".damaged-" in name for name in gone)
    assert labkit("delete", "--yes").output == "There is nothing to delete.\n"


def test_deleting_one_leaves_the_others_and_finished_runs_are_refused(store):
    name, other = partial(store, seed=7), partial(store, seed=6)
    assert labkit("delete", name[:8], "--yes").exit_code == 0
    statuses = listing(store).set_index("record")["status"]
    assert name not in statuses and other in statuses
    refused = labkit("delete", made_up_run().digest, "--yes")
    assert "finished runs are not deleted here" in str(refused.exception)
    assert listing(store)["status"].eq("complete").sum() == 1


def test_the_command_itself(store):
    command = [sys.executable, "-m", "labkit", "runs", "show", "zzz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("labkit: 'zzz' does not name one record")


def test_the_runs_that_ship_are_listed_if_asked_for(own_store):
    """They are many."""
    short, long = (CliRunner().invoke(cli, ["runs", *more]).output for more in ([], ["--shipped"]))
    assert "labkit runs --shipped lists them" in short and "shipped:\n" in long
    assert long.count("complete") > 100 > short.count("\n")
