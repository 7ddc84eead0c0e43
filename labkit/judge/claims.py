"""The original's claims, as data, and the verdict on each, computed from runs.

A verdict is *reproduced* if every comparison that a claim rests on goes the claimed way here, with
an interval that excludes zero; *contradicted* if some goes the other way, with such an interval;
otherwise *not separable at n = ...*, n being the seeds. Where what the original states and what it
prints do not go together, the verdict says that it *contradicts the original's own table*, and then
what these runs show; curves are compared by their last losses for that, since the original knew no
other measure. Where a run diverged, what is left is no fair comparison: not separable.

Accuracies and answers are recalibrated, see `measures.STATISTICS`. Those by running averages, which
the original most likely states, are named beside them and decide nothing. Where no run has
recalibrated answers, a claim that rests on them is not separable at n = 0.

Intervals are corrected for the comparisons within a claim, not for the number of claims.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labkit.core.config import VARIED
from labkit.core.measures import RUNNING
from labkit.core.values import whole
from labkit.core.words import minus
from labkit.judge import original, stats
from labkit.store.groups import (
    Runs,
    answering,
    divergences,
    finite,
    off_diagonal,
    paired_by_seed,
    shares_of,
    unanswered,
)
from labkit.store.run import Run

REPRODUCED, CONTRADICTED = "reproduced", "contradicted"
OWN_TABLE = "contradicts the original's own table"

Settings = Mapping[str, Sequence[Run]]  # number of the original's section → runs of its setting
Measure = Callable[[Run], float | np.ndarray]  # one value, or one of each test image


@dataclass(frozen=True)
class Finding:
    """One comparison on `n` seeds; `agrees` with the claim or not, None if the data cannot tell.

    `brief` is the evidence without the tests, for the ledger.
    """

    agrees: bool | None
    evidence: str
    n: int
    brief: str


@dataclass(frozen=True)
class Claim:
    """A statement of the original, and how it is judged.

    Attributes:
        number: in the ledger.
        section: of the original.
        says: the statement, in English.
        predicts: what the records must show if it holds.
        test: the test that decides.
        needs: the sections whose runs it is judged on.
        judge: the findings, from the runs of those sections.
        own: where the original's own numbers contradict it, in words; "" if they do not.
        answers: whether it rests on what the networks answer, and not on losses alone.
    """

    number: int
    section: str
    says: str
    predicts: str
    test: str
    needs: tuple[str, ...]
    judge: Callable[[Settings], list[Finding]]
    own: Callable[[], str] = lambda: ""
    answers: bool = False


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict, with what it rests on, at length and in brief."""

    claim: Claim
    verdict: str
    evidence: str
    n: int
    brief: str


def judge(claim: Claim, runs: Runs) -> Judgement | None:
    """The verdict on `claim` from `runs`; None where a setting that it needs has no runs.

    The settings are told by their configs, not by their labels: of several recipes, images or
    numbers of epochs those of the first group are taken.
    """
    first = next(iter(runs.values()))[0].config
    alike = {name: getattr(first, name) for name in VARIED}
    needed = {
        section.number: group
        for group in runs.values()
        if (section := original.section_of(group[0].config))
        and section.number in claim.needs
        and group[0].config.replace(**alike) == first
    }
    if len(needed) < len(claim.needs):
        return None
    settings, first_of_all = finite(needed), []
    nothing = [Finding(None, "no run is left to compare", 0, "no run is left to compare")]
    findings = claim.judge(settings) if len(settings) == len(needed) else nothing
    if lost := divergences({f"section {number}": group for number, group in needed.items()}):
        findings = [replace(finding, agrees=None) for finding in findings]
        first_of_all.append(f"{lost}, so that no verdict is given on the others")
    if claim.answers and (older := unanswered(needed)):
        first_of_all.append(f"{older} where answers count")
    found = verdict(findings)
    if own := claim.own():
        first_of_all.insert(0, own)
        found = f"{OWN_TABLE}; these runs: {found}"
    evidence, brief = (
        minus("; ".join([*first_of_all, *parts]))
        for parts in ([f.evidence for f in findings], [f.brief for f in findings])
    )
    return Judgement(claim, found, evidence, min(finding.n for finding in findings), brief)


