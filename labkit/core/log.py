"""The lines that a training prints."""

from labkit.core.values import choice

#: "named" is "epoch" for several runs at once: each line says which it is of.
LOGS = ("epoch", "iteration", "named", "none")


def say(log: str, line: str) -> None:
    """Print `line` at once, unless the log is "none"."""
    if choice("log", log, LOGS) != "none":
        print(plain(line), flush=True)


def plain(line: str) -> str:
    """`line` with its control characters spelt out: what files say may end up on a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
