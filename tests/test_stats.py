import math

import numpy as np
import pytest
from scipy.special import stdtrit

from labkit import stats


@pytest.mark.parametrize(("correct", "total"), [(99, 100), (0, 10), (10, 10), (9905, 10000)])
def test_wilson_is_its_formula(correct, total):
    z, p = 1.959963984540054, correct / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    assert stats.wilson(correct, total) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_mcnemar_by_hand():
    first = np.array([True] * 9 + [False] * 1 + [True] * 5)
    second = np.array([True] * 1 + [False] * 8 + [True] * 6)
    # 8 images only the first has right, 1 only the second: 2 (1 + 9) / 2^9
    assert stats.mcnemar(first, second) == (8, 1, pytest.approx(20 / 512))
    assert stats.mcnemar(first, first) == (0, 0, 1.0)


def test_paired_difference_by_hand():
    found = stats.paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])  # differences 2, 3, 1
    half = stdtrit(2, 0.975) * 1 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert found.n == 3 and not found.separable
    # All three signs agree: two of the eight ways to flip them are as extreme.
    assert found.p == pytest.approx(2 / 8)
    # The bootstrap's means lie between the least and the greatest difference, 27 ways to draw them.
    assert 1 <= found.boot_low < found.mean < found.boot_high <= 3
    many = stats.paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0], comparisons=5)
    half = stdtrit(2, 0.995) * 1 / math.sqrt(3)
    assert (many.low, many.level) == pytest.approx((2 - half, 0.99))
    assert many.p == 1  # 5 · 2/8, at most 1
    assert stats.paired_difference([3, 3.1, 3.2], [1, 1, 1]).separable
    for equal in ([1, 1], [2, 2]):  # no scale, so no proof
        found = stats.paired_difference(equal, [1, 1])
        assert not found.separable and "no interval" in found.words()
    for bad in (([1], [1]), ([1, 2], [1])):
        with pytest.raises(ValueError, match="at least two pairs"):
            stats.paired_difference(*bad)


def test_intervals_must_agree_on_a_side():
    differences = np.array([0.9, 1.0, 3.0])  # the bootstrap's excludes zero, Student's does not
    found = stats.paired_difference(differences, [0, 0, 0])
    assert found.boot_low > 0 > found.low and not found.separable
    assert "n = 3" in found.words() and "95 % interval" in found.words()


@pytest.mark.parametrize("n", [4, 7])
def test_the_sign_flips_are_counted_exactly(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    signs = np.array(np.meshgrid(*[[1, -1]] * n)).reshape(n, -1)
    means = (differences[:, None] * signs).mean(0)
    above = (means >= differences.mean() - 1e-12).mean()
    below = (means <= differences.mean() + 1e-12).mean()
    found = stats.paired_difference(differences, np.zeros(n))
    assert found.p == pytest.approx(min(1, 2 * min(above, below)))


def test_the_mean_interval_is_students():
    low, high = stats.mean_interval([1.0, 2.0, 3.0])
    half = stdtrit(2, 0.975) / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - half, 2 + half))
    assert np.isnan(stats.mean_interval([2.0, 2.0])).all()
    assert all(math.isnan(bound) for bound in stats.mean_interval([1.0]))


def test_the_prediction_interval_holds_its_share_of_new_values():
    draws = np.random.default_rng(0).normal(size=(4000, 4))
    inside = 0
    for *seen, new in draws:
        low, high = stats.prediction_interval(seen)
        inside += low <= new <= high
    assert inside / len(draws) == pytest.approx(0.95, abs=0.012)
    assert all(math.isnan(bound) for bound in stats.prediction_interval([1.0]))


def test_convergence_by_hand():
    losses = np.array([1.0, 0.1, 0.01])
    assert stats.log_area(losses) == pytest.approx(math.log(0.1))
    assert stats.first_below(losses, 0.1) == 2
    assert math.isnan(stats.first_below(losses, 0.001))


def test_two_shares_by_hand():
    # Of all ways to draw 3 right answers from two groups of 3, one in twenty is 3 against 0.
    assert stats.two_shares(3, 3, 0, 3) == pytest.approx(2 / 20)


def test_a_difference_must_hold_over_the_images_too():
    """Three seeds agree that 3 more of 10,000 images are right, which other images might turn."""
    seeds = ([99.93, 99.94, 99.95], [99.90, 99.91, 99.9205])
    assert stats.paired_difference(*seeds).separable
    few = np.zeros(10_000)
    few[:10], few[10:17] = 100, -100
    found = stats.paired_difference(*seeds, images=few)
    # 3 of 10,000; a single one varies by √17 % of 1, so the mean by that / √10,000.
    half = 1.96 * 100 * math.sqrt(17 / 10_000 - 0.0003**2) / math.sqrt(10_000)
    assert (found.image_low, found.image_high) == pytest.approx(
        (0.03 - half, 0.03 + half), abs=1e-3
    )
    assert not found.separable and "over the images -0.05" in found.words()
    few[:300] = 100
    assert stats.paired_difference(*seeds, images=few).separable
