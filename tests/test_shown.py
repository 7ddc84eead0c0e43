"""Tables, figures and sentences: what they say, checked against runs made up by hand."""

import base64
import dataclasses
import io
import itertools
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from bs4 import BeautifulSoup
from helpers import diverged_run, made_up_run
from PIL import Image
from scipy import stats as scipy_stats

from labkit import conclusions, gallery, plots, reasons, tables, vary
from labkit.core.config import Config
from labkit.core.values import ConfigError
from labkit.judge import original, recipes, stats
from labkit.show.figure import THEMES, spread
from labkit.show.remake import MIME, runs_in
from labkit.store.folder import Store

PAIR = {
    "lr 0.01": [made_up_run(losses=(1.0, 0.5), wrong={(2, 7): 3, (7, 2): 1})],
    "lr 0.1": [made_up_run(losses=(2.0, 0.4), wrong={(8, 3): 50}, lr=0.1)],
}
SEEDS = {
    "lr 0.01": [
        made_up_run(losses=(1.0, loss), wrong={(1, 2): wrong}, seed=seed)
        for seed, (loss, wrong) in enumerate([(0.5, 2), (0.6, 3), (0.7, 4)])
    ],
    "lr 0.1": [
        made_up_run(losses=(1.0, loss), wrong={(1, 2): wrong}, seed=seed, lr=0.1)
        for seed, (loss, wrong) in enumerate([(1.5, 12), (1.65, 13), (1.7, 15)])
    ],
}


def flat(text: object) -> str:
    return str(text).replace("\u00a0", " ")


def test_epochs_stand_beside_the_originals():
    frame = tables.epochs(PAIR).frame
    assert frame["lr 0.1", "here"].dropna().tolist() == [2.0, 0.4]
    assert tuple(frame["lr 0.1", "original"]) == original.SECTIONS[3].epoch_loss
    assert frame.index.tolist() == list(range(10))
    several = tables.epochs(SEEDS).frame
    assert several["lr 0.01", "here"][1] == pytest.approx(0.6)


def test_per_class_has_counts_intervals_and_the_originals_table():
    frame = tables.per_class(PAIR, "test").frame
    assert frame.loc["8", ("lr 0.1", "accuracy %")] == 50
    low, high = stats.wilson(97, 100)
    row = frame.loc["2", "lr 0.01"]
    assert (row["low"], row["high"]) == pytest.approx((100 * low, 100 * high))
    assert frame.loc["total", ("lr 0.01", "accuracy %")] == pytest.approx(99.6)
    assert frame.loc["total", ("", "images")] == 1000
    assert frame.loc["8", ("lr 0.01", "original %")] == 99.90
    assert frame.loc["total", ("lr 0.01", "original %")] == pytest.approx(99.05)
    several = tables.per_class(SEEDS, "test")
    row = several.frame.loc["1", "lr 0.01"]
    assert (row["accuracy %"], row["low"], row["high"]) == (97, 96, 98)
    assert "lowest and highest seed" in several.caption


def test_summary_work_and_mistakes_by_hand():
    row = tables.summary(PAIR).frame.loc["lr 0.1"]
    assert row["recalibrated", "test %"] == 95 and row["here", "last loss"] == 0.4
    assert row["original", "test %"] == pytest.approx(93.8)
    # 950 of 1,000 by np.sqrt(0.95 · 0.05 / 1000); over the seeds 98.8, 98.7, 98.5.
    assert row["recalibrated", "± images"] == pytest.approx(0.6892024)
    assert np.isnan(row["recalibrated", "± seeds"])
    several = tables.summary(SEEDS).frame.loc["lr 0.1"]
    assert several["recalibrated", "± seeds"] == pytest.approx(np.std([98.8, 98.7, 98.5], ddof=1))
    work = tables.work(PAIR).frame.loc["lr 0.01"]
    assert (work["updates per epoch"], work["updates in all"]) == (4, 8)
    pairs = tables.confused_pairs(PAIR["lr 0.01"]).frame.reset_index()
    assert pairs[["true", "taken for", "times", "the other way"]].values.tolist() == [
        [2, 7, 3, 1],
        [7, 2, 1, 3],
    ]


