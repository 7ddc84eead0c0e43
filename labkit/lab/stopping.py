"""Ctrl-C and JupyterLab's stop button: never in the middle of an update."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def held() -> Iterator[list[int]]:
    """Let interrupts wait until the block ends. It gets the list of those that came meanwhile; if
    it empties that, they have not been."""
    came: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()  # only there they come
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM) if in_main}
    before = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for number in before:
            signal.signal(number, lambda number, _: came.append(number))
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in came[:1]:
        before[number](number, None)
