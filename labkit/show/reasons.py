"""Why a training goes as it does: figures and sentences from what runs measured along the way.

Runs from before there were such measures, and those that diverged, are left out; each figure says
of how many runs its lines are medians.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, PercentFormatter

from labkit.core.measures import NAMES, RUNNING
from labkit.core.words import plural
from labkit.show.conclusions import Text, bullets
from labkit.show.figure import (
    DASHED,
    Figure,
    label_ends,
    legend_above,
    nothing,
    panels,
    plain,
    plain_log,
    styled,
    tidy,
    with_n,
)
from labkit.show.remake import remakable
from labkit.store.groups import Runs, at_once, finite, from_before, without_norms
from labkit.store.run import Run

#: The two moments that are compared.
MOMENTS = {"before the first update": 0, "at the last update": -1}
GRADIENT, UPDATE = "norm of the gradient (nats per unit)", "‖Δw‖/‖w‖ of the next update"
UNMEASURED = "no run at hand has measured it."
MOST_PARTS = 6  # of a network in a figure
STEPS = ("weight_norm", "relative_update")
#: What is inactive, by the name of its measure.
INACTIVE = {"saturated": "outputs are saturated", "dead": "channels are dead"}


def measured(runs: Runs, *names: str) -> dict[str, list[Run]]:
    """The runs that have all these measures and did not diverge, without settings of which none is
    left.

    Of a setting, those with as many moments as the most have: one that went on from a checkpoint
    of before there were measures lacks its first.
    """
    found = {}
    for label, group in finite(runs).items():
        kept = [run for run in group if all(np.isfinite(run.measure(n)).any() for n in names)]
        most = max((len(run.measure(names[0])) for run in kept), default=0)
        if kept := [run for run in kept if len(run.measure(names[0])) == most]:
            found[label] = kept
    return found


def sentences(lines: list[str], runs: Runs, *names: str) -> Text:
    """The lines as a list, or that no run has the measures; and how many runs lack them."""
    every, kept = (sum(map(len, of.values())) for of in (finite(runs), measured(runs, *names)))
    lines, without = lines or [UNMEASURED.capitalize()], 0
    for run in (run for group in finite(runs).values() for run in group if run.layers):
        without += not all(run.measure(name).size for name in names)
    if older := from_before(every - kept - without, "labkit measured this"):
        lines = [*lines, f"{older}."]
    if without:
        lines = [*lines, f"Left out for want of such a layer: {plural(without, 'run')}."]
    return bullets(lines)


def stacked(group: Sequence[Run], name: str) -> np.ndarray:
    """A measure of all runs of one setting, `[runs, moments, ...]`."""
    return np.stack([run.measure(name) for run in group]).astype(float)


def by_layer(group: Sequence[Run], name: str) -> np.ndarray:
    """The median of a measure over the runs, `[moments, layers]`."""
    return np.median(stacked(group, name), axis=0)


def parts_of(layers: Sequence[str]) -> list[str]:
    """The part of the network (of a ResNet conv1, layer1 to layer4, fc) that each layer is in: the
    first word of its name or, where there are many, a stretch of these."""
    inner = [layer.partition(".")[2] for layer in layers]
    if all(inner) and len({layer.partition(".")[0] for layer in layers}) == 1:
        return parts_of(inner)
    parts = [layer.split(".")[0].replace("bn1", "conv1") for layer in layers]
    parts = [f"layer {part}" if part.isdigit() else part for part in parts]
    names = list(dict.fromkeys(parts))
    if len(names) <= MOST_PARTS:
        return parts
    stretches = [list(stretch) for stretch in np.array_split(names, MOST_PARTS)]
    named = {n: f"{of[0]} to {of[-1]}" if len(of) > 1 else n for of in stretches for n in of}
    return [named[part] for part in parts]


def by_stage(
    group: Sequence[Run], name: str, axis: str, over: Callable[..., np.ndarray] = np.median
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Part of the network → updates done, and a measure `over` its layers, the median of the runs;
    both `[moments]`."""
    parts = parts_of(group[0].layers[axis])
    values, updates = stacked(group, name), group[0].measure("update")
    return {
        part: (updates, np.median(over(values[:, :, [p == part for p in parts]], axis=2), axis=0))
        for part in dict.fromkeys(parts)
    }