def test_tables_show_a_dash_for_what_is_missing_and_name_their_records():
    sigmoid = {"sigmoid": [made_up_run(activation="sigmoid")]}
    assert "–" in repr(tables.summary(sigmoid)) and "nan" not in repr(tables.summary(sigmoid))
    shown = tables.provenance(PAIR)._repr_mimebundle_()
    assert [run["run"] for run in runs_in(shown[MIME])] == [
        PAIR["lr 0.01"][0].digest,
        PAIR["lr 0.1"][0].digest,
    ]
    assert shown["text/html"].count("<tr") == 3
    assert "<caption " in shown["text/html"]


def test_layers_add_up():
    frame = tables.layers(Config()).frame
    parts = frame.iloc[:-1]
    assert parts["parameters"].sum() == frame.loc["total", "parameters"] == 11_175_370
    assert "18 weighted layers" in tables.layers(Config()).caption


def test_whether_the_original_lies_in_our_range():
    around = original.SECTIONS[0].epoch_loss
    low = made_up_run(losses=tuple(0.9 * loss for loss in around), seed=0)
    high = made_up_run(losses=(*tuple(1.1 * loss for loss in around[:9]), 0.02), seed=1)
    runs = {"baseline": [low, high]}
    inside = tables.epochs(runs).frame["baseline", "inside"]
    assert inside.tolist() == ["yes"] * 9 + ["above"]
    assert tables.per_class(runs).frame["baseline", "inside"].eq("below").all()


def test_the_original_beside_one_more_run_of_ours():
    """Each value against the interval mean ± t · s · √(1 + 1/n) of what was found at its place."""
    around = np.array(original.SECTIONS[0].epoch_loss)
    courses = [(*(around[:9] * scale), 0.001 * scale) for scale in (0.9, 1.1, 1.0)]
    runs = {"baseline": [made_up_run(losses=c, seed=s) for s, c in enumerate(courses)]}
    beside = tables.beside(runs).frame.set_index("of the original")
    row = beside.loc["loss by epoch"]
    assert row[["values", "inside", "above", "below"]].tolist() == [10, 9, 1, 0]
    logs = np.log(courses)
    t = scipy_stats.t(2)

    def p_of(values, theirs):
        return 2 * t.sf(abs(theirs - values.mean()) / (values.std(ddof=1) * np.sqrt(4 / 3)))

    places = [p_of(logs[:, i], np.log(around[i])) for i in range(10)]
    p = min(1, 2 * min(p_of(logs.mean(1), np.log(around).mean()), 10 * min(places)))
    assert row["p"] == stats.p_words(p).removeprefix("p ").removeprefix("= ")
    # All digits are always right here: no spread, and so no interval.
    assert beside.loc["test accuracy, recalibrated", "values"] == 0
    assert beside.loc["iterations of epoch 1", "values"] == 0  # these runs have 4 per epoch
    assert "too few" in flat(conclusions.ours({"a": runs["baseline"][:1]})).lower()
    assert "one of ours? It may be.** Of 2 curves and tables 0" in flat(conclusions.ours(runs))


