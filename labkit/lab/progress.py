"""How far a training is: a live curve in JupyterLab, plain lines anywhere else."""

import io
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from labkit.core.config import Config
from labkit.core.log import say

REDRAW_SECONDS = 3.0  # a redraw takes some 50 ms


def track(
    steps: Iterable[Any], config: Config, iterations: int, log: str, earlier: Iterable[float] = ()
) -> Iterator[Any]:
    """Pass the losses of `fit` through, and show how far they are.

    The lines have the original's wording: `Train Epoch: 1 Loss: 0.065681` an epoch, and with the
    log "iteration" `Train Epoch 1 Iter: 910 Loss: 0.078050` as well.

    Args:
        iterations: of one epoch.
        earlier: the losses before the first of `steps`, of a training that goes on.
    """
    losses: list[Any] = list(earlier)
    before, total = len(losses), config.epochs * iterations
    epoch, iteration = divmod(before, iterations)
    where = f"goes on at epoch {epoch}, iteration {iteration}" if before else "training"
    say(log, f"{config.describe()}: {where}")
    live = LiveCurve(config, iterations) if log == "epoch" and in_jupyterlab() else None
    start = time.perf_counter()
    for loss in steps:
        yield loss
        if log == "none":
            continue
        losses.append(loss)
        done = len(losses)
        epoch, iteration = divmod(done - 1, iterations)
        if log == "iteration":
            print(f"Train Epoch {epoch} Iter: {iteration} Loss: {float(loss):.6f}", flush=True)
        last = iteration == iterations - 1
        left = (time.perf_counter() - start) / (done - before) * (total - done)
        if live:
            live.show(losses, left, at_once=done == total)
        elif last:
            losses[-iterations:] = map(float, losses[-iterations:])
            mean = sum(losses[-iterations:]) / iterations
            name = f"{config.describe()}: " if log == "named" else ""
            print(
                f"{name}Train Epoch: {epoch} Loss: {mean:.6f}  ({duration(left)} left)", flush=True
            )


def duration(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def in_jupyterlab() -> bool:
    """Whether someone watches: Jupyter's server names the notebook of the kernels it starts.

    Papermill, nbval and nbconvert start kernels without a server, and get plain lines.
    """
    return "JPY_SESSION_NAME" in os.environ


class LiveCurve:
    """A loss curve in the notebook's output that is redrawn while the training goes on."""

    def __init__(self, config: Config, iterations: int) -> None:
        from IPython.display import display  # here: training in a terminal needs no notebook

        self.config, self.iterations = config, iterations
        self.drawn = 0.0
        self.handle = display({"text/plain": "training"}, raw=True, display_id=True)

    def show(self, losses: list[Any], left: float, at_once: bool) -> None:
        """Draw `losses`, unless that was done less than `REDRAW_SECONDS` ago; turns them to floats.

        Args:
            losses: of every iteration so far, in nats.
            left: seconds to the end.
            at_once: whether to draw in any case.
        """
        if at_once or time.perf_counter() - self.drawn > REDRAW_SECONDS:
            losses[:] = map(float, losses)  # waits for the device
            self.handle.update(self.picture(losses, left), raw=True)
            self.drawn = time.perf_counter()

    def picture(self, losses: list[float], left: float) -> dict[str, Any]:
        """The curve so far as a MIME bundle."""
        from matplotlib.figure import Figure

        done = len(losses)
        state = "done" if left == 0 else f"{duration(left)} left"
        text = f"{self.config.describe()}: epoch {(done - 1) // self.iterations}, {state}"
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([i / self.iterations for i in range(done)], losses, lw=0.8)
        axes.set(title=text, xlabel="epoch", ylabel="loss (nats)", yscale="log")
        axes.set_xlim(0, self.config.epochs)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=100)
        return {"image/png": buffer.getvalue(), "text/plain": text}
