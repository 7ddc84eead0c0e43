"""Readers of values: each returns what was meant, or raises an error that says what is allowed."""

import contextlib
import difflib
import math
import re
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

#: No markup, neither HTML's nor Markdown's nor TeX's.
CLASS_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f<>&\"$*`|\[\]\\\ud800-\udfff]{1,60}")


class LabkitError(Exception):
    """Something the user can put right; its text is one sentence that says how."""


class ConfigError(LabkitError, ValueError):
    """A setting that names no possible run."""


class DataError(LabkitError):
    """Images that are missing or damaged; the sentence names the ways out."""


def choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """`value` if it is one of `allowed`, letter case and spaces aside; else a `ConfigError`."""
    text = str(value).strip().lower()
    if text in allowed:
        return text
    near = difflib.get_close_matches(text, allowed, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.{hint}")


def number(name: str, value: Any, *, above: float | None = None, least: float = -math.inf) -> float:
    """`value` as a finite float greater than `above` and at least `least`; else a `ConfigError`."""
    allowed = f"a number above {above:g}" if above is not None else f"a number of {least:g} or more"
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result) or result < least or (above is not None and result <= above):
        raise ConfigError(f"{name} is {value!r}; it must be {allowed}.")
    return result + 0.0  # no -0.0, which is equal but has another name


def whole(name: str, value: Any, *, least: int = 1, most: int = 2**63 - 1) -> int:
    """`value` as an int; takes `1e3`, `1000.0` and `"1000"` as the 1000 that they mean."""
    with contextlib.suppress(ArithmeticError, ValueError):  # it is no number
        exact = Decimal(str(value))
        if least <= exact <= most and exact == int(exact):
            return int(exact)
    upper = f" and at most {most}" if most < 2**31 else ""
    raise ConfigError(f"{name} is {value!r}; it must be a whole number of {least} or more{upper}.")


def flag(name: str, value: Any) -> bool:
    """`value` as a bool; papermill hands over `-p retrain false` as the text "false"."""
    text = str(value).strip().lower()
    if text not in ("true", "yes", "1", "false", "no", "0"):
        raise ConfigError(f"{name} is {value!r}; it must be true or false.")
    return text in ("true", "yes", "1")


def class_names(name: str, value: Any) -> tuple[str, ...]:
    """2 to 256 different names of classes, which can stand on a page as they are; else a
    `ConfigError`."""
    listed = isinstance(value, list | tuple) and 2 <= len(value) <= 256
    good = listed and all(isinstance(name, str) and CLASS_NAME.fullmatch(name) for name in value)
    if not good or len(set(value)) < len(value):
        raise ConfigError(
            f"{name} is {repr(value)[:200]}; it must be 2 to 256 different names of at most 60 "
            'characters, without any of <>&"$*`|[]\\.'
        )
    return tuple(value)


def names(name: str, value: Any, allowed: Collection[str]) -> tuple[str, ...]:
    """Several of `allowed`, as a list or as text with commas or spaces between them."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(parts, Iterable) or not (parts := list(parts)):
        raise ConfigError(f"{name} is {value!r}; it must name some of {', '.join(allowed)}.")
    return tuple(choice(name, part, allowed) for part in parts)
