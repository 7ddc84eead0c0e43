"""Sentences of judgement, computed from runs; each says on how many runs it rests."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from labkit.core.config import DATASETS, MNIST, Config, scale_name, seed_range
from labkit.core.measures import STATISTICS
from labkit.core.values import ConfigError
from labkit.core.words import minus, on_runs, percent, plural, sentence
from labkit.judge import claims, likeness, original, recipes, stats
from labkit.judge import landscape as surroundings
from labkit.judge.own import Claim, statement
from labkit.show.remake import MIME, remakable
from labkit.store.groups import (
    BOTH,
    Runs,
    answered,
    answering,
    divergences,
    finite,
    unanswered,
    without_norms,
)
from labkit.store.run import Run


@dataclass
class Text:
    """Markdown that a notebook shows."""

    markdown: str
    call: Mapping[str, Any] = field(default_factory=dict)  # how to make it again

    def html(self) -> str:
        """The text as HTML."""
        from nbconvert.filters import markdown2html  # here: only the page needs it

        return markdown2html(self.markdown)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/markdown": self.markdown, "text/plain": self.markdown, MIME: self.call}

    def __repr__(self) -> str:
        return self.markdown


def bullets(lines: Iterable[str]) -> Text:
    """Sentences as a list."""
    return Text(minus("\n".join(f"- {line}" for line in lines)))


def banner(config: Config, seeds: int, smoke: bool = False, beside: bool = True) -> tuple[str, str]:
    """What numbers of this config rest on, and whether they can stand beside the original's, if
    they do: the head, to be set in bold, and the rest of the sentence."""
    epochs, runs = plural(config.epochs, "epoch"), plural(seeds, "run")
    what = f"{config.dataset}, {epochs}, {runs} per setting"
    if smoke:
        return "Smoke run:", f"{what}. It shows that everything runs; its numbers mean nothing."
    scale = scale_name(config)
    if scale == "paper" and beside:
        return "Paper scale:", f"{what}; the original's images and epochs."
    if config.dataset not in MNIST:
        if not beside:
            return "Own settings:", f"{what}."
        return "Other images than the original's:", f"{what}. {original.FOREIGN}"
    train, test = DATASETS[config.dataset]
    source = ", all from MNIST's training set" * (config.dataset == "mnist-5k")
    head = {"quick": "Quick scale", "paper": "Paper scale"}.get(scale, "Own settings")
    said = f"{what}, on {train:,} training and {test:,} test images{source}."
    if not beside:
        return f"{head}:", said
    return (
        f"{head}, not the original's:",
        f"{said} The original trained on 60,000 images for ten epochs and tested on 10,000; its "
        "numbers are shown for orientation, and a difference from them says nothing.",
    )


@remakable
def scale(config: Config, seeds: int, smoke: bool = False, beside: bool = True) -> Text:
    """What this page's numbers rest on, and whether they can stand `beside` the original's."""
    head, rest = banner(config, seeds, smoke, beside)
    return Text(f"> **{head}** {rest}")


@remakable
def appendix(seeds: int) -> Text:
    """What the numbers of the appendix on recipes rest on."""
    count = len(seed_range(seeds, "recipe_seeds"))
    epochs = sorted(config.epochs for config in recipes.settings("mnist").values())
    return Text(
        f"> **Appendix, on full MNIST at every scale:** {len(recipes.CANDIDATES)} candidates, "
        f"{epochs[0]} to {epochs[-1]} epochs per run, {plural(count, 'run')} of each; of "
        f"{len(recipes.WHOLE)} of them whole runs of all sections, with more seeds."
    )


def _left_out(runs: Runs, answers: bool = True) -> Iterator[str]:
    """What is left out of the sentences below: runs that diverged and, of `answers`, old ones."""
    if lost := divergences(runs):
        yield f"**{lost}**; such a run has no accuracy and is left out below."
    if answers and (older := unanswered(runs)):
        yield f"{older} of the recalibrated numbers."


def _against_first(runs: Runs, measure: claims.Measure, name: str, unit: str) -> Iterator[str]:
    """A sentence for every setting against the first one, each by a test of its own; no verdict
    where a run of either diverged."""
    kept = answered(runs) if measure is claims.test_percent else finite(runs)
    (base_label, base), *others = kept.items()
    for label, group in others:
        found = claims.compared(group, base, measure)
        part = claims.part(f"**{label} against {base_label}, {name}**", 1, found, unit, "")
        verdict = part.verdict
        if found.sign:
            verdict = f"{label} is {'higher' if found.sign > 0 else 'lower'}"
        if divergences({name: runs[name] for name in (base_label, label)}):
            verdict = "undecided, since a run diverged"
        yield f"{part.found}: {verdict}."


@remakable
def loss(runs: Runs) -> Text:
    """Which setting has the lowest training loss after each epoch, and whether that is certain."""
    lines, every, runs = list(_left_out(runs, answers=False)), runs, finite(runs)
    if not runs:
        return bullets(lines)
    labels = list(runs)
    length = min(len(run.history) for group in runs.values() for run in group)  # that all have
    curves = np.array(
        [np.mean([r.history["loss"][:length] for r in g], axis=0) for g in runs.values()]
    )
    leads = []
    for leader, stretch in groupby(range(curves.shape[1]), key=curves.argmin(0).__getitem__):
        first, *rest = stretch
        epochs = f"epochs {first} to {rest[-1]}" if rest else f"epoch {first}"
        leads.append(f"{labels[leader]} in {epochs}")
    order = np.argsort(curves[:, -1], kind="stable")
    ranking = ", ".join(f"{labels[i]} ({curves[i, -1]:.4f})" for i in order)
    lines += [
        f"Lowest mean training loss: {', then '.join(leads)}.",
        f"In epoch {length - 1}, lowest mean first: {ranking} nats.",
    ]
    if max(map(len, runs.values())) == 1:
        lines.append(
            "n = 1: one run per setting, no claim. Another seed may give another order; run "
            "several (`-p seeds 3`) to tell."
        )
    else:
        lines += _against_first(every, claims.last_loss, "last loss", " nats")
    return bullets(lines)


@remakable
def compare(runs: Runs) -> Text:
    """Test accuracy, recalibrated, of every setting against the first one, tested by seeds and
    images."""
    lines, compared = list(_left_out(runs)), answered(runs)
    if len(compared) < 2 or next(iter(runs)) not in compared:
        return bullets([*lines, "There are no two settings left to compare."])
    if max(map(len, compared.values())) > 1:
        name = "test accuracy, recalibrated"
        lines += _against_first(runs, claims.test_percent, name, " points")
        return bullets(lines)
    (base_label, base), *others = compared.items()
    for label, group in others:
        first, second = base[0].right(), group[0].right()
        lines.append(
            f"**{label} against {base_label}:** {percent(100 * second.mean())} against "
            f"{percent(100 * first.mean())} of {len(first):,} test images, recalibrated. Only "
            f"{label} is right on {(second & ~first).sum()}, only {base_label} on "
            f"{(first & ~second).sum()}."
        )
    lines.append(
        "n = 1: this compares two trained networks, not two settings. One run cannot tell what "
        "another seed would give."
    )
    return bullets(lines)


@remakable
def lag(runs: Runs) -> Text:
    """What answering with running averages costs each setting on the test images.

    In points of accuracy, the mean over the seeds: after the last epoch, and in which epoch most.
    """
    lines = list(_left_out(runs))
    for label, group in runs.items():
        if not (kept := answering(group)):
            lines.append(f"**{label}**: no run has recalibrated answers (n = 0).")
            continue
        learnt, averaged = (
            100 * np.array([run.accuracies("test", kind) for run in kept]) for kind in STATISTICS
        )
        if without_norms(kept):
            lines.append(
                f"**{label}**: its network has no batch normalisation, so that nothing lags: "
                f"{percent(learnt[:, -1].mean())} either way (n = {len(kept)})."
            )
            continue
        hidden = learnt - averaged
        by_epoch, ends = hidden.mean(0), hidden[:, -1]
        last, most = by_epoch[-1], int(np.nanargmax(by_epoch))
        said = f"{'hide' if last >= 0.005 else 'add'} {abs(last):.2f} points"
        several = f" ({min(ends):.2f} to {max(ends):.2f} by seed)" * (len(kept) > 1)
        elsewhere = f"at most {by_epoch[most]:.2f} in epoch {most}"
        if np.isnan(by_epoch[:-1]).all():
            elsewhere = "it was measured after no other epoch"
        lines.append(
            f"**{label}**: {percent(learnt[:, -1].mean())} recalibrated, "
            f"{percent(averaged[:, -1].mean())} by running averages after the last epoch "
            f"(n = {len(kept)}): the averages {said}{several}; {elsewhere}."
        )
    return bullets([*lines, sentence(BOTH)])


@remakable
def printed(section_number: str, config: Config | None = None) -> Text:
    """What the original's own accuracy tables can carry, for one section against the baseline; of
    images as those of `config`, if given."""
    if config and config.dataset not in MNIST:
        return Text(original.FOREIGN)
    base, other = original.SECTIONS[0], original.section(section_number)
    p = stats.two_shares(base.test.correct, base.test.total, other.test.correct, other.test.total)
    verdict = "more than chance" if p < 0.05 else "consistent with chance"
    return bullets(
        [
            f"*The original's own tables:* {other.name}: {percent(other.test.total_percent)} "
            f"against {percent(base.test.total_percent)} of {base.test.total:,} test images, one "
            f"run each. By the counts alone {stats.p_words(p)} (Fisher's exact test, as if each "
            f"had been tested on other images): {verdict}."
        ]
    )


@remakable
def again(kept: Run, fresh: Run) -> Text:
    """Whether a training that was run again gave what is on record."""
    seconds, right = fresh.provenance["seconds"], fresh.right().sum()
    losses = [run.iteration_loss.ravel() for run in (fresh, kept)]
    alike = "All batch losses are the same to the last bit."
    if (losses[0] != losses[1]).any():
        near = np.append(np.isclose(*losses, rtol=0.001), False)
        alike = (
            f"The first {near.argmin()} of {len(losses[0])} batch losses agree to 0.1\u00a0%; on "
            "another kind of machine, or with another number of threads, sums are rounded "
            "differently, and small differences grow."
        )
    where, threads = fresh.provenance["device"], plural(fresh.provenance["threads"], "thread")
    lines = [
        f"Trained on {where} with {threads} in {seconds:.1f} seconds: a mean loss of "
        f"{claims.last_loss(fresh):.4f} nats, {right:,} of {len(fresh.right()):,} test images "
        "right.",
        f"On record since {kept.provenance['date'][:10]} ({kept.provenance['device']}): "
        f"{claims.last_loss(kept):.4f} nats, {kept.right().sum():,} right. {alike}",
    ]
    return bullets(lines)


@remakable
def claim(number: int | Claim, runs: Runs) -> Text:
    """A claim with the verdict on each of its parts, and what that rests on: one of the original's,
    by its number, or one's own."""
    base = next(iter(runs.values()))[0].config
    if isinstance(number, Claim):
        stated, whose = statement(number), "the claimed size"
        said = f"**Claim: {stated.says}**"
    elif isinstance(number, str) and not number.strip().isdigit():
        raise ConfigError(
            f"claim is {number!r}; it must be a whole number of 1 or more and at most "
            f"{len(claims.CLAIMS)}, for one of the original's, or a Claim of your own, as "
            "read_claims gives them by name."
        )
    else:
        stated, whose = claims.claim(number), "the original's size"
        if base.dataset not in MNIST:
            return Text(f"**Claim {number}** is not judged. {original.FOREIGN}")
        quote = f'<span lang="zh">{original.STATEMENTS[number]}</span>'
        said = f"**Claim {number}: {stated.says}** {quote} (section {stated.section})"
    if not (found := claims.judge(stated, runs)):
        wanted = "" if stated.number else f" It needs runs of {' and '.join(stated.needs)}."
        return Text(f"{said}\n\nThese runs do not suffice to judge it.{wanted}")
    own = f" on {base.dataset}, {plural(base.epochs, 'epoch')}" * (scale_name(base) != "paper")
    said += f"\n\n**Verdict{own}: {found.verdict}.**"
    parts = [f"*{sentence(p.verdict)}* {sentence(f'{p.what}: {p.brief}')}" for p in found.parts]
    lines = [f"It predicts: {stated.predicts}", f"Judged by: {stated.test}."]
    for part in found.parts:
        size = f"; for one more run, {whose} is {part.size}" * bool(part.size)
        lines.append(sentence(part.found + size))
    lines += [f"The original's own numbers {stated.own()}."] * bool(stated.number)
    lines += [sentence(found.note)] * bool(found.note)
    evidence = f"<details><summary>Evidence</summary>\n\n{bullets(lines)}\n\n</details>"
    return Text(f"{said}\n\n{bullets(parts)}\n\n{evidence}")