def test_convergence_hardest_and_changed_by_hand():
    runs = {
        "a": [made_up_run(losses=(1.0, 0.1), wrong={(1, 2): n}, seed=n) for n in (1, 2, 3)],
        "b": [
            made_up_run(losses=(0.1, 0.01), wrong={(1, 2): n}, lr=0.1, seed=seed)
            for seed, n in ((1, 0), (2, 0), (3, 9))
        ],
    }
    row = tables.convergence(runs, losses=[0.1, 0.01]).frame
    assert row.loc["a", ("mean ln loss", "mean")] == pytest.approx(np.log(0.1) / 2)
    assert row.loc["a", "to a loss of 0.1"].tolist() == [2, 8, 4.0]  # epochs, updates, seconds
    assert row.loc["b", "to a loss of 0.1"].tolist() == [1, 4, 2.0]
    assert row.loc["a", "to a loss of 0.01"].isna().all()
    hard = tables.hardest(runs).frame
    assert hard.index.tolist()[:3] == [100, 101, 102] and len(hard) == 9
    assert hard.loc[100, ["true", "wrong in", "taken for", "a", "b"]].tolist() == [
        1, 4, "2 (4×)", "3 of 3", "1 of 3",
    ]  # fmt: skip
    assert (
        "991 of 1,000 images are right in every run, 0 wrong in every"
        in tables.hardest(runs).caption
    )
    # Wrong in at least two of three runs: images 100 and 101 with a, none with b.
    assert tables.changed(runs).frame.loc["b"].tolist() == [998, 0, 2, 0, "", "100, 101"]
    assert tables.changed(runs, most=1).frame.loc["b"].iloc[-1] == "100, …"


@pytest.mark.parametrize("runs", [PAIR, SEEDS], ids=["one seed", "three seeds"])
@pytest.mark.parametrize(
    "draw",
    [
        plots.loss_by_iteration,
        plots.loss_by_epoch,
        plots.accuracy_by_epoch,
        plots.accuracy_by_class,
        plots.confusion,
        plots.calibration,
    ],
)
def test_figures_have_labels_alt_text_and_no_clipped_text(draw, runs):
    figure = draw(runs)
    assert len(figure.alt) > 60 and "lr 0.1" in figure.alt and "n = " in figure.alt
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert any(axes.get_ylabel() for axes in figure.axes)
    bundle, meta = figure._repr_mimebundle_()
    assert meta["image/svg+xml"]["alt"] == figure.alt == bundle["text/plain"]
    figure.draw_without_rendering()  # saving laid it out for another resolution
    edges, places = figure.bbox, {}
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    of_axes = [(a.xaxis.label, a.yaxis.label, a._left_title, *a.texts) for a in figure.axes]
    for text in (*figure.texts, *legends, *itertools.chain(*of_axes)):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert edges.x0 - 1 <= box.x0 and box.x1 <= edges.x1 + 1, text.get_text()
            assert not any(box.overlaps(other) for other in places.values()), text.get_text()
            places[text] = box


def test_a_figure_is_an_svg_element_that_can_stand_beside_others():
    figures = [plots.loss_by_epoch(PAIR), plots.loss_by_epoch(SEEDS), plots.confusion(PAIR)]
    svgs = [figure.svg() for figure in figures]
    assert svgs[0] == plots.loss_by_epoch(PAIR).svg() != svgs[1]
    ids = {}
    for figure, text in zip(figures, svgs, strict=True):
        root = ElementTree.fromstring(text)
        assert root.get("data-matplotlib") == matplotlib.__version__ and len(text) < 60_000
        assert root.get("aria-label") == figure.alt
        assert int(root.get("width")) == round(100 * figure.get_figwidth())
        assert not re.search(r"<\?|<!|<style|xlink|metadata|DejaVu| d=\"[^\"]*\.\d{3}", text)
        for part in root.iter():
            if name := part.get("id"):  # what two figures define alike is alike
                assert f"#{name}" in text
                assert ids.setdefault(name, ElementTree.tostring(part)) == ElementTree.tostring(
                    part
                )
    said = "".join(ElementTree.fromstring(svgs[0]).itertext())
    assert "lr 0.1, original" in said and "mean loss of the epoch (nats)" in said
    for variable, color in re.findall(r"var\(--(\w+), (#\w+)\)", "".join(svgs)):
        assert THEMES["light"][variable] == color
    bare = set(re.findall(r"(?<!, )#[0-9a-f]{6}", "".join(svgs[:2])))
    assert not bare  # only cells of heatmaps, and what is written on them, keep their colours


def luminance(color):
    channels = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_colours_stand_out_on_their_paper(theme):
    colors = dict(THEMES[theme])
    paper, grid = colors.pop("paper"), colors.pop("grid")
    assert colors.keys() == {
        *("ink", "soft", "holds", "fails", "undecided"),
        *(f"c{n}" for n in range(7)),
    }
    for name, color in colors.items():  # labels are written in those of lines, too
        assert contrast(color, paper) >= 4.5, name
    assert contrast(grid, paper) > 1.2 and len({*colors.values(), paper, grid}) == 14


