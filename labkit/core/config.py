"""What one training run is: `Config`, validated when it is made and hashable for the store."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from labkit.core.values import ConfigError, choice, flag, number, whole

#: Raised by one whenever the same `Config` would train to other numbers than before.
TRAINING_VERSION = 1

#: The datasets by name, with how many images they have to train and to test on.
DATASETS = {
    "mnist-5k": (4_000, 1_000),
    "mnist": (60_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
    "kmnist": (60_000, 10_000),
}
ACTIVATIONS = ("relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu")
OPTIMIZERS = ("adam", "sgd", "momentum")
INITS = ("kaiming", "default")
NORMALIZATIONS = ("mean-std", "0-1")

#: The two scales of a report. `paper` is the original's: full MNIST, ten epochs.
SCALES = {
    "quick": {"dataset": "mnist-5k", "epochs": 5},
    "paper": {"dataset": "mnist", "epochs": 10},
}
#: The fields that the original varies; the seed is ours.
VARIED = ("activation", "lr", "batch_size", "seed")
#: The fields that records have held from the first; see `identity`.
FIRST_FIELDS = (
    "dataset", "activation", "optimizer", "lr", "batch_size", "epochs", "weight_decay", "init",
    "normalization", "max_pool", "seed", "epoch_accuracy",
)  # fmt: skip
#: What a value that is not the default is called, where "field value" says it badly.
WORDS = {
    ("optimizer", "sgd"): "SGD",
    ("optimizer", "momentum"): "SGD, momentum 0.9",
    ("init", "default"): "PyTorch's initialisation",
    ("normalization", "0-1"): "pixels 0 to 1",
    ("max_pool", False): "no max-pool",
    ("epoch_accuracy", False): "accuracy at the end alone",
}
#: Runs a setting at each scale; so many of the paper scale are part of the package.
SCALE_SEEDS = {"quick": 1, "paper": 3}
MOST_EPOCHS = 10_000  # so that a record has a size that its readers can rely on


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the numbers of one run, apart from the device.

    The defaults are the original's baseline (section 1.2) on the embedded images. The original
    names neither optimizer nor initialisation; what else it may have used, `recipes` asks.

    Values are coerced where their meaning is plain (`"1e3"` for 1000). A field that is added needs
    the default that means what labkit did before: with it every run on record is found again.

    Raises:
        ConfigError: a value is none that a run can have; the sentence names field, value and rule.
    """

    dataset: str = "mnist-5k"
    activation: str = "relu"
    optimizer: str = "adam"
    lr: float = 0.01  # learning rate
    batch_size: int = 64  # images; the last batch of an epoch may be shorter
    epochs: int = 10
    weight_decay: float = 0.0  # L2 penalty, added to the gradient
    init: str = "kaiming"  # of the convolutions; "default" is PyTorch's own
    normalization: str = "mean-std"  # of pixels: to mean 0 and deviation 1, or only to 0..1
    max_pool: bool = True  # after the 7×7 stem
    seed: int = 0  # of the initial weights and of the order of the images
    epoch_accuracy: bool = True  # measure both splits after every epoch; a seventh of a CPU's time

    def __post_init__(self) -> None:
        checked = {
            "dataset": choice("dataset", self.dataset, DATASETS),
            "activation": choice("activation", self.activation, ACTIVATIONS),
            "optimizer": choice("optimizer", self.optimizer, OPTIMIZERS),
            "lr": number("lr", self.lr, above=0),
            "batch_size": whole("batch_size", self.batch_size),
            "epochs": whole("epochs", self.epochs, most=MOST_EPOCHS),
            "weight_decay": number("weight_decay", self.weight_decay, least=0),
            "init": choice("init", self.init, INITS),
            "normalization": choice("normalization", self.normalization, NORMALIZATIONS),
            "max_pool": flag("max_pool", self.max_pool),
            "seed": whole("seed", self.seed, least=0),
            "epoch_accuracy": flag("epoch_accuracy", self.epoch_accuracy),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        images = DATASETS[self.dataset][0]
        if images % self.batch_size == 1 or self.batch_size == 1:
            raise ConfigError(
                f"batch_size is {self.batch_size}; it must leave no batch of a single image out of "
                f"{images}, since batch normalization cannot train on one."
            )

    def replace(self, **changes: Any) -> Self:
        """This config with some fields changed, validated like a new one."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, ready for JSON."""
        return dataclasses.asdict(self)

    def digest(self, data_sha256: str) -> str:
        """The name of this config's run on the data of that checksum, see `identity`."""
        return identity(self.to_dict(), TRAINING_VERSION, data_sha256)

    def describe(self) -> str:
        """A line for people: `setting` and the seed."""
        return f"{self.setting()}, seed {self.seed}"

    def setting(self) -> str:
        """What the original varies, and whatever else differs from the defaults; not the scale."""
        varied = [self.activation, f"lr {self.lr:g}", f"batch {self.batch_size}"]
        return ", ".join([*varied, *self.unusual()])

    def unusual(self, *aside: str) -> list[str]:
        """In words, every field that differs from its default, but for those that the original
        varies, dataset and epochs (see `scale_name`), and `aside`."""
        usual, parts = Config().to_dict(), []
        for name, value in self.to_dict().items():
            if value != usual[name] and name not in (*VARIED, "dataset", "epochs", *aside):
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                parts.append(WORDS.get((name, value), f"{name.replace('_', ' ')} {shown}"))
        return parts


def scale_name(config: Config) -> str:
    """Which of `SCALES` this config runs at; "own" for any other dataset or number of epochs."""
    for name, scale in SCALES.items():
        if all(getattr(config, key) == value for key, value in scale.items()):
            return name
    return "own"


def identity(settings: dict[str, Any], recipe: int, data_sha256: str) -> str:
    """What names a run: twelve hexadecimal digits for its settings, the training and its data.

    A field that is younger than the first records counts only where it differs from its default,
    so that they keep their names.
    """
    usual = Config().to_dict()
    named = {k: v for k, v in settings.items() if k in FIRST_FIELDS or v != usual.get(k)}
    text = json.dumps({"config": named, "recipe": recipe, "data": data_sha256}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def vary(base: Config, **values: Iterable[Any]) -> dict[str, Config]:
    """One setting of `base` taken through several values, labelled: `vary(base, lr=[0.01, 0.1])`.

    Raises:
        ConfigError: the setting is unknown, or two of its values are the same.
    """
    ((name, options),) = values.items()
    choice("the setting to vary", name, [field.name for field in dataclasses.fields(Config)])
    settings: dict[str, Config] = {}
    for option in options:
        config = base.replace(**{name: option})
        value = getattr(config, name)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        label = shown if isinstance(value, str) else f"{name.replace('_', ' ')} {shown}"
        if label in settings:
            raise ConfigError(f"{name} is {option!r} twice; settings to compare must differ.")
        settings[label] = config
    return settings


def seed_range(seeds: Any, name: str = "seeds") -> range:
    """The seeds 0, 1, ... of a setting to be run `seeds` times, as the parameter `name` says."""
    return range(whole(name, seeds, most=1000))
