"""Figures from runs. Each function returns a `Figure` that carries its own alt text."""

import textwrap
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LogNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator

from labkit.core import data
from labkit.core.config import MNIST, Config
from labkit.core.measures import NAMES, RECALIBRATED, RUNNING, STATISTICS
from labkit.core.values import choice
from labkit.core.words import SPLITS, number, on_runs, percent, plural
from labkit.judge import landscape as surroundings
from labkit.judge import original, recipes, stats
from labkit.show.figure import (
    COLORS,
    DASHED,
    GRID,
    INK,
    MOST_CLASSES,
    PAPER,
    SOFT,
    THEIRS,
    Figure,
    against_epochs,
    label_ends,
    legend_above,
    multiples,
    named,
    nothing,
    panels,
    plain,
    plain_log,
    styled,
    tidy,
    upright,
    with_n,
)
from labkit.show.gallery import anchor
from labkit.show.remake import remakable
from labkit.show.tables import printed, shares
from labkit.store.groups import (
    BOTH,
    Runs,
    answered,
    answering,
    class_noun,
    classes_of,
    divergences,
    left_out,
    off_diagonal,
    total_confusion,
)
from labkit.store.run import Run


def _answered(runs: Runs) -> Iterator[tuple[str, list[Run], dict[str, Any]]]:
    """The settings with recalibrated answers: label, those runs, and their style."""
    for label, group, style in styled(runs, "marker"):
        if kept := answering(group):
            yield label, kept, style


def _nothing(what: str, runs: Runs) -> Figure:
    return nothing(f"{what}: no run has recalibrated answers.", runs)


def binned(group: Sequence[Run], bins: int = 60) -> pd.DataFrame:
    """The batch losses of all seeds in bins that are equally wide on a log axis of epochs: columns
    `epoch` (the bin's middle), and the quantiles 0.1, 0.5 and 0.9 of its losses."""
    losses = np.stack([run.iteration_loss.ravel() for run in group])
    epochs = (np.arange(losses.shape[1]) + 1) / group[0].iteration_loss.shape[1]
    which = np.digitize(epochs, np.geomspace(epochs[0], epochs[-1], bins + 1)[1:-1])
    frame = pd.DataFrame(losses.T).assign(bin=which, epoch=np.log(epochs)).set_index("bin")
    long = frame.melt("epoch", value_name="loss", ignore_index=False).dropna()  # it diverged
    found = long.groupby("bin")["loss"].quantile([0.1, 0.5, 0.9]).unstack()
    return found.assign(epoch=np.exp(long.groupby("bin")["epoch"].mean()))


@remakable
def loss_by_iteration(runs: Runs) -> Figure:
    """Loss of the batches of all seeds, a panel per setting, against epochs on a log axis, which
    shows the first updates: median, and a band from the 10th to the 90th percentile."""
    figure, parts = multiples(len(runs), 2.3, "epochs done", "loss of a batch (nats)")
    said = []
    for axes, (label, group, style) in zip(parts, styled(runs), strict=True):
        found, lost = binned(group), divergences({label: group})
        end = ", diverged" if lost else ""
        axes.fill_between(found["epoch"], found[0.1], found[0.9], alpha=0.25, lw=0, **style)
        axes.plot(found["epoch"], found[0.5], lw=1.7, **style)
        if lost:
            axes.plot("epoch", 0.5, "x", data=found[-1:], ms=10, mew=2.5, **style)
        plain_log(axes, "xy")
        tidy(axes, with_n(label, group) + end)
        ends = [f"{loss:.3g}" for loss in found[0.5].iloc[:: max(len(found) - 1, 1)]]
        course = f"goes from {ends[0]} to {ends[-1]}" if ends else "has no loss"
        said.append(f"{with_n(label, group)} {course}{end}")
    return figure.described(
        "Line charts of the training loss of batches by epochs, log axes, a panel per setting. The "
        f"median of {'; '.join(said)} nats.",
        "line: median, band: 10 to 90\u00a0% of all seeds' batches in a sixtieth of the axis",
    )