def verdict(findings: Sequence[Finding]) -> str:
    """What several comparisons, all of which a claim rests on, say of it together.

    Where one of them has no runs, that is nothing.
    """
    if not min(finding.n for finding in findings):
        return "not separable at n = 0"
    if any(finding.agrees is False for finding in findings):
        return CONTRADICTED
    if all(finding.agrees for finding in findings):
        return REPRODUCED
    return f"not separable at n = {min(finding.n for finding in findings)}"


def judgements(runs: Runs) -> Iterator[Judgement]:
    """The verdicts on all claims that `runs` suffice for, in the ledger's order."""
    for claim in CLAIMS:
        if found := judge(claim, runs):
            yield found


def compared(
    what: str,
    first: Sequence[Run],
    second: Sequence[Run],
    measure: Measure,
    expected: int,
    *,
    unit: str = "",
    comparisons: int = 1,
) -> Finding:
    """Whether `measure` is higher (`expected` 1) or lower (-1) in `first` than in `second`."""
    difference = paired(first, second, measure, comparisons)
    if difference is None:
        pairs, found = paired_by_seed(first, second), "no seed in common"
        for a, b in pairs:
            found = f"{np.mean(measure(a)) - np.mean(measure(b)):+.3g}{unit} (single run, no claim)"
        return Finding(None, f"{what}: {found}", len(pairs), f"{what}: {found}")
    agrees = (difference.mean > 0) == (expected > 0) if difference.separable else None
    words, brief = f"{what}: {difference.words(unit)}", f"{what}: {difference.brief(unit)}"
    return Finding(agrees, words, difference.n, brief)


def paired(
    first: Sequence[Run],
    second: Sequence[Run],
    measure: Measure,
    comparisons: int = 1,
) -> stats.Difference | None:
    """`measure` of the first runs minus that of the second; None below two seeds in common."""
    pairs = paired_by_seed(first, second)
    if len(pairs) < 2:
        return None
    values = zip(*[(measure(a), measure(b)) for a, b in pairs], strict=True)
    return stats.paired_difference(*values, comparisons)


def with_more(finding: Finding, evidence: str, brief: str = "") -> Finding:
    """The finding with more evidence, if there is any, behind its own."""
    return replace(
        finding,
        evidence="; ".join(filter(None, (finding.evidence, evidence))),
        brief="; ".join(filter(None, (finding.brief, brief))),
    )


def _no_answers(what: str) -> Finding:
    words = f"{what}: no run has recalibrated answers"
    return Finding(None, words, 0, words)


def area(run: Run) -> float:
    """The area under the loss curve on a log axis, see `stats.log_area`."""
    return stats.log_area(run.history["loss"].to_numpy())


def last_loss(run: Run) -> float:
    """The mean loss of the last epoch, in nats."""
    return float(run.history["loss"].iloc[-1])


def test_percent(run: Run) -> np.ndarray:
    """100 for each test image that was answered rightly, else 0: the mean is the accuracy in %.

    By recalibrated answers; length 0 for a run that has none.
    """
    return 100.0 * run.right()


def _final_loss(settings: Settings) -> list[Finding]:
    losses = [last_loss(run) for run in settings["1"]]
    brief = f"last loss here {min(losses):.4f} to {max(losses):.4f} nats"
    if len(losses) < 2:
        return [Finding(None, f"{brief} (single run, no claim)", 1, brief)]
    low, high = stats.prediction_interval(losses)
    stated = original.STATED_FINAL_LOSS
    words = f"{brief}, one more run by 95 % in {max(low, 0):.4f} to {high:.4f} (n = {len(losses)})"
    if min(losses) <= stated <= max(losses):
        return [Finding(True, words, len(losses), brief)]
    agrees = None if low <= stated <= high else False  # nan: equal losses leave no interval
    return [Finding(agrees, words, len(losses), brief)]


def _own_final_loss() -> str:
    listed = original.SECTIONS[0].epoch_loss[-1]
    if listed == original.STATED_FINAL_LOSS:
        return ""
    return f"its list of epochs ends at {listed:.6f}"


