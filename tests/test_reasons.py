"""Figures and sentences on why, against the same worked out by hand from made-up measures."""

import dataclasses
import re

import numpy as np
import pytest
from helpers import diverged_run, made_up_run

from labkit import conclusions, plots, reasons
from labkit.core.measures import MEASURES

LAYERS = {
    "weights": ["conv1", "layer1.0.conv1", "layer1.0.conv2", "fc"],
    "activations": ["conv1", "layer1.0.conv1", "layer1.0.conv2"],
    "normalizations": ["bn1", "layer1.0.bn1", "layer1.0.bn2"],
}
UPDATES = np.array([0, 1, 3, 7], np.int32)  # of the eight of a made-up run
FIGURES = ("learning", "lag", "reaching", "inactive", "steps", "progress", "noise")
WORDS = (
    "learning_words",
    "reaching_words",
    "steps_words",
    "identical",
    "progress_words",
    "noise_words",
)
NEED_MEASURES = {*FIGURES, *WORDS} - {"progress", "progress_words"}


def measured_run(seed=0, activation="relu", **settings):
    """A run with measures that differ by seed, moment and layer."""
    run = made_up_run(seed=seed, activation=activation, **settings)
    chance = np.random.default_rng([seed, len(activation)])

    def drawn(axis):
        shape = (len(UPDATES), len(LAYERS[axis])) if axis else len(UPDATES)
        return chance.uniform(0.1, 1, shape).astype(np.float32)

    by_layer = ("gradient_norm", "weight_norm", "relative_update")
    measures = {name: drawn("weights") for name in by_layer}
    measures["dead" if activation == "relu" else "saturated"] = drawn("activations")
    measures |= {"lag": drawn("normalizations"), "update": UPDATES, "silenced": drawn(None)}
    measures |= {"gradient_square": drawn(None), "gradient_variance": 1000 * drawn(None)}
    silent = np.zeros(len(run.test_labels), np.uint8)
    measures |= {"recalibrated_silent": silent, "running_silent": silent}
    return dataclasses.replace(run, measures={**run.measures, **measures}, layers=LAYERS)


@pytest.fixture
def runs():
    return {
        "relu": [measured_run(seed) for seed in range(3)],
        "sigmoid": [measured_run(seed, "sigmoid") for seed in range(3)],
    }


def by_hand(group, name, layers=slice(None)):
    return np.array([run.measures[name][:, layers] for run in group], float)


@pytest.mark.parametrize("name", sorted(NEED_MEASURES - {"identical"}))
def test_a_run_without_its_first_moments_is_left_out(name, runs):
    """It went on from a checkpoint of before there were measures."""
    first, *others = runs["relu"]
    axes = {axis for axis, measure in MEASURES.items() if measure.axes[0] == "moments"}
    short = {k: array[2:] if k in axes else array for k, array in first.measures.items()}
    late = dataclasses.replace(first, measures=short)
    shown = getattr(reasons, name)({"relu": [late, *others]})
    expected = getattr(reasons, name)({"relu": others})
    if isinstance(shown, plots.Figure):
        assert shown.alt == expected.alt
    else:
        assert shown.markdown.startswith(expected.markdown)
        assert "1 run made before" in shown.markdown


@pytest.mark.parametrize("name", [*FIGURES, *WORDS])
def test_what_was_not_measured_is_said_and_never_guessed(name, runs):
    make = getattr(reasons, name)
    old, lost = made_up_run(recalibrated=False), diverged_run()
    for nothing in ({"old": [old]}, {"lost": [lost]}, {"old": [old], "lost": [lost]}):
        shown = make(nothing)
        said = shown.alt if isinstance(shown, plots.Figure) else shown.markdown
        if name in NEED_MEASURES:
            assert "no run at hand has measured it" in said.lower()
        assert "nan" not in re.findall(r"[a-z]+", said.lower())
    mixed = {"old": [old], **runs, "both": [*runs["relu"], made_up_run(recalibrated=False, seed=7)]}
    shown = make(mixed)
    if isinstance(shown, plots.Figure):
        assert shown.alt and shown._repr_mimebundle_()
    elif name in NEED_MEASURES:
        assert "2 runs made before labkit measured this" in shown.markdown
    assert isinstance(shown, plots.Figure | conclusions.Text)