def hidden(group: Sequence[Run], name: str) -> np.ndarray:
    """The median of a measure over the runs and the layers but the last, `[moments]`."""
    values = stacked(group, name)
    return np.median(values[:, :, : max(values.shape[2] - 1, 1)], axis=(0, 2))


def hidden_layer(runs: Runs) -> str:
    """What the layers but the last are called."""
    models = {run.config.model for group in runs.values() for run in group}
    return "a convolution" if models <= {"resnet18", "resnet34"} else "a layer"


def brief(value: float) -> str:
    """A number with two digits that count, and no exponent."""
    return plain(float(f"{value:.2g}"))


def of_all(share: float) -> str:
    """A share, 0..1, in percent, briefly."""
    return f"{brief(100 * share)} %"


def _over_training(
    wanted: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], units: Sequence[str]
) -> Figure:
    """Lines against updates on log axes: title of a panel → label of a line → updates, values."""
    figure, parts = panels(3.4, columns=len(wanted), sharey=len(units) < 2)
    said = []
    for axes, (title, lines) in zip(parts, wanted.items(), strict=True):
        courses = []
        for label, (updates, values), style in styled(lines, "marker"):
            if np.isnan(values).all():
                continue
            axes.plot(updates + 1, values, label=label, lw=1.5, ms=4, markevery=0.07, **style)
            if np.isfinite(values).all():
                courses.append(f"{label} from {values[0]:.3g} to {values[-1]:.3g}")
        said.append(f"{title}: {', '.join(courses)}")
        plain_log(axes, "xy")
        tidy(axes, title, xlabel="update (the first is 1)")
    for axes, unit in zip(parts, units, strict=False):
        axes.set_ylabel(unit)
    legend_above(figure)
    courses = "; ".join(said)
    return figure.described(f"Line charts against the number of updates, log axes. {courses}.")


@remakable
def learning(runs: Runs) -> Figure:
    """Gradient norm and relative update of each part of the network over the training of the first
    setting; see `measures`. Medians over the part's layers and the seeds."""
    names = {"Gradient norm": "gradient_norm", "Relative update": "relative_update"}
    found = measured(runs, *names.values())
    if not found:
        return nothing("Gradient and relative update by layer: " + UNMEASURED)
    (label, group), *_ = found.items()
    wanted = {title: by_stage(group, name, "weights") for title, name in names.items()}
    figure = _over_training(wanted, (GRADIENT, UPDATE))
    return figure.described(figure.alt, with_n(label, group))


@remakable
def learning_words(runs: Runs) -> Text:
    """Where the gradient and the relative update are largest, first and last."""
    names, lines = ("gradient_norm", "relative_update"), []
    for label, group in measured(runs, *names).items():
        gradient, update = (by_stage(group, name, "weights") for name in names)
        for when, moment in MOMENTS.items():
            # None reaches a layer that is not used; one that begins at zero has no relative update.
            at = {part: v[moment] for part, (_, v) in gradient.items() if v[moment] > 0}
            moves = {part: v[moment] for part, (_, v) in update.items() if v[moment] >= 0}
            if len(at) < 2 or not moves:
                continue
            most, least, moved = max(at, key=at.get), min(at, key=at.get), max(moves, key=moves.get)
            lines.append(
                f"**{label}:** {when} the gradient is largest in {most}, "
                f"{brief(at[most] / at[least])} times that in {least}; the update changes {moved} "
                f"most, by {of_all(moves[moved])} of its weights' norm (n = {len(group)})."
            )
        course = hidden(group, "relative_update")
        layer = hidden_layer({label: group})
        lines.append(
            f"**{label}:** over the training {layer}'s relative update goes from "
            f"{of_all(course[0])} to {of_all(course[-1])} (median, n = {len(group)})."
        )
    return sentences(lines, runs, *names)


