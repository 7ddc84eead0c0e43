"""The original's claims, as data, and the verdict on each, computed from runs.

A claim has parts, each one comparison with its own verdict: it *holds* or *does not hold* where a
test at 5 % decides, and is *undecided* elsewhere, with the number of runs per setting that would
tell. Two settings are compared unpaired (Welch), since runs that share a seed share nothing that
shows; digits of one run are compared within the run. Test accuracies carry two doubts, other seeds
and other images (`stats.estimate`). Where a claim states a size, or the original's numbers show
one, a part also says whether one more run of ours could give it.

Accuracies and answers are recalibrated, see `measures.STATISTICS`. Those by running averages, which
the original most likely states, are named beside them and decide nothing. A setting with a run that
diverged is no fair comparison: undecided.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binomtest

from labkit.core.config import VARIED, scale_name
from labkit.core.measures import RECALIBRATED, RUNNING
from labkit.core.values import ConfigError, whole
from labkit.core.words import SPLITS, minus, number
from labkit.judge import original, stats
from labkit.store.groups import (
    Runs,
    answering,
    divergences,
    finite,
    off_diagonal,
    shares_of,
    unanswered,
)
from labkit.store.run import Run

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
VERDICTS = {True: HOLDS, False: FAILS, None: UNDECIDED}
PERCENT = (0.0, 100.0)

Settings = Mapping[str, Sequence[Run]]  # number of the original's section → runs of its setting
Measure = Callable[[Run], float | np.ndarray]  # one value, or one of each test image


@dataclass(frozen=True)
class Numbers:
    """Where a comparison lies, to be drawn.

    Attributes:
        mean, low, high: ours, with its 95 % interval; NaN where there is none.
        border: what it is compared with.
        expected: on which side of the border the claim puts it, 1 above or -1 below; 0: on it.
        theirs: the same of the original's own lists and tables; None where they have none.
        unit, form: how values are written.
        logs: whether they are logarithms of what is written.
    """

    mean: float
    low: float
    high: float
    border: float
    expected: int
    theirs: float | None
    unit: str
    form: str
    logs: bool = False

    def words(self, value: float) -> str:
        """A value for a reader."""
        value = math.exp(value) if self.logs else round(value, 2)
        return minus(f"{value:{self.form}}{self.unit}")


@dataclass(frozen=True)
class Part:
    """One comparison that a claim rests on.

    Attributes:
        what: is compared.
        agrees: with the claim or not; None where the data cannot tell.
        n: runs, of the setting that has fewer.
        found: the numbers, with interval and test.
        brief: the same in plain words.
        p: two-sided; NaN where nothing could be tested.
        needed: how many runs of each setting would settle it, see `stats.Estimate`.
        size: whether the original's number lies inside what one more run of ours would give.
        numbers: what of it can be drawn; None where there is nothing.
        says: of whom, what the claim says, what is so where it does not hold, and of whom or what.
    """

    what: str
    agrees: bool | None
    n: int
    found: str
    brief: str
    p: float = math.nan
    needed: float = math.nan
    size: str = ""
    numbers: Numbers | None = None
    says: tuple[str, str, str, str] = ("", "", "", "")

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.agrees is not None:
            return HOLDS if self.agrees else FAILS
        if self.n < 2:
            return f"{UNDECIDED} (n = {self.n})"
        if math.isinf(self.needed):
            return f"{UNDECIDED} (n = {self.n}); more runs alone would not settle it"
        more = "" if math.isnan(self.needed) else f"; about n = {self.needed:.0f} would settle it"
        if self.needed > stats.MOST_RUNS:
            more = f"; it would take more than {stats.MOST_RUNS:,} runs"
        return f"{UNDECIDED} (n = {self.n}){more}"


@dataclass(frozen=True)
class Statement:
    """A claim of the original's, or one that `own` makes, and how it is judged.

    Attributes:
        number: in the ledger; 0 for one's own.
        name: for where there is room for two words.
        section: of the original.
        says: the statement, in English.
        predicts: what the records must show if it holds.
        test: the test that decides.
        needs: the settings whose runs it is judged on, by the fields in which they differ.
        judge: the parts, from the runs of those settings.
        own: whether the original's own lists and tables agree with it, in words.
        answers: whether it rests on what the networks answer, and not on losses alone.
    """

    number: int
    name: str
    section: str
    says: str
    predicts: str
    test: str
    needs: Mapping[str, Mapping[str, Any]]
    judge: Callable[[Settings], list[Part]]
    own: Callable[[], str]
    answers: bool = False


@dataclass(frozen=True)
class Judgement:
    """A claim with its parts; `note` says which runs were left out."""

    claim: Statement
    parts: list[Part]
    note: str = ""

    @property
    def verdict(self) -> str:
        """The verdicts of all parts as one: how many hold, do not hold, are undecided."""
        return tally([part.agrees for part in self.parts])


def tally(agrees: Sequence[bool | None]) -> str:
    """How many of several verdicts are which; the verdict alone where all are the same."""
    counts = Counter(agrees)
    if len(counts) == 1:
        return VERDICTS[agrees[0]]
    hold, fail, undecided = (counts[kind] for kind in (True, False, None))
    said = [f"{hold} {'holds' if hold == 1 else 'hold'}"] * bool(hold)
    said += [f"{fail} {'does' if fail == 1 else 'do'} not hold"] * bool(fail)
    said += [f"{undecided} {'is' if undecided == 1 else 'are'} undecided"] * bool(undecided)
    return ", ".join(said)


def judge(claim: Statement, runs: Runs) -> Judgement | None:
    """The verdict on `claim` from `runs`; None where a setting that it needs has no runs.

    Settings are recognised by their configs, not by their labels, and differ in nothing but what
    the claim says: of several images, numbers of epochs and so on the first that do are taken.
    """
    groups = {group[0].config.replace(seed=0): group for group in runs.values()}
    if claim.number:
        groups = {config: group for config, group in groups.items() if original.section_of(config)}
    for config in groups:
        with contextlib.suppress(ConfigError):  # its images are too few for the claim's batches
            chosen = {k: config.replace(**own) for k, own in claim.needs.items()}
            if groups.keys() >= set(chosen.values()):
                break
    else:
        return None
    return judged(claim, {name: groups[config] for name, config in chosen.items()})


def judged(claim: Statement, needed: Settings) -> Judgement:
    """The verdict on `claim` from the runs of the settings that it needs, a run of each or more,
    whatever their recipe."""
    first = next(iter(needed.values()))[0].config
    settings, notes = finite(needed), []
    parts = (
        claim.judge(settings)
        if len(settings) == len(needed)
        else [nothing("every setting", "no run is left to compare")]
    )
    # The original's sizes, and its tenth epoch, are of its scale.
    if claim.number and scale_name(first) != "paper":
        parts = [_with_theirs(replace(part, size=""), None) for part in parts]
        if claim.number == 1:
            parts = [replace(part, agrees=None, p=math.nan, numbers=None) for part in parts]
    said = "section " * bool(claim.number)
    if lost := divergences({f"{said}{name}": group for name, group in needed.items()}):
        parts = [replace(part, agrees=None, p=math.nan, needed=math.nan) for part in parts]
        notes.append(f"{lost}, so no verdict is given on the other runs")
    if claim.answers and (older := unanswered(needed)):
        notes.append(older)
    return Judgement(claim, parts, "; ".join(notes))


def judgements(runs: Runs) -> Iterator[Judgement]:
    """The verdicts on all claims that `runs` suffice for, in the ledger's order."""
    yield from filter(None, (judge(claim, runs) for claim in CLAIMS))


