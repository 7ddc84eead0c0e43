"""How far trainings are: one live display in JupyterLab, plain lines anywhere else."""

import builtins
import contextlib
import io
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from labkit.core.config import Config
from labkit.core.data import training_images
from labkit.core.log import say
from labkit.core.words import plural
from labkit.store.run import Run

TELL_SECONDS = 1.0  # between what a training tells the live display
REDRAW_SECONDS = 5.0  # a redraw takes 0.1
POINTS, NAMED = 200, 8  # of a curve; settings in the legend, which are those begun last
INK = "#808080"  # can be read on white and on JupyterLab's dark theme
REPORT = "report: "  # how a line begins that `tell` prints
Curve = Sequence[tuple[float, float]]  # epochs, and mean losses from then on


class Live:
    """The log of a call's runs in JupyterLab: one display, at the end one line of text.

    Args:
        labels: of all runs, what their setting is called.
        missing: the runs that are to be trained.
    """

    def __init__(self, labels: Mapping[Config, str], missing: Collection[Config]) -> None:
        from IPython.display import display  # here: training in a terminal needs no notebook

        self.labels, self.start = labels, time.perf_counter()
        self.work = {config: images(config) for config in missing}
        self.runs: dict[Config, tuple[float, float, Curve]] = {}  # share at first, share, losses
        self.heard = self.drawn = 0.0
        first = {"text/plain": f"{plural(len(missing), 'run')} to train"}
        self.display = display(first, raw=True, display_id=True)

    def say(self, line: str) -> None:
        """Show a line, and the curves below it."""
        picture = {"image/png": self.picture(line)} if self.runs else {}
        self.display.update({"text/plain": line, **picture}, raw=True)
        self.drawn = time.perf_counter()

    def note(self, config: Config, share: float, curve: Curve) -> None:
        """Show what `tell` told of a run: at once at first, then ever less often."""
        now = time.perf_counter()
        self.heard = self.heard or now
        self.work.setdefault(config, images(config))  # a record may have gone meanwhile
        self.runs[config] = self.runs.get(config, [share])[0], share, curve
        if now - self.drawn > min(REDRAW_SECONDS, (now - self.heard) / 2):
            self.say(self.title(now))

    def title(self, now: float) -> str:
        """Which runs of how many are trained, how far they are, and how long all take yet."""
        active = {config: share for config, (_, share, _) in self.runs.items() if share < 1}
        of = len(self.labels)
        last = of - len(self.work) + len(self.runs)
        which = f"runs {last - len(active) + 1}–{last}" if len(active) > 1 else f"run {last}"
        title = f"{which} of {of}"
        if active:
            slowest = min(active, key=active.get)
            title += f", epoch {active[slowest] * slowest.epochs:.1f} of {slowest.epochs}"
        gained = sum(self.work[c] * (share - first) for c, (first, share, _) in self.runs.items())
        left = sum(self.work.values())
        left -= sum(self.work[config] * share for config, (_, share, _) in self.runs.items())
        if gained:
            title += f", {duration((now - self.heard) / gained * left)} left for all"
        return title

    def picture(self, title: str) -> bytes:
        """The losses so far, in nats, a line for each run and a colour for each setting, as PNG."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator

        names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
        colors = {label: f"C{n}" for n, label in enumerate(dict.fromkeys(self.labels.values()))}
        with rc_context(dict.fromkeys(names, INK)):
            figure = Figure(figsize=(7, 2.8), layout="constrained")
            axes, lines = figure.add_subplot(), {}
            for config, (_, _, curve) in self.runs.items():
                label = self.labels[config]
                style = {"color": colors[label], "lw": 1, "ms": 2}
                (lines[label],) = axes.plot(*zip(*curve, strict=True), ".-", **style)
            axes.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
            axes.set_xlim(0, max(config.epochs for config in self.runs))
            axes.set_title(title, size="medium", loc="left")
            axes.minorticks_off()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")  # 0.1, and not a power of ten
            last = list(lines)[-NAMED:]
            axes.legend([lines[label] for label in last], last, frameon=False, loc="upper right")
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=100, transparent=True)
        return buffer.getvalue()

    def end(self, finished: bool) -> None:
        """Leave one line of text, so that the saved notebook stays small."""
        trained = sum(share == 1 for _, share, _ in self.runs.values())
        rest = 0 if finished else len(self.work) - trained
        took = f"trained in {duration(time.perf_counter() - self.start)}"
        counts = {"recorded": len(self.labels) - trained - rest, took: trained}
        counts["not trained to the end"] = rest
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        self.display.update({"text/plain": f"{plural(len(self.labels), 'run')}: {said}"}, raw=True)


class Bar:
    """The log of a call's runs on a terminal: one bar, of all images that are trained on.

    Args:
        missing: the runs that are to be trained.
    """

    def __init__(self, missing: Collection[Config]) -> None:
        from tqdm import tqdm  # here: a log of words needs none

        self.shares = dict.fromkeys(missing, 0.0)
        total = sum(map(images, missing))
        self.bar = tqdm(total=total, unit=" images", unit_scale=True, dynamic_ncols=True)

    def say(self, line: str) -> None:
        """Show a line after the bar, in place of the last one."""
        self.bar.set_postfix_str(line)

    def note(self, config: Config, share: float, curve: Curve) -> None:
        """Let the bar grow by what `tell` told of a run."""
        self.bar.update(round((share - self.shares.get(config, 0.0)) * images(config)))
        self.shares[config] = share

    def end(self, finished: bool) -> None:
        """Leave the bar as it is."""
        self.bar.close()


#: A word of `core.log.LOGS`, or what takes its place in JupyterLab and on a terminal.
Log = str | Live | Bar


@contextlib.contextmanager
def shown(log: str, labels: Mapping[Config, str], missing: Collection[Config]) -> Iterator[Log]:
    """The log of a call's runs: with "epoch" in JupyterLab a `Live`, with "bar" a `Bar`, either of
    which ends with the block.

    An interrupt, whose arguments are the places where it stopped runs, gets a sentence that says
    so; in a notebook it is shown in the traceback's place.
    """
    live = Live(labels, missing) if log == "epoch" and in_jupyterlab() else None
    live = Bar(missing) if log == "bar" else live
    finished = False
    try:
        yield live or log
        finished = True
    except KeyboardInterrupt as stop:
        places = " and ".join(dict.fromkeys(stop.args))
        said = f"stopped{' at ' * bool(places)}{places}; run again to go on"
        stop.args = (said,)
        stop._render_traceback_ = lambda: [said]  # IPython asks for it
        raise
    finally:
        if live:
            live.end(finished)


def track(
    steps: Iterable[Any], config: Config, iterations: int, log: Log, earlier: Iterable[float] = ()
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
        if log == "report" or not isinstance(log, str):
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
    log: Log, config: Config, losses: Sequence[float], total: int, ended: bool = False
) -> None:
    """Let the live display, of this process or of the parent, know how far a run of `total`
    iterations is; one that has diverged ends before the last."""
    size = max(total // POINTS, 1)
    parts = [(start, losses[start : start + size]) for start in range(0, len(losses), size)]
    curve = [(config.epochs * i / total, sum(part) / len(part)) for i, part in parts]
    share = 1.0 if ended else len(losses) / (total + 1)
    if not isinstance(log, str):
        log.note(config, share, curve)
    elif log == "report":
        print(f"{REPORT}{json.dumps([share, curve])}", flush=True)


def home(log: Log, run: Run) -> None:
    """Say that a run has come home from another machine."""
    say(log, f"{run.config.describe()}: trained in {duration(run.provenance['seconds'])}")
    if not isinstance(log, str):
        curve = [(epoch + 1.0, loss) for epoch, loss in enumerate(run.history["loss"])]
        log.note(run.config, 1.0, curve)


def images(config: Config) -> int:
    """How many images a whole training passes through the network."""
    return config.epochs * training_images(config.dataset)


def duration(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def in_jupyterlab() -> bool:
    """Whether someone watches: Jupyter's server names the notebook of the kernels it starts.

    Papermill, nbval and nbconvert start kernels without a server, and get plain lines; so does a
    script that a cell starts.
    """
    return "JPY_SESSION_NAME" in os.environ and hasattr(builtins, "get_ipython")
