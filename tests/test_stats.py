"""Estimates against scipy's own tests, formulas by hand and simulations."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from labkit.judge import stats


@pytest.fixture
def draw():
    return np.random.default_rng(0)


def test_one_group_is_students_test(draw):
    values = draw.normal(1, 2, 6)
    found = stats.estimate(values, about=0.5)
    test = scipy_stats.ttest_1samp(values, 0.5)
    interval = test.confidence_interval(0.95)
    assert (found.mean, found.n) == (pytest.approx(values.mean()), 6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(test.pvalue)
    assert found.sign == (np.sign(values.mean() - 0.5) if test.pvalue < 0.05 else 0)


def test_two_groups_are_welchs_test(draw):
    first, second = draw.normal(1, 1, 7), draw.normal(0, 3, 4)
    found = stats.estimate(first, second)
    test = scipy_stats.ttest_ind(first, second, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(test.pvalue) and found.n == 4
    apart = stats.estimate(first + 50, second)
    assert apart.sign == 1 and stats.estimate(second, first + 50).sign == -1


def test_other_images_are_a_doubt_beside_other_runs(draw):
    """Equal runs leave the scatter of the images; images alike leave that of the runs."""
    by_image = draw.normal(0.3, 1, 400)
    alike = np.array([by_image + shift for shift in (-0.1, 0.0, 0.1)])
    found = stats.estimate(alike)
    error = math.sqrt(0.1**2 / 3 + by_image.var(ddof=1) / 400)
    freedom = error**4 / ((0.1**2 / 3) ** 2 / 2 + (by_image.var(ddof=1) / 400) ** 2 / 399)
    half = scipy_stats.t.ppf(0.975, freedom) * error
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    runs = np.repeat([[1.0], [1.2], [0.9]], 400, axis=1)
    assert stats.estimate(runs).p == pytest.approx(stats.estimate(runs[:, 0]).p)


@pytest.mark.parametrize("n", [3, 10])
def test_the_interval_covers_what_runs_and_images_were_drawn_from(n, draw):
    inside = 0
    for _ in range(800):
        images = draw.normal(0, 0.1, (2, 1, 500))
        runs = draw.normal(0, 0.004, (2, n, 1))
        values = images + runs + draw.normal(0, 0.1, (2, n, 500))
        found = stats.estimate(*values)
        inside += found.low <= 0 <= found.high
    assert inside / 800 == pytest.approx(0.95, abs=0.03)


def test_one_more_run_lies_where_it_is_said_to(draw):
    inside, below = 0, 0
    for *seen, new in draw.normal(size=(4000, 4)):
        found = stats.estimate(seen)
        inside += found.next_low <= new <= found.next_high
        below += stats.p_of_one_more(seen, new) < 0.05
    assert inside / 4000 == pytest.approx(0.95, abs=0.012) and below == 4000 - inside
    pairs = 0
    for first, second in zip(
        draw.normal(0, 1, (4000, 5)), draw.normal(0, 2, (4000, 5)), strict=True
    ):
        found = stats.estimate(first[:4], second[:4])
        pairs += found.next_low <= first[4] - second[4] <= found.next_high
    assert pairs / 4000 == pytest.approx(0.95, abs=0.015)


def test_as_many_runs_as_are_said_to_be_needed_have_the_power(draw):
    first, second = np.array([0.0, 1, 2, 3]), np.array([1.0, 2, 2, 5])
    found = stats.estimate(first, second)

    def power(n: int) -> float:
        a = draw.normal(first.mean(), first.std(ddof=1), (20_000, n))
        b = draw.normal(second.mean(), second.std(ddof=1), (20_000, n))
        return (scipy_stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05).mean()

    assert power(int(found.needed)) == pytest.approx(0.8, abs=0.02)
    assert stats.estimate(first, first + 0.01).needed == stats.MOST_RUNS + 1
    images = draw.normal(0, 1, 100) + np.array([[0.0], [0.01]])  # a mean of 0.06 ± 0.1 by images
    assert stats.estimate(images).needed == math.inf


@pytest.mark.parametrize("groups", [([1.0],), ([1.0, 2.0], [3.0]), ([2.0, 2.0],), ([1, 1], [2, 2])])
def test_what_has_no_spread_proves_nothing(groups):
    found = stats.estimate(*groups)
    assert math.isnan(found.p) and math.isnan(found.low) and found.sign == 0
    assert found.mean == np.mean(groups[0]) - (np.mean(groups[1]) if len(groups) > 1 else 0)


def test_no_interval_leaves_the_possible_range():
    found = stats.estimate([99.9, 99.99, 99.5], bounds=(0, 100))
    assert found.high == found.next_high == 100


def test_holm_by_hand():
    corrected = stats.holm([0.01, math.nan, 0.04, 0.03])
    assert corrected == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0]


def test_a_majority_is_a_coins_test(draw):
    assert stats.majority(9, 10)[0] == pytest.approx(2 * 11 / 1024)
    assert stats.majority(6, 6)[0] == pytest.approx(2 / 64)
    assert math.isnan(stats.majority(5, 5)[0])  # 2 / 32 decides nothing, and so tests nothing
    assert stats.majority(2, 4)[1] == stats.MOST_RUNS + 1
    assert math.isnan(stats.p_of_one_more([1.0, 1.0], 2.0))
    needed = stats.majority(7, 10)[1]
    times = draw.binomial(needed, 7.5 / 11, 4000)
    p_values = {k: scipy_stats.binomtest(int(k), needed).pvalue for k in np.unique(times)}
    assert np.mean([p_values[k] < 0.05 for k in times]) == pytest.approx(0.8, abs=0.04)


def test_runs_that_miss_other_images_alike_often_are_not_alike():
    """Equal totals of disjoint mistakes: the images say what the totals hide."""
    first, second = np.full((2, 2, 10_000), 100.0)
    first[0, :95] = first[1, 200:296] = second[0, 400:505] = second[1, 600:706] = 0
    found = stats.estimate(first, second)
    assert found.mean == pytest.approx(0.1) and found.sign == 0
    assert found.p > 0.1 and found.needed > 2
    equal = stats.estimate(np.roll(first, 3, 1)[:, ::-1], second[:1].repeat(2, 0))
    assert not math.isnan(equal.p)


@pytest.mark.parametrize(("correct", "total"), [(99, 100), (0, 10), (10, 10), (9905, 10000)])
def test_wilson_is_its_formula(correct, total):
    z, p = 1.959963984540054, correct / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    assert stats.wilson(correct, total) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_convergence_by_hand():
    losses = np.array([1.0, 0.1, 0.01])
    assert stats.log_area(losses) == pytest.approx(math.log(0.1))
    assert stats.first_below(losses, 0.1) == 2
    assert math.isnan(stats.first_below(losses, 0.001))


def test_two_shares_by_hand():
    # Of all ways to draw 3 right answers from two groups of 3, one in twenty is 3 against 0.
    assert stats.two_shares(3, 3, 0, 3) == pytest.approx(2 / 20)