@remakable
def lag(runs: Runs) -> Figure:
    """How far each part's running averages are from the statistics of its weights, over training,
    a panel per setting; see `measures`. The largest of the part's layers, since one that is far off
    suffices to spoil the answers; median of the seeds."""
    found = measured(runs, "lag")
    without = "; ".join(label for label, group in finite(runs).items() if without_norms(group))
    without = f"without batch normalisation, and so without lag: {without}" if without else ""
    if not found:
        return nothing(f"The running averages' lag by layer: {without or UNMEASURED[:-1]}.")
    wanted = {
        with_n(label, group): by_stage(group, "lag", "normalizations", np.max)
        for label, group in found.items()
    }
    figure = _over_training(wanted, ["largest lag of a layer (deviations)"])
    return figure.described(figure.alt, without)


def _first_and_last(
    found: Mapping[str, np.ndarray],
    layers: Mapping[str, Sequence[str]],
    title: str,
    unit: str,
    form: str,
) -> Figure:
    """A measure `[moments, layers]` at the two moments, by layer, a line per setting; the alt text
    has its values in the `form`. Settings whose layers differ are drawn from first to last."""
    figure, parts = panels(5.6, rows=2, sharex=True, sharey=True)
    alike = len(set(map(tuple, layers.values()))) == 1
    said = []
    for axes, (when, moment) in zip(parts, MOMENTS.items(), strict=True):
        for label, values, style in styled(found, "marker", "ls"):
            now = values[moment]
            if np.isnan(now).any():  # not all layers took part then
                continue
            places = np.arange(len(now)) if alike else np.linspace(0, 1, len(now))
            axes.plot(places, now, lw=1.5, ms=5, label=label, **style)
            first, last, most = (format(value, form) for value in (now[0], now[-1], now.max()))
            course = f"{first} in the first layer, {last} in the last, at most {most}"
            said.append(f"{label}, {when}: {course}")
        tidy(axes, f"{title}, {when}")
    figure.supylabel(unit, size=10)
    parts[1].set_xlabel("layer, from the first (0) to the last (1)")
    if alike:
        names = [layer.removesuffix(".0") for layer in next(iter(layers.values()))]
        # without ".0": a shortcut is of one convolution
        parts[1].set_xticks(range(len(names)), names, rotation=90, size=9)
        parts[1].set_xlabel("layer, in the order in which an image passes them")
    legend_above(figure)
    return figure.described(f"Line charts by layer. {title}: {'; '.join(said)}.")


@remakable
def reaching(runs: Runs) -> Figure:
    """Which gradient reaches each layer, before the first update and at the last moment."""
    found = measured(runs, "gradient_norm")
    if not found:
        return nothing("The gradient by layer: " + UNMEASURED)
    values = {with_n(k, group): by_layer(group, "gradient_norm") for k, group in found.items()}
    layers = {label: group[0].layers["weights"] for label, group in found.items()}
    figure = _first_and_last(values, layers, "Gradient norm", GRADIENT, ".2g")
    for axes in figure.axes:
        for line in axes.lines:  # no gradient at all has no place on a log axis
            line.set_ydata(np.where(line.get_ydata() > 0, line.get_ydata(), np.nan))
        plain_log(axes)
    return figure


@remakable
def inactive(runs: Runs) -> Figure:
    """What share of each layer's outputs is saturated (sigmoid, tanh) or of its channels dead
    (ReLU), before the first update and at the last moment; see `measures`."""
    groups = {
        (label, kind): group
        for label in runs
        for kind in sorted(INACTIVE)
        for group in measured({label: runs[label]}, kind).values()
    }
    if not groups:
        return nothing("Dead and saturated units: " + UNMEASURED)
    values = {with_n(", ".join(names), of): by_layer(of, names[1]) for names, of in groups.items()}
    layers = {label: of[0].layers["activations"] for label, of in groups.items()}
    figure = _first_and_last(values, layers, "Inactive", "share of a layer's outputs", ".1%")
    figure.axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    return figure