@remakable
def loss_by_epoch(runs: Runs) -> Figure:
    """Mean training loss by epoch: thick the mean, thin each seed, dashed in ink the original, with
    an open marker of the form that its setting has."""
    figure, (axes,) = panels(4)
    said, ends, printed_runs = [], {}, original.beside(runs)
    for label, group, style in styled(runs, "marker"):
        losses, color = np.array([run.history["loss"] for run in group]), style["color"]
        mean, last = losses.mean(0), losses.shape[1] - 1
        axes.plot(losses.T, color=color, lw=0.8, alpha=0.6)
        axes.plot(mean, lw=2, ms=6, label=label, **style)
        if np.isfinite(mean[last]):
            ends[with_n(label, group)] = last, mean[last], color
        course = f"ends at {mean[last]:.3g}" if np.isfinite(mean[last]) else "diverges"
        said.append(f"{with_n(label, group)} {course}")
        if section := printed_runs.get(label):
            dashed = THEIRS | {"marker": style["marker"], "ls": DASHED, "lw": 1}
            axes.plot(section.epoch_loss, **dashed)
            ends[f"{label}, original"] = len(section.epoch_loss) - 1, section.epoch_loss[-1], INK
            said.append(f"its original at {section.epoch_loss[-1]:.3g}")
    labels = {"xlabel": "epoch", "ylabel": "mean loss of the epoch (nats)"}
    theirs = ", dashed: the original" * bool(printed_runs)
    against_epochs(axes, f"Thick: mean of the seeds, thin: each{theirs}", **labels)
    label_ends(axes, ends)
    theirs = ", the original's values on full MNIST dashed" * bool(printed_runs)
    return figure.described(
        f"Line chart of the mean training loss by epoch on a log axis{theirs}: "
        f"{'; '.join(said)} nats.",
        divergences(runs),
    )


@remakable
def accuracy_by_epoch(runs: Runs) -> Figure:
    """Error (100 % − accuracy) on both splits after each epoch, log axis, a panel per setting, a
    line per seed, since the mean of seeds that jump at different times is no run's course. Dotted,
    the test error by running averages shows what their lag costs."""
    looks: dict[tuple[str, str], dict[str, Any]] = {
        ("test", RECALIBRATED): {"ls": "-", "lw": 1.7},
        ("train", RECALIBRATED): {"ls": DASHED, "lw": 1.1},
        ("test", RUNNING): {"ls": (0, (1, 1.2)), "lw": 1.3, "color": SOFT},
    }
    names = {kind: f"{SPLITS[kind[0]]}, {NAMES[kind[1]]}" for kind in looks}
    if not (drawn := list(_answered(runs))):
        return _nothing("Error on both splits by epoch", runs)
    figure, parts = multiples(len(drawn), 2.5, "after epoch", "wrong answers (%)")
    said = []
    for axes, (label, group, style) in zip(parts, drawn, strict=True):
        ends = []
        for kind, look in looks.items():
            wrong = 100 * (1 - np.array([run.accuracies(*kind) for run in group]))
            point = {} if wrong.shape[1] > 1 else {"marker": "."}  # of one epoch there is no line
            many = {"lw": 0.7, "alpha": 0.6} if len(group) > 3 else {}
            axes.plot(wrong.T, **{"color": style["color"]} | look | point | many)
            at = [percent(end) for end in (wrong[:, -1].min(), wrong[:, -1].max())]
            ends.append(f"{' to '.join(dict.fromkeys(at))} on {names[kind]}")
        said.append(f"{with_n(label, group)} ends at {', '.join(ends)}")
        against_epochs(axes, with_n(label, group))
    for kind, look in looks.items():
        parts[0].plot([], [], **{"color": INK, "label": names[kind]} | look)
    legend_above(figure)
    kind = "Line charts of the share of wrong answers after each epoch on a log axis, a line a seed"
    return figure.described(f"{kind}: {'; '.join(said)}.", BOTH, left_out(runs))


