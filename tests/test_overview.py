"""The top of a page: its figures and its words, against scipy and the shipped records' arrays."""

import math
import re

import numpy as np
import pytest
from helpers import diverged_run, made_up_run
from scipy import stats as scipy_stats

from labkit.core.config import SCALES, Config
from labkit.core.data import CHECKSUMS
from labkit.judge import claims, original
from labkit.judge.claims import Numbers, claim, judge
from labkit.show import overview
from labkit.store.folder import SHIPPED, Store

NUMBERS = ("1", "2", "3.1", "3.2")


def shipped(seeds):
    """The runs of the original's settings that the package ships."""
    store, runs = Store(SHIPPED, shipped=None), {}
    for section in original.SECTIONS:
        config = Config(**SCALES["paper"]).replace(
            activation=section.activation, lr=section.lr, batch_size=section.batch_size
        )
        found = (store.find(config.replace(seed=s), CHECKSUMS["mnist"]) for s in range(seeds))
        runs[section.name] = [run for run in found if run]
    return runs


@pytest.fixture(scope="module")
def runs():
    return shipped(3)


@pytest.fixture
def paper_scale(monkeypatch):
    """The runs made up here count as ones of the original's scale."""
    for module in (claims, overview):
        monkeypatch.setattr(module, "scale_name", lambda config: "paper")


def settings(**courses):
    """Three runs of each activation, around the course of losses that is given."""
    return {
        name: [
            made_up_run(losses=[x * f for x in course], seed=s, activation=name)
            for s, f in enumerate((0.98, 1.0, 1.03))
        ]
        for name, course in courses.items()
    }


def numbers(**changes):
    given = {"mean": 2.0, "low": 1.0, "high": 3.0, "border": 0.0, "expected": 1}
    return Numbers(**given | {"theirs": 4.0, "unit": " points", "form": "+.3g"} | changes)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_row_has_the_border_at_0_and_the_claim_on_the_right():
    assert overview.placed(numbers()) == ([0.5, 0.25, 0.75, 1.0], "")
    assert overview.placed(numbers(expected=-1)) == ([-0.5, -0.25, -0.75, -1.0], "")
    assert overview.placed(numbers(border=2.0, theirs=2.0)) == ([0.0, -1.0, 1.0, 0.0], "")
    (*_, theirs), beyond = overview.placed(numbers(theirs=-12.5))
    assert theirs == -1 and beyond == "−12.5 points"
    nan = math.nan
    (mean, *ends, theirs), _ = overview.placed(numbers(low=nan, high=nan, theirs=None))
    assert mean == 1 and np.isnan([*ends, theirs]).all()
    # What is claimed to lie on the border does not if it is anywhere else.
    for border in (2.5, 1.5):
        far = overview.placed(numbers(border=border, expected=0, theirs=border + 1))[0]
        assert far[0] == pytest.approx(-1 / 3) and far[3] < 0


def test_a_rows_numbers_are_those_of_scipy(runs):
    areas = {
        name: [np.log(run.history["loss"].to_numpy()).mean() for run in runs[name]] for name in runs
    }
    (part,) = judge(claim(5), runs).parts
    test = scipy_stats.ttest_ind(areas["sigmoid"], areas["baseline"], equal_var=False)
    low, high = test.confidence_interval(0.95)
    found, theirs = part.numbers, [np.log(original.section(n).epoch_loss) for n in ("2.1", "1")]
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.theirs == pytest.approx(theirs[0].mean() - theirs[1].mean())
    ratio = math.exp(np.mean(areas["sigmoid"]) - np.mean(areas["baseline"]))
    assert found.words(found.mean) == f"{ratio:.2f} times"

    (part,) = judge(claim(1), runs).parts
    losses = np.log([run.history["loss"].iloc[-1] for run in runs["baseline"]])
    n = len(losses)
    half = scipy_stats.t.ppf(0.975, n - 1) * losses.std(ddof=1) * math.sqrt(1 + 1 / n)
    ends = losses.mean() - half, losses.mean() + half
    assert (part.numbers.low, part.numbers.high) == pytest.approx(ends)
    assert math.exp(part.numbers.border) == pytest.approx(0.20056)