def outside(part: Part) -> bool:
    """Whether the original's size lies outside what one more run of ours would give."""
    return part.size.startswith("outside")


def alike(part: Part, other: Part) -> bool:
    """Whether two findings on one comparison lie on the same side of the claim's border; both have
    numbers."""
    return (part.numbers.mean > part.numbers.border) == (other.numbers.mean > other.numbers.border)


def corrected(found: Sequence[Judgement]) -> list[tuple[Statement, Part, float, bool | None]]:
    """Every part of all claims, with its p-value corrected for all of them together (Holm), and
    whether it agrees by that; None where it is undecided."""
    every = [(judgement.claim, part) for judgement in found for part in judgement.parts]
    p_values = stats.holm([part.p for _, part in every])
    return [
        (claim, part, p, part.agrees if p < 1 - stats.LEVEL else None)
        for (claim, part), p in zip(every, p_values, strict=True)
    ]


def part(
    what: str,
    expected: int,
    found: stats.Estimate,
    unit: str,
    brief: str,
    theirs: float | None = None,
    form: str = "+.3g",
    border: float = 0.0,
) -> Part:
    """A part from an estimate that must be above (`expected` 1) or below (-1) the border.

    Args:
        theirs: the original's own value of the same measure.
        form: how its numbers are written.
        border: what the estimate is about.
    """
    numbers = Numbers(found.mean, found.low, found.high, border, expected, theirs, unit, form)
    mean, low, high, next_low, next_high = (
        format(value, form)
        for value in (found.mean, found.low, found.high, found.next_low, found.next_high)
    )
    if math.isnan(found.p):
        said = f"{what}: {mean}{unit} (n = {found.n}, no claim)"
        return Part(what, None, found.n, minus(said), brief, numbers=numbers)
    said = f"{what}: {mean}{unit} ({low} to {high}, {stats.p_words(found.p)}, n = {found.n})"
    size = ""
    if theirs is not None:
        where = "inside" if found.next_low <= theirs <= found.next_high else "outside"
        size = f"{where}: {theirs:{form}} against {next_low} to {next_high}{unit}"
    agrees = found.sign == expected if found.sign else None
    tested = found.p, found.needed
    return Part(what, agrees, found.n, minus(said), brief, *tested, minus(size), numbers)