@remakable
def headline(runs: Runs) -> Text:
    """How many of the claims' comparisons hold, fail and stay open, and what these would take."""
    found = claims.corrected(list(claims.judgements(runs)))
    if not found:
        return Text("These runs do not suffice to judge any of the original's claims.")
    lines = [
        f"The {plural(len(found), 'comparison')} behind the original's claims, corrected for all "
        "of them together (Holm's method): "
        f"**{claims.tally([agrees for *_, agrees in found])}**. Each verdict below stands on its "
        "own test."
    ]
    open_: dict[str, dict[int, None]] = {}
    for stated, part, p, agrees in found:
        if agrees is None:
            verdict = part.verdict
            if part.agrees is not None:
                verdict = f"undecided by the correction alone ({part.what}: p = {p:.2g})"
            open_.setdefault(verdict, {})[stated.number] = None
    lines += [
        f"{sentence(verdict).rstrip('.')}: claim{'s' * (len(of) > 1)} {', '.join(map(str, of))}."
        for verdict, of in open_.items()
    ]
    return bullets(lines)


@remakable
def ours(runs: Runs) -> Text:
    """Whether the original's curves and tables could be one more run of ours, as an answer."""
    found = likeness.tested(likeness.likenesses(runs))
    if not found:
        return Text("Too few runs to say whether the original is one of ours.")
    apart = likeness.unlike(found)
    named = "; ".join(f"{one.label}, {one.what} (n = {one.n})" for one in apart)
    said = (
        f"**Is the original one of ours? {'No' if apart else 'It may be'}.** Of "
        f"{plural(len(found), 'curve')} and tables {len(apart)} lie outside what one more run of "
        f"ours would give{': ' * bool(apart)}{named} (p < 0.05, corrected for all together by "
        "Holm's method; accuracies by running averages)."
    )
    return bullets([said])