def test_in_most_runs_has_an_exact_interval_around_its_share(paper_scale):
    def like(eight):
        return {(d, (d + 1) % 10): 50 for d in range(10) if d != 8} | {(8, 9): eight}

    group = [made_up_run(wrong=like(e), seed=s) for s, e in enumerate((1, 2, 3, 4, 90, 5, 6))]
    found = judge(claim(3), {"base": group}).parts[2].numbers
    exact = scipy_stats.binomtest(6, 7).proportion_ci(0.95, "exact")
    assert (found.mean, found.low, found.high) == pytest.approx(
        (600 / 7, 100 * exact.low, 100 * exact.high)
    )
    assert (found.border, found.theirs) == (50, 100)  # the original's table has 8 best
    assert judge(claim(3), {"base": group}).parts[3].numbers.theirs == 0  # but 5 and 7 worst


def test_the_headline_figure_shows_every_comparison_on_its_side(runs):
    found = claims.corrected(list(claims.judgements(runs)))
    figure = overview.verdicts(runs)
    said = texts(figure)
    for agrees, (sign, word, _) in overview.VERDICTS.items():
        assert said.count(f"{sign} {word}") == sum(verdict is agrees for *_, verdict in found)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"][1:]  # but the key's
    assert len(dots) == len(found)
    for dot, (_, part, _, agrees) in zip(dots, found, strict=True):
        x = dot.get_xdata()[0] - overview.MIDDLE
        if agrees is not None:
            assert (x > 0) == agrees, part.what
            assert dot.get_color() == overview.VERDICTS[agrees][2]
        assert part.what in figure.alt
    assert said[0].startswith(f"{len(found)} comparisons: ")
    assert max(figure.get_figwidth(), overview.curves(runs).get_figwidth()) <= 6.4


def test_its_colours_can_be_read_on_white():
    for *_, color in overview.VERDICTS.values():
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def test_an_original_far_outside_stands_at_the_edge_with_its_value(paper_scale):
    runs = settings(relu=(0.3, 0.03), sigmoid=(0.3001, 0.03))
    assert "original: 1.64 times" in texts(overview.verdicts(runs))


def test_of_a_single_run_nothing_is_decided_and_no_interval_of_a_mean_is_drawn():
    single = shipped(1)
    figure = overview.verdicts(single)
    assert "15 comparisons: undecided" in texts(figure)
    bars = [line for line in figure.axes[0].lines if line.get_lw() == 3.5]
    drawn = [bar for bar in bars if np.isfinite(np.diff(bar.get_xdata())).all()]
    assert len(bars) == 15 and len(drawn) == 5  # those of counted runs
    said = str(overview.abstract(single))
    assert "None of the 15 comparisons" in said and "None of them fails (n = 1)." in said
    assert all("undecided (n = 1)" in str(overview.finding(n, single)) for n in NUMBERS)


def test_the_curves_are_the_records(runs):
    figure = overview.curves(runs)
    for axes, (label, group) in zip(figure.axes, runs.items(), strict=False):
        assert axes.get_title("left") == f"{label} (n = {len(group)})"
        mean, *courses, theirs = (line.get_ydata() for line in axes.lines)
        losses = [run.history["loss"] for run in group]
        np.testing.assert_array_equal(courses, losses)
        np.testing.assert_allclose(mean, np.mean(losses, axis=0))
        section = original.section_of(group[0].config)
        assert tuple(theirs) == section.epoch_loss
        assert f"{section.epoch_loss[-1]:.3g}" in figure.alt


def test_a_run_that_diverged_is_named_and_a_missing_setting_is_missing(runs):
    few = {name: runs[name] for name in ("baseline", "learning rate 0.1")}
    lost = diverged_run(lr=0.1, dataset="mnist", seed=2)
    few["learning rate 0.1"] = [*few["learning rate 0.1"][:2], lost]
    for figure in (overview.verdicts(few), overview.curves(few)):
        assert "seed 2, diverged at epoch 0" in figure.alt
    assert overview.curves(few).axes[1].get_title("left") == "learning rate 0.1 (n = 2)"
    said = str(overview.abstract(few))
    assert "two of the five settings" in said and "six runs in all, of which one diverged" in said
    assert str(overview.finding("2", few)) == "" and str(overview.finding("1", few))
    all_lost = {"learning rate 0.1": [lost]}
    assert "n = 0" in overview.curves(all_lost).alt


