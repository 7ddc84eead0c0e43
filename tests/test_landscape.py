"""More learning rates and batch sizes: which runs count, and what is said, on made-up runs."""

import numpy as np
import pytest
from helpers import diverged_run, made_up_run
from scipy import stats

from labkit import conclusions, landscape, plots
from labkit.core.config import SCALES, Config
from labkit.judge import original


def around(loss, *, seeds=3, **settings):
    """Runs of three epochs whose second has about this loss, and some wrong answers."""
    return [
        made_up_run(
            losses=(2.0, loss + 0.001 * seed, 9.0),
            wrong={(1, 2): 10 + seed},
            wrong_running={(1, 2): 30},
            seed=seed,
            **settings,
        )
        for seed in range(seeds)
    ]


RATES = {
    "lr 0.001": around(0.05, lr=0.001),
    "lr 0.01": around(0.0505, lr=0.01),
    "lr 0.1": around(0.15, lr=0.1),
    "lr 1": [diverged_run(lr=1.0)],
}


def test_the_originals_own_settings_are_the_reports_own_runs():
    for settings in (landscape.learning_rates(), landscape.batch_sizes()):
        for config in settings.values():
            usual = Config(**SCALES["paper"], lr=config.lr, batch_size=config.batch_size)
            own = original.section_of(config)
            assert config == (usual if own else usual.replace(epochs=landscape.EPOCHS))
    rates = [config.lr for config in landscape.learning_rates().values()]
    assert {0.01, 0.1} < set(rates) and np.allclose(np.diff(np.log10(rates)), 0.5, atol=0.03)
    sizes = [c.batch_size for c in landscape.batch_sizes().values() if c.lr == 0.01]
    assert sizes == [16, 64, 256, 1000, 1024, 4096]
    assert [landscape.scaled(size) for size in (16, 64, 256, 4096)] == [0.005, 0.01, 0.02, 0.08]


def test_points_are_those_after_the_second_epoch_whatever_the_runs_length():
    found = landscape.points(RATES, "lr")
    assert set(found["value"]) == {0.001, 0.01, 0.1}  # what diverged has none
    assert found["loss"].tolist()[:3] == pytest.approx([0.05, 0.051, 0.052])
    short = {"lr 0.003": [made_up_run(losses=(1.0,), lr=0.003)]}
    assert landscape.points(short, "lr").empty
    assert "Where the original" not in str(conclusions.landscape({"a": RATES["lr 0.001"]}, "lr"))
    by_size = landscape.points(
        {
            "a": around(0.1, batch_size=16),
            "b": around(0.2, batch_size=16, lr=0.005),
            "c": around(0.3, batch_size=64),
        },
        "batch_size",
    )
    counts = by_size.groupby(["line", "value"]).size().to_dict()
    assert counts == dict.fromkeys(
        [(line, size) for line in (landscape.FIXED, landscape.SCALED) for size in (16, 64)], 3
    )


def test_the_sentence_names_the_lowest_and_what_cannot_be_told_from_it():
    said = str(conclusions.landscape(RATES, "lr"))
    logs = np.log([[0.0505, 0.0515, 0.0525], [0.05, 0.051, 0.052]])
    p = stats.ttest_ind(*logs, equal_var=False).pvalue
    assert p > 0.05
    assert "of 3 values the learning rate 0.001, an end of the range, has the lowest" in said
    assert "training loss after 2 epochs, 0.0510 nats; 0.01 (1.01 times as high) cannot be" in said
    assert "cannot be told from it (Welch on ln(loss), 5 %, Holm; n = 3)" in said
    assert "0.01 has 1.01 times and 0.1 has 2.96 times this lowest loss" in said
    assert "lr 1, seed 0, diverged" in said
    single = str(conclusions.landscape({k: runs[:1] for k, runs in RATES.items()}, "lr"))
    assert "a single run each, no claim (n = 1)" in single and "cannot be told" not in single


def test_the_figure_marks_the_originals_points_and_says_the_numbers():
    figure = plots.landscape(RATES, "lr")
    losses, errors = figure.axes
    (diamonds,) = (line for line in losses.lines if line.get_label() == "original")
    assert diamonds.get_xydata().tolist() == [
        [0.01, original.section("1").epoch_loss[1]],
        [0.1, original.section("3.1").epoch_loss[1]],
    ]
    (mean,) = (line for line in errors.lines if line.get_label() == "here")
    assert mean.get_ydata() == pytest.approx([1.1] * 3)  # 10, 11 and 12 of 1,000 are wrong
    assert "loss 0.051 at 0.001, lowest 0.051 at 0.001, 0.151 at 0.1" in figure.alt
    assert "lr 1, seed 0, diverged" in figure.alt