def _whole_curves(runs: Runs, p: pd.DataFrame) -> Iterator[str]:
    """How far the recipes that were trained to the end in several sections are from the original's
    whole curves, and whether the verdicts depend on the recipe; nothing where there are no two."""
    found = recipes.distances(runs, all_epochs=True)
    several = found[p.columns].notna().sum(axis=1) > 1
    if several.sum() < 2:
        return
    ranked = []
    for name, row in found[several].iterrows():
        curves = row[p.columns].dropna().astype(float)
        which = ", ".join(original.section(number).name for number in curves.index)
        of = f" on {which}" * (len(curves) < len(p.columns))
        ranked.append(
            f"{name} is off by a factor of {np.exp(np.sqrt((curves**2).mean())):.2f}{of} "
            f"(n = {row['n']:.0f}), {_within_noise(p.loc[name, curves.index])}"
        )
    epochs = plural(max(found.attrs["epochs"].values()), "epoch")
    yield f"Over all {epochs} of all {len(p.columns)} curves {'; '.join(ranked)}."
    verdicts = recipes.verdicts(runs)
    here = verdicts.pop(recipes.name(Config()), {})
    for name, parts in verdicts.items():
        pairs = [(here[what], part) for what, part in parts.items() if what in here]
        known = [part for part in parts.values() if part.agrees is not None]
        both = [a.agrees is b.agrees for a, b in pairs if None not in (a.agrees, b.agrees)]
        open_ = [pair for pair in pairs if None in (pair[0].agrees, pair[1].agrees)]
        sides = [claims.alike(a, b) for a, b in open_ if a.numbers and b.numbers]
        yield (
            f"**Do the verdicts depend on the recipe?** With {name}, "
            f"{on_runs(part.n for part in parts.values())}, {len(known)} of "
            f"{plural(len(parts), 'comparison')} are decided, each tested on its own. "
            f"Of the {len(both)} that the default decides too, {sum(both)} have the same verdict; "
            f"of {len(sides)} others {sum(sides)} lie on the same side of the claim's border."
        )