@remakable
def reaching_words(runs: Runs) -> Text:
    """What of the gradient reaches the first layer, and what is saturated or dead."""
    lines = []
    for label, group in measured(runs, "gradient_norm").items():
        first = by_layer(group, "gradient_norm")[0]
        times = "no gradient reaches the last layer"
        if first[-1]:
            times = f"the gradient of the first layer is {brief(first[0] / first[-1])} times that"
            times += " of the last"
        line = f"**{label}:** before the first update {times} (n = {len(group)})"
        for kind, what in INACTIVE.items():
            if measured({label: group}, kind):
                values, layers = by_layer(group, kind), group[0].layers["activations"]
                if np.isnan(values[[0, -1]]).any():
                    continue
                line += (
                    f"; {of_all(values[0].mean())} of all {what} then and "
                    f"{of_all(values[-1].mean())} at the last moment (mean of the layers)"
                )
                if values[-1].any():
                    worst = values[-1].argmax()
                    line += f", most after {layers[worst]}, {of_all(values[-1, worst])}"
        lines.append(f"{line}.")
    return sentences(lines, runs, "gradient_norm")


def _steps(runs: Runs) -> dict[str, tuple[list[Run], tuple[np.ndarray, ...]]]:
    """Weight norm and relative update of the hidden layers, and the share of dead channels (NaN
    where no unit can die): medians of the seeds, `[moments]`, of each setting, with its runs."""
    found = {}
    for label, group in measured(runs, *STEPS).items():
        norm, update = (hidden(group, name) for name in STEPS)
        dead = np.full(len(norm), np.nan)
        if measured({label: group}, "dead"):
            dead = np.median(stacked(group, "dead").mean(2), axis=0)
        found[label] = group, (norm, update, dead)
    return found


@remakable
def steps(runs: Runs) -> Figure:
    """Weight norm, relative update and dead channels over training: medians over the hidden layers
    (dead: means over the layers) and the seeds."""
    found = _steps(runs)
    if not found:
        return nothing("Weight norm and relative update: " + UNMEASURED)
    titles = ("Weights", "Relative update", "Dead channels")
    titles = titles[: 2 + bool(measured(runs, *STEPS, "dead"))]
    wanted = {
        title: {
            with_n(label, group): (group[0].measure("update"), courses[place])
            for label, (group, courses) in found.items()
        }
        for place, title in enumerate(titles)
    }
    norm = f"norm of {hidden_layer(runs)}'s weights"
    figure = _over_training(wanted, (norm, UPDATE, "dead channels"))
    for axes in figure.axes[2:]:
        axes.set_yscale("linear")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


@remakable
def steps_words(runs: Runs) -> Text:
    """By how much the weights grow and the steps shrink, and how many channels die."""
    lines = []
    for label, (group, (norm, update, dead)) in _steps(runs).items():
        died = ""
        if np.isfinite(dead[-1]):
            died = f"; {of_all(dead[-1])} of the channels are dead at the end"
        layer = hidden_layer({label: group})
        lines.append(
            f"**{label}:** {layer}'s weights grow to {brief(norm[-1] / norm[0])} times their "
            f"first norm; the relative update goes from {of_all(update[0])} to "
            f"{of_all(update[-1])}{died} (median, n = {len(group)})."
        )
    return sentences(lines, runs, *STEPS)


