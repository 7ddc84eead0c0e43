"""Is the original one of ours? Its curves and tables beside what one more run would give."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.core.measures import NAMES, RECALIBRATED, STATISTICS
from labkit.core.words import SPLITS
from labkit.judge import original, stats
from labkit.store.groups import Runs, answering, finite, shares_of


@dataclass(frozen=True)
class Likeness:
    """One curve or table of the original beside the runs of its setting.

    Attributes:
        label, number, what: the setting, the original's section, and what of it is compared.
        n: the runs.
        places: of each value of the original: "inside" the 95 % prediction interval of the runs at
            that place, "above", "below", or "" where there is nothing to compare it with.
        p: two-sided p-value that it is one more of ours: of the whole (the mean ln loss of a curve,
            the total of a table) or of the place that differs most, whichever differs more
            (Bonferroni, for two and for the places); NaN for fewer than two runs.
    """

    label: str
    number: str
    what: str
    n: int
    places: list[str]
    p: float


def likenesses(runs: Runs) -> Iterator[Likeness]:
    """Every curve and table of the original's for whose setting there are runs that did not
    diverge; accuracies with either kind of statistics."""
    for label, group in finite(runs).items():
        if not (section := original.section_of(group[0].config)):
            continue
        losses = np.log([run.history["loss"] for run in group])
        yield _compared(label, section.number, "loss by epoch", losses, np.log(section.epoch_loss))
        for log in original.EXCERPTS if section is original.SECTIONS[0] else ():
            stretch = slice(log.first, log.first + len(log.losses))
            parts = [
                run.iteration_loss[log.epoch : log.epoch + 1, stretch].ravel() for run in group
            ]
            what = f"iterations of epoch {log.epoch}"
            yield _compared(label, log.number, what, np.log(parts), np.log(log.losses))
        for split, kind in SPLITS.items():
            if table := getattr(section, split):
                for statistics in STATISTICS:
                    what = f"{kind} accuracy, {NAMES[statistics]}"
                    kept = answering(group, statistics)
                    shares = np.array([shares_of(run.counts(split, statistics)) for run in kept])
                    theirs = np.array([*table.percent, table.total_percent])
                    yield _compared(label, section.number, what, shares, theirs, whole=-1)


def _compared(
    label: str,
    number: str,
    what: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    whole: int | None = None,
) -> Likeness:
    """Values `[runs, places]` of ours beside the original's.

    Args:
        whole: the place that stands for all; their mean if there is none.
    """
    n, places = len(ours), ours.shape[1] if ours.ndim > 1 else 0
    several = range(min(places, len(theirs)))
    each = [stats.p_of_one_more(ours[:, i], theirs[i]) for i in several]
    found = [_place(p, theirs[i] - ours[:, i].mean()) for i, p in enumerate(each)]
    p = math.nan
    if places >= len(theirs):
        of_runs = ours[:, : len(theirs)].mean(1) if whole is None else ours[:, whole]
        p = stats.p_of_one_more(of_runs, theirs.mean() if whole is None else theirs[whole])
        if not math.isnan(p):
            p = min(1.0, 2 * min(p, np.nanmin([*each, 1.0]) * len(each)))
    return Likeness(label, number, what, n, found, p)


def _place(p: float, distance: float) -> str:
    """Where a value lies, by its p-value for being one more of ours and its distance from them."""
    if math.isnan(p):
        return ""
    return "inside" if p >= 1 - stats.LEVEL else "above" if distance > 0 else "below"


def tested(found: Iterable[Likeness]) -> list[Likeness]:
    """Those that are tested together: all with enough runs, accuracies by running averages, which
    the original's most likely are."""
    return [one for one in found if not math.isnan(one.p) and NAMES[RECALIBRATED] not in one.what]


def unlike(found: Sequence[Likeness]) -> list[Likeness]:
    """Those that differ from one more run of ours, corrected for all of them together (Holm)."""
    corrected = stats.holm([one.p for one in found])
    return [one for one, p in zip(found, corrected, strict=True) if p < 1 - stats.LEVEL]
