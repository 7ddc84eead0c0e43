"""Sentences of judgement, computed from runs; each says on how many runs it rests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labkit import published, stats
from labkit.config import DATASETS, SCALES, Config
from labkit.origin import MIME, made
from labkit.runs import Run, Runs, divergences, off_diagonal, total_confusion


@dataclass(frozen=True)
class Text:
    """Markdown that a notebook shows."""

    markdown: str
    origin: Mapping[str, Any] = field(default_factory=dict)  # how to make it again

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        shown = {"text/markdown": self.markdown, "text/plain": self.markdown}
        return shown | {MIME: self.origin}

    def __repr__(self) -> str:
        return self.markdown


def scale_name(config: Config) -> str:
    """Which of `SCALES` this config runs at; "own" for any other dataset or number of epochs."""
    for name, scale in SCALES.items():
        if all(getattr(config, key) == value for key, value in scale.items()):
            return name
    return "own"


@made
def scale(config: Config, seeds: int, smoke: bool = False) -> Text:
    """What this page's numbers rest on, and whether they can stand beside the original's."""
    runs = f"{seeds} run{'s' * (seeds > 1)} a setting"
    what = f"{config.dataset}, {config.epochs} epoch{'s' * (config.epochs > 1)}, {runs}"
    if smoke:
        text = f"**Smoke run ({what}).** Shows that the notebook runs; its numbers mean nothing."
    elif scale_name(config) == "paper":
        text = f"**Paper scale** ({what}): the original's images and epochs."
    else:
        train, test = DATASETS[config.dataset]
        size = f"{train:,} training and {test:,} test images"
        if config.dataset == "mnist-5k":
            size += ", all from MNIST's training set"
        name = {"quick": "Quick scale", "own": "Own settings"}[scale_name(config)]
        text = (
            f"**{name}, not the original's** ({what}): {size}; the original trained on 60,000 and "
            "tested on 10,000 for 10 epochs. Its numbers are shown for orientation; a difference "
            "from them says nothing."
        )
    return Text(f"> {text}")


def percent(share: float) -> str:
    """A share as percent with two decimals."""
    return f"{100 * share:.2f} %"


@made
def accuracy(runs: Runs) -> Text:
    """Whether each setting passes 99 % on both splits, by the 95 % interval of its answers."""
    lines = _divergences(runs)
    for label, group in finite(runs).items():
        for split, name in (("train", "training"), ("test", "test")):
            shares = [run.accuracy(split) for run in group]
            counts = group[0].confusion[split]
            total = int(counts.sum())
            if len(group) == 1:
                low, high = stats.wilson(np.trace(counts), total)
                spread = f"95 % interval {100 * low:.2f} to {percent(high)}"
            else:
                low, high = min(shares), max(shares)
                spread = f"{100 * low:.2f} to {percent(high)} over the seeds"
            every = " with every seed" * (len(group) > 1)
            if low > 0.99:
                verdict = f"above 99 %{every}"
            elif high < 0.99:
                verdict = f"below 99 %{every}"
            else:
                verdict = "not separable from 99 %" if not every else "on both sides of 99 %"
            lines.append(
                f"- **{label}**, {name} images: {percent(np.mean(shares))} of {total:,} "
                f"({spread}, n = {len(group)}): {verdict}."
            )
    return Text("\n".join(lines))


def extreme(group: Sequence[Run], split: str, digits: Sequence[int], best: bool) -> str:
    """Whether `digits` are the best (or worst) of all, by the Wilson intervals of each digit.

    *Reproduced*: each of their intervals lies beyond those of all other digits. *Contradicted*:
    some other digit's lies beyond one of theirs. Otherwise *not separable*. Several seeds answer
    the same images, so their mean counts as one set of answers, not as more of them.
    """
    counts = total_confusion(group, split)
    size = counts.sum(1) // len(group)
    shares = np.diag(counts) / counts.sum(1)
    sign = 1 if best else -1
    bounds = np.array([stats.wilson(round(s * n), n) for s, n in zip(shares, size, strict=True)])
    low, high = np.sort(sign * bounds, axis=1).T
    others = [digit for digit in range(len(shares)) if digit not in digits]
    if low[list(digits)].min() > high[others].max():
        verdict = "reproduced"
    elif low[others].max() > high[list(digits)].min():
        verdict = "contradicted: another digit's interval lies beyond"
    else:
        verdict = "not separable: the intervals overlap"
    order = np.argsort(-sign * shares, kind="stable")[: len(digits)]
    named = " and ".join(f"{digit} ({percent(shares[digit])})" for digit in sorted(order))
    claimed = " and ".join(f"{digit} ({percent(shares[digit])})" for digit in digits)
    rank = "best" if best else "worst"
    return f"that {claimed} should be {rank} is {verdict}; {rank} in this count: {named}"


@made
def digits(group: Sequence[Run]) -> Text:
    """The original's statement on 8, 2 and 7 (section 1.3) against its own tables and these runs.

    It says: 8 is learnt best, 2 and 7 worst, perhaps since 2 and 7 are mistaken for each other.
    """
    if group[0].config.dataset not in ("mnist", "mnist-5k"):
        dataset = group[0].config.dataset
        return Text(f"- The original speaks of MNIST's digits; {dataset} has none to compare.")
    lost = _divergences({"this setting": group})
    group = [run for run in group if not run.diverged]
    if not group:
        return Text("\n".join(lost))
    section = published.SECTIONS[0]
    claim = "8 is best, 2 and 7 are worst, being mistaken for each other"
    lines = [*lost, f"**The original says: {claim}.**"]
    for split, name in (("train", "training"), ("test", "test")):
        shares = getattr(section, split).percent
        order = np.argsort(shares, kind="stable")
        best, worst = int(order[-1]), sorted(int(digit) for digit in order[:2])
        holds = "agrees" if best == 8 else "contradicts it"
        holds_worst = "agrees" if worst == [2, 7] else "contradicts it"
        lines.append(
            f"- *Its own {name} table:* best {best} ({shares[best]} %), {holds}; worst "
            f"{worst[0]} and {worst[1]} ({shares[worst[0]]} % and {shares[worst[1]]} %), "
            f"{holds_worst}."
        )
    for split, name in (("train", "training"), ("test", "test")):
        total = int(total_confusion(group, split).sum())
        lines.append(f"- *Here, {name} images ({total:,} answers, n = {len(group)}):*")
        lines.append(f"    - {extreme(group, split, [8], best=True)};")
        lines.append(f"    - {extreme(group, split, [2, 7], best=False)}.")
    wrong = off_diagonal(total_confusion(group, "test"))
    pairs = wrong + wrong.T
    both, total = int(pairs[2, 7]), int(wrong.sum())
    upper = np.triu(pairs)
    first, second = np.unravel_index(upper.argmax(), upper.shape)
    rank = int((upper[np.triu_indices(len(wrong), 1)] > both).sum()) + 1
    lines.append(
        f"- *2 and 7 mistaken for each other, test images:* {both} of {total} mistakes "
        f"(2 for 7: {wrong[2, 7]}, 7 for 2: {wrong[7, 2]}), place {rank} of 45 pairs; the most "
        f"frequent pair is {first} and {second} with {upper.max()}."
    )
    if len(group) == 1:
        lines.append("- n = 1: one trained network. Another seed may be weak at other digits.")
    return Text("\n".join(lines))


@made
def loss(runs: Runs) -> Text:
    """Which setting has the lowest training loss after each epoch, and whether that is certain."""
    lost, runs = _divergences(runs), finite(runs)
    if not runs:
        return Text("\n".join(lost))
    means = {label: np.mean([r.history["loss"] for r in g], axis=0) for label, g in runs.items()}
    labels, curves = list(means), np.array(list(means.values()))
    stretches: list[list[Any]] = []
    for epoch, leader in enumerate(curves.argmin(0)):
        if stretches and stretches[-1][0] == leader:
            stretches[-1][2] = epoch
        else:
            stretches.append([leader, epoch, epoch])
    parts = [
        f"{labels[leader]} in epoch{'s' * (end > start)} {start}{f' to {end}' * (end > start)}"
        for leader, start, end in stretches
    ]
    order = np.argsort(curves[:, -1], kind="stable")
    ranking = " < ".join(f"{labels[i]} ({curves[i, -1]:.4f})" for i in order)
    lines = [
        *lost,
        f"- Lowest mean training loss: {', then '.join(parts)}.",
        f"- After the last epoch: {ranking} nats.",
    ]
    count = min(len(group) for group in runs.values())
    if count == 1:
        lines.append(
            "- n = 1: one run a setting, no claim. Another seed may give another order; run "
            "several (`-p seeds 3`) to tell."
        )
    else:
        lines += [f"- {sentence}" for sentence in _paired(runs, _last_loss, "last loss", " nats")]
    return Text("\n".join(lines))


@made
def compare(runs: Runs) -> Text:
    """Test accuracy of every setting against the first one, with a test."""
    lines, compared = _divergences(runs), finite(runs)
    if len(compared) < 2 or next(iter(runs)) not in compared:
        return Text("\n".join([*lines, "- There are no two settings left to compare."]))
    (base_label, base), *others = compared.items()
    if min(len(group) for group in compared.values()) > 1:
        said = _paired(compared, lambda r: 100 * r.accuracy("test"), "test accuracy", " points")
        return Text("\n".join([*lines, *(f"- {line}" for line in said)]))
    level = 0.05 / len(others)
    for label, group in others:
        first, second = (run.test_labels == run.test_predicted for run in (base[0], group[0]))
        only_first, only_second, p = stats.mcnemar(first, second)
        ahead = label if only_second > only_first else base_label
        found = f"{ahead} is right on more of these images" if p < level else "the data cannot tell"
        lines.append(
            f"- **{label} against {base_label}:** {percent(second.mean())} against "
            f"{percent(first.mean())} of {len(first):,} test images. {only_second} images only "
            f"{label} had right, {only_first} only {base_label} (exact McNemar test, p = {p:.2g}, "
            f"{len(others)} comparison{'s' * (len(others) > 1)}): {found}."
        )
    lines.append(
        "- n = 1: this compares two trained networks, not two settings. What another seed would "
        "give, one run cannot tell."
    )
    return Text("\n".join(lines))


@made
def printed(section_number: str) -> Text:
    """What the original's own accuracy tables can carry, for one section against the baseline."""
    base = published.SECTIONS[0]
    other = next(section for section in published.SECTIONS if section.number == section_number)
    p = stats.two_shares(base.test.correct, base.test.total, other.test.correct, other.test.total)
    verdict = "more than chance" if p < 0.05 else "no more than chance can do"
    return Text(
        f"- *The original's own tables:* {other.name} {other.test.total_percent:.2f} % against "
        f"{base.test.total_percent:.2f} % of {base.test.total:,} test images, one run each. By the "
        f"counts alone p = {p:.2g} (Fisher's exact test): {verdict}."
    )