def test_letters_stand_out_on_their_cell_of_a_heatmap():
    for figure in (plots.confusion(SEEDS), plots.confusion_difference(SEEDS)):
        cells = figure.axes[0].collections[0]
        fills = cells.to_rgba(np.ravel(cells.get_array()))
        for text, fill in zip(figure.axes[0].texts, fills, strict=False):
            assert contrast(text.get_color(), fill[:3]) >= 4.5


def test_labels_are_spread_as_far_as_they_must_and_no_farther():
    assert spread([3.0, 1.0, 2.0], 0.5).tolist() == [3, 1, 2]
    assert spread([1.0, 1.0, 5.0], 1).tolist() == [0.5, 1.5, 5]
    assert np.diff(np.sort(spread([0.2, 0.21, 0.22, 0.9], 0.1))).min() >= 0.1 - 1e-12


def test_loss_by_epoch_draws_the_runs_and_the_original_dashed():
    axes = plots.loss_by_epoch(PAIR).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["lr 0.1"].get_ydata()) == [2.0, 0.4]
    dashed = [line for line in axes.lines if line.get_label() == "original"][-1]
    assert tuple(dashed.get_ydata()) == original.SECTIONS[3].epoch_loss
    assert dashed.get_linestyle() != "-" and lines["lr 0.1"].get_linestyle() == "-"
    named = [text.get_text() for text in axes.texts]
    assert named == ["lr 0.01 (n = 1)", "lr 0.01, original", "lr 0.1 (n = 1)", "lr 0.1, original"]


def test_batch_losses_are_binned_by_quantiles_over_all_seeds():
    run = made_up_run(losses=(1.0,) * 10)
    group = [
        dataclasses.replace(run, iteration_loss=np.full((10, 4), k, np.float32))
        for k in range(1, 12)
    ]
    found = plots.binned(group)
    assert len(found) <= 60 and (found[[0.1, 0.5, 0.9]] == [2, 6, 10]).all(None)
    assert found["epoch"].iloc[0] == pytest.approx(1 / 4)
    assert found["epoch"].iloc[-1] <= 10 and found["epoch"].is_monotonic_increasing


def test_errors_by_class_are_a_dot_per_seed_and_a_diamond_for_the_original():
    lines = {line.get_label(): line for line in plots.accuracy_by_class(SEEDS).axes[0].lines}
    x, y = lines["lr 0.1 (n = 3)"].get_data()
    assert y.reshape(3, 11)[:, 1] == pytest.approx([12, 13, 15]) and len(set(x)) == 11
    assert y.reshape(3, 11)[:, -1] == pytest.approx([1.2, 1.3, 1.5])
    theirs = lines["original"].get_ydata()
    assert theirs[-1] == pytest.approx(100 - original.SECTIONS[3].test.total_percent)


def test_confusion_writes_every_mistake_and_leaves_zeros_blank():
    texts = [t.get_text() for t in plots.confusion(PAIR).axes[0].texts]
    assert sorted(t for t in texts if t and "." not in t and t != "100") == ["1", "3"]
    assert texts.count("100") == 8 and "97.0" in texts and "99.0" in texts
    assert len([t for t in texts if t]) == 12


