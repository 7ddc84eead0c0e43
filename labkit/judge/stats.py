"""Intervals, tests and how many runs they need, by scipy."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95  # of intervals; a test decides where its p-value is below 1 - LEVEL
POWER = 0.8
MOST_RUNS = 1000  # more are called too many
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))  # of a normal distribution's interval


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, or a difference of two such means, with its interval and test.

    Attributes:
        mean: the mean, or that of the first group minus that of the second.
        n: the number of runs, of the smaller group.
        low, high: its confidence interval, by Student's t.
        next_low, next_high: where one more run, or the difference of one more of each group, would
            lie on the same test images (prediction interval).
        p: two-sided p-value for the value that was asked about.
        sign: on which side of that value the mean lies, 1 or -1; 0 where p does not decide.
        needed: how many runs of each group would decide with `POWER`, if difference and spread are
            those seen here, at least one more than there are; `MOST_RUNS` + 1 stands for more,
            infinity for never by runs alone.
        by_images: half the width of the interval that other images leave, however many the runs.

    With fewer than two runs, or without any spread, there is nothing but the mean and n; the others
    are NaN.
    """

    mean: float
    n: int
    low: float = math.nan
    high: float = math.nan
    next_low: float = math.nan
    next_high: float = math.nan
    p: float = math.nan
    sign: int = 0
    needed: float = math.nan
    by_images: float = math.nan


