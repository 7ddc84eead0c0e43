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
    assert stats.paired_difference([3, 3.1, 3.2], [1, 1, 1]).separable
    assert not stats.paired_difference([1, 1], [1, 1]).separable
    for bad in (([1], [1]), ([1, 2], [1])):
        with pytest.raises(ValueError, match="at least two pairs"):
            stats.paired_difference(*bad)


def test_two_shares_by_hand():
    # Of all ways to draw 3 right answers from two groups of 3, one in twenty is 3 against 0.
    assert stats.two_shares(3, 3, 0, 3) == pytest.approx(2 / 20)
