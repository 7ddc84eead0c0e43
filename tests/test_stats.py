import math

import numpy as np
import pytest
from scipy.special import stdtrit

from labkit.judge import stats


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
    """Three seeds agree that some 3 more of 10,000 images are right, which others might turn."""

    def gained_and_lost(*counts):
        first, second = np.zeros((2, len(counts), 10_000))
        for seed, (gained, lost) in enumerate(counts):
            first[seed, :gained] = second[seed, gained : gained + lost] = 100
        return first, second

    few = gained_and_lost((10, 7), (10, 6), (10, 8))
    assert stats.paired_difference(*(answers.mean(1) for answers in few)).separable
    found = stats.paired_difference(*few)
    # Of the means over the seeds 10 are 100, 6 are -100, one -200/3, one -100/3: 0.03 on average.
    squares = (10 + 6 + (2 / 3) ** 2 + (1 / 3) ** 2) * 100**2 / 10_000
    half = 1.96 * math.sqrt(squares - 0.03**2) / math.sqrt(10_000)
    assert (found.image_low, found.image_high) == pytest.approx(
        (0.03 - half, 0.03 + half), abs=1e-4
    )
    assert found.mean == pytest.approx(0.03) and found.low > 0 and found.boot_low > 0
    assert not found.separable and "over the images -0.0498 to +0.11" in found.words()
    assert stats.paired_difference(*gained_and_lost((300, 7), (301, 7), (300, 8))).separable
