"""The lines that a training prints."""

from typing import Any

from labkit.core.values import choice

#: "named" is "epoch" for several runs at once: each line says which it is of. "report" is what a
#: process prints whose parent shows how far it is. "bar" is one bar for all, on a terminal.
LOGS = ("epoch", "iteration", "named", "report", "bar", "none")


def say(log: Any, line: str) -> None:
    """Print `line` at once, unless the log is "none"; a log that is no word shows it itself."""
    if hasattr(log, "say"):
        log.say(plain(line))
    elif choice("log", log, LOGS) != "none":
        print(plain(line), flush=True)


def plain(line: str) -> str:
    """`line` with its control characters spelt out: what files say may end up on a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