def test_every_point_of_a_line_has_its_values_at_its_place():
    root = ElementTree.fromstring(plots.loss_by_epoch(SEEDS).svg())
    rings = [part for part in root.iter() if part.tag.endswith("circle")]
    where = {ring[0].text: (float(ring.get("cx")), float(ring.get("cy"))) for ring in rings}
    assert f"lr 0.1, epoch 1: {np.mean([1.5, 1.65, 1.7]):.3g} nats" in where
    assert f"original, epoch 9: {original.SECTIONS[0].epoch_loss[9]:.3g} nats" in where
    seeds = [where[f"lr 0.1, epoch 1: {loss:.3g} nats"] for loss in (1.5, 1.65, 1.7)]
    assert len({x for x, _ in seeds}) == 1
    (_, low), (_, middle), (_, high) = seeds  # on a log axis, downwards
    assert (low - middle) / (low - high) == pytest.approx(
        np.log(1.65 / 1.5) / np.log(1.7 / 1.5), abs=0.1
    )
    digits = plots.accuracy_by_class(PAIR).svg()
    assert "<title>lr 0.01 (n = 1), digit 2: 3 %</title>" in digits
    assert "<title>lr 0.1 (n = 1), digit total: 5 %</title>" in digits


def test_two_settings_at_once_are_a_heat_map():
    settings = vary(Config(epochs=2), lr=[0.01, 0.1], batch_size=[64, 100])
    losses = dict(zip(settings, (0.4, 0.3, 0.2, 0.1), strict=True))
    runs = {
        label: [
            made_up_run(losses=(1.0, losses[label] + x), lr=config.lr, batch_size=config.batch_size)
            for x in (0.0, 0.02)
        ]
        for label, config in settings.items()
    }
    cells = np.asarray(plots.grid(runs).axes[0].collections[0].get_array()).reshape(2, 2)
    assert cells == pytest.approx(np.array([[0.41, 0.31], [0.21, 0.11]]))
    runs["learning rate 0.1"] = [diverged_run(lr=0.1)]
    figure = plots.grid(runs)
    assert "learning rate 0.1 (n = 1): diverged" in figure.alt
    assert "baseline (n = 2): 0.41" in figure.alt
    assert "the runs differ in lr, and not in two settings" in plots.grid(PAIR).alt
    with pytest.raises(ConfigError, match="measure is 'speed'; it must be one of loss, error"):
        plots.grid(runs, "speed")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: tables.summary(PAIR["lr 0.1"][0]),
            "runs is a Run; it must be the runs by setting",
        ),
        (lambda: tables.summary({}), "runs is {}; it must be the runs by setting"),
        (lambda: plots.loss_by_epoch({"a": PAIR["lr 0.1"][0]}), "runs is a dict; it must be"),
        (lambda: tables.confused_pairs({"a": []}), "it must be the runs of one setting as a list"),
        (
            lambda: tables.per_class(PAIR, split="validation"),
            "split is 'validation'; it must be one",
        ),
        (lambda: conclusions.printed("3.3"), "section is '3.3'; it must be one of 1, 2.1"),
        (lambda: conclusions.claim(9, PAIR), "claim is 9; it must be"),
    ],
)
def test_what_is_shown_says_what_it_wants(call, said):
    with pytest.raises(ConfigError) as caught:
        call()
    assert said in str(caught.value)


def test_smoothed_losses_are_a_centred_mean_over_a_quarter_of_an_epoch():
    values = np.array([0.0, 3.0, 6.0, 9.0, 12.0])
    assert reasons.smoothed(values[None]).tolist() == [1.5, 3, 6, 9, 10.5]
    assert reasons.smoothed(np.arange(40.0)[None])[20] == np.mean(range(15, 25))


