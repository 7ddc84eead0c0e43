"""Why a training goes as it does: figures and sentences from what runs measured in their course.

Runs from before there were such measures, and those that diverged, are left out; each figure says
of how many runs its lines are medians.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from labkit.core.measures import NAMES, RUNNING
from labkit.show.conclusions import Text
from labkit.show.plots import (
    COLORS,
    LINES,
    MARKERS,
    Figure,
    _figure,
    _nothing,
    _plain_log,
    _tidy,
    smooth,
)
from labkit.show.remake import remakable
from labkit.store.run import Run, Runs, finite

#: Depth is drawn from light to dark.
DEPTH = ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b", "#e6550d")


def measured(runs: Runs, *names: str) -> dict[str, list[Run]]:
    """The runs that have all these measures and did not diverge, without settings of which none is
    left.

    Of a setting, those with as many moments as the most have: one that went on from a checkpoint
    of before there were measures lacks its first.
    """
    found = {}
    for label, group in finite(runs).items():
        kept = [run for run in group if all(run.measure(name).size for name in names)]
        most = max((len(run.measure(names[0])) for run in kept), default=0)
        if kept := [run for run in kept if len(run.measure(names[0])) == most]:
            found[label] = kept
    return found


def missing(what: str) -> Figure:
    """What stands in the place of a figure for which no run has the measures."""
    return _nothing(f"{what}: no run at hand has measured it.")


def stacked(group: Sequence[Run], name: str) -> np.ndarray:
    """A measure of all runs of one setting, `[runs, moments, ...]`."""
    return np.stack([run.measure(name) for run in group]).astype(float)


def stage(layer: str) -> str:
    """The part of the network that a layer belongs to: conv1, layer1 to layer4, fc."""
    return layer.split(".")[0].replace("bn1", "conv1")


def by_stage(
    group: Sequence[Run], name: str, axis: str, over: Callable[..., np.ndarray] = np.median
) -> dict[str, np.ndarray]:
    """Part of the network → a measure `over` its layers, the median of the runs, `[moments]`."""
    parts = [stage(layer) for layer in group[0].layers[axis]]
    values = stacked(group, name)
    return {
        part: np.median(over(values[:, :, [p == part for p in parts]], axis=2), axis=0)
        for part in dict.fromkeys(parts)
    }


def brief(value: float) -> str:
    """A number with two digits that count, and no exponent."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:.10f}".rstrip("0").rstrip(".")


def seeds(group: Sequence[Run]) -> str:
    """How many runs a line rests on."""
    return f"n = {len(group)}"


def _against_updates(axes: Axes, **labels: Any) -> None:
    _tidy(axes, xlabel="updates done, +1", **labels)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _lines_by_stage(
    axes: Axes,
    group: Sequence[Run],
    name: str,
    axis: str,
    over: Callable[..., np.ndarray] = np.median,
) -> list[str]:
    """Draw a measure by part of the network; what it comes to, for the alt text."""
    said = []
    places = group[0].measure("update") + 1
    for index, (part, values) in enumerate(by_stage(group, name, axis, over).items()):
        style = {"color": DEPTH[index % len(DEPTH)], "marker": MARKERS[index % len(MARKERS)]}
        axes.plot(places, values, label=part, lw=1.7, ms=4, **style)
        said.append(f"{part} from {values[0]:.2g} to {values[-1]:.2g}")
    return said


@remakable
def learning(runs: Runs) -> Figure:
    """Gradient norm and relative update of each part of the network over the training of the first
    setting; see `measures`. Medians over the part's layers and the seeds."""
    names = ("gradient_norm", "relative_update")
    found = measured(runs, *names)
    if not found:
        return missing("Gradient and relative update by layer")
    (label, group), *_ = found.items()
    figure = _figure(9, 3.9)
    panels = figure.subplots(1, 2)
    titles = "Gradient norm", "Relative update"
    units = "norm of the gradient (nats per unit)", "‖Δw‖/‖w‖ of the next update"
    said = []
    for axes, name, title, unit in zip(panels, names, titles, units, strict=True):
        parts = _lines_by_stage(axes, group, name, "weights")
        said.append(f"{title.lower()}: {', '.join(parts)}")
        axes.set_yscale("log")
        _against_updates(axes, ylabel=unit)
        axes.set_title(title, loc="left", size=10.5)
    panels[1].legend(
        title=f"{label} ({seeds(group)})", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    figure.alt = (
        "Two line charts against the number of updates, log axes, a line for each part of the "
        f"network. {'; '.join(said)}."
    )
    return figure


@remakable
def lag(runs: Runs) -> Figure:
    """How far each part's running averages are from the statistics of its weights, over training,
    a panel per setting; see `measures`. The largest of the part's layers, since one that is far off
    suffices to spoil the answers; median of the seeds."""
    found = measured(runs, "lag")
    if not found:
        return missing("The running averages' lag by layer")
    figure = _figure(1.4 + 3.4 * len(found), 3.6)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False).ravel()
    said = []
    for axes, (label, group) in zip(panels, found.items(), strict=True):
        parts = _lines_by_stage(axes, group, "lag", "normalizations", np.max)
        said.append(f"{label}: {', '.join(parts)}")
        _plain_log(axes)
        _against_updates(axes)
        axes.set_title(f"{label} ({seeds(group)})", loc="left", size=10.5)
    panels[0].set_ylabel("largest lag of a layer (deviations)")
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.alt = (
        "Line charts of the running averages' lag against the number of updates, log axes, by part "
        f"of the network. {'; '.join(said)}."
    )
    return figure