@remakable
def iterations(runs: Sequence[Run]) -> Figure:
    """The original's iteration log as a line, and the same iterations of these runs as dots."""
    if runs[0].config.dataset not in MNIST:
        return nothing(original.FOREIGN)
    logs = original.EXCERPTS
    widths = [max(len(log.losses), 12) for log in logs]
    figure, parts = panels(3.2, columns=len(logs), sharey=True, width_ratios=widths)
    alike = [run for run in runs if run.config.dataset == "mnist"]  # else other iterations
    dots, said = {"color": COLORS[0], "ms": 3.5, "alpha": 0.7}, []
    for axes, log in zip(parts, logs, strict=True):
        places = np.arange(log.first, log.first + len(log.losses))
        kept = [run.iteration_loss[log.epoch] for run in alike if run.config.epochs > log.epoch]
        if ours := [losses[places] for losses in kept if len(losses) > places[-1]]:
            low, high = np.min(ours, axis=0), np.max(ours, axis=0)
            dots["label"] = with_n("here, a dot per seed", ours)
            axes.plot(np.tile(places, len(ours)), np.ravel(ours), "o", **dots)
            inside = (low <= log.losses) & (log.losses <= high)
            said.append(f"{inside.sum()} of {len(places)} in epoch {log.epoch}")
        axes.plot(places, log.losses, lw=1.2, **THEIRS | {"ms": 3.5})
        plain_log(axes)
        tidy(axes, f"Epoch {log.epoch}", xlabel="iteration")
        axes.xaxis.set_major_locator(MaxNLocator(4 if len(places) > 9 else 2, integer=True))
    parts[0].set_ylabel("loss of a batch (nats)")
    legend_above(figure)
    return figure.described(
        "Line chart of the original's printed losses by iteration among those of these runs (n = "
        f"{len(alike) * bool(said)}); inside the range: "
        f"{', '.join(said) or 'none, since these runs have no such iteration'}."
    )


@remakable
def accuracy_by_class(runs: Runs, split: str = "test") -> Figure:
    """Error (100 % − accuracy) of every class, recalibrated: a dot per seed, a bar at their mean,
    a diamond for the original. By running averages, whose lag says little of a class, only the alt
    text has the total."""
    noun, drawn = class_noun(next(iter(runs.values()))[0]), list(_answered(runs))
    if not drawn:
        return _nothing(f"Error of every {noun}", runs)
    classes = classes_of(runs)
    every = [shares(group, split).to_numpy()[:, :-1] for _, group, _ in drawn]
    chosen, some = _chosen(100 - np.concatenate(every).mean(0))
    names = [*(named(classes[i]) for i in chosen), "total"]
    figure, (axes,) = panels(3.6 + upright(names))
    said, step, printed_runs = [], 0.8 / len(drawn), original.beside(runs)
    for index, (label, group, style) in enumerate(drawn):
        wrong, averaged = (100 - shares(group, split, kind).to_numpy() for kind in STATISTICS)
        mean, averaged = wrong.mean(0), averaged.mean(0)
        worst = int(np.nanargmax(mean[:-1]))
        said.append(
            f"{with_n(label, group)}: total {percent(mean[-1])} recalibrated, "
            f"{percent(averaged[-1])} by running averages, worst {noun} {classes[worst]} with "
            f"{percent(mean[worst])} recalibrated"
        )
        mean, wrong = mean[[*chosen, -1]], wrong[:, [*chosen, -1]]
        places = np.arange(len(mean)) + (index - (len(drawn) - 1) / 2) * step
        side = 0.35 * step
        axes.hlines(mean, places - side, places + side, color=style["color"], lw=2.5)
        dots = style | {"ls": "", "ms": 4, "alpha": 0.7, "label": with_n(label, group)}
        axes.plot(np.tile(places, len(wrong)), wrong.ravel(), **dots)
        if theirs := printed(printed_runs.get(label), split):
            axes.plot(places, 100 - np.array(theirs), ls="", **THEIRS)
            said[-1] += f"; the original's total {percent(100 - theirs[-1])}"
    tidy(axes, xlabel=noun, ylabel=f"wrong answers, {SPLITS[split]} images (%)")
    axes.set_xticks(range(len(names)), names, rotation=90 if upright(names) else 0)
    axes.set_yscale("symlog", linthresh=0.1, linscale=0.4)  # for no mistake at all has a place
    axes.set_ylim(0, 1.4 * max(np.nanmax(line.get_ydata()) for line in axes.lines) or 1)
    axes.yaxis.set_major_locator(FixedLocator([0, *_bounds(100)[1:], 0.1, 0.2]))
    axes.yaxis.set_major_formatter(plain)
    axes.grid(False, axis="x")
    for edge in range(len(chosen)):
        axes.axvline(edge + 0.5, color=GRID, lw=0.7, zorder=0)
    legend_above(figure, ncols=3)
    kind = f"Error of every {noun} on the {SPLITS[split]} images, by setting"
    note = "recalibrated; bar: mean of the seeds; log axis above 0.1\u00a0%"
    return figure.described(f"{kind}. {'; '.join(said)}.", note, some, left_out(runs))


