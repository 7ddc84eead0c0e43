"""How counts and numbers are written for readers."""

import re

#: What a split is called before "images" or "accuracy".
SPLITS = {"train": "training", "test": "test"}


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 run, 2 runs, 10,000 images."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def minus(text: str) -> str:
    """The text with a minus sign, and not a hyphen, before its negative numbers."""
    return re.sub(r"(?<![\w)])-(?=\d)", "−", text)