@made
def excerpt(run: Run) -> Text:
    """The original's iteration log against this run at the same place, and against itself."""
    log = published.EXCERPTS[0]
    printed_mean = float(np.mean(log.losses))
    stated, listed = published.EXCERPT_EPOCH_LOSS, published.SECTIONS[0].epoch_loss[log.epoch]
    lines = [
        f"- The original prints iterations {log.first} to {log.first + len(log.losses) - 1} of "
        f"epoch {log.epoch}; their mean is {printed_mean:.4f} nats. The log closes that epoch with "
        f"{stated:.6f}, its list of epochs has {listed:.6f}: "
        + ("the same." if stated == listed else "so log and list come from different trainings.")
    ]
    sentence, last = published.STATED_FINAL_LOSS, published.SECTIONS[0].epoch_loss[-1]
    lines.append(
        f"- Its sentence has the loss at {sentence} after ten epochs, its list at {last:.6f}: "
        + ("the same." if sentence == last else f"{sentence / last:.3g} times as much.")
    )
    epochs, updates = run.iteration_loss.shape
    if epochs > log.epoch and updates >= log.first + len(log.losses):
        here = run.iteration_loss[log.epoch, log.first : log.first + len(log.losses)]
        lines.append(f"- This run at the same place (n = 1): mean {float(here.mean()):.4f} nats.")
    else:
        lines.append(f"- This run has {updates} iterations an epoch, so no such place.")
    return Text("\n".join(lines))


