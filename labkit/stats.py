"""Intervals and tests, all from scipy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


def wilson(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share, 0..1 (Wilson 1927, JASA 22); NaN for no cases."""
    if total == 0:
        return float("nan"), float("nan")
    interval = stats.binomtest(int(correct), int(total)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """The exact McNemar test on two classifiers' right and wrong answers to the same images.

    Args:
        first, second: bool `[n]`, whether each answer was right.

    Returns:
        how many images only the first had right, how many only the second, and the two-sided
        p-value of that division under a fair coin (McNemar 1947, exact binomial form; 1 if there
        is no such image).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 0, 0, 1.0
    test = stats.binomtest(only_first, only_first + only_second, 0.5)
    return only_first, only_second, float(test.pvalue)


def two_shares(correct: int, total: int, other_correct: int, other_total: int) -> float:
    """Two-sided p-value that two shares of independent counts are equal (Fisher's exact test)."""
    table = [[correct, total - correct], [other_correct, other_total - other_correct]]
    return float(stats.fisher_exact(table).pvalue)


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its interval; `n` pairs."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def separable(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Sequence[float], second: Sequence[float], level: float = 0.95
) -> Difference:
    """first - second, paired by seed, with Student's interval for the mean difference.

    Raises:
        ValueError: fewer than two pairs, or series of different length.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} and {len(second)} values; at least two pairs are needed")
    differences = np.subtract(first, second)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:  # Student's t has no scale here
        return Difference(mean, mean, mean, len(differences))
    interval = stats.ttest_1samp(differences, 0).confidence_interval(level)
    return Difference(mean, float(interval.low), float(interval.high), len(differences))