def _above_99(settings: Settings) -> list[Finding]:
    group, found = answering(settings["1"]), []
    averaged = answering(settings["1"], RUNNING)
    for split, name in (("train", "training"), ("test", "test")):
        mean = 100 * np.mean([run.accuracy(split, RUNNING) for run in averaged] or np.nan)
        words = f"by running averages {mean:.2f} %"
        beside = (f"{words} (n = {len(averaged)})", words) if averaged else ("", "")
        if not group:
            found.append(with_more(_no_answers(f"{name} accuracy"), *beside))
            continue
        shares = [run.accuracy(split) for run in group]
        counts = group[0].counts(split)
        total, mean = int(counts.sum()), float(np.mean(shares))
        low, high = stats.wilson(round(mean * total), total)
        words = f"{100 * low:.2f} to {100 * high:.2f} % by the {total:,} images alone"
        if len(group) > 1:
            over = stats.mean_interval(shares)
            if np.isnan(over[0]):  # equal seeds have no interval
                over = (0.0, 1.0)
            shown = f"{100 * max(over[0], 0):.2f} to {100 * min(over[1], 1):.2f} %"
            words = f"{shown} over the seeds, {words}"
            low, high = min(low, over[0]), max(high, over[1])  # neither doubt is left out
        agrees = True if low > 0.99 else False if high < 0.99 else None
        if len(group) < 2:
            agrees, words = None, f"{words}; single run, no claim"
        shown = f"{name} {100 * mean:.2f} %"
        brief = f"{shown} ({100 * max(low, 0):.2f} to {100 * min(high, 1):.2f})"
        finding = Finding(agrees, f"{shown} ({words})", len(group), brief)
        found.append(with_more(finding, *beside))
    return found


def _extreme(
    group: Sequence[Run], split: str, digits: Sequence[int], sign: int, comparisons: int
) -> Finding:
    """Whether all of `digits` have a higher (`sign` 1) or lower accuracy than every other digit."""
    shares = np.array([shares_of(run.counts(split))[:-1] for run in group])
    others = [d for d in range(shares.shape[1]) if d not in digits]
    mean = shares.mean(0)
    order = [int(d) for d in np.argsort(-sign * mean, kind="stable")[: len(digits)]]
    named = " and ".join(f"{d} ({mean[d]:.2f} %)" for d in order)
    kind, rank = "training" if split == "train" else split, "best" if sign > 0 else "worst"
    words = f"{rank} on the {kind} images here: {named}"
    brief = f"here {rank} on the {kind} images: {' and '.join(map(str, order))}"
    if len(group) < 2:
        return Finding(None, f"{words} (single run, no claim)", 1, brief)
    signs = []
    for d, other in itertools.product(digits, others):
        difference = stats.paired_difference(shares[:, d], shares[:, other], comparisons)
        signs.append(sign * np.sign(difference.mean) if difference.separable else 0)
    agrees = False if min(signs) < 0 else True if min(signs) > 0 else None
    as_said, against = signs.count(1), signs.count(-1)
    claimed, way = " and ".join(map(str, digits)), ("above", "below")[::sign]
    words += (
        f", while {claimed} in {as_said} of {len(signs)} comparisons {way[0]} another digit and in "
        f"{against} {way[1]}"
    )
    return Finding(agrees, words, len(group), brief)


def _digits(settings: Settings) -> list[Finding]:
    asked = [(split, *rank) for split in ("train", "test") for rank in (([8], 1), ([2, 7], -1))]
    comparisons = sum(len(digits) * (10 - len(digits)) for _, digits, _ in asked)
    if not (group := answering(settings["1"])):
        return [_no_answers("best and worst digits")]
    return [_extreme(group, split, digits, sign, comparisons) for split, digits, sign in asked]


def _own_digits() -> str:
    said = []
    for split, name in (("train", "training"), ("test", "test")):
        shares = np.array(getattr(original.SECTIONS[0], split).percent)
        worst = sorted(int(d) for d in shares.argsort(kind="stable")[:2])
        best = int(shares.argmax())
        if best != 8 or worst != [2, 7]:
            said.append(f"its {name} table has {best} best, {worst[0]} and {worst[1]} worst")
    return "; ".join(said)


