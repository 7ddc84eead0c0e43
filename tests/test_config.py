import dataclasses
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import made_up_run
from hypothesis import given, settings
from hypothesis import strategies as st

import labkit
from labkit import notebook, recipes, run_all
from labkit.core.config import Config, vary
from labkit.core.values import ConfigError, LabkitError, names
from labkit.store import inventory
from labkit.store.audit import record_problems
from labkit.store.folder import Store, StoreError

#: What a notebook's first cell hands over.
NOTEBOOK_PARAMETERS = {
    "dataset": "mnist-5k",
    "epochs": 5,
    "seeds": 1,
    "device": "cpu",
    "retrain": "no",
}


@pytest.mark.parametrize(
    ("field", "given_value", "meant"),
    [
        ("batch_size", "1e3", 1000),  # papermill and YAML hand over numbers as text
        ("batch_size", 1000.0, 1000),
        ("epochs", " 3 ", 3),
        ("lr", "1e-3", 0.001),
        ("lr", 1, 1.0),
        ("max_pool", "false", False),
        ("activation", "ReLU", "relu"),
    ],
)
def test_values_that_are_plain_are_read_as_meant(field, given_value, meant):
    value = getattr(Config(**{field: given_value}), field)
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("activation", "rleu", "relu"),
        ("optimizer", "adamax", "'adam'"),
        ("dataset", "mnist5k", "'mnist-5k'"),
        ("lr", 0, "above 0"),
        ("lr", -0.1, "above 0"),
        ("lr", float("nan"), "above 0"),
        ("lr", float("inf"), "above 0"),
        ("lr", "fast", "above 0"),
        ("lr", True, "above 0"),
        ("lr", None, "above 0"),
        ("batch_size", 4001, "at most 4,000, the number of training images of mnist-5k"),
        ("epochs", 10**12, "at most 10000"),
        ("batch_size", 0, "whole number of 1 or more"),
        ("batch_size", 2.5, "whole number"),
        ("batch_size", "many", "whole number"),
        ("batch_size", True, "whole number"),
        ("batch_size", float("inf"), "whole number"),
        ("epochs", -1, "whole number of 1 or more"),
        ("epochs", None, "whole number"),
        ("epochs", 10_001, "at most 10000"),
        ("weight_decay", -1, "0 or more"),
        ("seed", -1, "0 or more"),
        ("seed", 2**70, "whole number"),
        ("max_pool", "perhaps", "true or false"),
    ],
)
def test_a_bad_value_gets_a_sentence_with_field_value_and_rule(field, value, said):
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    sentence = str(caught.value)
    assert sentence.startswith(f"{field} is {value!r}; it must be ")
    assert said in sentence


def test_minus_nought_is_the_same_run_as_nought():
    for value in (-0.0, "-0", "-0.0"):
        config = Config(weight_decay=value)
        assert config.digest("data") == Config(weight_decay=0.0).digest("data")


@pytest.mark.parametrize("batch_size", [1, 3, 3999])
def test_a_batch_of_one_image_is_refused(batch_size):
    with pytest.raises(ConfigError, match="single image out of 4000"):
        Config(batch_size=batch_size)


NUMBERS = st.integers() | st.floats() | st.integers(1, 5000) | st.floats(1e-6, 1)
WORDS = st.text() | st.sampled_from(
    [
        "relu",
        "Tanh ",
        "mnist",
        "adam",
        "sgd",
        "false",
        "no",
        "1e3",
        "1e-3",
        " 64 ",
        "0-1",
        "kaiming",
    ]
)
ANYTHING = (
    st.none()
    | st.booleans()
    | NUMBERS
    | WORDS
    | NUMBERS.map(str)
    | st.binary()
    | st.lists(st.integers(), max_size=2)
    | st.sampled_from([np.int64(5), np.float32(0.5), float("nan"), 10**400, "٣", "1_000", 1j])
)


@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Config)]), ANYTHING))
@settings(max_examples=500, deadline=None)
def test_anything_is_a_config_that_round_trips_through_its_record_or_a_sentence(values):
    try:
        config = Config(**values)
    except ConfigError as error:
        said = str(error)
        assert any(said.startswith(f"{field} is ") for field in [*values, "batch_size"])
        assert "must" in said and said.endswith((".", "?"))
        return
    assert Config(**config.to_dict()) == config
    assert all(type(v) in (str, int, float, bool) for v in config.to_dict().values())
    run = dataclasses.replace(made_up_run(losses=(1.0,) * config.epochs), config=config)
    run = dataclasses.replace(run, iteration_loss=run.iteration_loss[:, :1])
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), shipped=None)
        store.save(run)
        assert store.find(config, run.data_sha256).config == config
        assert store.find(config.replace(seed=abs(config.seed - 1)), run.data_sha256) is None


@given(st.sampled_from(["activations", "lr", "batch_size", *NOTEBOOK_PARAMETERS]), ANYTHING)
@settings(max_examples=500, deadline=None)
def test_anything_that_a_notebook_is_given_is_read_or_refused_in_a_sentence(name, value):
    try:
        if name in NOTEBOOK_PARAMETERS:
            base, options = notebook.start(**(NOTEBOOK_PARAMETERS | {name: value}))
            assert base.epochs >= 1 and options["seeds"] >= 1
        else:
            found = notebook.compared(Config(), **{name: value})
            assert all(isinstance(config, Config) for config in found.values())
    except LabkitError as error:
        assert " is " in str(error) and str(error).endswith((".", "?"))