def nothing(what: str, why: str = "no run has recalibrated answers") -> Part:
    """A part for which there is no run."""
    return Part(what, None, 0, f"{what}: {why}", why)


def area(run: Run) -> float:
    """The area under the loss curve on a log axis, see `stats.log_area`."""
    return stats.log_area(run.history["loss"].to_numpy())


def last_loss(run: Run) -> float:
    """The mean loss of the last epoch, in nats."""
    return float(run.history["loss"].iloc[-1])


def test_percent(run: Run, statistics: str = RECALIBRATED) -> np.ndarray:
    """100 for each test image that was answered correctly, else 0: the mean is the accuracy in %.

    Length 0 for a run without such answers.
    """
    return 100.0 * run.right(statistics)


def training_percent(run: Run, statistics: str = RECALIBRATED) -> float:
    """The accuracy on the training images in %: of all that there are."""
    return 100 * run.accuracy("train", statistics)


def compared(first: Sequence[Run], second: Sequence[Run], measure: Measure) -> stats.Estimate:
    """`measure` of the first runs minus that of the second."""
    share = measure in (test_percent, training_percent)
    bounds = (-100.0, 100.0) if share else (-math.inf, math.inf)
    return stats.estimate(
        *([measure(run) for run in group] for group in (first, second)), bounds=bounds
    )


def in_images(points: float) -> str:
    """A difference of accuracies in plain words: images in 1,000."""
    if abs(points) < 0.005:
        return "no image in 1,000 more or fewer"
    many = number(abs(10 * points), 0 if abs(points) >= 1 else 1)
    return f"{'loses' if points < 0 else 'gains'} {many} image{'s' * (many != '1')} in 1,000"


@dataclass(frozen=True)
class Quantity:
    """What two settings are compared by.

    Attributes:
        of: its value of a run.
        what: it is called in a comparison.
        unit: of a difference.
        brief: a difference in plain words.
        verbs: of a setting that has more of it than another, and of one that has less.
        subject: what stands before the setting there.
    """

    of: Measure
    what: str
    unit: str
    brief: Callable[[float], str]
    verbs: tuple[str, str]
    subject: str = ""

    @property
    def answers(self) -> bool:
        """Whether it rests on what the networks answer."""
        return bool(self.subject)


_SHARE = " points", in_images, ("was higher than with", "was lower than with")
#: By the names that claims of one's own use.
MEASURES = {
    "log-loss area": Quantity(
        area,
        "mean ln loss",
        "",
        lambda found: f"its loss is typically {math.exp(found):.2f} times as high",
        ("converged more slowly than", "converged faster than"),
    ),
    "last loss": Quantity(
        last_loss,
        "last loss",
        " nats",
        lambda found: (
            f"its last loss is {abs(found):.4f} nats {'higher' if found > 0 else 'lower'}"
        ),
        ("ended with a higher loss than", "ended with a lower loss than"),
    ),
    "test accuracy": Quantity(test_percent, "test accuracy", *_SHARE, "test accuracy with "),
    "training accuracy": Quantity(
        training_percent, "training accuracy", *_SHARE, "training accuracy with "
    ),
}