def _two_and_seven(settings: Settings) -> list[Finding]:
    if not (group := answering(settings["1"])):
        return [_no_answers("2 and 7")]
    wrong = np.array([off_diagonal(run.counts("test")) for run in group])
    total = wrong.sum(0)
    pairs = total + total.T
    upper = pairs[np.triu_indices(10, 1)]
    first, second = np.unravel_index(np.triu(pairs).argmax(), pairs.shape)
    found = []
    for true, answer in ((2, 7), (7, 2)):
        words = (
            f"{true} taken for {answer} in {total[true, answer]} of {total[true].sum()} mistakes"
        )
        brief = words
        if len(group) < 2:
            found.append(Finding(None, f"{words} (single run, no claim)", 1, brief))
            continue
        others = (wrong[:, true].sum(1) - wrong[:, true, answer]) / 8
        difference = stats.paired_difference(wrong[:, true, answer], others, comparisons=2)
        agrees = bool(difference.mean > 0) if difference.separable else None
        words += f", a run {difference.words()} against the mean of the other wrong answers"
        found.append(Finding(agrees, words, len(group), brief))
    if not total.any():
        return found
    place = int((upper > pairs[2, 7]).sum()) + 1
    words = (
        f"both together place {place} of {len(upper)} pairs with {pairs[2, 7]} of {total.sum()} "
        f"test mistakes; the most frequent is {first} and {second} with {pairs[first, second]}"
    )
    brief = f"most frequent pair {first} and {second}, this one in place {place} of {len(upper)}"
    return [found[0], with_more(found[1], words, brief)]


def _printed(number: str) -> tuple[float, ...]:
    """The original's losses by epoch in the section of that number."""
    return original.section(number).epoch_loss


def _areas(
    settings: Settings, first: str, second: str, names: str, expected: int, comparisons: int = 1
) -> Finding:
    """The areas of two sections' log-loss curves, and the original's own beside them."""
    found = compared(
        f"{names}, mean ln loss",
        settings[first],
        settings[second],
        area,
        expected,
        comparisons=comparisons,
    )
    theirs = [stats.log_area(np.array(_printed(number))) for number in (first, second)]
    own = theirs[0] - theirs[1]
    return with_more(found, f"the original's curves {own:+.3g}", f"original {own:+.3g}")


def _sigmoid(settings: Settings) -> list[Finding]:
    return [_areas(settings, "2.1", "1", "sigmoid − ReLU", 1)]


def _tanh(settings: Settings) -> list[Finding]:
    worse = _areas(settings, "2.2", "1", "tanh − ReLU", 1, 2)
    better = _areas(settings, "2.2", "2.1", "tanh − sigmoid", -1, 2)
    words = []
    ours = [np.mean([run.history["loss"] for run in settings[n]], axis=0) for n in ("2.1", "2.2")]
    for whose, (sigmoid, tanh) in (
        ("in the original", (_printed("2.1"), _printed("2.2"))),
        ("here", ours),
    ):
        below = [str(epoch) for epoch in np.flatnonzero(np.less(sigmoid, tanh))]
        words.append(f"{whose} in epoch {', '.join(below)}" if below else f"{whose} in none")
    crossing = f"sigmoid's loss is below tanh's {' and '.join(words)}"
    return [worse, with_more(better, crossing)]


def _own_tanh() -> str:
    relu, sigmoid, tanh = (_printed(number)[-1] for number in ("1", "2.1", "2.2"))
    if relu <= tanh <= sigmoid:
        return ""
    return (
        f"its lists of epochs end at {relu:.4f} (ReLU), {tanh:.4f} (tanh), {sigmoid:.4f} (sigmoid)"
    )


def _accuracies(
    settings: Settings, first: str, second: str, names: str, expected: int, comparisons: int = 1
) -> Finding:
    """The test accuracies of two sections, and what the original's own tables can carry."""
    what = f"{names}, test accuracy"
    groups = [answering(settings[number]) for number in (first, second)]
    found = _no_answers(what)
    if all(groups):
        found = compared(
            what, *groups, test_percent, expected, unit=" points", comparisons=comparisons
        )
    pairs = paired_by_seed(*(answering(settings[number], RUNNING) for number in (first, second)))
    if pairs:
        shares = np.array([[run.accuracy("test", RUNNING) for run in pair] for pair in pairs])
        mean = 100 * np.mean(shares[:, 0] - shares[:, 1])
        words = f"by running averages {mean:+.3g}"
        found = with_more(found, f"{words} points (n = {len(pairs)})", words)
    ours, theirs = (original.section(number).test for number in (first, second))
    p = stats.two_shares(ours.correct, ours.total, theirs.correct, theirs.total)
    own = ours.total_percent - theirs.total_percent
    words = f"the original's tables {own:+.3g} points (counts by Fisher's test: {stats.p_words(p)})"
    return with_more(found, words, f"original {own:+.3g}")


