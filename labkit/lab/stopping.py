"""Ctrl-C and JupyterLab's stop button: never in the middle of an update, and never a traceback."""

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


@contextlib.contextmanager
def sentence() -> Iterator[None]:
    """Say of an interrupt in the block where it stopped the training, which its arguments are.

    A notebook shows this sentence alone, anything else whatever it shows of a KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        places = " and ".join(dict.fromkeys(stop.args))
        said = f"stopped{' at ' * bool(places)}{places}; run again to go on"
        stop.args = (said,)
        stop._render_traceback_ = lambda: [said]  # what IPython shows in a traceback's place
        raise