@remakable
def identical(runs: Runs, fewest: int = 20) -> Text:
    """Confidences that `fewest` or more test answers of one network share to the last bit, and in
    how many of these nothing but the last layer's bias answers.

    Above 0.9999 float32 has so few numbers that answers share one by chance.
    """
    name = f"{RUNNING}_silent"
    groups = measured(runs, name)
    lines = []
    for (label, group), (statistics, words) in product(groups.items(), NAMES.items()):
        found, answers = [], set()
        for run in group:
            confidence = run.confidence(statistics)
            common = Counter(confidence[confidence < 0.9999].tolist()).most_common(1)
            if common and common[0][1] >= fewest:
                alike = confidence == np.float32(common[0][0])
                silent = run.measure(f"{statistics}_silent")[alike].sum()
                found.append([alike.sum(), run.right(statistics)[alike].sum(), silent])
                answers |= {run.classes[i] for i in run.predicted(statistics)[alike]}
        if not found:
            continue
        counts = [count for count, *_ in found]
        shared, right, silent = np.sum(found, 0).astype(int)
        span = " to ".join(dict.fromkeys(f"{end(counts):,}" for end in (min, max)))
        lines.append(
            f"**{label}, {words}:** in {len(found)} of {plural(len(group), 'network')} {span} of "
            f"{len(confidence):,} test answers share one confidence and answer “"
            f"{'” or “'.join(sorted(answers))}”, {right:,} of {shared:,} rightly. In "
            f"{'all' if silent == shared else f'{silent:,}'} of these every input of the last "
            "layer is exactly zero, so that its bias alone answers."
        )
    if groups and not lines:
        n = plural(sum(map(len, groups.values())), "network")
        lines = [f"No {fewest} test answers of any network share a confidence ({n} examined)."]
    return sentences(lines, runs, name)


def _clock(group: Sequence[Run], done: int | np.ndarray) -> float | np.ndarray:
    """Seconds of training until so many updates are done; of each epoch the runs' median."""
    seconds = np.median([run.history["seconds"] for run in group], axis=0)
    ends = np.arange(len(seconds) + 1) * group[0].iteration_loss.shape[1]
    return np.interp(done, ends, [0, *np.cumsum(seconds)])


