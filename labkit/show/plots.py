"""Figures from runs. Each function returns a `Figure` that carries its own alt text."""

import base64
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from labkit.core.config import Config
from labkit.core.measures import RECALIBRATED, RUNNING, STATISTICS
from labkit.judge import original, recipes, stats
from labkit.show.remake import MIME, remakable
from labkit.store.run import (
    BOTH,
    Run,
    Runs,
    answered,
    answering,
    class_noun,
    divergences,
    left_out,
    most_mistaken,
    off_diagonal,
    shares_of,
    total_confusion,
)

# Colour-blind safe (Okabe and Ito's palette as seaborn has it); settings differ in marker and
# line style as well, so that a grey print can be read.
COLORS = sns.color_palette("colorblind")
MARKERS = "osD^vP*"
LINES = ("-", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
INK = "#222222"


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure with alt text, for readers who cannot see it and for exported pages."""

    alt: str = ""
    call: Mapping[str, Any] = {}  # how to draw it again

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        drawn, buffer = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, dpi=140, format="png")
        # 256 colours, of which a chart has hardly more, in a third of the bytes.
        colours = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(buffer, "png", optimize=True)
        width, height = self.get_size_inches() * 100
        image = base64.b64encode(buffer.getvalue()).decode()
        shape = {"alt": self.alt, "width": round(width), "height": round(height)}
        shown = {"image/png": image, "text/plain": self.alt, MIME: self.call}
        return shown, {"image/png": shape}


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _tidy(axes: Axes, **labels: Any) -> None:
    axes.set(**labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e4e4e4", lw=0.7)
    axes.set_axisbelow(True)


def _plain_log(axes: Axes) -> None:
    """A log axis with plain numbers on it (0.05, not 5 × 10⁻²)."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high / low < 200 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _nothing(words: str, runs: Runs | None = None) -> Figure:
    """A figure that says why there is nothing to draw, and which of the runs were left out."""
    words += f" {_sentence(found)}" if runs and (found := left_out(runs)) else ""
    figure = _figure(8, 0.8)
    figure.text(0.02, 0.5, textwrap.fill(words, 100), va="center", size=10, color=INK)
    figure.alt = words
    return figure


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _note(figure: Figure, runs: Runs, words: str = "") -> None:
    """Below a figure and in its alt text, `words` and which of the runs were left out of it."""
    if note := "; ".join(filter(None, (words, left_out(runs)))):
        width = round(15 * figure.get_figwidth())
        figure.supxlabel(textwrap.fill(note, width), size=9, color=INK)
        figure.alt += f" {_sentence(note)}"


def _answered(runs: Runs) -> Iterator[tuple[str, list[Run], dict[str, Any]]]:
    """The settings with recalibrated answers: label, those runs, and color and marker.

    Those are the same in every figure of `runs`, whatever is left out.
    """
    for index, (label, group) in enumerate(runs.items()):
        if kept := answering(group):
            color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
            yield label, kept, {"color": color, "marker": marker}


def _first(runs: Runs) -> Run:
    return next(iter(runs.values()))[0]


def smooth(losses: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean of `losses` `[n]`; the window shrinks at both ends."""
    return pd.Series(losses).rolling(window, center=True, min_periods=1).mean().to_numpy()


@remakable
def loss_by_iteration(runs: Runs) -> Figure:
    """Loss of every batch: raw (thin) and as a running mean over a quarter of an epoch (thick).

    Drawn for the first seed of each setting, against epochs, so that batch sizes can be compared.
    """
    figure = _figure(8, 3.6)
    axes = figure.add_subplot()
    said = []
    for index, (label, group) in enumerate(runs.items()):
        updates = group[0].iteration_loss.shape[1]
        losses = group[0].iteration_loss.ravel()
        losses = losses[: np.isfinite(losses).sum()]  # a run that diverged has no more
        place = (np.arange(losses.size) + 1) / updates
        mean = smooth(losses, max(3, updates // 4))
        color = COLORS[index % len(COLORS)]
        axes.plot(place, losses, color=color, lw=0.7, alpha=0.4)
        line = LINES[index % len(LINES)]
        end = ", diverged" if group[0].diverged else ""
        name = f"{label} ({updates} an epoch{end})"
        axes.plot(place, mean, color=color, lw=1.8, ls=line, label=name)
        if group[0].diverged:
            axes.plot(place[-1:], mean[-1:], "x", color=color, ms=10, mew=2.5)
        course = f"goes from {mean[0]:.3g} to {mean[-1]:.3g}" if mean.size else "has no loss"
        said.append(f"{label} {course}{end}")
    _plain_log(axes)
    seed = next(iter(runs.values()))[0].config.seed
    _tidy(axes, xlabel="epochs done", ylabel="loss of a batch (nats)", xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"Training loss by batch, seed {seed}: raw and running mean", loc="left")
    axes.legend(title="setting (updates)", frameon=False)
    figure.alt = (
        "Line chart of the training loss of every batch on a log axis, raw and smoothed. The "
        f"running mean of {'; '.join(said)} nats."
    )
    return figure


@remakable
def loss_by_epoch(runs: Runs) -> Figure:
    """Mean training loss by epoch: solid here, dashed the original; a band spans several seeds."""
    figure = _figure(8, 3.8)
    axes = figure.add_subplot()
    said = []
    for index, (label, group) in enumerate(runs.items()):
        losses = np.array([run.history["loss"] for run in group])
        numbers = np.arange(losses.shape[1])
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        end = " (diverged)" if divergences({label: group}) else ""
        name = label + end
        axes.plot(numbers, losses.mean(0), color=color, marker=marker, lw=1.8, ms=6, label=name)
        if len(group) > 1 and not end:
            axes.fill_between(numbers, losses.min(0), losses.max(0), color=color, alpha=0.2, lw=0)
        said.append(f"{label} diverges" if end else f"{label} ends at {losses.mean(0)[-1]:.3g}")
        if section := original.section_of(group[0].config):
            axes.plot(
                np.arange(len(section.epoch_loss)),
                section.epoch_loss,
                color=color,
                marker=marker,
                mfc="white",
                ls=(0, (4, 2)),
                lw=1.1,
                ms=5,
                label=f"{label}, original (full MNIST)",
            )
            said.append(f"the original of it at {section.epoch_loss[-1]:.3g}")
    _plain_log(axes)
    _tidy(axes, xlabel="epoch", ylabel="mean loss of the epoch (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Training loss by epoch", loc="left")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.alt = (
        "Line chart of the mean training loss by epoch on a log axis, the original's values "
        f"dashed: {'; '.join(said)} nats."
    )
    return figure


@remakable
def accuracy_by_epoch(runs: Runs) -> Figure:
    """Error (100 % - accuracy) on both splits after each epoch, log axis; mean over the seeds.

    Thick lines are recalibrated; the thin dotted one is the test error by running averages, so that
    one sees what their lag costs.
    """
    kinds = (
        ("train", RECALIBRATED, "training images, recalibrated"),
        ("test", RECALIBRATED, "test images, recalibrated"),
        ("test", RUNNING, "test images, by running averages"),
    )
    lines = (
        {"ls": (0, (4, 2)), "lw": 1.6, "mfc": "white"},
        {"ls": "-", "lw": 1.8},
        {"ls": (0, (1, 1.5)), "lw": 1.1, "ms": 3},
    )
    drawn = list(_answered(runs))
    if not drawn:
        return _nothing("Error on both splits by epoch: no run has recalibrated answers.", runs)
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    said, handles = [], []
    for label, group, style in drawn:
        name, ends = f"{label} (n = {len(group)})", []
        handles.append(Line2D([], [], lw=1.8, label=name, **style))
        for (split, statistics, kind), line in zip(kinds, lines, strict=True):
            wrong = 100 * (1 - np.mean([r.accuracies(split, statistics) for r in group], axis=0))
            axes.plot(wrong, label=f"{label}, {kind}", **style | line)
            ends.append(f"{wrong[-1]:.2f} % on the {kind}")
        said.append(f"{name} ends at {', '.join(ends)}")
    handles += [
        Line2D([], [], color=INK, marker="o", label=kind, **line)
        for (_, _, kind), line in zip(kinds, lines, strict=True)
    ]
    _plain_log(axes)
    _tidy(axes, xlabel="after epoch", ylabel="wrong answers (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Error on both splits by epoch", loc="left")
    axes.legend(handles=handles, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.alt = (
        "Line chart of the share of wrong answers after each epoch on a log axis: "
        f"{'; '.join(said)}."
    )
    _note(figure, runs, BOTH)
    return figure


@remakable
def iterations(runs: Sequence[Run]) -> Figure:
    """The original's iteration log, point by point, on the range of these runs' same iterations."""
    logs = original.EXCERPTS
    figure = _figure(8, 3.4)
    widths = [len(log.losses) for log in logs]
    panels = figure.subplots(1, len(logs), sharey=True, width_ratios=np.maximum(widths, 8))
    said = []
    for axes, log in zip(panels, logs, strict=True):
        places = np.arange(log.first, log.first + len(log.losses))
        alike = [run for run in runs if run.config.dataset == "mnist"]  # else other iterations
        kept = [run.iteration_loss[log.epoch] for run in alike if run.config.epochs > log.epoch]
        ours = np.array([losses[places] for losses in kept if len(losses) > places[-1]])
        color = COLORS[0]
        if len(ours):
            axes.fill_between(places, ours.min(0), ours.max(0), color=color, alpha=0.25, lw=0)
            axes.plot(places, np.median(ours, axis=0), color=color, label=f"here, n = {len(ours)}")
            inside = (ours.min(0) <= log.losses) & (log.losses <= ours.max(0))
            said.append(f"{inside.sum()} of {len(places)} in epoch {log.epoch}")
        style = {"ls": (0, (4, 2)), "lw": 1, "marker": "D", "ms": 4, "mfc": "white"}
        axes.plot(places, log.losses, color=INK, label="original", **style)
        _plain_log(axes)
        _tidy(axes, xlabel=f"iteration of epoch {log.epoch}")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panels[0].set_ylabel("loss of a batch (nats)")
    panels[0].set_title("The iteration log: median and range of the seeds", loc="left")
    handles = {h.get_label(): h for axes in panels for h in axes.lines}
    panels[0].legend(handles=list(handles.values()), frameon=False, ncols=2)
    figure.alt = (
        "Line chart of the original's printed losses by iteration on the range of these runs; "
        f"inside the range: {', '.join(said) or 'none, since these runs have no such iteration'}."
    )
    return figure


@remakable
def accuracy_by_class(runs: Runs, split: str = "test") -> Figure:
    """Accuracy of every class, recalibrated: mean and range of the seeds.

    The original's as open diamonds, that by running averages as crosses, or as triangles at the
    lower edge where it is far below.
    """
    kind, noun = ("test" if split == "test" else "training"), class_noun(_first(runs))
    drawn = list(_answered(runs))
    if not drawn:
        return _nothing(f"Accuracy of every {noun}: no run has recalibrated answers.", runs)
    figure = _figure(8, 0.6 + 2.7 * len(drawn))
    said = []
    panels = figure.subplots(len(drawn), 1, squeeze=False).ravel()
    for axes, (label, group, style) in zip(panels, drawn, strict=True):
        color = style["color"]
        shares, averaged = (
            np.array([shares_of(run.counts(split, statistics)) for run in group])
            for statistics in STATISTICS
        )
        places = np.arange(shares.shape[1])
        mean, low, high = shares.mean(0), shares.min(0), shares.max(0)
        averaged = averaged.mean(0)
        axes.vlines(places, low, high, color=color, lw=5, alpha=0.35)
        name = f"recalibrated: mean, range (n = {len(group)})"
        axes.plot(places, mean, "o", color=color, ms=6, label=name)
        worst = int(np.nanargmin(mean[:-1]))
        said.append(
            f"{label}: total {mean[-1]:.2f} % recalibrated, {averaged[-1]:.2f} % by "
            f"running averages, worst {noun} {worst} with {mean[worst]:.2f} % recalibrated"
        )
        section = original.section_of(group[0].config)
        if section and (table := getattr(section, split)):
            printed = [*table.percent, table.total_percent]
            low, high = np.minimum(low, printed), np.maximum(high, printed)
            axes.plot(places - 0.22, printed, "D", color=INK, mfc="white", ms=5, label="original")
            said[-1] += f" (original {table.total_percent:.2f} %)"
        # Far lower ones would press all others together: they stand at the lower edge.
        floor = np.nanmin(low) - max(np.nanmax(high) - np.nanmin(low), 1)
        for shown, marker, where in (
            (averaged >= floor, "x", "mean"),
            (averaged < floor, "v", f"below {floor:.1f} %"),
        ):
            if shown.any():
                style = {"color": INK, "mfc": "white", "label": f"by running averages: {where}"}
                height = np.maximum(averaged, floor)[shown]
                axes.plot(places[shown] + 0.22, height, marker, ms=6, **style)
        _tidy(axes, xlabel=noun, ylabel="accuracy (%)")
        axes.set_title(f"{label}, {kind} images", loc="left")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        axes.set_xticks(places, [*map(str, places[:-1]), "total"])
        axes.axvline(places[-1] - 0.5, color="#bbbbbb", lw=0.8)
    figure.alt = f"Accuracy of every {noun} on the {kind} images, by setting. {'; '.join(said)}."
    _note(figure, runs, BOTH)
    return figure


@remakable
def confusion(runs: Runs, split: str = "test") -> Figure:
    """Confusion counts of recalibrated answers as heatmaps, one a setting, summed over its seeds.

    Only mistakes are coloured (log scale): beside the diagonal they would all look empty. The
    diagonal holds the accuracy of the class in percent. Zeros are left blank.
    """
    kind = "test" if split == "test" else "training"
    noun = class_noun(next(iter(runs.values()))[0])
    kept = answered(runs)
    if not kept:
        return _nothing("Confusion heatmap: no run has recalibrated answers.", runs)
    totals = {label: total_confusion(group, split) for label, group in kept.items()}
    worst = max(int(off_diagonal(counts).max()) for counts in totals.values())
    rows, columns = -(-len(kept) // 2), min(len(kept), 2)
    figure = _figure(5.4 * columns, 5.2 * rows)
    said = []
    for index, (label, counts) in enumerate(totals.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        wrong = off_diagonal(counts)
        sns.heatmap(
            np.where(wrong > 0, wrong, np.nan),
            annot=np.where(wrong > 0, wrong.astype(str), ""),
            fmt="",
            cmap="YlOrBr",
            norm=LogNorm(1, max(worst, 2) * 1.5),
            vmin=1,  # unused beside the norm, but seaborn looks for it where nothing is wrong
            vmax=worst,
            cbar=False,
            square=True,
            linewidths=0.6,
            linecolor="#dddddd",
            annot_kws={"size": 10},
            ax=axes,
        )
        for place, (right, size) in enumerate(zip(np.diag(counts), counts.sum(1), strict=True)):
            share = 100 * right / size if size else np.nan
            axes.add_patch(Rectangle((place, place), 1, 1, fc="#eeeeee", ec="#dddddd", lw=0.6))
            shown = "100" if share == 100 else f"{share:.1f}" if size else "–"
            middle = (place + 0.5, place + 0.5)
            axes.annotate(shown, middle, ha="center", va="center", size=8.5, color=INK)
        n = len(kept[label])
        title = f"{label} (n = {n}): {wrong.sum():,} of {counts.sum():,} wrong"
        axes.set_title(title, loc="left", size=11)
        axes.set(xlabel=f"predicted {noun}", ylabel=f"true {noun}")
        axes.tick_params(length=0, rotation=0)
        true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
        most = f"most often {true} taken for {predicted} ({wrong.max()})" if wrong.any() else "none"
        said.append(f"{label} (n = {n}): {wrong.sum()} of {counts.sum()} wrong, {most}")
    figure.alt = f"Confusion heatmap of the {kind} images, recalibrated. {'; '.join(said)}."
    colours = f"coloured: number of mistakes; grey diagonal: accuracy of the {noun} in %"
    _note(figure, runs, f"recalibrated answers to the {kind} images; {colours}")
    return figure


@remakable
def confusion_difference(runs: Runs, split: str = "test") -> Figure:
    """The mistakes a run of the second setting makes more (red) or fewer (blue) than the first."""
    kind, noun = ("test" if split == "test" else "training"), class_noun(_first(runs))
    pair = list(answered(runs).items())[:2]
    if len(pair) < 2:
        words = "Difference of mistakes, recalibrated: there are no two settings left."
        return _nothing(words, runs)
    (first, base), (second, other) = pair
    per_run = [off_diagonal(total_confusion(group, split)) / len(group) for group in (base, other)]
    difference = per_run[1] - per_run[0]
    limit = max(float(np.abs(difference).max()), 1.0)
    signed = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
    text = [
        [f"{d:+.1f}".replace("-", "−") if abs(d) >= 0.05 else "" for d in r] for r in difference
    ]
    figure = _figure(6.6, 5.8)
    axes = figure.add_subplot()
    sns.heatmap(
        difference,
        annot=np.array(text),
        fmt="",
        cmap="RdBu_r",
        norm=SymLogNorm(1, vmin=-limit, vmax=limit),
        square=True,
        linewidths=0.6,
        linecolor="#dddddd",
        annot_kws={"size": 8.5},
        cbar_kws={"label": f"more or fewer {kind} mistakes a run", "format": signed, "shrink": 0.8},
        ax=axes,
    )
    axes.set_title(f"{second} minus {first}: mistakes a run, recalibrated", loc="left", size=11)
    axes.set(xlabel=f"predicted {noun}", ylabel=f"true {noun}")
    axes.tick_params(length=0, rotation=0)
    true, answer = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    figure.alt = (
        f"Heatmap of the difference of {kind} mistakes a run, recalibrated, between {second} and "
        f"{first} (n = {len(other)} and {len(base)}): in all {difference.sum():+.1f}; most for "
        f"{true} taken for {answer}, {difference[true, answer]:+.1f}."
    )
    _note(figure, runs)
    return figure


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
        return _nothing("Calibration: no run has recalibrated answers.", runs)
    figure = _figure(8, 4.4)
    axes = figure.add_subplot()
    said, lowest = [], 100.0
    for label, group, style in _answered(runs):
        confidence = np.array([run.confidence() for run in group], dtype=float)
        wrong = np.array([~run.right() for run in group])
        order = np.argsort(-confidence, axis=1, kind="stable")
        parts = []
        while order.shape[1] >= 2 * fewest:
            parts.append(order[:, : order.shape[1] // 2])
            order = order[:, order.shape[1] // 2 :]
        parts.append(order)
        unsure, missed = (
            100 * np.array([np.take_along_axis(values, part, 1).mean(1) for part in parts])
            for values in (1 - confidence, wrong)
        )
        sizes = [part.shape[1] for part in parts]
        bounds = [
            stats.wilson(round(k * n), n) for k, n in zip(missed[:, 0] / 100, sizes, strict=True)
        ]
        low, high = 100 * np.array(bounds).T
        x, y = unsure.mean(1), missed.mean(1)
        if len(group) > 1:
            low, high = np.maximum(missed.min(1), 1e-9), np.where(y > 0, missed.max(1), high)
        some = y > 0
        color, name = style["color"], f"{label} (n = {len(group)})"
        axes.plot(x[some], y[some], lw=1.6, label=name, **style)
        axes.vlines(x[some], low[some], high[some], color=color, lw=1, alpha=0.6)
        axes.plot(x[~some], high[~some], "v", color=color, mfc="white", ms=7)
        lowest = min(lowest, x.min(), y[some].min(initial=100))
        said.append(
            f"{label}: {100 * wrong.mean():.2f} % wrong, {100 * np.mean(1 - confidence):.2f} % "
            "expected by its own confidence"
        )
    ends = [max(lowest, 1e-4), 100]
    axes.plot(ends, ends, color=INK, ls=(0, (4, 2)), lw=1, label="as often wrong as it expects")
    if any(line.get_marker() == "v" and line.get_xdata().size for line in axes.lines):
        axes.plot([], [], "v", color=INK, mfc="white", ms=7, label="no mistake: upper bound")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(lowest, 1e-4) / 2)  # a bar may start at no mistake at all
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _tidy(axes, xlabel="expected to be wrong: 100 % − confidence (%)", ylabel="wrong (%)")
    title = "Calibration on the test images, recalibrated; above the dashed line: too sure"
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.alt = (
        "Line chart of the share of wrong answers against the share that the network expects by "
        f"its confidence, recalibrated, log axes. {'; '.join(said)}."
    )
    _note(figure, runs)
    return figure


@remakable
def recipe_curves(runs: Runs) -> Figure:
    """The training losses of each recipe, see `recipes`, a panel a section; the original dashed."""
    found, distances = recipes.curves(runs), recipes.distances(runs)
    if not found:
        return _nothing("Training losses of the recipes: every run diverged.")
    epochs = distances.attrs["epochs"]
    sections = [s for s in original.SECTIONS if s.number in epochs]
    figure = _figure(9.5, 4.6)
    panels = figure.subplots(1, len(sections), squeeze=False).ravel()
    for axes, section in zip(panels, sections, strict=True):
        longest = 0
        for index, (recipe, of_section) in enumerate(found.items()):
            if group := of_section.get(section.number):
                losses = np.mean([run.history["loss"] for run in group], axis=0)
                style = {"marker": MARKERS[index % len(MARKERS)], "ls": LINES[index % len(LINES)]}
                color = COLORS[index % len(COLORS)]
                axes.plot(losses, color=color, lw=1.5, ms=4.5, label=recipe, **style)
                longest = max(longest, len(losses))
        printed = section.epoch_loss[:longest]
        axes.plot(printed, "D--", color=INK, mfc="white", ms=6, label="original")
        _plain_log(axes)
        _tidy(axes, xlabel="epoch")
        axes.set_xlim(-0.3, longest - 0.7)
        axes.set_xticks(range(longest))
        axes.set_title(section.name, loc="left", size=10.5)
    panels[0].set_ylabel("mean loss of the epoch (nats)")
    handles = {h.get_label(): h for axes in panels for h in axes.lines}
    figure.legend(
        handles=list(handles.values()), loc="outside lower center", ncols=3, frameon=False
    )
    ranked = distances.index[distances["all"].notna()]
    best = ranked[0] if len(ranked) else "none, since no recipe has all curves"
    figure.alt = (
        f"Training losses of {len(found)} recipes beside the original's, log axes, one panel each "
        f"for {', '.join(section.name for section in sections)}; nearest over all is {best}."
    )
    return figure


@remakable
def hardest(runs: Runs, images: np.ndarray | None, most: int = 12) -> Figure:
    """The test images that the runs of all settings together get wrong most often, recalibrated.

    Args:
        images: the test images of the runs' dataset in their order, uint8 `[n, 28, 28]`;
            None where they are not at hand, which the figure then says in their place.
    """
    every = [run for group in answered(runs).values() for run in group]
    if not every:
        return _nothing("The images most often wrong: no run has recalibrated answers.", runs)
    _same_images(images, every)
    under = {}
    for i, answers in most_mistaken(every, most).items():
        taken = ", ".join(f"{digit} ({times}×)" for digit, times in answers.most_common(2))
        under[i] = f"{every[0].test_labels[i]} taken for\n{taken}", f"image {i}"
    many = f"{len(every)} run{'s' * (len(every) != 1)}"
    title = f"The images most often wrong in {many}, recalibrated"
    figure = _gallery(images, under, title)
    _note(figure, runs)
    return figure


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
        return _nothing("The surest mistakes: no recalibrated answers.", {setting: [run]})
    _same_images(images, [run])
    wrong, confidence = np.flatnonzero(~run.right()), run.confidence()
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    under = {
        int(i): (
            f"{run.test_labels[i]} taken for {run.predicted()[i]}",
            f"sure to {100 * confidence[i]:.1f} %\nimage {i}",
        )
        for i in chosen
    }
    seed = run.config.seed
    title = f"The {len(chosen)} surest of {len(wrong)} mistakes, recalibrated (seed {seed})"
    return _gallery(images, under, title)


def _same_images(images: np.ndarray | None, runs: Sequence[Run]) -> None:
    """Refuse images that are not as many as the runs' test answers."""
    for run in runs if images is not None else ():
        if len(images) != len(run.test_labels):
            raise ValueError(f"{len(images)} images for {len(run.test_labels)} answers")


def _gallery(images: np.ndarray | None, under: dict[int, tuple[str, str]], title: str) -> Figure:
    """Images by their number, each with what stands above and below it, six in a row."""
    rows = max(1, -(-len(under) // 6))
    figure = _figure(8, 0.5 + 1.85 * rows)
    figure.suptitle(title, size=11)
    for place, (index, (above, below)) in enumerate(under.items()):
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
    said = "; ".join(above.replace("\n", " ") for above, _ in under.values())
    figure.alt = f"Gallery of {len(under)} test images. {title}: {said}."
    return figure


@remakable
def architecture(config: Config) -> Figure:
    """The config's network as `layers.layer_table` finds it: groups, blocks, and the shortcuts."""
    from labkit.core import model  # here: no other figure needs torch
    from labkit.core.layers import layer_table

    rows = layer_table(model.build(config)).set_index("name")
    groups = list(dict.fromkeys(n.split(".")[0] for n in rows.index if n.startswith("layer")))
    fills = sns.light_palette(COLORS[0], 2 * len(groups) + 3)[1:]  # light enough for dark text
    pitch, height, width, top = 2.35, 2.2, 1.45, 4.7  # of a column, a block, a box; the upper edge
    figure = _figure(10.5, 5.0)
    axes = figure.add_subplot()
    axes.set_axis_off()

    def size(name: str) -> str:
        return "×".join(map(str, rows.output_shape[name]))

    def box(x: float, y: float, text: str, fill: Any, tall: float = 0.55) -> None:
        shape = FancyBboxPatch((x, y - tall / 2), width, tall, boxstyle="round,pad=0.02")
        axes.add_patch(shape)
        shape.set(fc=fill, ec=INK, lw=0.8)
        axes.text(x + width / 2, y, text, ha="center", va="center", size=8, color=INK)

    def conv(name: str) -> str:
        row = rows.loc[name]
        stride = f"\nstride {row.stride}" if row.stride > 1 else ""
        return f"conv {row.kernel}×{row.kernel}, {row.output_shape[0]}{stride}"

    def line(*points: tuple[float, float], **style: Any) -> None:
        axes.plot(*zip(*points[:-1], strict=True), color=INK, **style)
        end = FancyArrowPatch(*points[-2:], arrowstyle="-|>", mutation_scale=9, shrinkA=0)
        end.set(color=INK, **style)
        axes.add_patch(end)

    def head(x: float, name: str, shape: str) -> None:
        axes.text(x + width / 2, top + 0.5, name, ha="center", weight="bold", size=10)
        axes.text(x + width / 2, top + 0.2, shape, ha="center", size=8.5, color=INK)

    pooled = rows.kind.get("maxpool") == "MaxPool2d"
    stem = conv("conv1") + (f"\n{size('conv1')}\nmax-pool" if pooled else "")
    box(0, top - 0.75, stem, fills[0], 1.2)
    head(0, "conv1", size("maxpool" if pooled else "conv1"))
    axes.plot(
        [width, pitch - 0.35, pitch - 0.35, pitch], [top - 0.75] * 2 + [top] * 2, color=INK, lw=1
    )
    for column, group in enumerate(groups, start=1):
        x, middle = column * pitch, column * pitch + width / 2
        blocks = list(
            dict.fromkeys(n.split(".")[1] for n in rows.index if n.startswith(f"{group}."))
        )
        head(x, group, size(f"{group}.{blocks[-1]}.conv2"))
        axes.plot([x, middle], [top, top], color=INK, lw=1)
        for number, block in enumerate(blocks):
            y, side, prefix = top - number * height, x + width + 0.2, f"{group}.{block}"
            line((middle, y), (middle, y - 0.22), lw=1)
            box(x, y - 0.5, conv(f"{prefix}.conv1"), fills[column])
            line((middle, y - 0.78), (middle, y - 0.97), lw=1)
            box(x, y - 1.25, conv(f"{prefix}.conv2"), fills[column])
            line((middle, y - 1.53), (middle, y - 1.72), lw=1)
            axes.text(middle, y - 1.86, "+", ha="center", va="center", size=10)
            axes.plot(middle, y - 1.85, "o", ms=13, mfc="none", mec=INK, mew=0.8)
            projected = f"{prefix}.downsample.0" in rows.index
            style = {"lw": 1.8} if projected else {"lw": 1, "ls": "--"}
            line((middle, y), (side, y), (side, y - 1.85), (middle + 0.13, y - 1.85), **style)
            if projected:
                axes.text(
                    side,
                    y - 0.9,
                    f"1×1\n/{rows.stride[f'{prefix}.downsample.0']}",
                    size=7.5,
                    ha="center",
                    va="center",
                    bbox={"fc": "white", "ec": INK, "lw": 0.8, "pad": 1.8},
                )
            if number + 1 < len(blocks):
                axes.plot([middle, middle], [y - 1.98, y - height], color=INK, lw=1)
        end, riser = top - (len(blocks) - 1) * height - 1.98, x + pitch - 0.35
        if column < len(groups):
            across = [middle, middle, riser, riser, x + pitch]
            axes.plot(across, [end, end - 0.2, end - 0.2, top, top], color=INK, lw=1)
    x = (len(groups) + 1) * pitch
    line(
        (middle, end), (middle, end - 0.2), (x + width / 2, end - 0.2), (x + width / 2, 0.68), lw=1
    )
    box(x, 1.1, f"average pool\n{size('avgpool')}\nlinear", fills[0], 0.8)
    head(x, "output", f"{rows.output_shape['fc'][0]} classes")
    axes.set_xlim(-0.1, x + width + 0.1)
    axes.set_ylim(end - 0.3, top + 0.8)
    axes.set_title(
        "Side paths are the shortcuts: dashed the input itself, "
        "bold through downsample (1×1) to fit the new shape",
        size=9,
        loc="left",
    )
    down = [n.split(".downsample")[0] for n in rows.index if n.endswith("downsample.0")]
    figure.alt = (
        f"Diagram of the network: the stem conv1 and the groups {', '.join(groups)} of residual "
        f"blocks with two 3×3 convolutions each, then average pooling and a linear layer. Every "
        f"block has a shortcut; those of {', '.join(down)} pass a 1×1 convolution with stride."
    )
    return figure