def finite(runs: Runs) -> dict[str, list[Run]]:
    """The runs without those that diverged, and without settings of which none is left."""
    kept = {label: [run for run in group if not run.diverged] for label, group in runs.items()}
    return {label: group for label, group in kept.items() if group}


def _divergences(runs: Runs) -> list[str]:
    found = divergences(runs)
    return [f"- **{found}**; such a run has no accuracy and is left out below."] if found else []


def _last_loss(run: Run) -> float:
    return float(run.history["loss"].iloc[-1])


def _paired(runs: Runs, measure: Any, name: str, unit: str) -> list[str]:
    """A sentence for every setting against the first one, paired by seed."""
    (base_label, base), *others = runs.items()
    level = 1 - 0.05 / max(len(others), 1)  # Bonferroni, for several comparisons with one baseline
    lines = []
    for label, group in others:
        seeds = {run.config.seed: run for run in base}
        pairs = [(run, seeds[run.config.seed]) for run in group if run.config.seed in seeds]
        if len(pairs) < 2:
            lines.append(
                f"**{label} against {base_label}, {name}:** fewer than two seeds in common."
            )
            continue
        first, second = ([measure(run) for run in side] for side in zip(*pairs, strict=True))
        difference = stats.paired_difference(first, second, level)
        if difference.separable:
            verdict = f"{label} is {'higher' if difference.mean > 0 else 'lower'}"
        else:
            verdict = f"not separable at n = {difference.n}"
        lines.append(
            f"**{label} against {base_label}, {name}:** {difference.mean:+.4g}{unit}, paired by "
            f"seed, {100 * level:.3g} % interval {difference.low:+.4g} to {difference.high:+.4g} "
            f"(n = {difference.n}): {verdict}."
        )
    return lines