def _first_and_last(
    found: dict[str, np.ndarray], layers: Sequence[str], titles: tuple[str, str]
) -> Figure:
    """A measure by layer, before the first update and at the last moment, a line per setting.

    Args:
        found: what a line is called → the measure, `[runs, moments, layers]`.
    """
    figure = _figure(9.5, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, moment, title in zip(panels, (0, -1), titles, strict=True):
        for index, (label, values) in enumerate(found.items()):
            style = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
            style |= {"ls": LINES[index % len(LINES)], "lw": 1.5, "ms": 5, "label": label}
            axes.plot(np.median(values[:, moment], axis=0), **style)
        _tidy(axes)
        axes.set_xticks(range(len(layers)), layers, rotation=90, size=7.5)
        axes.set_title(title, loc="left", size=10.5)
    panels[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


#: What the two moments are called, first and last.
MOMENTS = {0: "before the first update", -1: "at the last update"}


@remakable
def reaching(runs: Runs) -> Figure:
    """Which gradient reaches each layer, before the first update and at the last moment."""
    found = measured(runs, "gradient_norm")
    if not found:
        return missing("The gradient by layer")
    values = {label: stacked(group, "gradient_norm") for label, group in found.items()}
    layers = next(iter(found.values()))[0].layers["weights"]
    figure = _first_and_last(values, layers, tuple(f"Gradient norm, {w}" for w in MOMENTS.values()))
    for axes in figure.axes:
        axes.set_yscale("log")
    figure.axes[0].set_ylabel("norm of the gradient (nats per unit)")
    many = "; ".join(f"{label}: {seeds(group)}" for label, group in found.items())
    figure.supxlabel(f"layer, in the order in which an image passes them; {many}", size=9)
    said = [
        f"{label} {when} {middle[0]:.2g} in the first layer, {middle[-1]:.2g} in the last"
        for moment, when in MOMENTS.items()
        for label, of_runs in values.items()
        for middle in [np.median(of_runs[:, moment], axis=0)]
    ]
    figure.alt = f"Line charts by layer, gradient norm: {'; '.join(said)}."
    return figure


@remakable
def inactive(runs: Runs) -> Figure:
    """What share of each layer's outputs is saturated (sigmoid, tanh) or of its channels dead
    (ReLU), before the first update and at the last moment; see `measures`."""
    by_kind = {kind: measured(runs, kind) for kind in ("dead", "saturated")}
    found = {
        (label, kind): groups[label]
        for label in runs
        for kind, groups in by_kind.items()
        if label in groups
    }
    if not found:
        return missing("Dead and saturated units")
    values = {names: stacked(group, names[1]) for names, group in found.items()}
    figure = _first_and_last(
        {f"{', '.join(names)} ({seeds(found[names])})": values[names] for names in found},
        next(iter(found.values()))[0].layers["activations"],
        tuple(when.capitalize() for when in MOMENTS.values()),
    )
    for axes in figure.axes:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.axes[0].set_ylabel("share of the layer's outputs")
    figure.supxlabel("activation behind the layer, in the order of the network", size=9)
    said = [
        f"{label}, {kind}, {when}: at most {np.median(of_runs[:, moment], axis=0).max():.1%}"
        for moment, when in MOMENTS.items()
        for (label, kind), of_runs in values.items()
    ]
    figure.alt = f"Line charts of dead and saturated outputs by layer. {'; '.join(said)}."
    return figure


@remakable
def steps(runs: Runs) -> Figure:
    """Weight norm, relative update and dead channels over training: medians over the convolutions
    (dead: means over the layers) and the seeds."""
    found = measured(runs, "weight_norm", "relative_update")
    if not found:
        return missing("Weight norm and relative update")
    dead = measured(found, "dead")
    figure = _figure(10.5, 3.7)
    panels = figure.subplots(1, 3 if dead else 2)
    said = []
    for index, (label, group) in enumerate(found.items()):
        places = group[0].measure("update") + 1
        style = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        style |= {"label": f"{label} ({seeds(group)})", "lw": 1.6, "ms": 4}
        norm, update = convolutions(group, "weight_norm"), convolutions(group, "relative_update")
        panels[0].plot(places, norm, **style)
        panels[1].loglog(places, update, **style)
        said.append(
            f"{label}: weight norm from {norm[0]:.3g} to {norm[-1]:.3g}, relative update from "
            f"{update[0]:.2g} to {update[-1]:.2g}"
        )
        if label in dead:
            share = stacked(dead[label], "dead").mean(2)
            panels[2].plot(places, np.median(share, axis=0), **style)
            said[-1] += f", dead channels at last {np.median(share[:, -1]):.1%}"
    _plain_log(panels[0])
    labels = "norm of a convolution's weights", "‖Δw‖/‖w‖ of the next update", "dead channels"
    titles = "Weights", "Relative update", "Dead channels"
    for axes, label, title in zip(panels, labels, titles, strict=False):
        _against_updates(axes, ylabel=label)
        axes.set_title(title, loc="left", size=10.5)
    if dead:
        panels[2].yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower left", frameon=False, ncols=4
    )
    figure.alt = f"Line charts against the number of updates, log axes. {'; '.join(said)}."
    return figure


def convolutions(group: Sequence[Run], name: str) -> np.ndarray:
    """The median of a measure over the convolutions and the runs, `[moments]`."""
    chosen = [layer != "fc" for layer in group[0].layers["weights"]]
    return np.median(stacked(group, name)[:, :, chosen], axis=(0, 2))


@remakable
def progress(runs: Runs) -> Figure:
    """The running mean of the batch losses against epochs, updates and seconds of training: median
    of the seeds. The seconds are those of the device that the provenance names."""
    found = finite(runs)
    if not found:
        return _nothing("Loss against epochs, updates and seconds: every run diverged.")
    figure = _figure(10, 3.7)
    panels = figure.subplots(1, 3, sharey=True)
    said = []
    for index, (label, group) in enumerate(found.items()):
        updates = group[0].iteration_loss.shape[1]
        losses = np.median([run.iteration_loss.ravel() for run in group], axis=0)
        mean = smooth(losses, max(3, updates // 4))
        done = np.arange(1, losses.size + 1)
        seconds = np.median([run.history["seconds"] for run in group], axis=0)
        clock = clocked(done, updates, seconds)
        style = {"color": COLORS[index % len(COLORS)], "ls": LINES[index % len(LINES)], "lw": 1.7}
        for axes, places in zip(panels, (done / updates, done, clock), strict=True):
            axes.plot(places, mean, label=f"{label} ({seeds(group)})", **style)
        said.append(f"{label}: {losses.size:,} updates in {clock[-1]:,.0f} seconds")
    for axes, unit in zip(panels, ("epochs", "updates", "seconds of training"), strict=True):
        _plain_log(axes)
        _tidy(axes, xlabel=unit, xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    panels[0].set_ylabel("loss of a batch (nats)")
    panels[0].set_title("The same losses on three clocks", loc="left", size=10.5)
    panels[2].legend(frameon=False, loc="upper right", fontsize=9)
    figure.alt = (
        "Line charts of the smoothed training loss against epochs, updates and seconds. "
        f"{'; '.join(said)}."
    )
    return figure


def clocked(done: int | np.ndarray, updates: int, seconds: Sequence[float]) -> np.ndarray:
    """Seconds of training until so many updates are done, of which an epoch has `updates` and
    takes `seconds`."""
    return np.interp(done, np.arange(len(seconds) + 1) * updates, [0, *np.cumsum(seconds)])


def noise_scale(group: Sequence[Run], chosen: slice | np.ndarray = slice(None)) -> float:
    """The simple noise scale in images over the chosen moments of all runs; NaN where the estimate
    of the gradient is not above zero, and so cannot tell."""
    square = stacked(group, "gradient_square")[:, chosen].mean()
    return (
        float(stacked(group, "gradient_variance")[:, chosen].mean() / square)
        if square > 0
        else np.nan
    )


@remakable
def noise(runs: Runs, window: int = 5) -> Figure:
    """The gradient noise scale over training, from `window` neighbouring moments of all seeds, and
    the batch sizes that were trained with."""
    found = measured(runs, "gradient_square")
    if not found:
        return missing("The gradient noise scale")
    figure = _figure(8, 3.9)
    axes = figure.add_subplot()
    said = []
    for index, (label, group) in enumerate(found.items()):
        updates = group[0].measure("update")
        scales = [
            noise_scale(group, slice(max(0, i - window // 2), i + window // 2 + 1))
            for i in range(len(updates))
        ]
        images = group[0].config.batch_size
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        epochs = (updates + 1) / group[0].iteration_loss.shape[1]
        axes.plot(
            epochs,
            scales,
            color=color,
            marker=marker,
            lw=1.6,
            ms=4.5,
            label=f"{label} ({seeds(group)})",
        )
        axes.axhline(images, color=color, lw=1.2, ls=(0, (4, 2)))
        axes.annotate(
            f"batch {images:,}",
            (1.01, images),
            xycoords=("axes fraction", "data"),
            color=color,
            va="center",
            size=9,
        )
        said.append(f"{label} from {scales[0]:,.0f} to {scales[-1]:,.0f} images")
    _plain_log(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _tidy(axes, xlabel="epochs done", ylabel="gradient noise scale (images)")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title(
        "Noise scale while training; dashed: the batch that was taken", loc="left", size=10.5
    )
    axes.legend(frameon=False)
    figure.alt = f"Line chart of the gradient noise scale, log axes: {'; '.join(said)}."
    return figure


# Sentences.


def _several(lines: list[str], runs: Runs, *names: str) -> Text:
    """The lines as a list; a sentence where no run has what they need."""
    left = sum(len(group) for group in finite(runs).values()) - sum(
        len(group) for group in measured(runs, *names).values()
    )
    lines = lines or ["No run at hand has measured it."]
    if left:
        many = "run is" if left == 1 else "runs are"
        lines = [*lines, f"{left} {many} from before this was measured, and left out."]
    return Text("\n".join(f"- {line}" for line in lines))


@remakable
def learning_words(runs: Runs) -> Text:
    """Where the gradient and the relative update are largest, first and last."""
    lines = []
    for label, group in measured(runs, "gradient_norm", "relative_update").items():
        gradient = by_stage(group, "gradient_norm", "weights")
        update = by_stage(group, "relative_update", "weights")
        for when, moment in (("Before the first update", 0), ("At the last moment", -1)):
            most = max(gradient, key=lambda part: gradient[part][moment])
            least = min(gradient, key=lambda part: gradient[part][moment])
            ratio = gradient[most][moment] / gradient[least][moment]
            moved = max(update, key=lambda part: update[part][moment])
            lines.append(
                f"**{label}:** {when.lower()} the gradient is largest in {most}, "
                f"{brief(ratio)} times that in {least}; the update changes {moved} most, by "
                f"{brief(100 * update[moved][moment])} % of its weights' norm ({seeds(group)})."
            )
        course = convolutions(group, "relative_update")
        lines.append(
            f"**{label}:** over the training a convolution's relative update goes from "
            f"{brief(100 * course[0])} % to {brief(100 * course[-1])} % (median, {seeds(group)})."
        )
    return _several(lines, runs, "gradient_norm", "relative_update")


@remakable
def reaching_words(runs: Runs) -> Text:
    """What of the gradient reaches the first layer, and what is saturated or dead."""
    lines = []
    for label, group in measured(runs, "gradient_norm").items():
        first = np.median(stacked(group, "gradient_norm")[:, 0], axis=0)
        sentence = (
            f"**{label}:** before the first update the gradient of the first layer is "
            f"{brief(first[0] / first[-1])} times that of the last ({seeds(group)})"
        )
        for kind, what in (("saturated", "outputs are saturated"), ("dead", "channels are dead")):
            if measured({label: group}, kind):
                values = np.median(stacked(group, kind), axis=0)
                layers = group[0].layers["activations"]
                worst = int(values[-1].argmax())
                sentence += (
                    f"; {brief(100 * values[0].mean())} % of all {what} then and "
                    f"{brief(100 * values[-1].mean())} % at the last moment (mean of the layers)"
                )
                if values[-1, worst] > 0:
                    sentence += f", most behind {layers[worst]}, {brief(100 * values[-1, worst])} %"
        lines.append(sentence + ".")
    return _several(lines, runs, "gradient_norm")


@remakable
def steps_words(runs: Runs) -> Text:
    """By how much the weights grow and the steps shrink, and how many channels die."""
    lines = []
    for label, group in measured(runs, "weight_norm", "relative_update").items():
        norm, update = convolutions(group, "weight_norm"), convolutions(group, "relative_update")
        sentence = (
            f"**{label}:** a convolution's weights grow to {brief(norm[-1] / norm[0])} times their "
            f"first norm; the relative update goes from {brief(100 * update[0])} % to "
            f"{brief(100 * update[-1])} %"
        )
        if measured({label: group}, "dead"):
            share = stacked(group, "dead").mean(2)
            sentence += (
                f"; {brief(100 * np.median(share[:, -1]))} % of the channels are dead at last"
            )
        lines.append(f"{sentence} (median, {seeds(group)}).")
    return _several(lines, runs, "weight_norm", "relative_update")


@remakable
def identical(runs: Runs, fewest: int = 20) -> Text:
    """Confidences that `fewest` or more test answers of one network share to the last bit, and in
    how many of these nothing but the last layer's bias answers.

    Above 0.9999 float32 has so few numbers that answers share one by chance.
    """
    lines, looked = [], 0
    for label, group in measured(runs, f"{RUNNING}_silent").items():
        for run in group:
            looked += 1
            for statistics, words in NAMES.items():
                confidence = run.confidence(statistics)
                common = Counter(confidence[confidence < 0.9999].tolist()).most_common(1)
                if not common or common[0][1] < fewest:
                    continue
                alike = confidence == np.float32(common[0][0])
                silent = run.measure(f"{statistics}_silent")[alike].sum()
                answers = sorted(set(run.predicted(statistics)[alike].tolist()))
                right = run.right(statistics)[alike].sum()
                many = "all" if silent == alike.sum() else f"{silent:,}"
                lines.append(
                    f"**{label}, seed {run.config.seed}, {words}:** {alike.sum():,} of "
                    f"{len(confidence):,} test answers share the confidence {common[0][0]:.8f}, "
                    f"all “{'” or “'.join(map(str, answers))}”, {right:,} of them right. In {many} "
                    "of them every input of the last layer is exactly zero, so that its bias alone "
                    "answers."
                )
    if looked and not lines:
        lines = [f"In none of {looked} networks do {fewest} test answers share a confidence."]
    return _several(lines, runs, f"{RUNNING}_silent")


@remakable
def progress_words(runs: Runs, loss: float = 0.05) -> Text:
    """What it takes until the running mean of the batch losses first comes down to `loss` nats."""
    lines = []
    for label, group in finite(runs).items():
        taken = [_taken(run, loss) for run in group]
        reached = [found for found in taken if found]
        if not reached:
            lines.append(f"**{label}:** does not come down to {loss:g} nats ({seeds(group)}).")
            continue
        epochs, updates, seconds = np.median(reached, axis=0)
        lines.append(
            f"**{label}:** comes down to {loss:g} nats after {brief(epochs)} epochs, "
            f"{updates:,.0f} updates, {seconds:,.0f} seconds of training (median of {len(reached)} "
            f"of {len(group)} runs)."
        )
    return Text("\n".join(f"- {line}" for line in lines or ["Every run diverged."]))


def _taken(run: Run, loss: float) -> tuple[float, int, float] | None:
    """Epochs, updates and seconds until the loss is reached; None if it never is."""
    updates = run.iteration_loss.shape[1]
    mean = smooth(run.iteration_loss.ravel(), max(3, updates // 4))
    below = np.flatnonzero(mean <= loss)
    if not len(below):
        return None
    done = int(below[0]) + 1
    return done / updates, done, float(clocked(done, updates, run.history["seconds"]))


@remakable
def noise_words(runs: Runs) -> Text:
    """The noise scale beside the batch size, in the first 100 updates and in the second half."""
    lines = []
    for label, group in measured(runs, "gradient_square").items():
        updates, images = group[0].measure("update"), group[0].config.batch_size
        total = group[0].iteration_loss.size
        parts = (
            ("the first 100 updates", updates < 100),
            ("the second half", updates >= total / 2),
        )
        for when, chosen in parts:
            if not chosen.any():
                continue
            scale = noise_scale(group, chosen)
            if np.isnan(scale):
                lines.append(
                    f"**{label}:** in {when} the noise hides the gradient ({seeds(group)})."
                )
                continue
            each = [noise_scale([run], chosen) for run in group]
            spread = ""
            if len(group) > 1 and np.isfinite(each).all():
                spread = f", {min(each):,.0f} to {max(each):,.0f} by seed"
            lines.append(
                f"**{label}:** in {when} the noise scale is {scale:,.0f} images ({seeds(group)}"
                f"{spread}): a batch of {images:,} is {brief(images / scale)} times that."
            )
    return _several(lines, runs, "gradient_square")
