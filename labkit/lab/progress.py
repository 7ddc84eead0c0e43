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

    The lines have the original's wording: `Train Epoch: 1 Loss: 0.065681` per epoch, and with the
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
    name = f"{config.describe()}: " if log == "named" else ""
    curve = None
    if log == "epoch" and in_jupyterlab():
        from IPython.display import display  # here: training in a terminal needs no notebook

        curve = display({"text/plain": "training"}, raw=True, display_id=True)
    start, drawn = time.perf_counter(), 0.0
    for loss in steps:
        yield loss
        if log == "none":
            continue
        losses.append(loss)
        done, now = len(losses), time.perf_counter()
        epoch, iteration = divmod(done - 1, iterations)
        left = f"{duration((now - start) / (done - before) * (total - done))} left"
        if log == "iteration":
            print(f"Train Epoch {epoch} Iter: {iteration} Loss: {float(loss):.6f}", flush=True)
        if curve and (done == total or now - drawn > REDRAW_SECONDS):
            losses[:] = map(float, losses)  # waits for the device
            state = "done" if done == total else left
            title = f"{config.describe()}: epoch {epoch}, {state}"
            curve.update(picture(losses, title, iterations, config.epochs), raw=True)
            drawn = time.perf_counter()
        elif not curve and iteration == iterations - 1:
            losses[-iterations:] = map(float, losses[-iterations:])
            mean = sum(losses[-iterations:]) / iterations
            print(f"{name}Train Epoch: {epoch} Loss: {mean:.6f}  ({left})", flush=True)


def duration(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def in_jupyterlab() -> bool:
    """Whether someone watches: Jupyter's server names the notebook of the kernels it starts.

    Papermill, nbval and nbconvert start kernels without a server, and get plain lines.
    """
    return "JPY_SESSION_NAME" in os.environ


def picture(losses: list[float], title: str, iterations: int, epochs: int) -> dict[str, Any]:
    """The losses so far, in nats, as a MIME bundle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([i / iterations for i in range(len(losses))], losses, lw=0.8)
    axes.set(title=title, xlabel="epoch", ylabel="loss (nats)", yscale="log", xlim=(0, epochs))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return {"image/png": buffer.getvalue(), "text/plain": title}