def _own_noise(own: Runs) -> Iterator[str]:
    """How far two trainings of the original's are apart in the one epoch that it prints twice, and
    two of the default there."""
    log, base = original.EXCERPTS[0], original.SECTIONS[0]
    group = recipes.curves(own).get(recipes.name(Config()), {}).get(base.number, [])
    losses = [run.history["loss"].iloc[log.epoch] for run in group if len(run.history) > log.epoch]
    if len(losses) > 1:
        theirs = original.EXCERPT_EPOCH_LOSS, base.epoch_loss[log.epoch]
        ours = np.exp(np.sqrt(2) * np.log(losses).std(ddof=1))
        yield (
            f"The original prints epoch {log.epoch} of its {base.name} twice, {theirs[0]:.4f} and "
            f"{theirs[1]:.4f} nats: a factor of {max(theirs) / min(theirs):.2f} between what look "
            f"like two of its runs. Two of the default differ there by a factor of {ours:.2f}, "
            f"typically (n = {len(losses)})."
        )


def _within_noise(p: pd.Series) -> str:
    """On which of the original's curves a recipe is within noise, by its p-values."""
    within = [original.section(n).name for n, value in p.items() if value >= 1 - stats.LEVEL]
    if not p.notna().any():
        return "noise unknown"
    if len(within) in (0, len(p)):
        return f"{'within' if within else 'beyond'} noise on {'all' if within else 'each'} of them"
    return f"within noise on {', '.join(within)} alone"


