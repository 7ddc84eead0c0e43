"""The golden test: whenever a config trains to other numbers, `TRAINING_VERSION` must be raised.

`python tests/test_golden.py` prints the numbers anew, for a new `TRAINING_VERSION`.
"""

import pkgutil

import pytest
import torch
import torture
from helpers import train_run

from labkit.core.config import TRAINING_VERSION, Config

BASE = Config(batch_size=50, epochs=2, lr=0.0001, epoch_accuracy=False)
SETTINGS = {
    "base": BASE,
    "sgd": BASE.replace(optimizer="sgd", weight_decay=1e-3, init="default"),
    "momentum": BASE.replace(optimizer="momentum", activation="tanh", normalization="0-1"),
    "adam": BASE.replace(activation="silu", weight_decay=1e-3, max_pool=False, seed=1),
}
#: By recipe and setting: the six batch losses, and the mean confidence on the test images.
GOLDEN = {
    1: {
        "base": [2.81015897, 2.57725215, 2.39726615, 1.1668731, 0.93818873, 0.6769557, 0.13157295],
        "sgd": [2.78934813, 2.5052824, 2.74044466, 2.66241264, 2.49378777, 2.08655691, 0.11955278],
        "momentum": [
            2.4331553,
            2.3601675,
            2.31685257,
            2.3642056,
            2.1833334,
            2.22096944,
            0.15413894,
        ],
        "adam": [
            2.32352614,
            2.30442715,
            2.01137042,
            1.25760305,
            1.09969091,
            0.96384132,
            0.14361852,
        ],
    },
}


def numbers(config: Config) -> list[float]:
    run = train_run(config, torture.small_data(), torch.device("cpu"))
    return [*run.iteration_loss.ravel().tolist(), float(run.test_confidence.mean())]


def golden(name: str, epochs: int = 2) -> bool:
    """Whether this setting gives the stored numbers; of one epoch the losses alone.

    Rounding differs between processors and grows from step to step. One thread for two, or SSE4
    for AVX-512, moved ReLU's last numbers by 0.0025, and those of smooth activations by 1e-6.
    """
    assert TRAINING_VERSION in GOLDEN, "a new TRAINING_VERSION needs its numbers: run this file"
    config, stored = SETTINGS[name], GOLDEN[TRAINING_VERSION][name]
    found, grown = (
        numbers(config.replace(epochs=epochs)),
        1e-2 if config.activation == "relu" else 1e-4,
    )
    if epochs == 1:
        found, stored = found[:3], stored[:3]
    return found[0] == pytest.approx(stored[0], rel=1e-5) and found == pytest.approx(
        stored, rel=grown
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_training_gives_the_numbers_of_its_recipe(name):
    assert golden(name), "training gives other numbers: raise TRAINING_VERSION"


#: What is replaced, by which options, and the cheapest training in which it shows.
CHANGES = {
    "another initialisation": ("nn.init.kaiming_normal_", {"mode": "fan_in"}, ("base", 1)),
    "other coefficients": ("optim.Adam", {"betas": (0.9, 0.99)}, ("adam", 2)),
    "slower statistics": ("nn.BatchNorm2d", {"momentum": 0.05}, ("momentum", 2)),
    "smoothed labels": ("nn.functional.cross_entropy", {"label_smoothing": 0.01}, ("base", 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_training_is_noticed(change, monkeypatch):
    place, options, training = CHANGES[change]
    original = pkgutil.resolve_name(f"torch.{place}")
    monkeypatch.setattr(f"torch.{place}", lambda *a, **given: original(*a, **(given | options)))
    assert not golden(*training)


def test_no_two_recipes_and_no_two_settings_have_the_same_numbers():
    every = [tuple(found) for golden in GOLDEN.values() for found in golden.values()]
    assert len(set(every)) == len(every) == len(GOLDEN) * len(SETTINGS)


if __name__ == "__main__":
    for name, config in SETTINGS.items():
        print(f"        {name!r}: {[round(value, 8) for value in numbers(config)]},")