def _chosen(wrong: np.ndarray) -> tuple[np.ndarray, str]:
    """The numbers of the classes that a figure has room for, those with most `wrong`; and a note,
    where these are not all."""
    worst = np.argsort(-np.nan_to_num(wrong), kind="stable")[:MOST_CLASSES]
    note = f"the {len(worst)} of {len(wrong)} classes with most mistakes"
    return np.sort(worst), note * (len(worst) < len(wrong))


def _heatmap(
    axes: Axes,
    values: np.ndarray,
    classes: Mapping[int, str],
    noun: str,
    bounds: Sequence[float],
    cmap: str,
    sign: str = "",
    linked: bool = False,
) -> None:
    """A number for every true and predicted class, of those given by number and name, in the colour
    of its place between `bounds`: the same on light and on dark pages, and so are the letters on
    it."""
    norm, grid = BoundaryNorm(bounds, 256), {"linewidths": 0.6, "linecolor": "#dddddd"}
    numbers, names = list(classes), list(map(named, classes.values()))
    grid |= {"xticklabels": names, "yticklabels": names}
    values = values[np.ix_(numbers, numbers)]
    sns.heatmap(values, norm=norm, cmap=cmap, cbar=False, ax=axes, **grid)
    for (row, column), value in np.ndenumerate(values):
        letters = _letters(axes.collections[0].cmap(norm(value))) | _centred(classes)
        written = axes.text(column + 0.5, row + 0.5, _brief(value, sign), **letters)
        if linked and value:
            written.set_url(f"#{anchor(numbers[row], numbers[column])}")
    axes.set(xlabel=f"predicted {noun}", ylabel=f"true {noun}")
    axes.tick_params(length=0, rotation=0)
    axes.tick_params("x", rotation=90 if upright(names) else 0)


def _side(classes: Mapping[int, str]) -> float:
    """How high a heatmap is, in inches."""
    return max(3.1, 0.25 * len(classes)) + upright(list(map(named, classes.values())))


def _centred(classes: Mapping[int, str]) -> dict[str, Any]:
    """How letters stand in a cell of a heatmap."""
    return {"ha": "center", "va": "center", "size": 10 if len(classes) <= 12 else 7}


def _letters(cell: Sequence[float]) -> dict[str, str]:
    """How to write in the middle of a cell of that colour, red, green and blue."""
    dark = np.array(cell[:3]) ** 2.2 @ (0.21, 0.72, 0.07) < 0.18
    return {"color": "#fefefe" if dark else "#111111", "ha": "center", "va": "center"}


def _colour_bar(parts: Sequence[Axes], bounds: Sequence[float], label: str) -> None:
    """What the colours of heatmaps mean, below them."""
    look = {"location": "bottom", "aspect": 45, "pad": 0.03, "ticks": bounds}
    shades, figure = parts[0].collections[0], parts[0].get_figure()
    bar = figure.colorbar(shades, ax=list(parts), label=label, format=plain, **look)
    bar.outline.set_visible(False)


def _bounds(worst: float) -> list[float]:
    """0, 0.5, 1, 2, 5, 10, ..., the last above `worst`."""
    steps = [0.5, *(step * 10**power for power in range(6) for step in (1, 2, 5))]
    return [0, *steps[: max(2, bisect(steps, worst) + 1)]]