@remakable
def recipe(runs: Runs, own: Runs) -> Text:
    """Which recipe comes nearest to the original's curves, how sure that is, and whether what is
    left is noise, as there is between `own`, several runs of the default."""
    found = recipes.distances(runs)
    ranked = found[found["all"].notna()]
    if len(ranked) < 2:
        return bullets(["There are no two recipes to compare."])
    factor, n = np.exp(ranked["all"]), int(ranked["n"].min())
    best, usual = ranked.index[0], recipes.name(Config())
    shown = factor.map("{:.2f}".format)
    following = list(shown.index[1:][shown.iloc[1:] == shown.iloc[1]])
    ahead = n > 1 and ranked["high"].iloc[0] < ranked["low"].iloc[1:].min()
    place = ""
    if usual in ranked.index and usual not in (best, *following):
        low, high = np.exp(ranked.loc[usual, ["low", "high"]].astype(float))
        span = f" ({low:.2f} to {high:.2f} by seed)" * (high > low)
        place = f"; the default here is number {ranked.index.get_loc(usual) + 1}, with "
        place += f"{shown[usual]}{span}"
    p = recipes.noise(runs, own, all_epochs=True)
    lines = [
        f"{_explained(runs, p)}In the first epochs **{best}** comes nearest of {len(ranked)}: "
        f"its losses are typically off by a factor of {shown.iloc[0]}. Next with {shown.iloc[1]} "
        f"{'are' if len(following) > 1 else 'is'} {'; '.join(following)}{place}. "
        + (
            f"Even the worst seed of the nearest is nearer than the best of any other (n = {n})."
            if ahead
            else f"With n = {n} the order is not certain."
        )
    ]
    lines += [" ".join([*_first_epochs(runs, own, ranked.index), *_own_noise(own)])]
    lines += _whole_curves(runs, p)
    if rises := recipes.rises(runs):
        first, last = recipes.RISE
        theirs = original.section(recipes.RISING).epoch_loss
        most = max(rises, key=lambda name: max(rises[name]))
        medians = [np.median(factors) for factors in rises.values()]
        lines.append(
            f"In section {recipes.RISING} the original's loss of epoch {last} is "
            f"{theirs[last] / theirs[first]:.2f} times that of epoch {first}. Here the median of a "
            f"recipe is {min(medians):.2f} to {max(medians):.2f}, and the highest of all runs "
            f"{max(rises[most]):.2f} ({most}, n = {len(rises[most])})."
        )
    if missing := [name for name in found.index if name not in ranked.index]:
        lines.append(f"Without a whole set of curves, so not ranked: {'; '.join(missing)}.")
    compared: dict[int, list[str]] = {}
    for number, count in found.attrs["epochs"].items():
        compared.setdefault(count, []).append(original.section(number).name)
    lengths = (f"{plural(count, 'epoch')} of {', '.join(of)}" for count, of in compared.items())
    devices = Counter(run.provenance["device"] for group in runs.values() for run in group)
    trained = ", ".join(f"{count} on {device}" for device, count in devices.most_common())
    lines.append(
        f"Limits: the ranking compares only {'; '.join(lengths)}; and few changes in combination. "
        + f"The runs were trained on different devices: {trained}. " * (len(devices) > 1)
        + "The original is one run, and what it did may be none of these."
    )
    return bullets(line for line in lines if line)


