"""The original's claims, as data, and the verdict on each, computed from runs.

A verdict is one of four. *Contradicts the original's own table*: what the original states and what
it prints do not go together, whatever is found here. *Contradicted*: some comparison that the claim
rests on goes the other way here, and its interval excludes zero. *Reproduced*: all go the claimed
way, and exclude zero. Otherwise *not separable at n = ...*, n being the seeds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labkit import published, stats
from labkit.runs import Run, Runs, finite, off_diagonal, paired_by_seed

REPRODUCED, CONTRADICTED = "reproduced", "contradicted"
OWN_TABLE = "contradicts the original's own table"

Settings = Mapping[str, Sequence[Run]]  # number of the original's section → runs of its setting


@dataclass(frozen=True)
class Finding:
    """One comparison on `n` seeds; `agrees` with the claim or not, None if the data cannot tell."""

    agrees: bool | None
    evidence: str
    n: int


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
    """

    number: int
    section: str
    says: str
    predicts: str
    test: str
    needs: tuple[str, ...]
    judge: Callable[[Settings], list[Finding]]
    own: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict, with what it rests on."""

    claim: Claim
    verdict: str
    evidence: str
    n: int


def judge(claim: Claim, runs: Runs) -> Judgement | None:
    """The verdict on `claim` from `runs`; None where a setting that it needs has no runs.

    Runs that diverged are left out. The settings are told by their configs, not by their labels.
    """
    settings = {}
    for group in finite(runs).values():
        if section := published.section_of(group[0].config):
            settings[section.number] = group
    if any(number not in settings for number in claim.needs):
        return None
    findings = claim.judge(settings)
    n = min(finding.n for finding in findings)
    own = claim.own()
    evidence = "; ".join([*([own] if own else []), *(finding.evidence for finding in findings)])
    return Judgement(claim, OWN_TABLE if own else verdict(findings), evidence, n)


def verdict(findings: Sequence[Finding]) -> str:
    """What several comparisons, all of which a claim rests on, say of it together."""
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
    measure: Callable[[Run], float],
    expected: int,
    *,
    unit: str = "",
    comparisons: int = 1,
) -> Finding:
    """Whether `measure` is higher (`expected` 1) or lower (-1) in `first` than in `second`."""
    pairs = [(measure(a), measure(b)) for a, b in paired_by_seed(first, second)]
    if len(pairs) < 2:
        found = f"{pairs[0][0] - pairs[0][1]:+.3g}{unit}" if pairs else "no seed in common"
        return Finding(None, f"{what}: {found} (single run, no claim)", len(pairs))
    difference = stats.paired_difference(*zip(*pairs, strict=True), comparisons)
    agrees = (difference.mean > 0) == (expected > 0) if difference.separable else None
    return Finding(agrees, f"{what}: {difference.words(unit)}", difference.n)


def area(run: Run) -> float:
    """The area under the loss curve on a log axis, see `stats.log_area`."""
    return stats.log_area(run.history["loss"].to_numpy())


def last_loss(run: Run) -> float:
    """The mean loss of the last epoch, in nats."""
    return float(run.history["loss"].iloc[-1])


def test_percent(run: Run) -> float:
    """The accuracy on the test images, in percent."""
    return 100 * run.accuracy("test")


def percents(counts: np.ndarray) -> np.ndarray:
    """The accuracy of each class in percent, from confusion counts."""
    return 100 * np.diag(counts) / counts.sum(1)


def _final_loss(settings: Settings) -> list[Finding]:
    losses = [last_loss(run) for run in settings["1"]]
    low, high = min(losses), max(losses)
    stated = published.STATED_FINAL_LOSS
    evidence = f"last loss here {low:.4f} to {high:.4f} nats over {len(losses)} seeds"
    inside = low <= stated <= high
    far = len(losses) > 1 and not inside
    return [Finding(True if inside else False if far else None, evidence, len(losses))]


def _own_final_loss() -> str:
    listed = published.SECTIONS[0].epoch_loss[-1]
    if listed == published.STATED_FINAL_LOSS:
        return ""
    return f"its list of epochs ends at {listed:.6f}"


def _above_99(settings: Settings) -> list[Finding]:
    group, found = settings["1"], []
    for split, name in (("train", "training"), ("test", "test")):
        shares = [run.accuracy(split) for run in group]
        counts = group[0].confusion[split]
        total, mean = int(counts.sum()), float(np.mean(shares))
        low, high = stats.wilson(round(mean * total), total)
        words = f"{100 * low:.2f} to {100 * high:.2f} % by the {total:,} images alone"
        if len(group) > 1:
            over = stats.mean_interval(shares)
            words = f"{100 * over[0]:.2f} to {100 * over[1]:.2f} % over the seeds, {words}"
            low, high = min(low, over[0]), max(high, over[1])  # neither doubt is left out
        agrees = True if low > 0.99 else False if high < 0.99 else None
        found.append(Finding(agrees, f"{name} {100 * mean:.2f} % ({words})", len(group)))
    return found


def _extreme(group: Sequence[Run], split: str, digits: Sequence[int], sign: int) -> Finding:
    """Whether all of `digits` have a higher (`sign` 1) or lower accuracy than every other digit."""
    shares = np.array([percents(run.confusion[split]) for run in group])
    others = [d for d in range(shares.shape[1]) if d not in digits]
    mean = shares.mean(0)
    order = [int(d) for d in np.argsort(-sign * mean, kind="stable")[: len(digits)]]
    named = " and ".join(f"{d} ({mean[d]:.2f} %)" for d in order)
    rank = "best" if sign > 0 else "worst"
    evidence = f"{rank} on the {'training' if split == 'train' else split} images here: {named}"
    if len(group) < 2:
        return Finding(None, f"{evidence} (single run, no claim)", 1)
    pairs = [(d, other) for d in digits for other in others]
    signs = []
    for d, other in pairs:
        difference = stats.paired_difference(shares[:, d], shares[:, other], len(pairs))
        signs.append(sign * np.sign(difference.mean) if difference.separable else 0)
    agrees = False if min(signs) < 0 else True if min(signs) > 0 else None
    return Finding(agrees, evidence, len(group))


def _digits(settings: Settings) -> list[Finding]:
    group = settings["1"]
    return [
        _extreme(group, split, digits, sign)
        for split in ("train", "test")
        for digits, sign in (([8], 1), ([2, 7], -1))
    ]


def _own_digits() -> str:
    said = []
    for split, name in (("train", "training"), ("test", "test")):
        shares = np.array(getattr(published.SECTIONS[0], split).percent)
        worst = sorted(int(d) for d in shares.argsort(kind="stable")[:2])
        best = int(shares.argmax())
        if best != 8 or worst != [2, 7]:
            said.append(f"its {name} table has {best} best, {worst[0]} and {worst[1]} worst")
    return "; ".join(said)


def _two_and_seven(settings: Settings) -> list[Finding]:
    group = settings["1"]
    upper = np.triu_indices(10, 1)
    wrong = np.array([off_diagonal(run.confusion["test"]) for run in group])
    pairs = (wrong + wrong.transpose(0, 2, 1))[:, upper[0], upper[1]]
    here = next(i for i, pair in enumerate(zip(*upper, strict=True)) if pair == (2, 7))
    others = np.delete(pairs, here, axis=1).mean(1)
    total = wrong.sum(0)
    place = int((pairs.sum(0) > pairs.sum(0)[here]).sum()) + 1
    most = pairs.sum(0).argmax()
    words = (
        f"2 for 7 {total[2, 7]} times, 7 for 2 {total[7, 2]} times of {total.sum()} mistakes in "
        f"{len(group)} run{'s' * (len(group) > 1)}, place {place} of {len(upper[0])} pairs (first: "
        f"{upper[0][most]} and {upper[1][most]}, {pairs.sum(0)[most]} times)"
    )
    if len(group) < 2:
        return [Finding(None, f"{words} (single run, no claim)", 1)]
    difference = stats.paired_difference(pairs[:, here], others)
    agrees = difference.mean > 0 if difference.separable else None
    return [
        Finding(agrees, f"{words}; more than the mean pair by {difference.words()}", len(group))
    ]


def _sigmoid(settings: Settings) -> list[Finding]:
    return [compared(f"sigmoid − ReLU, {AREA}", settings["2.1"], settings["1"], area, 1)]


def _tanh(settings: Settings) -> list[Finding]:
    relu, sigmoid, tanh = (settings[number] for number in ("1", "2.1", "2.2"))
    worse = compared(f"tanh − ReLU, {AREA}", tanh, relu, area, 1, comparisons=2)
    better = compared(f"tanh − sigmoid, {AREA}", tanh, sigmoid, area, -1, comparisons=2)
    printed = {section.number: section.epoch_loss for section in published.SECTIONS}
    words = []
    for upper, lower, whose in (
        (printed["2.2"], printed["2.1"], "in its own curves"),
        (_mean_loss(tanh), _mean_loss(sigmoid), "here"),
    ):
        below = [str(epoch) for epoch in np.flatnonzero(np.less(lower, upper))]
        words.append(f"{whose} in epoch {', '.join(below)}" if below else f"{whose} in none")
    crossing = f"sigmoid's loss is below tanh's {' and '.join(words)}"
    return [worse, replace(better, evidence=f"{better.evidence}; {crossing}")]


def _mean_loss(group: Sequence[Run]) -> np.ndarray:
    return np.mean([run.history["loss"] for run in group], axis=0)


def _high_rate(settings: Settings) -> list[Finding]:
    return [
        compared(
            "lr 0.1 − lr 0.01, test accuracy",
            settings["3.1"],
            settings["1"],
            test_percent,
            -1,
            unit=" points",
        )
    ]


def _large_batch(settings: Settings) -> list[Finding]:
    large, small = settings["3.2"], settings["1"]
    return [
        compared(f"batch 1000 − 64, {AREA}", large, small, area, -1, comparisons=2),
        compared(
            "batch 1000 − 64, test accuracy",
            large,
            small,
            test_percent,
            1,
            unit=" points",
            comparisons=2,
        ),
    ]


AREA = "mean ln loss"
PAIRED = "paired by seed: Student's and bootstrap interval both without zero"
CLAIMS = (
    Claim(
        1,
        "1.2",
        "After ten epochs the loss fell to 0.20056.",
        "Its own list of epochs ends there; ours too, within the range of the seeds.",
        "comparison with its list; the range over seeds",
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
    ),
    Claim(
        3,
        "1.3",
        "8 is learnt best, 2 and 7 worst.",
        "8 above every other digit, 2 and 7 below every other, on both splits.",
        PAIRED + ", against each other digit (Bonferroni)",
        ("1",),
        _digits,
        _own_digits,
    ),
    Claim(
        4,
        "1.3",
        "2 and 7 are mistaken for each other (its guess).",
        "Among the test mistakes 2 and 7 are a more frequent pair than the mean of the others.",
        PAIRED,
        ("1",),
        _two_and_seven,
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
        "The area under its log-loss curve lies between theirs.",
        PAIRED + " (Bonferroni, 2)",
        ("1", "2.1", "2.2"),
        _tanh,
    ),
    Claim(
        7,
        "3.1",
        "A learning rate of 0.1 costs much accuracy; 0.01 is better.",
        "The test accuracy is lower.",
        PAIRED,
        ("1", "3.1"),
        _high_rate,
    ),
    Claim(
        8,
        "3.2",
        "Batch size 1000 beats 64 in convergence and in accuracy.",
        "The area under its log-loss curve is smaller, and its test accuracy is higher.",
        PAIRED + " (Bonferroni, 2)",
        ("1", "3.2"),
        _large_batch,
    ),
)


def numbered(number: Any) -> Claim:
    """The claim of that number in the ledger."""
    return CLAIMS[int(number) - 1]