def contrast(
    groups: Sequence[Sequence[Run]],
    names: tuple[str, str],
    measure: str,
    expected: int,
    theirs: float | None = None,
    times: bool = False,
) -> Part:
    """Two settings compared by one of `MEASURES`.

    Args:
        names: of the two settings.
        expected: 1 if the first has more of it by the claim, -1 if less.
        theirs: the difference that is claimed, or that the original has; of the log-loss area the
            difference of the means of ln(loss).
        times: the latter is said as how many times as high the loss is.
    """
    by = MEASURES[measure]
    one = nothing(what := f"{names[0]} − {names[1]}, {by.what}".replace("batch size ", "batch "))
    kept = [answering(group) if by.answers else group for group in groups]
    if all(kept):
        found = compared(*kept, by.of)
        one = part(what, expected, found, by.unit, by.brief(found.mean), theirs)
    if one.numbers and by.of is area:
        shown = replace(one.numbers, unit=" times", form=".2f", logs=True)
        one = replace(one, numbers=shown)
        if times and one.size:
            ends = map(shown.words, (theirs, found.next_low, found.next_high))
            one = replace(one, size="{}: {} against {} to {}".format(one.size.split(":")[0], *ends))
    so, otherwise = by.verbs[::expected]
    return replace(one, says=(by.subject + names[0], so, otherwise, names[1]))


def _final_loss(settings: Settings) -> list[Part]:
    """Whether one more run could end at the stated loss; one that could proves nothing."""
    losses, stated = [last_loss(run) for run in settings["1"]], original.STATED_FINAL_LOSS
    found, what = stats.estimate(np.log(losses)), "last loss of the baseline"
    brief = (
        f"{min(losses):.4f} to {max(losses):.4f} nats, on average {stated / np.mean(losses):.1f} "
    )
    brief += "times less than stated"
    shown = Numbers(
        found.mean,
        found.next_low,
        found.next_high,
        border=math.log(stated),
        expected=0,
        theirs=math.log(original.SECTIONS[0].epoch_loss[-1]),
        unit=" nats",
        form=".4f",
        logs=True,
    )
    listed = original.SECTIONS[0].epoch_loss[-1]
    says = "the loss", "may end at", "ended far from", f"the stated {stated} (listed: {listed:.6f})"
    if math.isnan(found.p):
        said = f"{what}: {np.mean(losses):.4f} nats (n = {found.n}, no claim)"
        return [Part(what, None, found.n, said, brief, numbers=shown, says=says)]
    p = stats.p_of_one_more(np.log(losses), math.log(stated))
    bounds = f"{math.exp(found.next_low):.4f} and {math.exp(found.next_high):.4f}"
    said = (
        f"{what}: one more run would end between {bounds} nats ({stats.p_words(p)}, n = {found.n})"
    )
    agrees = False if p < 1 - stats.LEVEL else None
    return [Part(what, agrees, found.n, said, brief, p, numbers=shown, says=says)]


def _own_final_loss() -> str:
    listed = original.SECTIONS[0].epoch_loss[-1]
    same = listed == original.STATED_FINAL_LOSS
    return "agree" if same else f"disagree: its list of epochs ends at {listed:.6f}"


def _with_theirs(one: Part, theirs: float | None) -> Part:
    """The part with the original's own value, or without, where it can be drawn."""
    return replace(one, numbers=replace(one.numbers, theirs=theirs)) if one.numbers else one


def _with_running(one: Part, found: stats.Estimate, theirs: float, unit: str, form: str) -> Part:
    """The part with the same figure by running averages, which decides nothing but the size: the
    original's numbers are most likely by these."""
    tested = f"{stats.p_words(found.p)}, " * math.isfinite(found.p)
    said = minus(f"; by running averages {found.mean:{form}}{unit} ({tested}n = {found.n})")
    sized = part("", 1, found, unit, "", theirs, form)
    one = replace(one, found=one.found + said, brief=one.brief + said)
    one = replace(one, size=f"{sized.size}, by running averages" * bool(sized.size))
    return _with_theirs(one, theirs)


