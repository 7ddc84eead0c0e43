"""How counts and numbers are written for readers."""

import math
import re
from collections.abc import Iterable

#: What a split is called before "images" or "accuracy".
SPLITS = {"train": "training", "test": "test"}


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 run, 2 runs, 10,000 images."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def minus(text: str) -> str:
    """The text with a minus sign, and not a hyphen, before its negative numbers."""
    return re.sub(r"(?<![\w)])-(?=\d)", "−", text)


def number(value: float, decimals: int = 0, sign: str = "") -> str:
    """A number with thousands separated and a minus sign; a dash where it is missing.

    With `sign` "+" positive numbers have a sign, too.
    """
    return "–" if math.isnan(value) else minus(f"{value:{sign},.{decimals}f}")


def on_runs(counts: Iterable[int]) -> str:
    """The numbers of runs that something rests on: n = 3, or n = 2 to 3."""
    return f"n = {' to '.join(map(str, sorted({min(found := [*counts]), max(found)})))}"


def percent(value: float) -> str:
    """So many percent, with two decimals, never split at the end of a line."""
    return f"{number(value, 2)}\u00a0%"


def sentence(words: str) -> str:
    """Words as a sentence: with a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."