def test_lines_are_medians_over_layers_and_seeds(runs):
    figure = reasons.learning(runs)
    for axes, name in zip(figure.axes, ("gradient_norm", "relative_update"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        assert list(lines) == ["conv1", "layer1", "fc"]
        for part, layers in (("conv1", [0]), ("layer1", [1, 2]), ("fc", [3])):
            expected = np.median(np.median(by_hand(runs["relu"], name, layers), axis=2), axis=0)
            assert np.allclose(lines[part].get_ydata(), expected)
            assert np.array_equal(lines[part].get_xdata(), UPDATES + 1)
    lag = reasons.lag(runs)
    assert [axes.get_title(loc="left") for axes in lag.axes] == ["relu (n = 3)", "sigmoid (n = 3)"]
    largest = np.median(by_hand(runs["sigmoid"], "lag", [1, 2]).max(2), axis=0)
    assert np.allclose(lag.axes[1].lines[1].get_ydata(), largest)


def test_by_layer_the_first_and_the_last_moment_are_drawn(runs):
    for name, measure in (("reaching", "gradient_norm"), ("inactive", None)):
        panels = getattr(reasons, name)(runs).axes
        for axes, moment in zip(panels, (0, -1), strict=True):
            for line, (label, group) in zip(axes.lines, runs.items(), strict=True):
                kind = measure or ("dead" if label == "relu" else "saturated")
                expected = np.median(by_hand(group, kind)[:, moment], axis=0)
                assert np.allclose(line.get_ydata(), expected)


def test_steps_leave_out_the_last_layer(runs):
    figure = reasons.steps(runs)
    convolutions = slice(0, 3)
    for axes, name in zip(figure.axes, ("weight_norm", "relative_update"), strict=False):
        expected = np.median(by_hand(runs["relu"], name, convolutions), axis=(0, 2))
        assert np.allclose(axes.lines[0].get_ydata(), expected)
    dead = np.median(by_hand(runs["relu"], "dead").mean(2), axis=0)
    assert np.allclose(figure.axes[2].lines[0].get_ydata(), dead)
    norm = np.median(by_hand(runs["relu"], "weight_norm", convolutions), axis=(0, 2))
    said = reasons.steps_words(runs).markdown.splitlines()[0]
    assert f"grow to {float(f'{norm[-1] / norm[0]:.2g}'):g} times" in said and "n = 3" in said


def test_the_words_name_the_largest_and_the_smallest(runs):
    gradient = by_hand(runs["relu"], "gradient_norm")
    parts = {"conv1": [0], "layer1": [1, 2], "fc": [3]}
    first = {
        name: np.median(np.median(gradient[:, 0, columns], axis=1))
        for name, columns in parts.items()
    }
    most, least = max(first, key=first.get), min(first, key=first.get)
    said = reasons.learning_words(runs).markdown.splitlines()[0]
    assert (
        f"largest in {most}, {float(f'{first[most] / first[least]:.2g}'):g} times that in {least}"
        in said
    )
    share = np.median(by_hand(runs["sigmoid"], "saturated"), axis=0)
    said = reasons.reaching_words(runs).markdown.splitlines()[1]
    assert f"{100 * share[0].mean():.0f} % of all outputs are saturated then" in said
    assert f"{100 * share[-1].mean():.0f} % at the last moment" in said


def test_numbers_are_written_with_two_digits_and_no_exponent():
    values = {
        482.3: "480",
        4823: "4,800",
        0.7899: "0.79",
        24.4: "24",
        3.04: "3",
        0.000123: "0.00012",
    }
    assert {value: reasons.brief(value) for value in values} == values
    assert reasons.brief(0) == "0"


def test_the_noise_scale_is_a_ratio_of_means():
    group = [measured_run(seed, losses=(1.0,) * 40) for seed in range(2)]
    updates = np.array([0, 50, 79, 120], np.int32)  # of 160
    square = np.array([[1, 2, 3, 5], [3, 2, 1, 15]], np.float32)
    variance = np.array([[100, 300, 500, 1000], [100, 100, 100, 3000]], np.float32)
    for run, s, v in zip(group, square, variance, strict=True):
        run.measures.update(update=updates, gradient_square=s, gradient_variance=v)
    said = reasons.noise_words({"relu": group}).markdown
    assert "in the first 100 updates the noise scale is 100 images (n = 2, 50 to 150" in said
    assert "a batch of 64 is 0.64 times that" in said
    assert "in the second half the noise scale is 200 images (n = 2, 200 to 200" in said
    line = reasons.noise({"relu": group}, window=1).axes[0].lines[0]
    assert np.allclose(line.get_ydata(), variance.sum(0) / square.sum(0))
    assert np.allclose(line.get_xdata(), (updates + 1) / 4)
    for run in group:
        run.measures["gradient_square"] = -run.measures["gradient_square"]
    assert reasons.noise_words({"relu": group}).markdown.count("noise hides the gradient") == 2


def test_identical_confidences_are_counted_and_explained(runs):
    run = runs["relu"][1]
    confidence, predicted = run.test_confidence.copy(), run.test_predicted.copy()
    alike = np.arange(300, 350)  # fifty threes
    confidence[alike], predicted[alike[:8]] = 0.75, 8
    silent = np.zeros(len(confidence), np.uint8)
    silent[alike[:30]] = 1
    changed = dataclasses.replace(
        run,
        test_confidence=confidence,
        test_predicted=predicted,
        measures=run.measures | {"running_silent": silent},
    )
    said = reasons.identical({"relu": [runs["relu"][0], changed]}).markdown
    assert said.count("\n") == 0 and "**relu, by running averages:** in 1 of 2 networks" in said
    assert "50 of 1,000 test answers share one confidence and answer “3” or “8”, 42 of 50" in said
    assert "rightly. In 30 of these every input of the last layer" in said
    silent[alike] = 1
    assert "rightly. In all of these every" in reasons.identical({"relu": [changed]}).markdown
    assert "(6 networks examined)" in reasons.identical(runs).markdown


def test_three_clocks_show_the_same_losses():
    losses = tuple(np.geomspace(1, 0.01, 10))
    group = [made_up_run(losses=losses, seed=seed) for seed in range(2)]
    figure = reasons.progress({"base": group})
    ends = [axes.lines[0].get_xdata()[-1] for axes in figure.axes]
    assert ends == [10, 40, 20]  # epochs of four updates and two seconds
    assert len({tuple(axes.lines[0].get_ydata()) for axes in figure.axes}) == 1
    # Of runs that each have one high loss at another time the mean is shown, not the low losses.
    short, spikes = made_up_run(losses=(0.1,)), np.full((3, 1, 12), 0.01)
    spikes[range(3), 0, (4, 5, 6)] = 1
    spiky = [dataclasses.replace(short, iteration_loss=of) for of in spikes]
    shown = reasons.progress({"base": spiky}).axes[0].lines[0].get_ydata()
    assert max(shown) == pytest.approx(np.mean([0.01, 0.01, 1]))
    said = reasons.progress_words({"base": group}, loss=0.05).markdown
    epochs = float(re.search(r"after ([\d.]+) epochs", said).group(1))
    below = next(i for i, loss in enumerate(losses) if loss <= 0.05)
    assert below <= epochs <= below + 1 and "median of 2 of 2 runs" in said
    assert "never comes down" in reasons.progress_words({"base": group}, loss=0.001).markdown
