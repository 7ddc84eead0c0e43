"""A network of the user's own: found by its name, known by its source, and loaded from it."""

import hashlib
import importlib
import itertools
import os
import re
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from labkit.core.values import ConfigError, choice

#: labkit's own networks, by what each is called where it is not the default.
NETWORKS = {"resnet18": "ResNet-18", "resnet34": "ResNet-34", "cnn": "LeNet-5"}
POOLED = ("resnet18", "resnet34")  # have the max-pool that `Config.max_pool` is about
OWN = re.compile(r"([\w.]{1,90}):(\w{1,90})(?:@([0-9a-f]{12}))?")


class NetworkError(ConfigError):
    """A network of the user's own that cannot be built; the sentence says why."""


def own(model: str) -> bool:
    """Whether a `Config.model` is of the user's own."""
    return ":" in model


def called(model: str) -> str:
    """A `Config.model` in words."""
    return f"network {model.partition('@')[0]}" if own(model) else NETWORKS[model]


def network(name: str, value: Any) -> str:
    """One of `NETWORKS`, or `module:function` of the user's own; else a `ConfigError`.

    The latter gets "@" and the first twelve hexadecimal digits of the SHA-256 of the module's file,
    so that a change of it is another network. What the module imports is not covered. With the
    digits given, as in a record, nothing is looked for.
    """
    text = str(value).strip()
    if not own(text):
        return choice(name, value, (*NETWORKS, "module:function"))
    if not (found := OWN.fullmatch(text)):
        raise ConfigError(f"{name} is {value!r}; it must be module:function, as in nets:wide.")
    return text if found[3] else f"{text}@{_checksum(_read(text))}"


def load(model: str) -> Callable[..., Any]:
    """The function that a `Config.model` of the user's own names, from the very source whose
    checksum it states, whatever an `import` of the module has loaded before.

    Raises:
        NetworkError: the module is not found, is another one by now, or has no such function.
    """
    module, function, sha256 = OWN.fullmatch(model).groups()
    source = _read(model)
    if (now := _checksum(source)) != sha256:
        raise NetworkError(
            f"model is {model!r}; it must be the source that {_find(module)} holds, which by now "
            f"has the checksum {now}. Put it back, or name {module}:{function} to train anew."
        )
    # Under a name of its own: a module of that name may have been loaded from an older source.
    spec = spec_from_file_location(f"{module}@{sha256}", _find(module))
    if spec.name not in sys.modules:
        loaded = sys.modules[spec.name] = module_from_spec(spec)
        sys.path.insert(0, here := os.getcwd())  # for what it imports
        try:
            exec(compile(source, spec.origin, "exec"), vars(loaded))
        except BaseException as error:
            del sys.modules[spec.name]
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            raise NetworkError(
                f"model is {model!r}; its module must run without an error, and raised "
                f"{type(error).__name__}: {error}."
            ) from error
        finally:
            sys.path.remove(here)
    if not callable(found := getattr(sys.modules[spec.name], function, None)):
        raise NetworkError(f"model is {model!r}; {spec.origin} must have a function {function}.")
    return found


def _find(module: str) -> Path | None:
    """The file of a module, in the current folder or on `sys.path`; nothing is imported."""
    importlib.invalidate_caches()  # it may have been written just now
    spec, places = None, [os.getcwd(), *sys.path]
    for name in itertools.accumulate(module.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(name, places) if places else None
        places = spec and spec.submodule_search_locations
    return Path(spec.origin) if spec and str(spec.origin).endswith(".py") else None


def _read(model: str) -> bytes:
    module = model.partition(":")[0]
    try:
        return _find(module).read_bytes()
    except (OSError, ValueError, AttributeError):  # it is None
        raise NetworkError(
            f"model is {model!r}; {module} must be a module with a source file in {os.getcwd()} or "
            "elsewhere on Python's path."
        ) from None


def _checksum(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:12]
