"""The original report's numbers, which `original.toml` holds as they are printed."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.core.config import MNIST, Config
from labkit.core.values import choice
from labkit.store.run import Runs


@dataclass(frozen=True)
class AccuracyTable:
    """A printed table: accuracy of each digit in percent, and the total as counts."""

    percent: tuple[float, ...]
    correct: int
    total: int

    @property
    def total_percent(self) -> float:
        """The total accuracy in percent."""
        return 100 * self.correct / self.total


@dataclass(frozen=True)
class Section:
    """One of the original's five training runs: settings, loss curve and accuracy tables.

    `epoch_loss` is the printed loss of epochs 0 to 9, in nats; three of the five have tables.
    """

    number: str
    name: str
    activation: str
    lr: float
    batch_size: int
    epoch_loss: tuple[float, ...]
    train: AccuracyTable | None = None
    test: AccuracyTable | None = None


@dataclass(frozen=True)
class Excerpt:
    """A stretch of the printed iteration log: the losses of one epoch from `first` on."""

    number: str
    epoch: int
    first: int
    losses: tuple[float, ...]


def _frozen(value: Any) -> Any:
    """What TOML gives, with tuples for lists and an `AccuracyTable` for a table."""
    if isinstance(value, dict):
        return AccuracyTable(**{key: _frozen(item) for key, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _read(kind: type, rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    return tuple(kind(**{key: _frozen(value) for key, value in row.items()}) for row in rows)


_numbers = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SECTIONS: tuple[Section, ...] = _read(Section, _numbers["sections"])
EXCERPTS: tuple[Excerpt, ...] = _read(Excerpt, _numbers["excerpts"])
STATEMENTS: dict[int, str] = {int(k): words for k, words in _numbers["statements"].items()}
STATED_FINAL_LOSS: float = _numbers["stated_final_loss"]
EXCERPT_EPOCH_LOSS: float = _numbers["excerpt_epoch_loss"]


def section(number: str) -> Section:
    """The original's section of that number.

    Raises:
        ConfigError: there is none.
    """
    numbers = [found.number for found in SECTIONS]
    return SECTIONS[numbers.index(choice("section", number, numbers))]


#: What stands where the original has nothing to say.
FOREIGN = "The original is about MNIST, and says nothing of these images."


def section_of(config: Config) -> Section | None:
    """The original run with this activation, learning rate and batch size, if there is one.

    None as well for images that are not MNIST's, and where any other setting is not the default:
    the original has nothing to say on it. (It names none of them; `recipes` asks which they were.)
    """
    if config.dataset not in MNIST or config.unusual("epoch_accuracy"):
        return None
    key = config.activation, config.lr, config.batch_size
    return next((s for s in SECTIONS if (s.activation, s.lr, s.batch_size) == key), None)


def beside(runs: Runs) -> dict[str, Section]:
    """Label → the original run to show beside a setting; for all of them none where they differ in
    something that the original never varied, since then it does not answer the question."""
    configs = {label: group[0].config for label, group in runs.items()}
    if any(config.unusual("epoch_accuracy") for config in configs.values()):
        return {}
    found = {label: section_of(config) for label, config in configs.items()}
    return {label: section for label, section in found.items() if section}
