"""What one training run is: `Config`, validated when it is made and hashable for the store."""

import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from labkit.core.network import POOLED, called, network
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
#: With the class of each in `torch.nn`.
ACTIVATIONS = {
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "gelu": "GELU",
    "silu": "SiLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
}
#: With the class of each in `torch.optim`, what it is given besides learning rate and weight decay,
#: and what it is called.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "adam": ("Adam", {}, "Adam"),
    "adamw": ("AdamW", {}, "AdamW"),
    "sgd": ("SGD", {}, "SGD"),
    "momentum": ("SGD", {"momentum": 0.9}, "SGD, momentum 0.9"),
}
OPTIMIZER_WORDS = {name: words for name, (*_, words) in OPTIMIZERS.items()}
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
SCALE_SEEDS = {"quick": 1, "paper": 10}
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
    optimizer: str = _setting("adam", choice, OPTIMIZER_WORDS, allowed=OPTIMIZERS)
    lr: float = _setting(0.01, number, above=0)  # learning rate
    batch_size: int = _setting(64, whole)  # images; the last batch of an epoch may be shorter
    epochs: int = _setting(10, whole, most=MOST_EPOCHS)
    weight_decay: float = _setting(0.0, number, least=0)  # L2 penalty; AdamW's is decoupled
    init: str = _setting("kaiming", choice, INITS, allowed=INITS)  # of all 2-d convolutions
    normalization: str = _setting("mean-std", choice, NORMALIZATIONS, allowed=NORMALIZATIONS)
    max_pool: bool = _setting(True, flag, {False: "no max-pool"})  # after a ResNet's 7×7 stem
    seed: int = _setting(0, whole, least=0)  # of the initial weights and of the order of the images
    # Measure both splits after every epoch, which takes a seventh of a CPU's time.
    epoch_accuracy: bool = _setting(True, flag, {False: "accuracy at the end alone"})
    # resnet18, resnet34, cnn (LeNet-5), or module:function of your own, see `model.build`
    model: str = _setting("resnet18", network)

    def __new__(cls, **values: Any) -> Self:
        refuse_unknown(values)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = read_field(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if not self.max_pool and self.model not in POOLED:
            raise ConfigError(
                f"max_pool is False; it must be true for {called(self.model)}, since only "
                f"{' and '.join(POOLED)} can do without theirs."
            )
        self.check_batches(DATASETS.get(self.dataset, (0,))[0])

    def check_batches(self, images: int) -> None:
        """Refuse a batch larger than the dataset's `images` to train on, or of a single image; how
        many an own dataset has, `data.load` knows.

        Raises:
            ConfigError: they are.
        """
        if images and self.batch_size > images:
            raise ConfigError(
                f"batch_size is {self.batch_size}; it must be at most {images:,}, the number of "
                f"training images of {self.dataset}."
            )
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
        changed = [in_words(k, v) for k, v in varied.items() if v != getattr(Config, k)]
        return ", ".join([*(changed or ["baseline"]), *self.unusual()])

    def unusual(self, *aside: str) -> list[str]:
        """In words, every field that differs from its default, but for those that the original
        varies, dataset and epochs (see `scale_name`), and `aside`."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default and field.name not in (*VARIED, "dataset", "epochs", *aside):
                parts.append(in_words(field.name, value))
        return parts


def read_field(name: str, value: Any) -> Any:
    """The value of a field of `Config`, coerced; else a `ConfigError`, as of a config."""
    return Config.__dataclass_fields__[name].metadata["read"](name, value)


def in_words(name: str, value: Any) -> str:
    """A field and its value in words; words stand for themselves."""
    if (words := Config.__dataclass_fields__[name].metadata["words"]) and value in words:
        return words[value]
    if name == "model":
        return called(value)
    if isinstance(value, str):
        return value
    said = {"lr": "learning rate"}.get(name, name.replace("_", " "))
    if isinstance(value, bool):
        return f"{'no ' * (not value)}{said}"
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
    """Settings of `base` taken through several values, by name: `vary(base, lr=[0.01, 0.1])`.

    Of several settings every combination, which `plots.grid` draws:
    `vary(base, lr=[0.01, 0.1], batch_size=[64, 1000])`.

    Raises:
        ConfigError: a setting is unknown, its values are no list, or two of them are the same.
    """
    refuse_unknown(values)
    if not isinstance(base, Config):
        raise ConfigError(f"base is a {type(base).__name__}; it must be a Config.")
    settings: dict[str, Config] = {}
    for name, options in values.items():
        if isinstance(options, str) or not isinstance(options, Iterable):
            raise ConfigError(
                f"{name} is {options!r}; it must be a list of values to compare, such as "
                f"{list(dict.fromkeys([getattr(base, name), options]))}."
            )
        read = [getattr(base.replace(**{name: option}), name) for option in options]
        if twice := [value for place, value in enumerate(read) if value in read[:place]]:
            raise ConfigError(f"{name} is {twice[0]!r} twice; settings to compare must differ.")
        values[name] = read
    if not values or not all(values.values()):
        raise ConfigError("there is nothing to vary; name a setting, such as lr=[0.01, 0.1].")
    for combination in itertools.product(*values.values()):
        config = base.replace(**dict(zip(values, combination, strict=True)))
        label = config.setting()
        # Of these the name of a setting says nothing.
        aside = [
            in_words(n, getattr(config, n)) for n in values if n in ("dataset", "epochs", "seed")
        ]
        told = len(values) == len(aside)
        settings[", ".join(aside if told else [label, *aside])] = config
    return settings


def refuse_unknown(given: Iterable[str]) -> None:
    """Refuse names of settings that `Config` does not have.

    Raises:
        ConfigError: names the first of them and the nearest right one.
    """
    known = [field.name for field in dataclasses.fields(Config)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            meant = "lr" if name == "learning_rate" else "".join(near)
            hint = f" Did you mean {meant}?" if meant else ""
            raise ConfigError(f"there is no setting {name!r}; they are {', '.join(known)}.{hint}")


def seed_range(seeds: Any, name: str = "seeds") -> range:
    """The seeds 0, 1, ... of a setting to be run `seeds` times, as the parameter `name` says."""
    return range(whole(name, seeds, most=1000))
