"""Intervals and tests, all from scipy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


def wilson(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share, 0..1 (Wilson 1927, JASA 22); NaN for no cases."""
    if total == 0:
        return math.nan, math.nan
    interval = stats.binomtest(int(correct), int(total)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def deviation(share: float, total: int) -> float:
    """The standard deviation of a share of `total` independent cases; NaN for no cases."""
    return float(stats.binom.std(total, share)) / total if total else math.nan


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


def p_words(p: float) -> str:
    """A p-value for a sentence."""
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, `n` pairs, with its intervals and its exact test.

    Attributes:
        low, high: Student's interval.
        boot_low, boot_high: the bootstrap's percentile interval at the same level.
        p: of the sign-flip test, two-sided, times the number of comparisons; exact up to 16 pairs.
            With n pairs it can be no smaller than that many times 2 / 2ⁿ.
        level: of the intervals.
        image_low, image_high: Student's interval over the test images instead of the seeds; NaN
            where no single images were given.
    """

    mean: float
    low: float
    high: float
    boot_low: float
    boot_high: float
    p: float
    n: int
    level: float
    image_low: float = math.nan
    image_high: float = math.nan

    @property
    def separable(self) -> bool:
        """Whether all intervals exclude zero, on the same side.

        All, since each errs on few pairs: the bootstrap's excludes zero as soon as three pairs
        agree in sign, as they do one time in four by chance alone; Student's takes the
        differences for normal; and other images might turn what these seeds agree on. Equal
        differences have no interval, and prove nothing.
        """
        above = self.low > 0 and self.boot_low > 0 and not self.image_low <= 0
        return above or (self.high < 0 and self.boot_high < 0 and not self.image_high >= 0)

    def brief(self, unit: str = "") -> str:
        """The mean and Student's interval."""
        interval = "all differences equal"
        if not math.isnan(self.low):
            interval = f"{self.low:+.3g} to {self.high:+.3g}"
        return f"{self.mean:+.3g}{unit} ({interval})"

    def words(self, unit: str = "") -> str:
        """The mean, both intervals, the exact test and n, for a sentence."""
        interval = (
            f"{100 * self.level:.3g} % interval {self.low:+.3g} to {self.high:+.3g}, bootstrap "
            f"{self.boot_low:+.3g} to {self.boot_high:+.3g}"
        )
        if math.isnan(self.low):
            interval = "no interval, since all differences are equal"
        if not math.isnan(self.image_low):
            interval += f", over the images {self.image_low:+.3g} to {self.image_high:+.3g}"
        comparisons = round(0.05 / (1 - self.level))
        test = f"sign-flip {p_words(self.p)}"
        test += f" corrected for {comparisons} comparisons" * (comparisons > 1)
        return f"{self.mean:+.3g}{unit} ({interval}, {test}, n = {self.n})"


def paired_difference(
    first: Sequence[float] | Sequence[np.ndarray],
    second: Sequence[float] | Sequence[np.ndarray],
    comparisons: int = 1,
) -> Difference:
    """first - second, paired by seed.

    Args:
        first, second: a value a seed `[n]`; or `[n, images]`, a value for each test image, of which
            the mean counts, and whose interval tells what other images might have given.
        comparisons: how many such differences are judged together; the intervals are those of
            95 % for all at once (Bonferroni: each has the level 1 - 0.05 / comparisons).

    Raises:
        ValueError: fewer than two pairs, or series of different length.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} and {len(second)} values; at least two pairs are needed")
    differences, over_images = np.subtract(first, second), (math.nan, math.nan)
    level = 1 - 0.05 / comparisons
    if differences.ndim > 1:
        over_images = mean_interval(differences.mean(0), level)
        differences = differences.mean(1)
    mean, n = float(differences.mean()), len(differences)
    flips = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=min(2**n, 2**16),  # as many as there are: the test is exact
        rng=0,
    )
    p = min(1.0, comparisons * float(flips.pvalue))
    if _constant(differences):
        return Difference(mean, *[math.nan] * 4, p, n, level, *over_images)
    student = stats.ttest_1samp(differences, 0).confidence_interval(level)
    boot = stats.bootstrap(
        (differences,), np.mean, confidence_level=level, method="percentile", rng=0
    ).confidence_interval
    return Difference(mean, *map(float, (*student, *boot)), p, n, level, *over_images)


def _constant(values: Sequence[float]) -> bool:
    """Whether the values differ by rounding alone, so that an interval has no scale."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())  # also where all are zero


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean of `values`; NaN where fewer than two differ."""
    if len(values) < 2 or _constant(values):
        return math.nan, math.nan
    interval = stats.ttest_1samp(values, 0).confidence_interval(level)
    return float(interval.low), float(interval.high)


def prediction_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Where one more value like these would lie (normal); NaN for fewer than two of them.

    Mean ± t · s · √(1 + 1/n), t of n - 1 degrees of freedom.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = stats.t.ppf(0.5 + level / 2, n - 1) * np.std(values, ddof=1) * math.sqrt(1 + 1 / n)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def log_area(losses: np.ndarray) -> float:
    """The area under a loss curve on a log axis, for each epoch: the mean of ln(loss).

    One number for a whole course: e to its power is the loss that a curve would have all along.

    Args:
        losses: mean loss of every epoch in nats, `[epochs]`.
    """
    return float(np.log(losses).mean())


def first_below(losses: np.ndarray, threshold: float) -> float:
    """How many values of `losses` passed until one was at most `threshold`; NaN if none was."""
    reached = np.flatnonzero(losses <= threshold)
    return float(reached[0] + 1) if len(reached) else math.nan