def _above_99(settings: Settings) -> list[Part]:
    parts, group = [], answering(settings["1"])
    for split, kind in SPLITS.items():
        what, theirs = f"{kind} accuracy", getattr(original.SECTIONS[0], split).total_percent
        one = nothing(what)
        # The training images are all there are; the test images stand for others.
        by = training_percent if split == "train" else test_percent
        if group:
            found = stats.estimate(list(map(by, group)), about=99.0, bounds=PERCENT)
            wrong = f"{10 * (100 - found.mean):.1f} images in 1,000 wrong"
            brief = f"{found.mean:.2f} %, {wrong}"
            one = part(what, 1, found, " %", brief, form=".2f", border=99.0)
            if found.by_images > 0:
                images = int(group[0].counts(split).sum())
                left = f"{images:,} images alone leave ± {found.by_images:.2f} %"
                one = replace(one, found=f"{one.found}; {left}, however many the runs")
        averaged = [by(run, RUNNING) for run in answering(settings["1"], RUNNING)]
        running = stats.estimate(averaged, about=99.0, bounds=PERCENT)
        one = replace(one, says=(what, "passed", "stayed below", "99 %"))
        parts.append(_with_running(one, running, theirs, " %", ".2f"))
    return parts


def _own_above_99() -> str:
    shares = [getattr(original.SECTIONS[0], split).total_percent for split in SPLITS]
    said = " and ".join(f"{share:.2f} %" for share in shares)
    return f"{'agree' if min(shares) > 99 else 'disagree'}: {said}"


def _most_often(what: str, times: int, n: int, more: str, theirs: float | None = None) -> Part:
    """Whether something is so in most runs; of the original's one, in 0 or 100 %."""
    p, needed = stats.majority(times, n)
    agrees = times > n / 2 if p < 1 - stats.LEVEL else None
    said = f"{what}: in {times} of {n} runs, on these images ({stats.p_words(p)}); {more}"
    ends = binomtest(times, n).proportion_ci(stats.LEVEL, method="exact")
    shares = 100 * times / n, 100 * float(ends.low), 100 * float(ends.high)
    numbers = Numbers(*shares, 50.0, 1, theirs, " % of runs", ".0f")
    return Part(what, agrees, n, said, f"in {times} of {n} runs; {more}", p, needed, "", numbers)


def _digits(settings: Settings) -> list[Part]:
    parts, group = [], answering(settings["1"])
    for split, kind in SPLITS.items():
        shares = np.array([shares_of(run.counts(split))[:-1] for run in group])
        for sign, digits, rank in ((1, [8], "best"), (-1, [2, 7], "worst")):
            what = f"{' and '.join(map(str, digits))} {rank} on the {kind} images"
            if not group:
                parts.append(nothing(what))
                continue
            printed = np.array([getattr(original.SECTIONS[0], split).percent])
            times, theirs = (_ahead(sign * of, digits).sum() for of in (shares, printed))
            order = np.argsort(-sign * shares.mean(0), kind="stable")[: len(digits)]
            named = " and ".join(f"{d} ({shares.mean(0)[d]:.2f} %)" for d in order)
            more = f"{rank} on average: {named}"
            one = _most_often(what, int(times), len(group), more, 100 * float(theirs))
            subject, _, rest = what.partition(f" {rank}")
            verb = "was" if len(digits) == 1 else "were"
            so, otherwise = (f"{verb} {usually} {rank}" for usually in ("usually", "seldom"))
            parts.append(replace(one, says=(subject, so, otherwise, rest.strip())))
    return parts


def _ahead(values: np.ndarray, digits: list[int]) -> np.ndarray:
    """Whether these digits have higher values than all others, of each row of `[runs, digits]`."""
    return values[:, digits].min(1) > np.delete(values, digits, axis=1).max(1)


def _own_digits() -> str:
    said = []
    for split, kind in SPLITS.items():
        shares = np.array(getattr(original.SECTIONS[0], split).percent)
        worst = sorted(int(d) for d in shares.argsort(kind="stable")[:2])
        if shares.argmax() != 8 or worst != [2, 7]:
            said.append(
                f"its {kind} table has {shares.argmax()} best, {worst[0]} and {worst[1]} worst"
            )
    return f"disagree: {'; '.join(said)}" if said else "agree"


def _more_often_than_others(run: Run) -> np.ndarray:
    """For each test image what it adds to how much more often 2 and 7 are mistaken for each other
    than the mean of the other 44 pairs, `[images]`, so that the mean is that many mistakes."""
    labels, predicted = run.test_labels, run.predicted()
    pair = np.isin(labels, (2, 7)) & np.isin(predicted, (2, 7)) & (labels != predicted)
    return len(labels) * (pair - ((labels != predicted) & ~pair) / 44)


