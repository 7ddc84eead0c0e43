"""How far trainings are: one live display in JupyterLab, plain lines anywhere else."""

import contextlib
import io
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from labkit.core.config import DATASETS, Config
from labkit.core.log import say
from labkit.core.words import plural
from labkit.lab import stopping

TELL_SECONDS = 1.0  # between what a training tells the live display
REDRAW_SECONDS = 3.0  # a redraw takes some 50 ms
POINTS = 200  # of a curve
INK = "#808080"  # can be read on white and on JupyterLab's dark theme
REPORT = "report: "  # how a line begins that `tell` prints


class Live:
    """The log of a call's runs in JupyterLab: one display, at the end one line of text.

    Args:
        labels: of all runs, what their setting is called.
        missing: the runs that are to be trained.
    """

    def __init__(self, labels: Mapping[Config, str], missing: Collection[Config]) -> None:
        from IPython.display import display  # here: training in a terminal needs no notebook

        self.labels, self.start = labels, time.perf_counter()
        self.work = {config: config.epochs * DATASETS[config.dataset][0] for config in missing}
        self.first: dict[Config, float] = {}  # the share that a run had when it was first heard of
        self.shares: dict[Config, float] = {}
        self.curves: dict[Config, Sequence[tuple[float, float]]] = {}
        self.heard = self.drawn = 0.0
        bundle = {"text/plain": f"{plural(len(missing), 'run')} to train"}
        self.display = display(bundle, raw=True, display_id=True)

    def say(self, line: str) -> None:
        """Show a line above the curves."""
        picture = {"image/png": self.picture(line)} if self.curves else {}
        self.display.update({"text/plain": line, **picture}, raw=True)
        self.drawn = time.perf_counter()

    def note(self, config: Config, share: float, curve: Sequence[tuple[float, float]]) -> None:
        """Show what `tell` told of a run: at once at first, then ever less often."""
        now = time.perf_counter()
        self.heard = self.heard or now
        self.first.setdefault(config, share)
        self.shares[config], self.curves[config] = share, curve
        if now - self.drawn > min(REDRAW_SECONDS, (now - self.heard) / 2):
            self.say(self.title(now))

    def title(self, now: float) -> str:
        """Which runs of how many are trained, how far they are, and how long all take yet."""
        active = [config for config, share in self.shares.items() if share < 1]
        before = len(self.labels) - len(self.work) + len(self.shares) - len(active)
        which = f"run {min(before + 1, len(self.labels))}"
        if len(active) > 1:
            which = f"runs {before + 1}–{before + len(active)}"
        parts = [f"{which} of {len(self.labels)}"]
        if active:
            slowest = min(active, key=self.shares.get)
            epoch = self.shares[slowest] * slowest.epochs
            parts.append(f"epoch {epoch:.1f} of {slowest.epochs}")
        gained = sum((share - self.first[c]) * self.work[c] for c, share in self.shares.items())
        left = sum((1 - self.shares.get(c, 0)) * work for c, work in self.work.items())
        if gained:
            parts.append(f"{duration((now - self.heard) / gained * left)} left for all")
        return ", ".join(parts)

    def picture(self, title: str) -> bytes:
        """The losses so far, in nats, a line for each run and a colour for each setting, as PNG."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter

        names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
        colors = {label: f"C{n}" for n, label in enumerate(dict.fromkeys(self.labels.values()))}
        with rc_context(dict.fromkeys(names, INK)):
            figure = Figure(figsize=(7, 2.8), layout="constrained")
            axes = figure.add_subplot()
            for config, curve in self.curves.items():
                label = self.labels[config]
                style = {"color": colors[label], "label": label, "lw": 1}
                axes.plot(*zip(*curve, strict=True), "." if len(curve) == 1 else "-", **style)
            axes.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
            axes.set_xlim(0, max(config.epochs for config in self.curves))
            axes.set_title(title, size="medium", loc="left")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")  # 0.1, and not a power of ten
            axes.yaxis.set_minor_formatter(NullFormatter())
            handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
            axes.legend(handles.values(), handles, loc="upper right", frameon=False, ncols=2)
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=100, transparent=True)
        return buffer.getvalue()

    def end(self, finished: bool) -> None:
        """Leave one line of text, so that the saved notebook stays small."""
        trained = sum(share == 1 for share in self.shares.values())
        rest = 0 if finished else len(self.work) - trained
        took = duration(time.perf_counter() - self.start)
        counts = {
            "recorded": len(self.labels) - trained - rest,
            f"trained in {took}": trained,
            "not trained to the end": rest,
        }
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        line = f"{plural(len(self.labels), 'run')}: {said}"
        self.display.update({"text/plain": line}, raw=True)


@contextlib.contextmanager
def shown(
    log: str, labels: Mapping[Config, str], missing: Collection[Config]
) -> Iterator[str | Live]:
    """The log of a call's runs: with "epoch" in JupyterLab a `Live`, which ends with the block. An
    interrupt says where it stopped them."""
    live = Live(labels, missing) if log == "epoch" and in_jupyterlab() else None
    finished = False
    try:
        with stopping.sentence():
            yield live or log
            finished = True
    finally:
        if live:
            live.end(finished)


def track(
    steps: Iterable[Any],
    config: Config,
    iterations: int,
    log: str | Live,
    earlier: Iterable[float] = (),
) -> Iterator[Any]:
    """Pass the losses of `fit` through, and say how far they are.

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
    start, told = time.perf_counter(), 0.0
    for loss in steps:
        yield loss
        if log == "none":
            continue
        losses.append(loss)
        done, now = len(losses), time.perf_counter()
        epoch, iteration = divmod(done - 1, iterations)
        if log == "report" or isinstance(log, Live):
            if now - told > TELL_SECONDS:
                losses[:] = map(float, losses)  # waits for the device
                tell(log, config, losses, total)
                told = now
            continue
        if log == "iteration":
            print(f"Train Epoch {epoch} Iter: {iteration} Loss: {float(loss):.6f}", flush=True)
        if iteration == iterations - 1:
            losses[-iterations:] = map(float, losses[-iterations:])
            mean = sum(losses[-iterations:]) / iterations
            left = duration((now - start) / (done - before) * (total - done))
            print(f"{name}Train Epoch: {epoch} Loss: {mean:.6f}  ({left} left)", flush=True)


def tell(
    log: str | Live, config: Config, losses: Sequence[float], total: int, ended: bool = False
) -> None:
    """Let the live display, of this process or of the parent, know how far a run of `total`
    iterations is; one that has diverged ends before the last."""
    size = max(total // POINTS, 1)
    parts = [(start, losses[start : start + size]) for start in range(0, len(losses), size)]
    curve = [(config.epochs * i / total, sum(part) / len(part)) for i, part in parts]
    share = 1.0 if ended else len(losses) / (total + 1)
    if isinstance(log, Live):
        log.note(config, share, curve)
    elif log == "report":
        print(f"{REPORT}{json.dumps([share, curve])}", flush=True)


def duration(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def in_jupyterlab() -> bool:
    """Whether someone watches: Jupyter's server names the notebook of the kernels it starts.

    Papermill, nbval and nbconvert start kernels without a server, and get plain lines.
    """
    return "JPY_SESSION_NAME" in os.environ
