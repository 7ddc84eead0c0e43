"""Sentences of judgement, computed from runs; each says on how many runs it rests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labkit.core.config import DATASETS, Config, scale_name, seed_range
from labkit.core.measures import STATISTICS
from labkit.core.words import minus
from labkit.judge import claims, original, recipes, stats
from labkit.show.remake import MIME, remakable
from labkit.store.run import BOTH, Run, Runs, answered, answering, divergences, finite, unanswered


@dataclass(frozen=True)
class Text:
    """Markdown that a notebook shows."""

    markdown: str
    call: Mapping[str, Any] = field(default_factory=dict)  # how to make it again

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        shown = {"text/markdown": self.markdown, "text/plain": self.markdown}
        return shown | {MIME: self.call}

    def __repr__(self) -> str:
        return self.markdown


@remakable
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


@remakable
def appendix(seeds: int) -> Text:
    """What the numbers of the appendix on recipes rest on."""
    count = len(seed_range(seeds, "recipe_seeds"))
    epochs = sorted(config.epochs for config in recipes.settings("mnist").values())
    return Text(
        f"> **Appendix, on full MNIST at every scale:** {len(recipes.CANDIDATES)} candidates, "
        f"{epochs[0]} to {epochs[-1]} epochs a training, {count} run{'s' * (count > 1)} of each."
    )


def percent(share: float) -> str:
    """A share as percent with two decimals."""
    return f"{100 * share:.2f} %"


@remakable
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
    ranking = ", ".join(f"{labels[i]} ({curves[i, -1]:.4f})" for i in order)
    lines = [
        *lost,
        f"- Lowest mean training loss: {', then '.join(parts)}.",
        f"- After the last epoch, lowest mean first: {ranking} nats.",
    ]
    if max(len(group) for group in runs.values()) == 1:
        lines.append(
            "- n = 1: one run a setting, no claim. Another seed may give another order; run "
            "several (`-p seeds 3`) to tell."
        )
    else:
        lines += [
            f"- {sentence}" for sentence in _paired(runs, claims.last_loss, "last loss", " nats")
        ]
    return Text("\n".join(lines))


@remakable
def compare(runs: Runs) -> Text:
    """Test accuracy, recalibrated, of every setting against the first one, with a test."""
    lines, compared = _divergences(runs) + _older(runs), answered(runs)
    if len(compared) < 2 or next(iter(runs)) not in compared:
        return Text("\n".join([*lines, "- There are no two settings left to compare."]))
    (base_label, base), *others = compared.items()
    if max(len(group) for group in compared.values()) > 1:
        said = _paired(compared, claims.test_percent, "test accuracy, recalibrated", " points")
        return Text("\n".join([*lines, *(f"- {line}" for line in said)]))
    corrected = f" corrected for {len(others)} comparisons" * (len(others) > 1)
    for label, group in others:
        first, second = base[0].right(), group[0].right()
        only_first, only_second, p = stats.mcnemar(first, second)
        p = min(1.0, p * len(others))
        ahead = label if only_second > only_first else base_label
        found = "the data cannot tell"
        if p < 0.05:
            found = f"{ahead} is right more often on images like these"
        lines.append(
            f"- **{label} against {base_label}:** {percent(second.mean())} against "
            f"{percent(first.mean())} of {len(first):,} test images, recalibrated. {only_second} "
            f"images only {label} had right, {only_first} only {base_label} (exact McNemar test, "
            f"{stats.p_words(p)}{corrected}): {found}."
        )
    lines.append(
        "- n = 1: this compares two trained networks, not two settings. What another seed would "
        "give, one run cannot tell."
    )
    return Text("\n".join(lines))


@remakable
def lag(runs: Runs) -> Text:
    """What answering with running averages costs each setting on the test images.

    In points of accuracy, the mean over the seeds: after the last epoch, and in which epoch most.
    """
    lines = [*_divergences(runs), *_older(runs)]
    for label, group in runs.items():
        if not (kept := answering(group)):
            lines.append(f"- **{label}**: no run has recalibrated answers (n = 0).")
            continue
        learnt, averaged = (
            100 * np.array([run.accuracies("test", kind) for run in kept]) for kind in STATISTICS
        )
        hidden = learnt - averaged
        by_epoch = hidden.mean(0)
        last, most = by_epoch[-1], int(np.nanargmax(by_epoch))
        said = f"hide {last:.2f} points" if last >= 0.005 else f"hide nothing, {last:+.2f} points"
        several = f" ({min(hidden[:, -1]):.2f} to {max(hidden[:, -1]):.2f} by seed)"
        elsewhere = (
            "it was measured after no other epoch"
            if np.isnan(by_epoch[:-1]).all()
            else f"at most {by_epoch[most]:.2f} in epoch {most}"
        )
        lines.append(
            f"- **{label}**: {percent(learnt[:, -1].mean() / 100)} recalibrated, "
            f"{percent(averaged[:, -1].mean() / 100)} by running averages after the last epoch "
            f"(n = {len(kept)}): the averages {said}{several * (len(kept) > 1)}; {elsewhere}."
        )
    lines.append(f"- {BOTH[0].upper()}{BOTH[1:]}.")
    return Text(minus("\n".join(lines)))


@remakable
def printed(section_number: str) -> Text:
    """What the original's own accuracy tables can carry, for one section against the baseline."""
    base = original.SECTIONS[0]
    other = original.section(section_number)
    p = stats.two_shares(base.test.correct, base.test.total, other.test.correct, other.test.total)
    verdict = "more than chance" if p < 0.05 else "no more than chance can do"
    return Text(
        f"- *The original's own tables:* {other.name} {other.test.total_percent:.2f} % against "
        f"{base.test.total_percent:.2f} % of {base.test.total:,} test images, one run each. By the "
        f"counts alone {stats.p_words(p)} (Fisher's exact test, as if each had had images of its "
        f"own): {verdict}."
    )