def _high_rate(settings: Settings) -> list[Finding]:
    return [_accuracies(settings, "3.1", "1", "lr 0.1 − 0.01", -1)]


def _large_batch(settings: Settings) -> list[Finding]:
    loss = _areas(settings, "3.2", "1", "batch 1000 − 64", -1, 2)
    first = [np.mean([run.history["loss"].iloc[0] for run in settings[n]]) for n in ("3.2", "1")]
    words = (
        f"first epoch {first[0]:.2f} against {first[1]:.2f} nats (original "
        f"{_printed('3.2')[0]:.2f} against {_printed('1')[0]:.2f})"
    )
    return [
        with_more(loss, words),
        _accuracies(settings, "3.2", "1", "batch 1000 − 64", 1, 2),
    ]


PAIRED = "paired by seed: Student's and bootstrap interval both without zero"
ACCURACY = PAIRED + ", and for accuracies that over the images, too"
CLAIMS = (
    Claim(
        1,
        "1.2",
        "After ten epochs the loss fell to 0.20056.",
        "Its own list of epochs ends there, and so do our runs, some above and some below.",
        "comparison with its list; 95 % prediction interval from the seeds",
        ("1",),
        _final_loss,
        _own_final_loss,
    ),
    Claim(
        2,
        "1.3",
        "Training and test accuracy both pass 99 %.",
        "Both mean accuracies lie above 99 %.",
        "Student's interval over the seeds and Wilson's of the images, both above 99 %",
        ("1",),
        _above_99,
        answers=True,
    ),
    Claim(
        3,
        "1.3",
        "8 is learnt best, 2 and 7 worst.",
        "8 above every other digit, 2 and 7 below every other, on both splits.",
        PAIRED + ", against each other digit (Bonferroni, 50)",
        ("1",),
        _digits,
        _own_digits,
        answers=True,
    ),
    Claim(
        4,
        "1.3",
        "2 and 7 are mistaken for each other (its guess).",
        "A 2 is taken for a 7 more often than for the mean of the other digits, and a 7 for a 2.",
        PAIRED + " (Bonferroni, 2)",
        ("1",),
        _two_and_seven,
        answers=True,
    ),
    Claim(
        5,
        "2.1",
        "Sigmoid converges worse than ReLU.",
        "The area under its log-loss curve is larger.",
        PAIRED,
        ("1", "2.1"),
        _sigmoid,
    ),
    Claim(
        6,
        "2.2",
        "Tanh is a little worse than ReLU and better than sigmoid.",
        "The area under its log-loss curve lies between theirs, and so does its last loss in the "
        "original's own lists; by how much is not judged.",
        PAIRED + " (Bonferroni, 2)",
        ("1", "2.1", "2.2"),
        _tanh,
        _own_tanh,
    ),
    Claim(
        7,
        "3.1",
        "A learning rate of 0.1 costs much accuracy; 0.01 is better.",
        "The test accuracy is lower; by how much stands beside the original's.",
        ACCURACY,
        ("1", "3.1"),
        _high_rate,
        answers=True,
    ),
    Claim(
        8,
        "3.2",
        "Batch size 1000 beats 64 in convergence and in accuracy.",
        "The area under its log-loss curve is smaller, and its test accuracy is higher.",
        ACCURACY + " (Bonferroni, 2)",
        ("1", "3.2"),
        _large_batch,
        answers=True,
    ),
)


def claim(number: Any) -> Claim:
    """The claim of that number in the ledger.

    Raises:
        ConfigError: there is none.
    """
    return CLAIMS[whole("claim", number, most=len(CLAIMS)) - 1]