def test_the_gallery_has_every_mistake_under_what_it_was_taken_for():
    wrong = [{(2, 7): 3, (4, 9): 5}, {(2, 7): 1}]
    group = [made_up_run(wrong=mistakes, seed=seed) for seed, mistakes in enumerate(wrong)]
    images = np.arange(1000, dtype=np.uint32).view(np.uint8).reshape(1000, 4)[:, :1]
    images = np.repeat(images, 784, axis=1).reshape(1000, 1, 28, 28)
    soup = BeautifulSoup(gallery.mistakes(group, images).html, "html.parser")
    parts = soup.find_all("div", id=re.compile("-"))
    assert [part["id"] for part in parts] == ["mistakes-4-9", "mistakes-2-7"]
    for part, (digit, answer) in zip(parts, ((4, 9), (2, 7)), strict=True):
        expected = {
            int(i)
            for run in group
            for i in np.flatnonzero((run.test_labels == digit) & (run.predicted() == answer))
        }
        assert {int(p["alt"].split()[-1]) for p in part("img")} == expected
    first = parts[1].img  # the one that both runs got wrong
    assert first["alt"].startswith("2 taken for 7 in 2 runs: image ")
    shown = Image.open(io.BytesIO(base64.b64decode(first["src"].partition(",")[2])))
    assert (255 - np.asarray(shown) == images[int(first["alt"].split()[-1])]).all()
    without = gallery.mistakes(group, None)
    assert re.sub('src="[^"]*"', 'src=""', gallery.mistakes(group, images).html) == without.html
    links = re.findall('href="#(mistakes[^"]*)"', plots.confusion({"a": group}, linked=True).svg())
    assert sorted(links) == ["mistakes-2-7", "mistakes-4-9"]
    with pytest.raises(ValueError, match="10 images for 1000 answers"):
        gallery.mistakes(group, images[:10])


def test_the_difference_of_two_confusions_is_by_run():
    figure = plots.confusion_difference(SEEDS)
    values = figure.axes[0].collections[0].get_array()
    expected = np.zeros((10, 10))
    expected[1, 2] = 40 / 3 - 9 / 3
    assert np.asarray(values).reshape(10, 10) == pytest.approx(expected)
    assert "in all +10.3; most for 1 taken for 2, +10.3" in figure.alt


def test_distances_of_recipes_are_dots_on_an_axis_of_factors():
    def recipe(factor, seed=0, **changes):
        return [
            made_up_run(
                losses=tuple(factor * loss for loss in section.epoch_loss),
                seed=seed,
                **changes,
                activation=section.activation,
                lr=section.lr,
                batch_size=section.batch_size,
            )
            for section in map(original.section, recipes.EPOCHS)
        ]

    far = recipe(2, optimizer="sgd")
    near = [recipe(1.1, seed=0), recipe(1.2, seed=1)]
    figure = plots.recipe_distances({"a": far, "b": [run for group in near for run in group]})
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Adam (default)", "SGD"]
    typical = np.exp(np.sqrt((np.log(1.1) ** 2 + np.log(1.2) ** 2) / 2))
    dots = [line.get_xdata()[0] for line in axes.lines]
    assert dots == pytest.approx([typical, 2]) and axes.get_xlim()[0] == 1
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the nearest on top
    (span,) = axes.collections[0].get_segments()
    assert span[:, 0] == pytest.approx([1.1, 1.2])
    assert "Adam 1.16; SGD 2.00" in figure.alt and "n = 1 to 2" in figure.alt
    curves = plots.recipe_curves({"a": far, "b": near[0]})
    assert [axes.get_title(loc="left") for axes in curves.axes if axes.axison] == [
        original.section(number).name for number in recipes.EPOCHS
    ]
    assert "nearest over all is Adam." in curves.alt


def test_calibration_draws_how_often_answers_are_wrong():
    run = made_up_run(wrong={(0, 1): 20})  # the least sure: the first 20 of 1,000
    line = plots.calibration({"a": [run]}, fewest=20).axes[0].lines[0]
    x, y = line.get_data()
    # 1,000 halved until 32 are left; the halves without a mistake have only an upper bound.
    assert y.tolist() == pytest.approx([100 * 20 / 32]) and 48 < x[0] < 50
    bounds = plots.calibration({"a": [run]}, fewest=20).axes[0].lines[1].get_ydata()
    assert bounds[0] == pytest.approx(100 * stats.wilson(0, 500)[1])
    assert "2.00\u00a0% wrong" in plots.calibration({"a": [run]}).alt


