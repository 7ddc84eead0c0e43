"""Figures from runs. Each function returns a `Figure` that carries its own alt text."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from labkit.core.config import Config
from labkit.core.measures import NAMES, RECALIBRATED, RUNNING, STATISTICS
from labkit.core.words import SPLITS, minus, number, percent, plural
from labkit.judge import landscape as surroundings
from labkit.judge import original, recipes, stats
from labkit.show.figure import (
    CYCLES,
    DASHED,
    INK,
    PLAIN,
    Figure,
    against_epochs,
    blank,
    legend_beside,
    nothing,
    panels,
    plain_log,
    styled,
    tidy,
    with_n,
)
from labkit.show.remake import remakable
from labkit.show.tables import printed, shares
from labkit.store.groups import (
    BOTH,
    Runs,
    answered,
    answering,
    class_noun,
    divergences,
    left_out,
    most_mistaken,
    off_diagonal,
    total_confusion,
)
from labkit.store.run import Run


def smooth(losses: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean of `losses` `[n]`; the window shrinks at both ends."""
    return pd.Series(losses).rolling(window, center=True, min_periods=1).mean().to_numpy()


def _answered(runs: Runs) -> Iterator[tuple[str, list[Run], dict[str, Any]]]:
    """The settings with recalibrated answers: label, those runs, and their style."""
    for label, group, style in styled(runs, "marker"):
        if kept := answering(group):
            yield label, kept, style


def _nothing(what: str, runs: Runs) -> Figure:
    return nothing(f"{what}: no run has recalibrated answers.", runs)