def _explained(runs: Runs, p: pd.DataFrame) -> str:
    """Whether a recipe is within noise on every epoch of all the original's curves, or of those
    that it has, if several; "" where none was trained so long."""
    p = p[p.notna().sum(axis=1) > 1]
    if p.empty:
        return ""
    within = _never_beyond(p)
    if whole := [name for name in within if name in recipes.whole(runs)]:
        return f"**{'; '.join(whole)} explains the original's curves.** "
    said = f"**None of the {len(p)} recipes with several whole curves explains the original's.** "
    return said + f"Not excluded by those that it has: {'; '.join(within)}. " * bool(within)


def _never_beyond(p: pd.DataFrame) -> list[str]:
    """The recipes that are within noise on every curve that they have: corrected for them all
    together, since of the original's own recipe one curve in twenty would be beyond it."""
    least = (min(stats.holm(list(row.dropna()))) for _, row in p.iterrows())
    return [name for name, low in zip(p.index, least, strict=True) if low >= 1 - stats.LEVEL]


def _first_epochs(runs: Runs, own: Runs, ranked: pd.Index) -> Iterator[str]:
    """Whether the nearest recipe is within noise in the first epochs, and which others are."""
    p = recipes.noise(runs, own).loc[ranked]
    if not p.notna().any(axis=None):
        return
    seeds = min(map(len, recipes.curves(own)[recipes.name(Config())].values()))
    sides: dict[str, list[str]] = {"within noise on": [], "beyond it on": []}
    for number, value in p.iloc[0].items():
        side = list(sides)[value < 1 - stats.LEVEL]
        sides[side].append(f"{original.section(number).name} ({stats.p_words(value)})")
    said = ", and ".join(f"{side} {', '.join(names)}" for side, names in sides.items() if names)
    kept = _never_beyond(p)
    yield (
        f"**Is the rest noise?** Two runs of one recipe differ, too. Judged by that (F test; n = "
        f"{seeds} of the default), the nearest recipe is {said}. Corrected for all curves together "
        f"(Holm), the first epochs exclude all recipes{' but ' * bool(kept)}{'; '.join(kept)}."
    )