@remakable
def claim(number: int, runs: Runs) -> Text:
    """A claim of the original's with the verdict on it, and what that rests on."""
    stated = claims.claim(number)
    head = f"**Claim {stated.number} (section {stated.section}): {stated.says}**"
    found = claims.judge(stated, runs)
    if found is None:
        return Text(f"{head} These runs do not suffice to judge it.")
    base = next(iter(runs.values()))[0].config
    scale = "" if scale_name(base) == "paper" else f", on {base.dataset}, {base.epochs} epochs"
    return Text(
        f"{head} *Verdict: {found.verdict}* (n = {found.n}{scale}).\n\n"
        f"- It predicts: {stated.predicts}\n"
        f"- Judged by: {stated.test}.\n"
        f"- Found: {found.evidence}."
    )


@remakable
def recipe(runs: Runs) -> Text:
    """Which recipe comes nearest to the original's curves, and how sure that is."""
    found = recipes.distances(runs)
    ranked = found[found["all"].notna()]
    if len(ranked) < 2:
        return Text("- There are no two recipes to compare.")
    factor, n = np.exp(ranked), int(ranked["n"].min())
    best, second = ranked.index[:2]
    ahead = n > 1 and ranked["high"].iloc[0] < ranked["low"].iloc[1:].min()
    lines = [
        f"- Of {len(ranked)} recipes **{best}** comes nearest: its losses are typically off by a "
        f"factor of {factor['all'].iloc[0]:.2f}; next is {second}, {factor['all'].iloc[1]:.2f}.",
        f"- It is nearer than any other with every seed (n = {n})."
        if ahead
        else f"- The order of the first is not certain at n = {n}.",
    ]
    usual = recipes.name(Config())
    if usual in ranked.index and usual != best:
        place = ranked.index.get_loc(usual) + 1
        lines.append(
            f"- The default here, {usual}, is in place {place} with {factor['all'][usual]:.2f}."
        )
    if rises := recipes.rises(runs):
        first, last = recipes.RISE
        loss = original.section(recipes.RISING).epoch_loss
        ours = "; ".join(
            f"{name} {min(factors):.2f}{f' to {max(factors):.2f}' * (len(factors) > 1)}"
            for name, factors in rises.items()
        )
        lines.append(
            f"- In section {recipes.RISING} the original's loss of epoch {last} is "
            f"{loss[last] / loss[first]:.2f} times that of epoch {first}. Here: {ours}."
        )
    epochs = ", ".join(
        f"{k} epoch{'s' * (k > 1)} of section {number}"
        for number, k in found.attrs["epochs"].items()
    )
    missing = [name for name in found.index if name not in ranked.index]
    if missing:
        lines.append(f"- Without a whole set of curves, so not ranked: {'; '.join(missing)}.")
    lines.append(
        f"- Limits: only {epochs} were compared, and hardly any two changes together; the "
        "original is one run, and what it did may be none of these."
    )
    return Text("\n".join(lines))


@remakable
def excerpt(run: Run) -> Text:
    """The original's iteration log against this run at the same place, and against itself."""
    log = original.EXCERPTS[0]
    printed_mean = float(np.mean(log.losses))
    stated, listed = original.EXCERPT_EPOCH_LOSS, original.SECTIONS[0].epoch_loss[log.epoch]
    lines = [
        f"- The original prints iterations {log.first} to {log.first + len(log.losses) - 1} of "
        f"epoch {log.epoch}; their mean is {printed_mean:.4f} nats. The log closes that epoch with "
        f"{stated:.6f}, its list of epochs has {listed:.6f}: "
        + (
            "the same."
            if stated == listed
            else "so one is misprinted, or both are of two trainings."
        )
    ]
    sentence, last = original.STATED_FINAL_LOSS, original.SECTIONS[0].epoch_loss[-1]
    lines.append(
        f"- Its sentence has the loss at {sentence} after ten epochs, its list at {last:.6f}: "
        + ("the same." if sentence == last else f"{sentence / last:.3g} times as much.")
    )
    epochs, updates = run.iteration_loss.shape
    if run.config.dataset != "mnist":
        lines.append("- This run had other images, so its iterations are others.")
    elif epochs > log.epoch and updates >= log.first + len(log.losses):
        here = run.iteration_loss[log.epoch, log.first : log.first + len(log.losses)]
        lines.append(f"- This run at the same place (n = 1): mean {float(here.mean()):.4f} nats.")
    else:
        lines.append(f"- This run has {updates} iterations an epoch, so no such place.")
    return Text("\n".join(lines))


def _divergences(runs: Runs) -> list[str]:
    found = divergences(runs)
    return [f"- **{found}**; such a run has no accuracy and is left out below."] if found else []


def _older(runs: Runs) -> list[str]:
    found = unanswered(runs)
    return [f"- {found} of what is recalibrated."] if found else []


def _paired(runs: Runs, measure: claims.Measure, name: str, unit: str) -> list[str]:
    """A sentence for every setting against the first one, paired by seed."""
    (base_label, base), *others = runs.items()
    lines = []
    for label, group in others:
        difference = claims.paired(group, base, measure, len(others))
        if difference is None:
            lines.append(
                f"**{label} against {base_label}, {name}:** fewer than two seeds in common."
            )
            continue
        if difference.separable:
            verdict = f"{label} is {'higher' if difference.mean > 0 else 'lower'}"
        else:
            verdict = f"not separable at n = {difference.n}"
        lines.append(
            f"**{label} against {base_label}, {name}:** {difference.words(unit)}, paired by "
            f"seed: {verdict}."
        )
    return lines