def _two_and_seven(settings: Settings) -> list[Part]:
    if not (group := answering(settings["1"])):
        return [nothing("2 and 7")]
    upper = np.triu_indices(10, 1)
    wrong = np.array([off_diagonal(run.counts("test")) for run in group])
    pairs = (wrong + wrong.transpose(0, 2, 1))[:, *upper]  # [runs, 45]
    names = [f"{a} and {b}" for a, b in zip(*upper, strict=True)]
    here = names.index("2 and 7")
    others = np.delete(pairs, here, axis=1)
    found = stats.estimate([_more_often_than_others(run) for run in group])
    total = pairs.sum(0)
    place = 1 + (total > total[here]).sum()
    brief = f"{total[here]} of {total.sum()} mistakes, place {place} of {len(names)} pairs"
    more = f"most frequent {names[total.argmax()]} with {total.max()} of {total.sum()} mistakes"
    what = "2 and 7 against the mean of the other pairs"
    times = int((pairs[:, here] > others.max(1)).sum())
    parts = [
        part(what, 1, found, " mistakes per run", brief),
        _most_often("2 and 7 the most frequent pair", times, len(group), more),
    ]
    mistaken = "were mistaken for each other"
    says = (
        ("2 and 7", f"{mistaken} more often than", f"{mistaken} less often than", "other pairs"),
        ("2 and 7", "were usually", "were seldom", "the most frequent pair"),
    )
    return [replace(one, says=of) for one, of in zip(parts, says, strict=True)]


def _areas(first: str, second: str, names: str, expected: int) -> Callable[[Settings], Part]:
    """The areas of two sections' log-loss curves compared, and the original's own beside them."""

    def judged(settings: Settings) -> Part:
        groups, theirs = (settings[first], settings[second]), _own_area(first, second)
        one = contrast(groups, names.split(" − "), "log-loss area", expected, theirs)
        return replace(one, brief=f"{one.brief} (original: {math.exp(theirs):.2f} times)")

    return judged


def _own_area(first: str, second: str) -> float:
    areas = [stats.log_area(np.array(original.section(n).epoch_loss)) for n in (first, second)]
    return areas[0] - areas[1]


def _accuracies(first: str, second: str, names: str, expected: int) -> Callable[[Settings], Part]:
    """The test accuracies of two sections compared, and the original's own beside them."""

    def judged(settings: Settings) -> Part:
        groups, theirs = (settings[first], settings[second]), _own_accuracy(first, second)
        one = contrast(groups, names.split(" − "), "test accuracy", expected)
        if one.n:
            one = replace(one, brief=f"{one.brief}; the original {in_images(theirs)}")
        averaged = [answering(group, RUNNING) for group in groups]
        shares = ([test_percent(run, RUNNING) for run in group] for group in averaged)
        return _with_running(one, stats.estimate(*shares), theirs, " points", "+.3g")

    return judged


def _own_accuracy(first: str, second: str) -> float:
    tables = [original.section(number).test for number in (first, second)]
    return tables[0].total_percent - tables[1].total_percent


def _agrees(value: float, expected: int, words: str) -> str:
    return minus(f"{'agree' if value * expected > 0 else 'disagree'}: {words}")


def _own_batch() -> str:
    difference = _own_area("3.2", "1")
    curves = _agrees(difference, -1, f"curves {difference:+.3g} in mean ln loss")
    return f"{curves}; {_own_tables('3.2', '1', 1)}"


def _own_tanh() -> str:
    over, under = _own_area("2.2", "1"), _own_area("2.2", "2.1")
    relu, sigmoid, tanh = (original.section(n).epoch_loss[-1] for n in ("1", "2.1", "2.2"))
    said = f"{over:+.3g} in mean ln loss from ReLU, {under:+.3g} from sigmoid; its lists end at "
    said += f"{relu:.4f} (ReLU), {tanh:.4f} (tanh), {sigmoid:.4f} (sigmoid)"
    return minus(f"{'agree' if under < 0 < over else 'disagree'}: {said}")