@remakable
def landscape(runs: Runs, field: str) -> Text:
    """With which value of a field the loss after the first epochs is lowest, and which others
    cannot be told from it; then how far off the original's values are."""
    found, lines = surroundings.points(runs, field), list(_left_out(runs, answers=False))
    called, epochs = surroundings.NAMES[field], plural(surroundings.EPOCHS, "epoch")
    own = [getattr(original.section(n), field) for n in surroundings.SECTIONS[field]]
    for line, rows in found.groupby("line"):
        losses = {value: list(group) for value, group in rows.groupby("value")["loss"]}
        best = min(losses, key=lambda value: np.mean(losses[value]))
        others = {value: group for value, group in losses.items() if value != best}
        logs = {value: np.log(group) for value, group in losses.items()}
        against = [stats.estimate(logs[value], logs[best]) for value in others]
        decided = [p < 1 - stats.LEVEL for p in stats.holm([one.p for one in against])]
        alike = [
            f"{v:g} ({np.mean(losses[v]) / np.mean(losses[best]):.2f} times as high)"
            for v, known in zip(others, decided, strict=True)
            if not known
        ]
        end = ", an end of the range," * (best in (min(losses), max(losses)))
        told = f"{', '.join(alike)} cannot be told from it" if alike else "every other is higher"
        counts = [len(group) for group in losses.values()]
        tested = f"{told} (Welch on ln(loss), 5 %, Holm; {on_runs(counts)})"
        if max(counts) < 2:
            tested = "a single run each, no claim (n = 1)"
        lines.append(
            f"**{line or called.capitalize()}:** of {len(losses)} values the {called} {best:g}{end}"
            f" has the lowest training loss after {epochs}, {np.mean(losses[best]):.4f} nats; "
            f"{tested}."
        )
        factors = {v: np.mean(losses[v]) / np.mean(losses[best]) for v in own if v in losses}
        if factors:
            said = " and ".join(f"{v:g} has {factor:.2f} times" for v, factor in factors.items())
            lines.append(f"Of the original's values, {said} this lowest loss.")
    return bullets(lines)


@remakable
def excerpt(run: Run) -> Text:
    """The original's iteration log against this run at the same place, and against itself."""
    if run.config.dataset not in MNIST:
        return Text(original.FOREIGN)
    log, base = original.EXCERPTS[0], original.SECTIONS[0]
    end = log.first + len(log.losses)
    stated, listed = original.EXCERPT_EPOCH_LOSS, base.epoch_loss[log.epoch]
    claimed, last = original.STATED_FINAL_LOSS, base.epoch_loss[-1]
    same = "one of the two is misprinted, or they come from different training runs"
    lines = [
        f"The original prints iterations {log.first} to {end - 1} of epoch {log.epoch}; their "
        f"mean is {np.mean(log.losses):.4f} nats. The log closes that epoch with {stated:.6f}; its "
        f"list of epochs has {listed:.6f}: {'the same' if stated == listed else same}.",
        f"Its list has the loss after ten epochs at {last:.6f}, its sentence at {claimed}: "
        f"{'the same' if claimed == last else f'{claimed / last:.3g} times as much'}.",
    ]
    epochs, updates = run.iteration_loss.shape
    if run.config.dataset != "mnist":
        lines.append("This run had other images, so its iterations cannot be compared.")
    elif epochs > log.epoch and updates >= end:
        mean = float(run.iteration_loss[log.epoch, log.first : end].mean())
        seed = run.config.seed
        lines.append(f"Our run with seed {seed} (n = 1) has a mean of {mean:.4f} nats there.")
    else:
        lines.append(
            f"This run has {plural(epochs, 'epoch')} of {updates} iterations: too few to reach it."
        )
    return bullets(lines)