@remakable
def confusion(runs: Runs, split: str = "test", linked: bool = False) -> Figure:
    """Mistakes per run, recalibrated, as heatmaps on one scale of colours, one per setting. The
    diagonal holds the accuracy of the class in percent, without colour, beside which all others
    would look empty. `linked`: on a page its numbers lead to the images of `gallery.mistakes`."""
    noun, kept = class_noun(next(iter(runs.values()))[0]), answered(runs)
    if not kept:
        return _nothing("Confusion heatmap", runs)
    totals = {label: total_confusion(group, split) for label, group in kept.items()}
    wrong = {label: off_diagonal(totals[label]) / len(group) for label, group in kept.items()}
    bounds = _bounds(max(mistakes.max() for mistakes in wrong.values()))
    names = classes_of(runs)
    chosen, some = _chosen(sum(m.sum(0) + m.sum(1) for m in wrong.values()))
    classes = {int(i): names[i] for i in chosen}
    figure, parts = panels(0.9 + _side(classes) * len(kept), rows=len(kept))
    said = []
    for axes, (label, group) in zip(parts, kept.items(), strict=True):
        counts, mistakes = totals[label], wrong[label]
        _heatmap(axes, mistakes, classes, noun, bounds, "YlOrBr", linked=linked)
        diagonal = zip(np.diag(counts)[chosen], counts.sum(1)[chosen], strict=True)
        for place, (right, size) in enumerate(diagonal):
            axes.add_patch(Rectangle((place, place), 1, 1, fc="#dfe3e8", ec="#dddddd", lw=0.6))
            share = f"{100 * right / size:.1f}".replace("100.0", "100") if size else "–"
            middle = (place + 0.5, place + 0.5)
            axes.annotate(share, middle, color="#111111", **_centred(classes))
        asked = counts.sum() / len(group)
        found = f"{with_n(label, group)}: {_brief(mistakes.sum()) or 0} of {asked:,.0f} wrong"
        axes.set_title(found, loc="left", size=10.5)
        true, taken = np.unravel_index(mistakes.argmax(), mistakes.shape)
        most = f"most often {names[true]} taken for {names[taken]} ({_brief(mistakes.max())})"
        said.append(f"{found}, {most if mistakes.any() else 'none'}")
    _colour_bar(parts, bounds, f"mistakes per run, {SPLITS[split]} images")
    diagonal = f"recalibrated; grey diagonal: accuracy of the {noun} in\u00a0%"
    alt = f"Confusion heatmaps, mistakes per run, {SPLITS[split]} images. {'; '.join(said)}."
    return figure.described(alt, diagonal, some, left_out(runs))


def _brief(value: float, sign: str = "") -> str:
    """A mean count, with a decimal where that tells something; "" for zero."""
    few = abs(value) < 9.95 and value % 1 > 0
    return number(value, int(few), sign) if abs(value) >= 0.05 else ""


@remakable
def confusion_difference(runs: Runs, split: str = "test") -> Figure:
    """How many more (red) or fewer (blue) mistakes per run the second setting makes than the first,
    recalibrated."""
    noun, pair = class_noun(next(iter(runs.values()))[0]), list(answered(runs).items())[:2]
    if len(pair) < 2:
        return nothing("Mistakes of two settings, recalibrated: no two settings left.", runs)
    (first, base), (second, other), names = *pair, classes_of(runs)
    per_run = [off_diagonal(total_confusion(group, split)) / len(group) for group in (base, other)]
    difference = per_run[1] - per_run[0]
    above = _bounds(np.abs(difference).max())[1:]
    bounds = [*(-bound for bound in reversed(above)), *above]
    chosen, some = _chosen(np.abs(difference).sum(0) + np.abs(difference).sum(1))
    classes = {int(i): names[i] for i in chosen}
    figure, parts = panels(0.9 + _side(classes))
    _heatmap(parts[0], difference, classes, noun, bounds, "RdBu_r", "+")
    _colour_bar(parts, bounds, f"more or fewer {SPLITS[split]} mistakes per run, recalibrated")
    title = f"{with_n(second, other)} minus {with_n(first, base)}"
    parts[0].set_title(textwrap.fill(title, 60), loc="left", size=10.5)
    true, answer = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    return figure.described(
        f"Heatmap of the {SPLITS[split]} mistakes per run, recalibrated, of {second} minus those "
        f"of {first} (n = {len(other)} and {len(base)}): in all {difference.sum():+.1f}; most for "
        f"{names[true]} taken for {names[answer]}, {difference[true, answer]:+.1f}.",
        some,
        left_out(runs),
    )


