"""How a table, text or figure was made, stated beside it as data, so that it can be made again."""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, ParamSpec, TypeVar

import numpy as np

from labkit.core.config import Config
from labkit.core.values import ConfigError, choice
from labkit.core.words import SPLITS
from labkit.judge.own import Claim
from labkit.store.run import Run, Runs

#: A notebook's output has its call under this type, beside its HTML and its plain text.
MIME = "application/vnd.labkit+json"
ATTRIBUTE = "data-made"  # the same on a page

P = ParamSpec("P")
Shown = TypeVar("Shown")  # a Table, a Text or a Figure: what has a `call`


def remakable(function: Callable[P, Shown]) -> Callable[P, Shown]:
    """Let what `function` returns state which function made it from which runs and settings."""
    signature = inspect.signature(function)
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"

    @functools.wraps(function)
    def stating(*args: P.args, **options: P.kwargs) -> Shown:
        given = signature.bind(*args, **options).arguments
        for key, value in given.items():
            check(key, value, signature.parameters[key].annotation)
        call = {"made by": name, "from": {key: encode(value) for key, value in given.items()}}
        shown = function(*args, **options)
        shown.call = call
        return shown

    return stating


def check(name: str, value: Any, kind: Any) -> None:
    """Refuse an argument that is none of its kind.

    Raises:
        ConfigError: says what it must be.
    """
    groups = list(value.values()) if isinstance(value, Mapping) else [None]
    allowed = ""
    if kind == Runs and not (all(map(_runs, groups)) and (groups or name != "runs")):
        allowed = 'the runs by setting, as run_all gives them, such as {"baseline": [run]}'
    elif kind == Sequence[Run] and not _runs(value):
        allowed = "the runs of one setting as a list, such as [run]"
    elif name == "split":
        choice(name, value, SPLITS)
    elif kind is Config and not isinstance(value, Config):
        allowed = "a Config"
    elif kind is Run and not isinstance(value, Run):
        allowed = 'one run, such as runs["baseline"][0]'
    if allowed:
        simple = isinstance(value, str | int | float) or not value
        said = repr(value) if simple else f"a {type(value).__name__}"
        raise ConfigError(f"{name} is {said}; it must be {allowed}.")


def _runs(group: Any) -> bool:
    """Whether this is a list of one run or more."""
    return (
        isinstance(group, list | tuple) and bool(group) and all(isinstance(r, Run) for r in group)
    )


def encode(value: Any) -> Any:
    """An argument as JSON; a run is named by its record and the record's checksum, and images by
    theirs."""
    if isinstance(value, Run):
        return {"run": value.digest, "sha256": value.checksum, "recorded": value.recorded}
    if isinstance(value, Config):
        return {"config": value.to_dict()}
    if isinstance(value, Claim):
        return {"claim": dataclasses.asdict(value)}
    if isinstance(value, np.ndarray):
        return {"images": hashlib.sha256(value.tobytes()).hexdigest()}
    if isinstance(value, Mapping):
        # As pairs: a notebook file has its keys in alphabetical order.
        return {"settings": [[label, encode(item)] for label, item in value.items()]}
    return [encode(item) for item in value] if isinstance(value, list | tuple) else value


def decode(value: Any, find: Callable[[dict[str, Any]], Any]) -> Any:
    """The argument that `encode` made JSON of; `find` gives the run, or the images, for what names
    them."""
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    if "run" in value or "images" in value:
        return find(value)
    if "claim" in value:
        return Claim(**value["claim"])
    if "config" in value:
        return Config(**value["config"])
    return {label: decode(item, find) for label, item in value["settings"]}


def runs_in(call: Any) -> Iterator[dict[str, Any]]:
    """The runs that a call names, each with `run`, `sha256` and `recorded`."""
    if isinstance(call, dict) and "sha256" in call and "run" in call:
        yield call
    elif isinstance(call, dict | list):
        for item in call.values() if isinstance(call, dict) else call:
            yield from runs_in(item)


def marked(html: str, call: dict[str, Any]) -> str:
    """HTML that states its call."""
    return f'<div {ATTRIBUTE}="{escape(json.dumps(call), quote=True)}">{html}</div>'