def _own_tables(first: str, second: str, expected: int) -> str:
    """What the original's accuracy tables say, and whether that is more than chance."""
    tables = [original.section(number).test for number in (first, second)]
    p = stats.two_shares(*(n for table in tables for n in (table.correct, table.total)))
    difference = _own_accuracy(first, second)
    return _agrees(
        difference, expected, f"{difference:+.2f} points (Fisher's test {stats.p_words(p)})"
    )


_sigmoid = _areas("2.1", "1", "sigmoid − ReLU", 1)
_tanh_relu, _tanh_sigmoid = (
    _areas("2.2", "1", "tanh − ReLU", 1),
    _areas("2.2", "2.1", "tanh − sigmoid", -1),
)
_rate = _accuracies("3.1", "1", "learning rate 0.1 − 0.01", -1)
_batch_loss = _areas("3.2", "1", "batch size 1000 − 64", -1)
_batch = _accuracies("3.2", "1", "batch size 1000 − 64", 1)


def _sections(*numbers: str) -> dict[str, dict[str, Any]]:
    """What sections of the original differ in, by their numbers."""
    names = [name for name in VARIED if name != "seed"]
    return {n: {k: getattr(original.section(n), k) for k in names} for n in numbers}


WELCH = "Welch's test over the seeds"
IMAGES = " and, for accuracies, over the test images too"
CLAIMS = (
    Statement(
        1,
        "final loss",
        "1.2",
        "After ten epochs the loss fell to 0.20056.",
        "One more run of ours could end there (if it could, that proves nothing).",
        "95 % prediction interval of ln(loss) from the seeds",
        _sections("1"),
        _final_loss,
        _own_final_loss,
    ),
    Statement(
        2,
        "99 %",
        "1.3",
        "Training and test accuracy both pass 99 %.",
        "Both mean accuracies lie above 99 %.",
        "t-test against 99 %, over the seeds and, for test images, over the images too",
        _sections("1"),
        _above_99,
        _own_above_99,
        answers=True,
    ),
    Statement(
        3,
        "digits",
        "1.3",
        "8 is learnt best, 2 and 7 worst.",
        "8 is best, and 2 and 7 are the two worst, in most runs and on both splits.",
        "exact binomial test, on these images, against an even chance in each run",
        _sections("1"),
        _digits,
        _own_digits,
        answers=True,
    ),
    Statement(
        4,
        "2 and 7",
        "1.3",
        "2 and 7 are mistaken for each other (its guess).",
        "They are mistaken for each other more often than other pairs, and most often of all.",
        "t-test within the runs, over seeds and images; exact binomial test, on these images, "
        "against an even chance in each run",
        _sections("1"),
        _two_and_seven,
        lambda: "say nothing: it prints no mistakes",
        answers=True,
    ),
    Statement(
        5,
        "sigmoid",
        "2.1",
        "Sigmoid converges worse than ReLU.",
        "The area under its log-loss curve is larger.",
        WELCH,
        _sections("1", "2.1"),
        lambda settings: [_sigmoid(settings)],
        lambda: _agrees(_own_area("2.1", "1"), 1, f"{_own_area('2.1', '1'):+.3g} in mean ln loss"),
    ),
    Statement(
        6,
        "tanh",
        "2.2",
        "Tanh is a little worse than ReLU and better than sigmoid.",
        "The area under its log-loss curve lies between theirs.",
        WELCH,
        _sections("1", "2.1", "2.2"),
        lambda settings: [_tanh_relu(settings), _tanh_sigmoid(settings)],
        _own_tanh,
    ),
    Statement(
        7,
        "learning rate",
        "3.1",
        "A learning rate of 0.1 costs much accuracy; 0.01 is better.",
        "The test accuracy is lower; by how much, the original's size says.",
        WELCH + IMAGES,
        _sections("1", "3.1"),
        lambda settings: [_rate(settings)],
        lambda: _own_tables("3.1", "1", -1),
        answers=True,
    ),
    Statement(
        8,
        "batch size",
        "3.2",
        "Batch size 1000 beats 64 in convergence and in accuracy.",
        "The area under its log-loss curve is smaller, and its test accuracy is higher.",
        WELCH + IMAGES,
        _sections("1", "3.2"),
        lambda settings: [_batch_loss(settings), _batch(settings)],
        _own_batch,
        answers=True,
    ),
)


def claim(number: Any) -> Statement:
    """The claim of that number in the ledger.

    Raises:
        ConfigError: there is none.
    """
    return CLAIMS[whole("claim", number, most=len(CLAIMS)) - 1]