def smoothed(losses: np.ndarray) -> np.ndarray:
    """The centred running mean of batch losses `[epochs, updates]` over a quarter of an epoch; the
    window shrinks at both ends."""
    window = max(3, losses.shape[1] // 4)
    return pd.Series(losses.ravel()).rolling(window, center=True, min_periods=1).mean().to_numpy()


@remakable
def progress(runs: Runs) -> Figure:
    """The running mean of the batch losses against epochs, updates and seconds of training: median
    of the seeds. The seconds are those of the device that the provenance names."""
    found = finite(runs)
    if not found:
        return nothing("Loss against epochs, updates and seconds: every run diverged.")
    figure, parts = panels(3.2, columns=3, sharey=True)
    said = []
    for label, group, style in styled(found, "ls"):
        # Smoothed first: the losses of batches are skewed, so their median lies below the mean.
        mean = np.median([smoothed(run.iteration_loss) for run in group], axis=0)
        losses, done = group[0].iteration_loss, np.arange(1, len(mean) + 1)
        clock, name = _clock(group, done), with_n(label, group)
        shown = np.unique(np.linspace(0, losses.size - 1, 200).astype(int))  # the eye sees no more
        for axes, places in zip(parts, (done / losses.shape[1], done, clock), strict=True):
            axes.plot(places[shown], mean[shown], lw=1.7, label=name, **style)
        said.append(f"{name}: {losses.size:,} updates in {clock[-1]:,.0f} seconds")
    for axes, unit in zip(parts, ("epochs", "updates", "seconds of training"), strict=True):
        plain_log(axes)
        tidy(axes, xlabel=unit, xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(plain)
    parts[0].set_ylabel("loss of a batch (nats)")
    legend_above(figure)
    return figure.described(
        "Line charts of the smoothed training loss against epochs, updates and seconds. "
        f"{'; '.join(said)}{at_once(runs)}."
    )


@remakable
def progress_words(runs: Runs, loss: float = 0.05) -> Text:
    """What it takes until the running mean of the batch losses first comes down to `loss` nats."""
    lines = []
    for label, group in finite(runs).items():
        reached = []
        for run in group:
            if (below := smoothed(run.iteration_loss) <= loss).any():
                done = int(below.argmax()) + 1
                reached.append((done / run.iteration_loss.shape[1], done, _clock([run], done)))
        if not reached:
            never = f"its running mean never comes down to {loss:g} nats"
            lines.append(f"**{label}:** {never} (n = {len(group)}).")
            continue
        epochs, updates, seconds = np.median(reached, axis=0)
        lines.append(
            f"**{label}:** its running mean comes down to {loss:g} nats after {brief(epochs)} "
            f"epoch{'s' * (brief(epochs) != '1')}, or {updates:,.0f} updates, or {seconds:,.0f} "
            f"seconds of training (median of {len(reached)} of {plural(len(group), 'run')})."
        )
    if shared := at_once(finite(runs)):
        lines.append(f"The seconds are those of training{shared}: a rough comparison.")
    return bullets(lines or ["Every run diverged."])


def noise_scale(group: Sequence[Run], chosen: slice | np.ndarray) -> float:
    """The simple noise scale in images over the chosen moments of all runs; NaN where the estimate
    of the gradient is not above zero, and so cannot tell."""
    square, variance = (
        stacked(group, name)[:, chosen].mean() for name in ("gradient_square", "gradient_variance")
    )
    return float(variance / square) if square > 0 else np.nan


@remakable
def noise(runs: Runs, window: int = 5) -> Figure:
    """The gradient noise scale over training, from `window` neighbouring moments of all seeds, and
    the batch sizes that were trained with."""
    found = measured(runs, "gradient_square")
    if not found:
        return nothing("The gradient noise scale: " + UNMEASURED)
    figure, (axes,) = panels(3.8)
    said, ends = [], {}
    for label, group, style in styled(found, "marker"):
        updates, images = group[0].measure("update"), group[0].config.batch_size
        scales = [
            noise_scale(group, slice(max(0, i - window // 2), i + window // 2 + 1))
            for i in range(len(updates))
        ]
        epochs = (updates + 1) / group[0].iteration_loss.shape[1]
        axes.plot(epochs, scales, lw=1.6, ms=4.5, label=with_n(label, group), **style)
        axes.axhline(images, color=style["color"], lw=1.2, ls=DASHED)
        ends[f"batch {images:,}"] = epochs[-1], images, style["color"]
        known = [scale for scale in scales if np.isfinite(scale)]
        span = f"{min(known):,.0f} to {max(known):,.0f} images" if known else "hidden by the noise"
        said.append(f"{with_n(label, group)} {span}")
    plain_log(axes, "xy")
    title = "Noise scale during training; dashed: the batch size used"
    tidy(axes, title, xlabel="epochs done", ylabel="gradient noise scale (images)")
    legend_above(figure)
    label_ends(axes, ends)
    return figure.described(f"Line chart of the gradient noise scale, log axes: {'; '.join(said)}.")


@remakable
def noise_words(runs: Runs) -> Text:
    """The noise scale beside the batch size, in the first 100 updates and in the second half."""
    lines = []
    for label, group in measured(runs, "gradient_square").items():
        updates, images = group[0].measure("update"), group[0].config.batch_size
        half = group[0].iteration_loss.size / 2
        parts = {"the first 100 updates": updates < 100, "the second half": updates >= half}
        for when, chosen in parts.items():
            if not chosen.any():
                continue
            scale = noise_scale(group, chosen)
            found = f"**{label}:** in {when} the noise"
            if np.isnan(scale):
                lines.append(f"{found} hides the gradient (n = {len(group)}).")
                continue
            each = [noise_scale([run], chosen) for run in group]
            spread = ""
            if len(group) > 1 and np.isfinite(each).all():
                spread = f", {min(each):,.0f} to {max(each):,.0f} by seed"
            lines.append(
                f"{found} scale is {scale:,.0f} images (n = {len(group)}{spread}): a batch of "
                f"{images:,} is {brief(images / scale)} times that."
            )
    return sentences(lines, runs, "gradient_square")