@remakable
def calibration(runs: Runs, fewest: int = 40) -> Figure:
    """How often answers are wrong against how unsure the network was, both on log axes.

    A run's test answers, recalibrated, are put in order of confidence. The surer half is the first
    point, the surer half of the others the second, and so on down to `fewest` answers. Points are
    means over the seeds, bars their range; with one seed 95 % Wilson intervals, whose upper end
    stands, as an open triangle, for a point without a mistake.
    """
    if not answered(runs):
        return _nothing("Calibration", runs)
    figure, (axes,) = panels(4.2)
    said, bars, least = [], [], 1e-4
    axes.set(xscale="log", yscale="log")
    for label, group, style in _answered(runs):
        unsure = 1 - np.array([run.confidence() for run in group], dtype=float)
        wrong = np.array([~run.right() for run in group], dtype=float)
        said.append(
            f"{with_n(label, group)}: {percent(100 * wrong.mean())} wrong, "
            f"{percent(100 * unsure.mean())} expected by its own confidence"
        )
        x, y, low, high = _calibrated(unsure, wrong, fewest)
        x, some, color = np.maximum(x, least), y > 0, style["color"]
        axes.plot(x[some], y[some], lw=1.6, label=with_n(label, group), **style)
        if not some.all():
            bound = {"color": color, "mfc": PAPER, "ms": 7, "label": "no mistake: upper bound"}
            axes.plot(x[~some], high[~some], "v", **bound)
        axes.plot(x[some], high[some], alpha=0)  # only for the limits
        bars.append((x[some], low[some], high[some], color))
    axes.margins(0.08)
    plain_log(axes, "xy")
    axes.autoscale(False)  # a bar may start at no mistake at all, which has no place here
    for *bar, color in bars:
        axes.vlines(*bar, color=color, lw=1, alpha=0.6)
    ends = [axes.viewLim.min.min(), axes.viewLim.max.max()]
    axes.plot(ends, ends, color=INK, ls=DASHED, lw=1, label="as often wrong as it expects")
    tidy(axes, "Above the dashed line: too sure", ylabel="wrong (%)")
    axes.set_xlabel("expected to be wrong: 100 % − confidence (%)")
    legend_above(figure, ncols=2)
    return figure.described(
        "Line chart of the share of wrong test answers against the share that the network expects "
        f"by its confidence, recalibrated, log axes. {'; '.join(said)}.",
        f"expected below {least:g}\u00a0%: drawn there",
        left_out(runs),
    )