OTHER = {  # of each field a value that is not the default
    "dataset": "mnist",
    "activation": "tanh",
    "optimizer": "sgd",
    "lr": 0.02,
    "batch_size": 65,
    "epochs": 11,
    "weight_decay": 0.1,
    "init": "default",
    "normalization": "0-1",
    "max_pool": False,
    "seed": 1,
    "epoch_accuracy": False,
    "model": "cnn",
}


def test_every_field_is_part_of_the_identity():
    base = Config()
    assert set(OTHER) == set(base.to_dict())
    digests = {base.replace(**{name: value}).digest("x") for name, value in OTHER.items()}
    assert len(digests | {base.digest("x"), base.digest("y")}) == len(OTHER) + 2


def test_what_differs_from_a_default_is_said():
    """Of each field by itself; dataset and epochs are the scale, which is said apart."""
    base, said = Config(), set()
    for name, value in OTHER.items():
        config = base.replace(**{name: value})
        assert (config.describe() != base.describe()) == (name not in ("dataset", "epochs")), name
        assert (recipes.name(config) != recipes.name(base)) == (name in recipes.FIELDS), name
        said.add(config.setting())
    assert len(said) == len(OTHER) - 2  # the seed is no setting either; and the default itself
    many = base.replace(optimizer="momentum", weight_decay=1e-4, max_pool=False, seed=3)
    assert many.describe() == (
        "baseline, SGD, momentum 0.9, weight decay 0.0001, no max-pool, seed 3"
    )


GROWN = """
import json, sys
from labkit import recipes
from labkit import run_all
from labkit.core.config import Config
from labkit.store.audit import record_problems
from labkit.store.folder import SHIPPED, Store
from labkit.store.record import load
for path in SHIPPED.glob("*.json"):
    record = json.loads(path.read_text())
    assert "dropout" not in record["config"]
    config = Config(**record["config"])
    assert config.dropout == 0.0
    assert config.digest(record["data_sha256"]) == path.stem
    other = config.replace(dropout=0.3)
    assert other.digest(record["data_sha256"]) != path.stem
    for named in (Config.setting, recipes.name, Config.describe):
        assert named(other).replace(", dropout 0.3", "") == named(config) != named(other)
assert Store().find(config, record["data_sha256"]).config == config
assert Store().find(other, record["data_sha256"]) is None
print(Store().save(load(path)).digest, path.stem)
import dataclasses
print(Store().save(dataclasses.replace(load(path), config=other)).digest)
"""


def test_a_new_field_orphans_no_record(tmp_path, own_store):
    """In a copy of the package, with the line that a user would add."""
    package = Path(labkit.__file__).parent
    shutil.copytree(package, tmp_path / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "labkit" / "core" / "config.py"
    text, last = path.read_text(), "    seed: int = "
    assert last in text
    path.write_text(text.replace(last, f"    dropout: float = _setting(0.0, number)\n{last}"))
    done = subprocess.run(
        [sys.executable, "-c", GROWN], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (with_default, known), (other,) = map(str.split, done.stdout.splitlines())
    assert with_default == known != other
    # What the copy has written is refused here in a sentence, and stays where it is.
    for name in (known, other):
        with pytest.raises(StoreError, match="the setting dropout, which this labkit does not"):
            Store(shipped=None).get(name)
        assert "the setting dropout" in record_problems(own_store / f"{name}.json")[0]
    assert list(inventory.listing(Store(shipped=None))["status"]) == ["newer", "newer"]


def test_vary_labels_settings_and_refuses_repetition():
    settings = vary(Config(), batch_size=[64, "1e3"])
    assert {label: c.batch_size for label, c in settings.items()} == {
        "baseline": 64,
        "batch size 1000": 1000,
    }
    assert list(vary(Config(activation="tanh"), lr=[0.01, 0.1])) == [
        "tanh",
        "tanh, learning rate 0.1",
    ]
    assert list(
        vary(
            Config(),
            epochs=[1, 2],
        )
    ) == ["epochs 1", "epochs 2"]
    with pytest.raises(ConfigError, match="settings to compare must differ"):
        vary(Config(), lr=[0.01, "0.01"])
    with pytest.raises(ConfigError, match="Did you mean lr"):
        vary(Config(), l_r=[1])


def test_a_grid_has_every_combination():
    grid = vary(Config(), lr=[0.01, 0.1], batch_size=[64, 1000], dataset=["mnist-5k", "mnist"])
    assert len(grid) == 8 == len(set(grid.values()))
    assert grid["learning rate 0.1, batch size 1000, mnist"] == Config(
        lr=0.1, batch_size=1000, dataset="mnist"
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Config(learning_rate=0.1), "no setting 'learning_rate'.* Did you mean lr?"),
        (
            lambda: Config().replace(batchsize=2),
            "no setting 'batchsize'.* Did you mean batch_size?",
        ),
        (lambda: vary(Config(), lr=0.1), "lr is 0.1; it must be a list of values to compare"),
        (lambda: vary(Config(), activation="tanh"), "activation is 'tanh'; it must be a list"),
        (lambda: vary(Config()), "nothing to vary"),
        (lambda: vary(Config(), lr=[]), "nothing to vary"),
        (lambda: run_all(Config()), r"settings is a Config; .*is for run\(config\)"),
        (lambda: run_all([Config()]), "settings is a list; it must be configs by name"),
        (lambda: run_all({}), "settings is {}; it must be configs by name"),
    ],
)
def test_a_wrong_call_gets_a_sentence(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


def test_names_come_as_a_list_or_as_text():
    assert names("x", "a, b c", "abc") == names("x", ["a", "b", "c"], "abc") == ("a", "b", "c")
    for bad in ("", [], 3, "a d"):
        with pytest.raises(ConfigError):
            names("x", bad, "abc")