@remakable
def loss_by_iteration(runs: Runs) -> Figure:
    """Loss of every batch: raw (thin) and as a running mean over a quarter of an epoch (thick).

    Drawn for the first seed of each setting, against epochs, so that batch sizes can be compared.
    """
    figure, (axes,) = panels(8, 3.6)
    said = []
    for label, (run, *_), style in styled(runs, "ls"):
        updates = run.iteration_loss.shape[1]
        losses = run.iteration_loss.ravel()
        losses = losses[: np.isfinite(losses).sum()]  # a run that diverged has no more
        place = (np.arange(losses.size) + 1) / updates
        mean = smooth(losses, max(3, updates // 4))
        end = ", diverged" if run.diverged else ""
        axes.plot(place, losses, color=style["color"], lw=0.7, alpha=0.4)
        axes.plot(place, mean, lw=1.8, label=f"{label} ({updates:,}{end})", **style)
        if run.diverged:
            axes.plot(place[-1:], mean[-1:], "x", color=style["color"], ms=10, mew=2.5)
        course = f"goes from {mean[0]:.3g} to {mean[-1]:.3g}" if mean.size else "has no loss"
        said.append(f"{label} {course}{end}")
    title = f"Training loss by batch, seed {run.config.seed}: raw and running mean"
    labels = {"xlabel": "epochs done", "ylabel": "loss of a batch (nats)"}
    against_epochs(axes, title, xlim=(0, None), **labels)
    legend_beside(axes, title="setting (updates per epoch)")
    return figure.described(
        "Line chart of the training loss of every batch on a log axis, raw and smoothed. The "
        f"running mean of {'; '.join(said)} nats."
    )


@remakable
def loss_by_epoch(runs: Runs) -> Figure:
    """Mean training loss by epoch: solid here, dashed the original; a band spans several seeds."""
    figure, (axes,) = panels(8, 3.8)
    said = []
    for label, group, style in styled(runs, "marker"):
        losses = np.array([run.history["loss"] for run in group])
        mean, numbers = losses.mean(0), np.arange(losses.shape[1])
        end = " (diverged)" if divergences({label: group}) else ""
        axes.plot(numbers, mean, lw=1.8, ms=6, label=label + end, **style)
        if len(group) > 1 and not end:
            band = {"color": style["color"], "alpha": 0.2, "lw": 0}
            axes.fill_between(numbers, losses.min(0), losses.max(0), **band)
        said.append(f"{label} diverges" if end else f"{label} ends at {mean[-1]:.3g}")
        if section := original.section_of(group[0].config):
            dashed = style | {"ls": DASHED, "lw": 1.1, "mfc": "white", "ms": 5}
            axes.plot(section.epoch_loss, label=f"{label}, original (full MNIST)", **dashed)
            said.append(f"its original at {section.epoch_loss[-1]:.3g}")
    labels = {"xlabel": "epoch", "ylabel": "mean loss of the epoch (nats)"}
    against_epochs(axes, "Training loss by epoch", **labels)
    legend_beside(axes)
    return figure.described(
        "Line chart of the mean training loss by epoch on a log axis, the original's values "
        f"dashed: {'; '.join(said)} nats."
    )


@remakable
def accuracy_by_epoch(runs: Runs) -> Figure:
    """Error (100 % − accuracy) on both splits after each epoch, log axis; mean over the seeds.

    Thick lines are recalibrated; the thin dotted one is the test error by running averages, to
    show what their lag costs.
    """
    looks: dict[tuple[str, str], dict[str, Any]] = {
        ("train", RECALIBRATED): {"ls": DASHED, "lw": 1.6, "mfc": "white"},
        ("test", RECALIBRATED): {"ls": "-", "lw": 1.8},
        ("test", RUNNING): {"ls": (0, (1, 1.5)), "lw": 1.1, "ms": 3},
    }
    names = {kind: f"{SPLITS[kind[0]]} images, {NAMES[kind[1]]}" for kind in looks}
    if not answered(runs):
        return _nothing("Error on both splits by epoch", runs)
    figure, (axes,) = panels(8, 4)
    said, handles = [], []
    for label, group, style in _answered(runs):
        handles.append(Line2D([], [], lw=1.8, label=with_n(label, group), **style))
        ends = []
        for kind, look in looks.items():
            wrong = 100 * (1 - np.mean([run.accuracies(*kind) for run in group], axis=0))
            axes.plot(wrong, label=f"{label}, {names[kind]}", **style | look)
            ends.append(f"{percent(wrong[-1])} on the {names[kind]}")
        said.append(f"{with_n(label, group)} ends at {', '.join(ends)}")
    for kind, look in looks.items():
        handles.append(Line2D([], [], color=INK, marker="o", label=names[kind], **look))
    labels = {"xlabel": "after epoch", "ylabel": "wrong answers (%)"}
    against_epochs(axes, "Error on both splits by epoch", **labels)
    legend_beside(axes, handles=handles)
    kind = "Line chart of the share of wrong answers after each epoch on a log axis"
    return figure.described(f"{kind}: {'; '.join(said)}.", BOTH, left_out(runs))


@remakable
def iterations(runs: Sequence[Run]) -> Figure:
    """The original's iteration log, point by point, on the range of these runs' same iterations."""
    logs = original.EXCERPTS
    widths = [max(len(log.losses), 8) for log in logs]
    figure, parts = panels(8, 3.4, columns=len(logs), sharey=True, width_ratios=widths)
    alike = [run for run in runs if run.config.dataset == "mnist"]  # else other iterations
    color, said = CYCLES["color"][0], []
    for axes, log in zip(parts, logs, strict=True):
        places = np.arange(log.first, log.first + len(log.losses))
        kept = [run.iteration_loss[log.epoch] for run in alike if run.config.epochs > log.epoch]
        if ours := [losses[places] for losses in kept if len(losses) > places[-1]]:
            low, high = np.min(ours, axis=0), np.max(ours, axis=0)
            axes.fill_between(places, low, high, color=color, alpha=0.25, lw=0)
            axes.plot(places, np.median(ours, axis=0), color=color, label=with_n("here", ours))
            inside = (low <= log.losses) & (log.losses <= high)
            said.append(f"{inside.sum()} of {len(places)} in epoch {log.epoch}")
        dashed = {"color": INK, "ls": DASHED, "lw": 1, "marker": "D", "ms": 4, "mfc": "white"}
        axes.plot(places, log.losses, label="original", **dashed)
        plain_log(axes)
        tidy(axes, xlabel=f"iteration of epoch {log.epoch}")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    parts[0].set_ylabel("loss of a batch (nats)")
    parts[0].set_title("The iteration log: median and range of the seeds", loc="left", size=11)
    handles = {h.get_label(): h for axes in parts for h in axes.lines}
    parts[0].legend(handles=handles.values(), frameon=False, ncols=2)
    return figure.described(
        "Line chart of the original's printed losses by iteration on the range of these runs; "
        f"inside the range: {', '.join(said) or 'none, since these runs have no such iteration'}."
    )


@remakable
def accuracy_by_class(runs: Runs, split: str = "test") -> Figure:
    """Accuracy of every class, recalibrated: mean and range of the seeds.

    Open diamonds are the original's; crosses are those by running averages, or triangles at the
    lower edge where these are far below.
    """
    noun, drawn = class_noun(next(iter(runs.values()))[0]), list(_answered(runs))
    if not drawn:
        return _nothing(f"Accuracy of every {noun}", runs)
    figure, parts = panels(8, 0.6 + 2.7 * len(drawn), rows=len(drawn))
    said = []
    for axes, (label, group, style) in zip(parts, drawn, strict=True):
        ours, averaged = (shares(group, split, kind).to_numpy() for kind in STATISTICS)
        mean, low, high, averaged = ours.mean(0), ours.min(0), ours.max(0), averaged.mean(0)
        places = np.arange(len(mean))
        axes.vlines(places, low, high, color=style["color"], lw=5, alpha=0.35)
        name = with_n("recalibrated: mean, range", group)
        axes.plot(places, mean, "o", color=style["color"], ms=6, label=name)
        worst = int(np.nanargmin(mean[:-1]))
        said.append(
            f"{label}: total {percent(mean[-1])} recalibrated, {percent(averaged[-1])} by "
            f"running averages, worst {noun} {worst} with {percent(mean[worst])} recalibrated"
        )
        if theirs := printed(original.section_of(group[0].config), split):
            low, high = np.minimum(low, theirs), np.maximum(high, theirs)
            axes.plot(places - 0.22, theirs, "D", color=INK, mfc="white", ms=5, label="original")
            said[-1] += f" (original {percent(theirs[-1])})"
        # Far lower ones would press all others together: they stand at the lower edge.
        floor = np.nanmin(low) - max(np.nanmax(high) - np.nanmin(low), 1)
        for shown, marker, where in (
            (averaged >= floor, "x", "mean"),
            (averaged < floor, "v", f"below {floor:.1f} %"),
        ):
            if shown.any():
                cross = {"color": INK, "mfc": "white", "label": f"by running averages: {where}"}
                height = np.maximum(averaged, floor)[shown]
                axes.plot(places[shown] + 0.22, height, marker, ms=6, **cross)
        tidy(axes, f"{label}, {SPLITS[split]} images", xlabel=noun, ylabel="accuracy (%)")
        legend_beside(axes)
        axes.set_xticks(places, [*map(str, places[:-1]), "total"])
        axes.axvline(places[-1] - 0.5, color="#bbbbbb", lw=0.8)
    alt = f"Accuracy of every {noun} on the {SPLITS[split]} images, by setting. {'; '.join(said)}."
    return figure.described(alt, BOTH, left_out(runs))


def _heatmap(
    axes: Axes, values: np.ndarray, texts: np.ndarray, norm: Normalize, noun: str, **options: Any
) -> None:
    """A number for every true and predicted class, in colour and as text."""
    grid = {"square": True, "linewidths": 0.6, "linecolor": "#dddddd"}
    ends = {"vmin": norm.vmin, "vmax": norm.vmax}  # for seaborn, where all values are missing
    sns.heatmap(values, annot=texts, fmt="", norm=norm, ax=axes, **grid, **ends, **options)
    axes.set(xlabel=f"predicted {noun}", ylabel=f"true {noun}")
    axes.tick_params(length=0, rotation=0)


@remakable
def confusion(runs: Runs, split: str = "test") -> Figure:
    """Confusion counts of recalibrated answers as heatmaps, one per setting, summed over its seeds.

    Only mistakes are coloured (log scale): beside the diagonal they would all look empty. The
    diagonal holds the accuracy of the class in percent. Zeros are left blank.
    """
    noun, kept = class_noun(next(iter(runs.values()))[0]), answered(runs)
    if not kept:
        return _nothing("Confusion heatmap", runs)
    totals = {label: total_confusion(group, split) for label, group in kept.items()}
    worst = max(int(off_diagonal(counts).max()) for counts in totals.values())
    rows, columns = -(-len(kept) // 2), min(len(kept), 2)
    figure = blank(5.4 * columns, 5.2 * rows)
    said = []
    for index, (label, counts) in enumerate(totals.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        wrong = off_diagonal(counts)
        texts = np.where(wrong > 0, wrong.astype(str), "")
        mistakes, norm = np.where(wrong > 0, wrong, np.nan), LogNorm(1, max(worst, 2) * 1.5)
        style = {"cmap": "YlOrBr", "cbar": False, "annot_kws": {"size": 10}}
        _heatmap(axes, mistakes, texts, norm, noun, **style)
        for place, (right, size) in enumerate(zip(np.diag(counts), counts.sum(1), strict=True)):
            axes.add_patch(Rectangle((place, place), 1, 1, fc="#eeeeee", ec="#dddddd", lw=0.6))
            share = number(100 * right / size, 1) if size else "–"
            shown = "100" if size and right == size else share
            middle = (place + 0.5, place + 0.5)
            axes.annotate(shown, middle, ha="center", va="center", size=8.5, color=INK)
        found = f"{with_n(label, kept[label])}: {wrong.sum():,} of {counts.sum():,} wrong"
        axes.set_title(found, loc="left", size=11)
        true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
        most = f"most often {true} taken for {predicted} ({wrong.max()})" if wrong.any() else "none"
        said.append(f"{found}, {most}")
    images = f"{SPLITS[split]} images"
    colours = f"coloured: number of mistakes; grey diagonal: accuracy of the {noun} in\u00a0%"
    alt = f"Confusion heatmap of the {images}, recalibrated. {'; '.join(said)}."
    return figure.described(alt, f"recalibrated answers to the {images}", colours, left_out(runs))


@remakable
def confusion_difference(runs: Runs, split: str = "test") -> Figure:
    """How many more (red) or fewer (blue) mistakes per run the second setting makes than the first,
    recalibrated."""
    noun, pair = class_noun(next(iter(runs.values()))[0]), list(answered(runs).items())[:2]
    if len(pair) < 2:
        return nothing("Mistakes of two settings, recalibrated: no two settings left.", runs)
    (first, base), (second, other) = pair
    per_run = [off_diagonal(total_confusion(group, split)) / len(group) for group in (base, other)]
    difference = per_run[1] - per_run[0]
    limit = max(float(np.abs(difference).max()), 1.0)
    texts = [[number(d, 1, "+") if abs(d) >= 0.05 else "" for d in row] for row in difference]
    bar = {"label": f"more or fewer {SPLITS[split]} mistakes per run", "shrink": 0.8}
    bar["format"] = FuncFormatter(lambda value, _: minus(f"{value:g}"))
    figure, (axes,) = panels(6.6, 5.8)
    norm = SymLogNorm(1, vmin=-limit, vmax=limit)
    style = {"cmap": "RdBu_r", "cbar_kws": bar, "annot_kws": {"size": 8.5}}
    _heatmap(axes, difference, np.array(texts), norm, noun, **style)
    title = f"{second} minus {first}: mistakes per run, recalibrated"
    axes.set_title(title, loc="left", size=11)
    true, answer = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    alt = (
        f"Heatmap of the {SPLITS[split]} mistakes per run, recalibrated, of {second} minus those "
        f"of {first} (n = {len(other)} and {len(base)}): in all {difference.sum():+.1f}; most for "
        f"{true} taken for {answer}, {difference[true, answer]:+.1f}."
    )
    return figure.described(alt, left_out(runs))


@remakable
def calibration(runs: Runs, fewest: int = 40) -> Figure:
    """How often answers are wrong against how unsure the network was, both on log axes.

    A run's test answers, recalibrated, are put in order of confidence. The surer half is the first
    point, the surer half of the others the second, and so on down to `fewest` answers. Points are
    means over the seeds, bars their range; with one seed 95 % Wilson intervals. A point without a
    mistake has no place on a log axis and is shown by that interval's upper end, as an open
    triangle.
    """
    if not answered(runs):
        return _nothing("Calibration", runs)
    figure, (axes,) = panels(8, 4.4)
    said, lowest, faultless = [], 100.0, {"marker": "v", "ls": "", "mfc": "white", "ms": 7}
    for label, group, style in _answered(runs):
        unsure = 1 - np.array([run.confidence() for run in group], dtype=float)
        wrong = np.array([~run.right() for run in group], dtype=float)
        said.append(
            f"{label}: {percent(100 * wrong.mean())} wrong, {percent(100 * unsure.mean())} "
            "expected by its own confidence"
        )
        x, y, low, high = _calibrated(unsure, wrong, fewest)
        some, color = y > 0, style["color"]
        axes.plot(x[some], y[some], lw=1.6, label=with_n(label, group), **style)
        axes.vlines(x[some], low[some], high[some], color=color, lw=1, alpha=0.6)
        axes.plot(x[~some], high[~some], color=color, **faultless)
        lowest = min(lowest, x.min(), y[some].min(initial=100))
    ends = [max(lowest, 1e-4), 100]
    axes.plot(ends, ends, color=INK, ls=(0, (4, 2)), lw=1, label="as often wrong as it expects")
    if any(line.get_marker() == "v" and line.get_xdata().size for line in axes.lines):
        axes.plot([], [], color=INK, label="no mistake: upper bound", **faultless)
    axes.set(xscale="log", yscale="log")
    axes.set_ylim(bottom=max(lowest, 1e-4) / 2)  # a bar may start at no mistake at all
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PLAIN)
    title = "Calibration on the test images, recalibrated; above the dashed line: too sure"
    labels = {"xlabel": "expected to be wrong: 100 % − confidence (%)", "ylabel": "wrong (%)"}
    tidy(axes, title, **labels)
    legend_beside(axes)
    alt = (
        "Line chart of the share of wrong answers against the share that the network expects by "
        f"its confidence, recalibrated, log axes. {'; '.join(said)}."
    )
    return figure.described(alt, left_out(runs))


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
    """The training losses of each recipe, a panel per section; the original dashed.

    The nearest recipe and the default stand out; the others are grey, with their numbers in
    `tables.recipe_distances`.
    """
    found, distances = recipes.curves(runs), recipes.distances(runs)
    if not found:
        return nothing("Training losses of the recipes: every run diverged.")
    ranked = distances.index[distances["all"].notna()]
    best = ranked[0] if len(ranked) else ""
    blue, orange, *_ = CYCLES["color"]
    grey = {"color": "#bbbbbb", "marker": ".", "lw": 1, "label": "other recipes"}
    looks = {recipes.name(Config()): {"color": blue, "marker": "o", "lw": 1.7, "zorder": 3}}
    looks[best] = {"color": orange, "marker": "s", "lw": 2.2, "ms": 7, "zorder": 4}
    named = {name: f"{name} ({'nearest' if name == best else 'default'})" for name in looks}
    sections = [s for s in original.SECTIONS if any(s.number in c for c in found.values())]
    rows = 1 if len(sections) <= 3 else 2
    columns = -(-len(sections) // rows)
    figure, parts = panels(10, 1 + 2.9 * rows, rows, columns)
    for unused in parts[len(sections) :]:
        unused.set_visible(False)
    for axes, section in zip(parts, sections, strict=False):
        longest = 0
        for recipe, by_section in found.items():
            if group := by_section.get(section.number):
                losses = np.mean([run.history["loss"] for run in group], axis=0)
                axes.plot(
                    losses, **looks.get(recipe, grey) | {"label": named.get(recipe, grey["label"])}
                )
                longest = max(longest, len(losses))
        theirs = {"ls": DASHED, "lw": 1.3, "color": INK, "marker": "D", "mfc": "white", "ms": 5}
        axes.plot(section.epoch_loss[:longest], label="original", zorder=5, **theirs)
        plain_log(axes)
        tidy(axes, section.name, xlabel="epoch", xlim=(-0.3, longest - 0.7))
        axes.set_xticks(range(longest))
    for axes in parts[::columns]:
        axes.set_ylabel("mean loss of the epoch (nats)")
    handles = {line.get_label(): line for axes in parts for line in axes.lines}
    figure.legend(handles=handles.values(), loc="outside lower center", ncols=2, frameon=False)
    return figure.described(
        f"Training losses of {plural(len(found), 'recipe')} beside the original's, log axes, one "
        f"panel each for {', '.join(section.name for section in sections)}; nearest over all is "
        f"{best or 'none, since no recipe has all curves'}."
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
    figure, (losses, errors) = panels(10, 4.4, columns=2)
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
    diamonds = {"color": INK, "mfc": "white", "ms": 7, "zorder": 4, "label": "original"}
    losses.plot(list(theirs), list(theirs.values()), "D", **diamonds)
    errors.plot([], [], "x", color=INK, label="by running averages")
    for axes, title, unit in (
        (losses, f"Training loss of epoch {epoch}", "mean loss of the epoch (nats)"),
        (errors, f"Test error after {plural(epoch + 1, 'epoch')}, recalibrated", "error (%)"),
    ):
        plain_log(axes)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(PLAIN)
        for value in theirs:
            axes.axvline(value, color=INK, lw=0.8, ls=DASHED, zorder=0)
        tidy(axes, title, xlabel=surroundings.NAMES[field], ylabel=unit)
        axes.legend(frameon=False, fontsize=9)
    n = found.groupby(["line", "value"]).size()
    spread = f"n = {n.min()}" if n.min() == n.max() else f"n = {n.min()} to {n.max()}"
    return figure.described(
        f"Two line charts against the {surroundings.NAMES[field]}, log axes: {'; '.join(said)}.",
        f"{spread} per setting; bars: lowest and highest seed",
        left_out(runs),
    )


@remakable
def hardest(runs: Runs, images: np.ndarray | None, most: int = 12) -> Figure:
    """The test images that the runs of all settings together get wrong most often, recalibrated;
    `images` as in `mistakes`."""
    every = [run for group in answered(runs).values() for run in group]
    if not every:
        return _nothing("The images most often wrong", runs)
    words = {}
    for i, answers in most_mistaken(every, most).items():
        taken = ", ".join(f"{digit} ({times}×)" for digit, times in answers.most_common(2))
        words[i] = f"{every[0].test_labels[i]} taken for\n{taken}", f"image {i}"
    title = f"The images most often wrong in {plural(len(every), 'run')}, recalibrated"
    return _gallery(every, images, words, title, left_out(runs))


@remakable
def mistakes(run: Run, images: np.ndarray | None, most: int = 12) -> Figure:
    """The mistakes that the network was surest of, recalibrated, with what it saw.

    Args:
        images: the test images of the run's dataset in their order, uint8 `[n, 28, 28]`;
            None where they are not at hand, which the figure then says in their place.

    Raises:
        ValueError: the images are not as many as the run's test answers.
    """
    if not answering([run]):
        setting = run.config.setting()
        return nothing("The surest mistakes: no recalibrated answers.", {setting: [run]})
    wrong, confidence = np.flatnonzero(~run.right()), run.confidence()
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    words = {
        int(i): (
            f"{run.test_labels[i]} taken for {run.predicted()[i]}",
            f"{100 * confidence[i]:.1f} % sure\nimage {i}",
        )
        for i in chosen
    }
    many = f"The {len(chosen)} surest of {plural(len(wrong), 'mistake')}"
    return _gallery([run], images, words, f"{many}, recalibrated (seed {run.config.seed})")


def _gallery(
    runs: Sequence[Run],
    images: np.ndarray | None,
    words: dict[int, tuple[str, str]],
    title: str,
    note: str = "",
) -> Figure:
    """Images by their number, each with the words above and below it, six in a row."""
    for run in runs if images is not None else ():
        if len(images) != len(run.test_labels):
            raise ValueError(f"{len(images)} images for {len(run.test_labels)} answers")
    rows = max(1, -(-len(words) // 6))
    figure = blank(8, 0.5 + 1.85 * rows)
    figure.suptitle(title, size=11)
    for place, (index, (above, below)) in enumerate(words.items()):
        axes = figure.add_subplot(rows, 6, place + 1)
        if images is None:
            axes.text(0.5, 0.5, "not on\nthis disk", ha="center", va="center", size=9, color=INK)
            axes.set_box_aspect(1)
        else:
            axes.imshow(255 - images[index], cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#bbbbbb")
        axes.set_title(above, size=9.5)
        axes.set_xlabel(below, size=8)
    said = "; ".join(above.replace("\n", " ") for above, _ in words.values())
    return figure.described(f"Gallery of {len(words)} test images. {title}: {said}.", note)


@remakable
def architecture(config: Config) -> Figure:
    """The config's network as `layers.layer_table` finds it: groups, blocks, and the shortcuts."""
    from labkit.show.drawing import draw  # here: no other figure needs torch

    return draw(config)