def estimate(
    *groups: Sequence[float] | Sequence[np.ndarray],
    about: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """The mean of one group of runs, or the difference of the means of two (Welch 1947, unpaired).

    Where each run gives a value for every test image, other images count as a source of doubt
    beside other runs: both are random effects, crossed (Clark 1973, J. Verbal Learning 12:335). The
    variance of the mean is that over runs plus that over images, less what each image's scatter
    between runs puts into both; that over runs is at least this scatter. Degrees of freedom by
    Satterthwaite (1946).

    Args:
        groups: one or two, each with a value per run, or an array `[images]` per run.
        about: the value that the test asks about.
        bounds: the possible range of the mean; no interval leaves it.
    """
    values = [np.array(group, float).reshape(len(group), -1) for group in groups]
    signs = (1, -1)[: len(values)]
    n = min(map(len, values))
    means = [group.mean(1) for group in values]
    mean = float(sum(s * m.mean() for s, m in zip(signs, means, strict=True)))
    if n < 2:
        return Estimate(mean, n)
    spreads = [_variance(m) for m in means]  # of one run
    over_images, images = 0.0, values[0].shape[1]
    if images > 1:
        apart = [v - v.mean(1, keepdims=True) for v in values]  # what images make of each run
        scatter = [v.var(0, ddof=1).sum() / (images * (images - 1)) for v in apart]
        spreads = [max(pair) for pair in zip(spreads, scatter, strict=True)]
        by_image = sum(s * v.mean(0) for s, v in zip(signs, values, strict=True))
        of_both = sum(part / len(v) for part, v in zip(scatter, values, strict=True))
        over_images = max(by_image.var(ddof=1) / images - of_both, 0.0)
    counts = [len(m) for m in means]
    of_runs = sum(spread / count for spread, count in zip(spreads, counts, strict=True))
    error = of_runs + over_images
    if not error:
        return Estimate(mean, n)
    freedom = _freedom(spreads, counts, over_images, images)
    distance = mean - about
    p = float(2 * stats.t.sf(abs(distance) / math.sqrt(error), freedom))
    half = stats.t.ppf(0.5 + LEVEL / 2, freedom) * math.sqrt(error)
    one_more = math.sqrt(sum(spreads) + of_runs) if of_runs else 0.0
    further = one_more and stats.t.ppf(0.5 + LEVEL / 2, _freedom(spreads, counts)) * one_more
    ends = mean - half, mean + half, mean - further, mean + further
    return Estimate(
        mean,
        n,
        *map(float, np.clip(ends, *bounds)),
        p=p,
        sign=int(np.sign(distance)) if p < 1 - LEVEL else 0,
        needed=_needed(abs(distance), spreads, over_images, images, n),
        by_images=Z * math.sqrt(over_images),
    )


def _variance(values: np.ndarray) -> float:
    """The variance of the values; 0 where they differ by rounding alone."""
    alike = np.ptp(values) <= 1e-12 * np.abs(values).max()
    return 0.0 if alike else float(values.var(ddof=1))


def _freedom(
    spreads: Sequence[float], counts: Sequence[int], over_images: float = 0.0, images: int = 1
) -> float:
    """The degrees of freedom of the variance of a mean (Satterthwaite 1946)."""
    parts = [(spread / n, n - 1) for spread, n in zip(spreads, counts, strict=True)]
    parts += [(over_images, images - 1)] if over_images else []
    return sum(v for v, _ in parts) ** 2 / sum(v**2 / f for v, f in parts)


def _needed(
    distance: float, spreads: Sequence[float], over_images: float, images: int, n: int
) -> float:
    """The fewest runs of each group, more than n, that find such a distance with `POWER`."""

    def power(m: int) -> float:
        freedom = _freedom(spreads, [m] * len(spreads), over_images, images)
        shift = distance / math.sqrt(sum(spreads) / m + over_images)
        critical = stats.t.ppf(0.5 + LEVEL / 2, freedom)
        found = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
        return float(np.nan_to_num(found, nan=1.0))  # far beyond the critical value

    counts = range(n + 1, MOST_RUNS + 1)
    place = bisect.bisect_left(counts, True, key=lambda m: power(m) >= POWER)
    if place < len(counts):
        return counts[place]
    return math.inf if distance < Z * math.sqrt(over_images) else MOST_RUNS + 1


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for all of them together (Holm 1979); NaN where there is none."""
    order = [i for i in np.argsort(p_values, kind="stable") if not math.isnan(p_values[i])]
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p_values[i] * (len(order) - rank)))
        corrected[i] = highest
    return corrected


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The Wilson score interval of a share, 0..1 (Wilson 1927, JASA 22); NaN for no cases."""
    if total == 0:
        return math.nan, math.nan
    interval = stats.binomtest(int(correct), int(total)).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def deviation(share: float, total: int) -> float:
    """The standard deviation of a share of `total` independent cases; NaN for no cases."""
    return float(stats.binom.std(total, share)) / total if total else math.nan


def two_shares(correct: int, total: int, other_correct: int, other_total: int) -> float:
    """Two-sided p-value that two shares of independent counts are equal (Fisher's exact test)."""
    table = [[correct, total - correct], [other_correct, other_total - other_correct]]
    return float(stats.fisher_exact(table).pvalue)


def majority(times: int, n: int) -> tuple[float, float]:
    """Whether something that was so `times` out of n is so more or less often than not.

    Returns:
        the two-sided p-value of a fair coin (exact binomial test), NaN where no count of n could
        decide (so that it takes no part in `holm`: Tarone 1990); and how many runs would decide
        with `POWER` if it went on so, `MOST_RUNS` + 1 for more.
    """
    p = float(stats.binomtest(times, n, 0.5).pvalue) if 2 * 0.5**n < 1 - LEVEL else math.nan
    share = (times + 0.5) / (n + 1)
    counts = np.arange(n + 1, MOST_RUNS + 1)
    fewest = stats.binom.ppf((1 - LEVEL) / 2, counts, 0.5) - 1  # up to it a count decides
    power = stats.binom.cdf(fewest, counts, share)
    power += stats.binom.sf(counts - fewest - 1, counts, share)
    enough = counts[power >= POWER]
    return p, int(enough[0]) if len(enough) else MOST_RUNS + 1


def p_of_one_more(values: Sequence[float], value: float) -> float:
    """Two-sided p-value that `value` is one more of the same normal distribution as `values`.

    NaN where these have no spread.
    """
    if len(values) < 2 or not _variance(np.asarray(values)):
        return math.nan
    n = len(values)
    distance = (value - np.mean(values)) / (np.std(values, ddof=1) * math.sqrt(1 + 1 / n))
    return float(2 * stats.t.sf(abs(distance), n - 1))


def p_words(p: float) -> str:
    """A p-value for a sentence."""
    if math.isnan(p):
        return "too few to test"
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def log_area(losses: np.ndarray) -> float:
    """The area under a loss curve on a log axis, per epoch: the mean of ln(loss).

    One number for a whole course: e to its power is the loss of a flat curve of the same area.

    Args:
        losses: mean loss of every epoch in nats, `[epochs]`.
    """
    return float(np.log(losses).mean())


def first_below(losses: np.ndarray, threshold: float) -> float:
    """How many values of `losses` passed until one was at most `threshold`; NaN if none was."""
    reached = np.flatnonzero(losses <= threshold)
    return float(reached[0] + 1) if len(reached) else math.nan