def test_the_iteration_log_stands_on_our_range():
    run = made_up_run(losses=(1.0, 0.5, 0.1), dataset="mnist")
    long = np.repeat(np.float32([1.0, 0.5, 0.1])[:, None], 938, axis=1)
    runs = [dataclasses.replace(run, iteration_loss=long * k) for k in (0.1, 1)]
    figure = plots.iterations(runs)
    inside = sum(0.05 <= loss <= 0.5 for loss in original.EXCERPTS[0].losses)
    assert f"inside the range: {inside} of 28 in epoch 1, 3 of 3 in epoch 2" in figure.alt
    assert "have no such iteration" in plots.iterations([made_up_run(dataset="mnist")]).alt
    other = dataclasses.replace(runs[0], config=Config(dataset="mnist-5k", epochs=3))
    assert "have no such iteration" in plots.iterations([other]).alt
    assert "other images" in str(conclusions.excerpt(other))
    assert "(n = 1) has a mean of 0.0500 nats" in str(conclusions.excerpt(runs[0]))


def test_the_drawing_has_every_block_and_shortcut_of_the_model():
    figure = plots.architecture(Config())
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts.count("conv 3×3") == 16
    assert texts.count("+") == 8
    assert texts.count("1×1, /2") == 3
    assert {"conv1", "layer1", "layer2", "layer3", "layer4"} <= set(texts)
    without = plots.architecture(Config(max_pool=False))
    assert not any("max-pool" in t.get_text() for t in without.axes[0].texts)


def test_loss_names_the_leader_by_epoch_and_makes_no_claim_on_one_run():
    said = flat(conclusions.loss(PAIR))
    assert "lr 0.01 in epoch 0, then lr 0.1 in epoch 1" in said
    assert "lowest mean first: lr 0.1 (0.4000), lr 0.01 (0.5000) nats" in said
    assert "n = 1: one run per setting, no claim" in said


def test_two_single_runs_are_two_networks_and_prove_nothing():
    said = flat(conclusions.compare(PAIR))
    assert "95.00 % against 99.60 % of 1,000" in said
    assert "Only lr 0.1 is right on 4, only lr 0.01 on 50" in said
    assert "compares two trained networks, not two settings" in said