def _calibrated(unsure: np.ndarray, wrong: np.ndarray, fewest: int) -> tuple[np.ndarray, ...]:
    """The points of `calibration`, surest first, in percent: x, y and the ends of its bar.

    Args:
        unsure, wrong: 1 − confidence, and 1 for a mistake, else 0, `[runs, answers]`.
    """
    starts = [0]
    while (left := wrong.shape[1] - starts[-1]) >= 2 * fewest:
        starts.append(starts[-1] + left // 2)
    sizes = np.diff([*starts, wrong.shape[1]])
    order = np.argsort(unsure, axis=1, kind="stable")
    expected, missed = (
        100 * np.add.reduceat(np.take_along_axis(values, order, 1), starts, axis=1) / sizes
        for values in (unsure, wrong)
    )
    x, y = expected.mean(0), missed.mean(0)
    mistakes = zip(missed[0] * sizes / 100, sizes, strict=True)
    low, high = 100 * np.array([stats.wilson(round(k), n) for k, n in mistakes]).T
    if len(wrong) > 1:
        low, high = np.maximum(missed.min(0), 1e-9), np.where(y > 0, missed.max(0), high)
    return x, y, low, high


@remakable
def recipe_curves(runs: Runs) -> Figure:
    """The training losses of the nearest recipe, of those that were trained whole and of the
    default, a panel per section; the original dashed. The others are in `recipe_distances`."""
    found, distances = recipes.curves(runs), recipes.distances(runs)
    if not found:
        return nothing("Training losses of the recipes: every run diverged.")
    ranked = distances.index[distances["all"].notna()]
    usual = recipes.name(Config())
    chosen = dict.fromkeys([*ranked[:1], *recipes.whole(runs), usual])
    names = [name for name in chosen if name in found]
    sections = [s for s in original.SECTIONS if any(s.number in c for c in found.values())]
    rows, key = len(sections) // 3 + 1, {}
    figure, parts = panels(0.2 + 2.4 * rows, rows, 3)
    hollow = THEIRS | {"mfc": "none", "ms": 7}  # what it surrounds is seen
    for axes, section in zip(parts, sections, strict=False):
        longest = 0
        for name, by_section, style in styled({name: found[name] for name in names}, "marker"):
            if group := by_section.get(section.number):
                losses = np.mean([run.history["loss"] for run in group], axis=0)
                label = textwrap.fill(f"{name} (default)" if name == usual else name, 20)
                key[label] = axes.plot(losses, lw=1.7, ms=4, **style)[0]
                longest = max(longest, len(losses))
        (theirs,) = axes.plot(section.epoch_loss[:longest], lw=1.2, ls=DASHED, zorder=4, **hollow)
        against_epochs(axes, section.name, xlabel="epoch", xlim=(-0.5, max(longest - 0.5, 0.5)))
    for axes in parts[len(sections) :]:
        axes.set_axis_off()
    key["original"] = theirs
    parts[len(sections)].legend(key.values(), key, frameon=False, loc="center left", fontsize=9)
    figure.supylabel("mean training loss of the epoch (nats)", size=9.5, color=INK)
    nearest = ranked[0] if len(ranked) else "none, since no recipe has all curves"
    return figure.described(
        f"Training losses of {plural(len(names), 'recipe')} of {len(found)} beside the original's, "
        f"log axes, one panel each for {', '.join(section.name for section in sections)}; nearest "
        f"over all is {nearest}.",
        f"mean of the seeds, {on_runs(len(g) for name in names for g in found[name].values())}",
    )


@remakable
def recipe_distances(runs: Runs) -> Figure:
    """By which factor each recipe's training losses are off the original's, see `recipes`, the
    nearest on top; a line spans the single seeds."""
    found = recipes.distances(runs).dropna(subset="all")
    if found.empty:
        return nothing("Distances of the recipes: no recipe has all curves.")
    figure, (axes,) = panels(0.8 + 0.34 * len(found))
    said, names = [], []
    for place, (name, row) in enumerate(found.iterrows()):
        factor, low, high = np.exp(row[["all", "low", "high"]].astype(float))
        usual = name == recipes.name(Config())
        names.append(textwrap.fill(f"{name} (default)" if usual else name, 46))
        color = COLORS[int(usual)]
        axes.hlines(place, low, high, color=color, lw=3, alpha=0.4)
        axes.plot(factor, place, "s" if usual else "o", color=color, ms=7)
        beside = {"textcoords": "offset points", "va": "center"}
        axes.annotate(f"{factor:.2f}", (high, place), (8, 0), **beside)
        said.append(f"{name} {factor:.2f}")
    tidy(axes, xlabel="factor between losses (1: the same)")
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(1, 1.3 * np.exp(found["high"].max())))
    plain_log(axes, "x")
    return figure.described(
        "Dot plot of the factor by which each recipe's training losses are typically off the "
        f"original's, log axis, nearest first: {'; '.join(said)}.",
        f"runs per recipe and curve: {on_runs(found['n'])}",
        "line: from the lowest to the highest seed" * bool(found["n"].max() > 1),
    )


@remakable
def landscape(runs: Runs, field: str) -> Figure:
    """Training loss and test error after the first epochs against a field, log axes.

    A dot is the mean of the seeds, a bar their range, a cross the error by running averages. Dashed
    is where the original stands; a diamond is the loss that it prints.
    """
    found, epoch = surroundings.points(runs, field), surroundings.EPOCHS - 1
    if found.empty:
        return nothing("Loss and error by setting: every run diverged.", runs)
    figure, (losses, errors) = panels(3.8, columns=2)
    said = []
    for line, rows, style in styled(dict(iter(found.groupby("line"))), "marker"):
        color = style["color"]
        for axes, column, what in ((losses, "loss", "loss"), (errors, RECALIBRATED, "error")):
            spread = rows.groupby("value")[column].agg(["mean", "min", "max"]).dropna()
            mean = spread["mean"]
            axes.vlines(mean.index, spread["min"], spread["max"], color=color, lw=4, alpha=0.3)
            axes.plot(mean.index, mean, lw=1.7, ms=6, label=line or "here", **style)
            if len(mean):
                ends = [f"{mean[at]:.3g} at {at:g}" for at in mean.index[[0, -1]]]
                lowest = f"lowest {mean.min():.3g} at {mean.idxmin():g}"
                said.append(f"{line or 'here'}: {what} {ends[0]}, {lowest}, {ends[1]}")
        averaged = rows.groupby("value")[RUNNING].mean()
        errors.plot(averaged.index, averaged, "x", ms=5, color=color, alpha=0.7)
    theirs = {
        getattr(section, field): section.epoch_loss[epoch]
        for section in map(original.section, surroundings.SECTIONS[field])
    }
    losses.plot(list(theirs), list(theirs.values()), ls="", zorder=4, **THEIRS)
    errors.plot([], [], "x", color=INK, label="test error by running averages")
    for axes, title, unit in (
        (losses, "Training loss", f"mean loss of epoch {epoch} (nats)"),
        (errors, "Test error, recalibrated", f"error after {plural(epoch + 1, 'epoch')} (%)"),
    ):
        plain_log(axes, "xy")
        for value in theirs:
            axes.axvline(value, color=INK, lw=0.8, ls=DASHED, zorder=0)
        tidy(axes, title, xlabel=surroundings.NAMES[field], ylabel=unit)
    legend_above(figure, ncols=2)
    return figure.described(
        f"Two line charts against the {surroundings.NAMES[field]}, log axes: {'; '.join(said)}.",
        f"bars: lowest and highest seed, {on_runs(found.groupby(['line', 'value']).size())}",
        left_out(runs),
    )


