"""What one training run is: `Config`, validated when it is made and hashable for the store."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
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
    "cifar10": (50_000, 10_000),
}
#: Those with the original's images, or some of them.
MNIST = ("mnist", "mnist-5k")
#: Channels, height and width of their images, where these are not grey ones of 28×28 pixels.
SHAPES = {"cifar10": (3, 32, 32)}
GREY = (1, 28, 28)
#: How the name begins of a dataset that is the user's; see `data.load`.
OWN = "own:"
MOST_IMAGES = 2_000_000  # of an own dataset's split, so that a record's size can be relied on
#: What the classes are called where nothing else is said.
DIGITS = tuple("0123456789")
ACTIVATIONS = ("relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu")
#: With what each is called where it is not the default.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "momentum": "SGD, momentum 0.9"}
INITS = {"kaiming": "Kaiming's initialisation", "default": "PyTorch's initialisation"}
NORMALIZATIONS = {
    "mean-std": "mean 0, deviation 1",
    "0-1": "pixels 0 to 1",
    "-1-1": "pixels −1 to 1",
}

#: The two scales of a report. `paper` is the original's: full MNIST, ten epochs.
SCALES = {
    "quick": {"dataset": "mnist-5k", "epochs": 5},
    "paper": {"dataset": "mnist", "epochs": 10},
}
#: Runs per setting at each scale; so many of the paper scale are part of the package.
SCALE_SEEDS = {"quick": 1, "paper": 3}
#: The fields that the original varies; the seed is ours.
VARIED = ("activation", "lr", "batch_size", "seed")
#: The fields that records have held from the first; see `identity`.
FIRST_FIELDS = (
    "dataset", "activation", "optimizer", "lr", "batch_size", "epochs", "weight_decay", "init",
    "normalization", "max_pool", "seed", "epoch_accuracy",
)  # fmt: skip
MOST_EPOCHS = 10_000  # so that a record has a size that its readers can rely on


def _setting(
    default: Any, reader: Callable[..., Any], words: Mapping[Any, str] | None = None, **rule: Any
) -> Any:
    """A field of `Config`: its default, the function of `values` that reads it, by which rule, and
    what values that are not the default are called where "field value" says it badly."""
    described = {"read": functools.partial(reader, **rule), "words": words or {}}
    return dataclasses.field(default=default, metadata=described)


def dataset_name(name: str, value: Any) -> str:
    """One of `DATASETS`, or an own one, whose name is that of a file or folder and keeps its case;
    else a `ConfigError`. Whether its images are there only `data.load` finds."""
    text = str(value).strip()
    if re.fullmatch(rf"{OWN}\w[\w.-]{{0,59}}", text):
        return text
    return choice(name, value, [*DATASETS, f"{OWN}NAME"])


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

    dataset: str = _setting("mnist-5k", dataset_name)
    activation: str = _setting("relu", choice, allowed=ACTIVATIONS)
    optimizer: str = _setting("adam", choice, OPTIMIZERS, allowed=OPTIMIZERS)
    lr: float = _setting(0.01, number, above=0)  # learning rate
    batch_size: int = _setting(64, whole)  # images; the last batch of an epoch may be shorter
    epochs: int = _setting(10, whole, most=MOST_EPOCHS)
    weight_decay: float = _setting(0.0, number, least=0)  # L2 penalty; AdamW's is decoupled
    init: str = _setting("kaiming", choice, INITS, allowed=INITS)  # of the convolutions
    normalization: str = _setting("mean-std", choice, NORMALIZATIONS, allowed=NORMALIZATIONS)
    max_pool: bool = _setting(True, flag, {False: "no max-pool"})  # after the 7×7 stem
    seed: int = _setting(0, whole, least=0)  # of the initial weights and of the order of the images
    # Measure both splits after every epoch, which takes a seventh of a CPU's time.
    epoch_accuracy: bool = _setting(True, flag, {False: "accuracy at the end alone"})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = field.metadata["read"](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self.check_batches(DATASETS.get(self.dataset, (0,))[0])

    def check_batches(self, images: int) -> None:
        """Refuse batches of which one is a single image; for own datasets, `data.load` knows how
        many `images` there are to train on.

        Raises:
            ConfigError: there is one.
        """
        if images % self.batch_size == 1 or self.batch_size == 1:
            out_of = f" out of {images}" * bool(images)
            raise ConfigError(
                f"batch_size is {self.batch_size}; it must leave no batch of a single image"
                f"{out_of}, since batch normalization cannot train on one."
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
        """What differs from the original's baseline, in words; not the scale."""
        varied = {name: getattr(self, name) for name in VARIED if name != "seed"}
        changed = [_named(k, v) for k, v in varied.items() if v != getattr(Config, k)]
        return ", ".join([*(changed or ["baseline"]), *self.unusual()])

    def unusual(self, *aside: str) -> list[str]:
        """In words, every field that differs from its default, but for those that the original
        varies, dataset and epochs (see `scale_name`), and `aside`."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default and field.name not in (*VARIED, "dataset", "epochs", *aside):
                parts.append(field.metadata["words"].get(value) or _named(field.name, value))
        return parts


def _named(name: str, value: Any) -> str:
    """A field and its value in words; words stand for themselves."""
    if isinstance(value, str):
        return value
    said = {"lr": "learning rate"}.get(name, name.replace("_", " "))
    return f"{said} {f'{value:g}' if isinstance(value, float) else value}"


def scale_name(config: Config) -> str:
    """Which of `SCALES` this config runs at; "own" for any other dataset or number of epochs."""
    own = {"dataset": config.dataset, "epochs": config.epochs}
    return next((name for name, scale in SCALES.items() if scale == own), "own")


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
    """One setting of `base` taken through several values, by name: `vary(base, lr=[0.01, 0.1])`.

    Raises:
        ConfigError: the setting is unknown, or two of its values are the same.
    """
    ((name, options),) = values.items()
    choice("the setting to vary", name, [field.name for field in dataclasses.fields(Config)])
    settings: dict[str, Config] = {}
    for option in options:
        config = base.replace(**{name: option})
        label = config.setting()
        if name in ("dataset", "epochs", "seed"):  # of which settings say nothing
            label = _named(name, getattr(config, name))
        if label in settings:
            raise ConfigError(f"{name} is {option!r} twice; settings to compare must differ.")
        settings[label] = config
    return settings


def seed_range(seeds: Any, name: str = "seeds") -> range:
    """The seeds 0, 1, ... of a setting to be run `seeds` times, as the parameter `name` says."""
    return range(whole(name, seeds, most=1000))
