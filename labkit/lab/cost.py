"""What a training will take, by what others like it have taken."""

import contextlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import click
import torch

from labkit.core.config import Config
from labkit.core.words import plural
from labkit.lab.progress import images
from labkit.lab.provenance import provenance
from labkit.lab.workers import WORTH
from labkit.store.folder import SHIPPED, Store, StoreError
from labkit.store.record import files

MOST_READ = 100  # records
SHORT = 60.0  # seconds, up to which one run is trained without a word
LONG = 600.0  # seconds, from which on a command asks
SCALE = ("dataset", "epochs", "seed")  # fields that do not change how fast an image is trained


def estimate(
    configs: Sequence[Config], device: torch.device, store: Store, at_once: int = 1
) -> tuple[float, str]:
    """The seconds that these runs take, `at_once` of them at a time, and that in words.

    Each is taken to be as fast as the median of those records that share most of its settings: of
    this machine's own, or, if there are none, of those that ship with labkit.
    """
    here = provenance(device)
    same = [c for c in _speeds(store, shipped=False) if _alike(c[2], here)]
    basis = f"on this machine (by {plural(len(same), 'record')} of its own)"
    if not same:
        same = _speeds(store, shipped=True)
        other = not any(_alike(c[2], here) for c in same)
        basis = "by the records that ship" + ", from another processor" * other
    seconds = sum(images(config) / _speed(config, same) for config in configs) if same else 0.0
    seconds /= at_once
    words = f"{plural(len(configs), 'run')} to train"
    words += f", {at_once} at a time" * (at_once > 1)
    return seconds, words + (f", about {in_words(seconds)} {basis}" if same else "")


def notice(configs: Sequence[Config], device: torch.device, store: Store, at_once: int = 1) -> str:
    """What is said before these runs are trained; "" where they are soon done."""
    if at_once == 1 and sum(map(images, configs)) < WORTH:
        return ""
    seconds, words = estimate(configs, device, store, at_once)
    return words if len(configs) > 1 or seconds > SHORT else ""


def agreed(seconds: float, words: str, yes: bool) -> None:
    """Say what is to be trained, and ask before what takes long, on a terminal, unless `yes`.

    Raises:
        click.Abort: the answer is no.
    """
    if seconds > LONG and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm(f"{words}. Train them?", abort=True)
    else:
        print(f"{words}.", flush=True)


def in_words(seconds: float) -> str:
    """A time as people say it: 40 s, 12 min, 2 h 24 min."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other[name] for name in ("device", "processor"))


def _speeds(store: Store, shipped: bool) -> list[tuple[float, Config, dict[str, Any]]]:
    """Of records, the images trained on per second, the config and where; not of diverged ones."""
    places = [place for place in store.places if (place == SHIPPED) == shipped]
    paths = [path for place in places for path in place.glob("*.json")]
    found = []
    for path in sorted(paths)[:MOST_READ]:
        with contextlib.suppress(StoreError, FileNotFoundError):
            _, _, content, config = files(path)
            seconds = content["provenance"]["seconds"]
            if content["history"][-1]["loss"] is not None and seconds:
                found.append((images(config) / seconds, config, content["provenance"]))
    return found


def _speed(config: Config, known: Sequence[tuple[float, Config, dict[str, Any]]]) -> float:
    def shared(other: Config) -> int:
        theirs = other.to_dict().items()
        return sum(name not in SCALE and getattr(config, name) == v for name, v in theirs)

    most = max(shared(other) for _, other, _ in known)
    return statistics.median(speed for speed, other, _ in known if shared(other) == most)