#: What `grid` can show: of a run, and in words.
GRIDS: dict[str, tuple[Callable[[Run], float], str]] = {
    "loss": (lambda run: float(run.history["loss"].iloc[-1]), "mean loss of the last epoch (nats)"),
    "error": (lambda run: 100 - 100 * run.accuracy("test"), "test error, recalibrated (%)"),
}


@remakable
def grid(runs: Runs, measure: str = "loss") -> Figure:
    """Settings that differ in two fields, as `vary` combines them, as a heat map on a log scale:
    the mean over the seeds of the last epoch's loss, or of the test error.

    Raises:
        ConfigError: there is no such measure.
    """
    configs = [group[0].config.to_dict() for group in runs.values()]
    fields = [k for k in configs[0] if k != "seed" and len({c[k] for c in configs}) > 1]
    value, unit = GRIDS[choice("measure", measure, GRIDS)]
    if len(fields) != 2:
        differ = ", ".join(fields) or "nothing"
        return nothing(f"Grid: the runs differ in {differ}, and not in two settings.", runs)
    rows = [
        {**config, "mean": np.mean(list(map(value, group))), "label": with_n(label, group)}
        for config, (label, group) in zip(configs, runs.items(), strict=True)
    ]
    table = pd.DataFrame(rows).pivot(index=fields[0], columns=fields[1])
    means, labels = table["mean"], table["label"]
    figure, (axes,) = panels(1.2 + 0.55 * len(means))
    shown, said = means.where(means > 0), []
    norm, look = LogNorm(shown.min(axis=None), shown.max(axis=None)), {"cbar": False, "ax": axes}
    sns.heatmap(shown, norm=norm, cmap="YlOrBr", linewidths=0.6, linecolor="#dddddd", **look)
    axes.set_facecolor("#fefefe")  # its letters are dark on a dark page too
    for (row, column), mean in np.ndenumerate(means.to_numpy()):
        if isinstance(label := labels.iloc[row, column], str):  # the grid may have holes
            cell = axes.collections[0].cmap(norm(mean)) if mean > 0 else (1, 1, 1)
            words = "diverged" if np.isnan(mean) else f"{mean:.3g}"
            n = label.rpartition("(")[2].rstrip(")")
            axes.text(column + 0.5, row + 0.5, f"{words}\n{n}", **_letters(cell))
            said.append(f"{label}: {words}")
    axes.tick_params(length=0, rotation=0)
    names = {field: field.replace("_", " ") for field in fields} | surroundings.NAMES
    tidy(axes, unit, ylabel=names[fields[0]], xlabel=names[fields[1]])
    axes.grid(False)
    return figure.described(f"Heat map of the {unit}. {'; '.join(said)}.", left_out(runs))


@remakable
def architecture(config: Config, sizes: Sequence[int] | None = None) -> Figure:
    """The config's network as `layers.layer_table` finds it: groups, blocks, and the shortcuts.

    `sizes` are `data.sizes` of the dataset, which for an own one means to load it.
    """
    from labkit.show.drawing import draw  # here: no other figure needs torch

    return draw(config, sizes or data.sizes(config.dataset))