def test_several_seeds_are_compared_by_welchs_test():
    said = flat(conclusions.loss(SEEDS))
    losses = [[run.history["loss"].iloc[-1] for run in SEEDS[label]] for label in SEEDS]
    test = scipy_stats.ttest_ind(*losses[::-1], equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert f"({low:+.3g} to {high:+.3g}, {stats.p_words(test.pvalue)}, n = 3)" in said
    assert "lr 0.1 is higher" in said and "n = 1" not in said
    said = flat(conclusions.compare(SEEDS))
    assert "test accuracy, recalibrated**: −1.03 points (" in said and "lr 0.1 is lower." in said
    noisy = {
        "a": [made_up_run(losses=(0.5,), seed=0), made_up_run(losses=(0.7,), seed=1)],
        "b": [
            made_up_run(losses=(0.6,), seed=0, lr=0.1),
            made_up_run(losses=(0.5,), seed=1, lr=0.1),
        ],
    }
    assert "undecided (n = 2); about n = " in flat(conclusions.loss(noisy))


def test_the_originals_own_counts():
    assert "consistent with chance" in flat(conclusions.printed("3.2"))
    assert ": more than chance" in flat(conclusions.printed("3.1"))


def test_the_excerpt_is_not_from_the_listed_training():
    said = flat(conclusions.excerpt(made_up_run(dataset="mnist")))
    assert "their mean is 0.0662" in said or re.search(r"their mean is 0\.06\d\d nats", said)
    assert "one of the two is misprinted, or they come from different training runs" in said
    assert "too few to reach it" in said
    assert "at 0.020056, its sentence at 0.20056: 10 times as much" in said


@pytest.mark.parametrize(
    ("config", "smoke", "said"),
    [
        (Config(epochs=5), False, "Quick scale, not the original's"),
        (Config(dataset="mnist", epochs=10), False, "Paper scale"),
        (Config(dataset="mnist", epochs=9), False, "Own settings, not the original's"),
        (Config(dataset="mnist", epochs=10), True, "its numbers mean nothing"),
    ],
)
def test_every_scale_is_named(config, smoke, said):
    assert said in flat(conclusions.scale(config, 1, smoke))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good"), ("bad",)])
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_that_diverged_is_shown_as_such_everywhere(order, seeds, tmp_path):
    all_runs = {
        "good": [made_up_run(wrong={(1, 2): 3}, seed=seed) for seed in range(seeds)],
        "bad": [diverged_run(lr=10, seed=seed) for seed in range(seeds)],
    }
    runs = {label: all_runs[label] for label in order}
    said = "bad, seed 0, diverged at epoch 0, iteration 3"
    for table in (tables.epochs(runs), tables.per_class(runs), tables.summary(runs)):
        assert said in flat(table) and "nan" not in repr(table)
    tables.work(runs), tables.provenance(runs), tables.confused_pairs(runs["bad"])
    assert tables.per_class(runs).frame.loc["total", ("bad", "accuracy %")] != 0
    for draw in (plots.loss_by_iteration, plots.loss_by_epoch, plots.accuracy_by_epoch):
        figure = draw(runs)
        assert "diverge" in figure.alt and "nan" not in figure.alt
        figure.draw_without_rendering()
    plots.confusion(runs).draw_without_rendering()
    assert "0 mistakes" in repr(gallery.mistakes(runs["bad"], np.zeros((1000, 1, 28, 28))))
    for text in (
        conclusions.loss(runs),
        conclusions.compare(runs),
    ):
        assert said in flat(text) and "nan" not in flat(text)
    for figure in (
        plots.accuracy_by_class(runs),
        plots.calibration(runs),
        plots.iterations(runs["bad"]),
        plots.confusion_difference(runs),
    ):
        assert "nan" not in figure.alt
        figure.draw_without_rendering()
    assert "no two settings left" in plots.confusion_difference(runs).alt
    high = {"base": all_runs["good"], "bad": [diverged_run(lr=0.1)]}
    assert "Undecided (n = 0)" in flat(conclusions.claim(7, high))
    for table in (tables.convergence(runs), tables.hardest(runs), tables.changed(runs)):
        assert "nan" not in repr(table)
    assert "bad" not in tables.beside(runs).frame.index
    store = Store(tmp_path, shipped=None)
    store.save(runs["bad"][0])
    found = store.get(runs["bad"][0].digest)
    assert found.diverged == (0, 3) and np.isnan(found.accuracy("test"))
    assert found.history.equals(runs["bad"][0].history)
    assert "diverge" in plots.loss_by_epoch({"bad": [found]}).alt


def test_other_images_than_mnists_are_shown_without_the_original():
    runs = {
        label: [made_up_run(dataset="kmnist", lr=lr, wrong={(2, 7): wrong})]
        for label, lr, wrong in (("a", 0.01, 3), ("b", 0.1, 9), ("c", 0.2, 0))
    }
    for table in (tables.epochs(runs), tables.per_class(runs)):
        assert "original" not in repr(table.frame)
    assert "digit" not in repr(tables.confused_pairs(runs["a"]))
    figure = plots.confusion(runs)  # the third has no mistake at all
    figure.draw_without_rendering()
    assert len(figure.axes) == 4 and figure.axes[0].get_xlabel() == "predicted class"
    named = plots.loss_by_epoch(runs).axes[0].texts
    assert not [text for text in named if "original" in text.get_text()]
    assert tables.ledger(runs).frame.empty and tables.beside(runs).frame.empty
    assert "is not judged" in flat(conclusions.claim(3, runs))
    assert "Only b is right on" in flat(conclusions.compare(runs))
    assert "do not suffice" in flat(conclusions.headline(runs))
    assert "Other images than the original's" in flat(conclusions.scale(runs["a"][0].config, 1))


def test_losses_are_ranked_by_the_last_epoch_that_all_runs_have():
    runs = {
        "short": [made_up_run(losses=(1.0, 0.6))],
        "long": [made_up_run(losses=(1.5, 0.5, 0.9))],
    }
    said = str(conclusions.loss(runs))
    assert "Lowest mean training loss: short in epoch 0, then long in epoch 1." in said
    assert "In epoch 1, lowest mean first: long (0.5000), short (0.6000) nats." in said