def test_images_that_are_not_the_originals_are_said_and_have_none_of_its_numbers():
    quick = settings(relu=(0.3, 0.03), sigmoid=(0.4, 0.05))
    assert "On mnist-5k with 2 epochs: not the original's" in overview.verdicts(quick).alt
    parts = [part for found in claims.judgements(quick) for part in found.parts]
    assert all(part.numbers is None or part.numbers.theirs is None for part in parts)
    assert "4,000 images" in str(overview.abstract(quick))
    assert "had other images or epochs" in str(overview.abstract(quick))
    other = {"a": [made_up_run(dataset="kmnist")]}
    for show in (overview.verdicts, overview.curves):
        assert not show(other).axes
    assert "do not suffice" in str(overview.abstract(other))
    assert [str(overview.finding(n, other)) for n in NUMBERS] == [""] * 4


def sentences(words):
    return re.split(r"(?<=\.) (?=[A-Z])", words)


def test_the_abstract_has_five_sentences_that_count_what_the_ledger_has(runs):
    found = claims.corrected(list(claims.judgements(runs)))
    what, ours, holds, fails, stays = sentences(str(overview.abstract(runs)))
    total = sum(map(len, runs.values()))
    assert f"for ten epochs each: {overview.few(total)} runs in all" in what
    assert "one more run of ours" in ours
    for sentence, agrees in ((holds, True), (fails, False)):
        parts = [part for _, part, _, verdict in found if verdict is agrees]
        head = overview.few(len(parts)) if parts else "none"
        assert sentence.lower().startswith(f"{head} of the" if parts else "none of")
        for part in parts:
            assert part.says[0] in sentence and part.says[1 if agrees else 2] in sentence
    open_ = [(stated, part) for stated, part, _, verdict in found if verdict is None]
    within = [part.needed for _, part in open_ if part.needed <= 1000]
    if within:
        span = f"about {min(within):.0f} to {max(within):.0f} runs of each setting"
        assert f"{span} would settle claim" in stays
    assert all(re.search(rf"\b{stated.number}\b", stays) for stated, _ in open_)
    assert all(re.search(r"n = \d", sentence) for sentence in (ours, holds, fails, stays))


def test_nothing_open_and_nothing_like_the_original_are_sentences(paper_scale):
    assert overview._open([], 3) == "None of them stays open."
    course = np.array(original.SECTIONS[0].epoch_loss)
    for factor, words in (
        (1, "may be one more run of ours: none of its"),
        (5, "baseline, loss by"),
    ):
        group = [
            made_up_run(losses=tuple(factor * course * f), seed=s)
            for s, f in enumerate((0.9, 1.0, 1.12))
        ]
        said = overview._likeness({"baseline": group})
        assert words in said and said.endswith("n = 3).")


def test_a_title_says_what_is_so_and_what_is_open(paper_scale):
    fast, middle, slow = (0.2, 0.02), (0.3, 0.03), (0.4, 0.04)
    title = str(overview.finding("2", settings(relu=fast, sigmoid=slow)))
    assert title == "Sigmoid converged more slowly than ReLU (n = 3)"
    title = str(overview.finding("2", settings(relu=slow, sigmoid=fast)))
    assert title == "Sigmoid converged faster than ReLU (n = 3)"
    title = str(overview.finding("2", settings(relu=fast, sigmoid=slow, tanh=middle)))
    assert title == (
        "Sigmoid and tanh converged more slowly than ReLU; tanh converged faster than sigmoid "
        "(n = 3)"
    )
    runs = settings(relu=fast, sigmoid=slow)
    runs["tanh"] = [
        made_up_run(losses=c, seed=s, activation="tanh")
        for s, c in enumerate(((0.1, 0.01), (0.9, 0.09), (0.3, 0.03)))
    ]
    title = str(overview.finding("2", runs))
    assert title == "Sigmoid converged more slowly than ReLU; tanh still undecided (n = 3)"


def test_titles_are_short(runs):
    for number in NUMBERS:
        title = str(overview.finding(number, runs)).partition(" (n = ")[0]
        assert 0 < len(title.split()) <= overview.MOST_WORDS + 1, title
    # The abstract counts after Holm's correction.
    counted = str(overview.finding("1", runs))
    assert "in all" in counted and counted.endswith(", each tested alone)")


def test_every_part_of_the_ledger_says_something_in_words(runs):
    for found in claims.judgements(runs):
        for part in found.parts:
            assert all(part.says[:3]) and part.says[1] != part.says[2], part.what
            assert part.numbers and part.numbers.words(part.numbers.mean)
