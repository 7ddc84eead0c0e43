"""The finding first: what the top of a page and the head of a section say, computed from runs."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from labkit.core.config import DATASETS, scale_name
from labkit.core.words import on_runs, plural
from labkit.judge import claims, likeness, original, stats
from labkit.judge.own import Claim, verdicts_on
from labkit.show.conclusions import Text
from labkit.show.figure import (
    DASHED,
    GRID,
    INK,
    THEIRS,
    THEMES,
    WIDTH,
    Figure,
    nothing,
    panels,
    plain_log,
    styled,
    tidy,
    with_n,
)
from labkit.show.remake import remakable
from labkit.store.groups import Runs, divergences, finite
from labkit.store.run import Run

#: Verdict → sign, word and colour.
VERDICTS: dict[bool | None, tuple[str, str, str]] = {
    agrees: (sign, word, THEMES["light"][name])
    for agrees, sign, word, name in (
        (True, "✓", claims.HOLDS, "holds"),
        (False, "✗", claims.FAILS, "fails"),
        (None, "?", claims.UNDECIDED, "undecided"),
    )
}
#: So that a row of `verdicts` has room for what is compared.
SHORT = {
    "last loss of the baseline": "last loss of one more run",
    " on the ": ", ",
    " images": "",
    " against the mean of the other pairs": " beyond mean pair",
    " the most frequent": ": the top",
    " per run": "",
    "learning ": "",
    ", test accuracy": ": accuracy",
}
DIAMOND = THEIRS | {"mfc": "none", "ms": 7, "ls": "none"}
MOST_FAR = 4  # times our interval: farther values of the original's are at the edge
FEW = "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"
MOST_WORDS = 14  # of a section's title


def few(count: int) -> str:
    """A count in words, as far as these are shorter to read."""
    return FEW[count] if count < len(FEW) else f"{count:,}"


def listed(words: Sequence[str], last: str = " and ") -> str:
    """Words as a list: a, b and c."""
    return last.join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def capital(words: str) -> str:
    """Words with a capital at their beginning."""
    return words[:1].upper() + words[1:]


def shortened(words: str, logs: bool = False) -> str:
    """What is compared, for a narrow column; a difference of logarithms is a ratio."""
    for long, short in SHORT.items():
        words = words.replace(long, short)
    return words.replace(" − ", " ÷ ").replace(", mean ln", ":") if logs else words


def placed(numbers: claims.Numbers) -> tuple[list[float], str]:
    """Where mean, ends of the interval and the original's value lie on the scale of a row: 0 is the
    claim's border, right of it the claim holds, and the edges are at -1 and 1; NaN where there is
    none. Then the original's value in words, where it lies beyond an edge."""
    theirs = math.nan if numbers.theirs is None else numbers.theirs
    values = np.array([numbers.mean, numbers.low, numbers.high, theirs])
    far = values - numbers.border
    if numbers.expected:
        far *= numbers.expected
    else:  # to lie on the border is as claimed: whatever does not is left of it
        far *= -np.sign(far[[0, 0, 0, 3]])
    ours = np.nanmax(np.abs(far[:3]))
    beyond = abs(far[3]) > MOST_FAR * ours
    edge = ours * 2 if beyond else np.nanmax([ours, abs(far[3])])
    far = np.clip(far / (edge or 1.0), -1, 1)
    return list(map(float, far)), numbers.words(theirs) if beyond else ""


@remakable
def verdicts(runs: Runs) -> Figure:
    """Every comparison behind the original's claims on a scale of its own: on which side of the
    claim's border our interval and the original's own number lie, and the verdict after Holm's
    correction."""
    found = claims.corrected(list(claims.judgements(runs)))
    if not found:
        return nothing("These runs do not suffice to judge any of the original's claims.", runs)
    lines: list[claims.Statement | tuple[claims.Part, bool | None] | None] = []
    for stated, part, _, agrees in found:
        lines += [stated] * (stated not in lines) + [(part, agrees)]
        if part.numbers and placed(part.numbers)[1]:
            lines.append(None)  # room for the original's value
    first = next(iter(runs.values()))[0].config
    own = f"on {first.dataset} with {plural(first.epochs, 'epoch')}: not the original's"
    notes = [divergences(runs), own * (scale_name(first) != "paper")]
    width, top = WIDTH, 1.0
    height = top + LINE * len(lines)
    figure, (axes,) = panels(height + 0.4 * any(notes))
    axes.set(xlim=(0, width), ylim=(height, 0))  # in inches, downwards
    axes.set_axis_off()
    _key(axes, [agrees for *_, agrees in found])
    said = []
    for place, item in enumerate(lines):
        y = top + LINE * (place + 0.5)
        if isinstance(item, claims.Statement):
            axes.plot([0.1, width - 0.1], [y - LINE / 2] * 2, color=GRID, lw=0.8)
            head = f"{item.number}  {item.says.rstrip('.')}"
            axes.text(0.1, y, head, va="center", size=9.5, weight="bold", color=INK)
        elif item:
            said.append(_row(axes, y, *item))
    parts = [part for _, part, *_ in found]
    alt = (
        "Chart with a row per comparison behind the original's claims: our mean with its 95 % "
        "interval and the original's own number, on the side of the claim's border where it holds "
        f"or does not. {'; '.join(said)} ({on_runs(part.n for part in parts)})."
    )
    return figure.described(alt, *notes)


#: Of `verdicts`, in inches: how high a line is, and where its columns are: heads, middle and half
#: width of the scale, value, n, verdict.
LINE = 0.24
HEADS, MIDDLE, HALF, VALUES, RUNS, WORDS = 0.24, 2.72, 0.57, 3.42, 4.8, 4.9


def _key(axes: Axes, agrees: list[bool | None]) -> None:
    """The title of `verdicts`, its key, and the heads of its columns."""
    title = f"{plural(len(agrees), 'comparison')}: {claims.tally(agrees)}"
    axes.text(0.1, 0.2, title, va="center", size=11, color=INK)
    small = {"va": "center", "size": 9.5, "color": INK}
    axes.plot([0.12, 0.42], [0.5, 0.5], color=INK, lw=2.5)
    axes.plot(0.27, 0.5, "o", color=INK, ms=5)
    axes.text(0.5, 0.5, "ours: mean, 95 % interval", **small)
    axes.plot(2.52, 0.5, **DIAMOND)
    axes.text(2.64, 0.5, "the original's own number", **small)
    y = 0.84
    axes.text(0.1, y, "compared", **small)
    axes.text(MIDDLE - 0.08, y, "fails", ha="right", **small)
    axes.text(MIDDLE + 0.08, y, "holds", **small)
    axes.plot([MIDDLE] * 2, [y - 0.12, y + 0.12], color=INK, lw=1)
    axes.text(RUNS, y, "n", ha="right", **small)
    for x, head in ((VALUES, "found"), (WORDS, "verdict (Holm)")):
        axes.text(x, y, head, **small)


def _row(axes: Axes, y: float, part: claims.Part, agrees: bool | None) -> str:
    """Draw one comparison of `verdicts`, and say it in words."""
    sign, word, color = VERDICTS[agrees]
    numbers, text = part.numbers, {"va": "center", "size": 9.5}
    head = shortened(part.what, bool(numbers and numbers.logs))
    axes.text(HEADS, y, head, color=INK, **text)
    axes.text(RUNS, y, f"{part.n}", color=INK, ha="right", **text)
    axes.text(WORDS, y, f"{sign} {word}", color=color, **text)
    axes.plot([MIDDLE] * 2, [y - 0.12, y + 0.12], color=INK, lw=1)
    said = f"{part.what}: {word}"
    if not numbers:
        axes.text(VALUES, y, "–", color=INK, **text)
        return said
    (mean, low, high, theirs), beyond = placed(numbers)
    x = MIDDLE + HALF * np.array([mean, low, high, theirs])
    axes.plot(x[1:3], [y, y], color=color, lw=3.5, alpha=0.5, solid_capstyle="butt")
    axes.plot(x[0], y, "o", color=color, ms=4.5)
    if beyond:
        side, end = (1, "right") if theirs > 0 else (-1, "left")
        x[3] -= side * 0.09  # before the arrow
        axes.plot(x[3] + side * 0.09, y, ">" if side > 0 else "<", color=INK, ms=4)
        axes.text(x[3] + side * 0.09, y + LINE, f"original: {beyond}", color=INK, ha=end, **text)
    axes.plot(x[3], y, **DIAMOND)
    found = numbers.words(numbers.mean)
    axes.text(VALUES, y, shortened(found), color=INK, **text)
    own = "" if numbers.theirs is None else f", the original's {numbers.words(numbers.theirs)}"
    return f"{said}, {found}{own}"


@remakable
def curves(runs: Runs) -> Figure:
    """The loss curves of the original's settings, a panel each: our seeds thin, their mean thick,
    the original dashed."""
    drawn = [
        (label, finite({label: group}).get(label, []), style["color"], section)
        for label, group, style in styled(runs)
        if (section := original.section_of(group[0].config))
    ]
    if not drawn:
        return nothing("No setting of these runs is one of the original's.", runs)
    rows = len(drawn) // 2 + 1  # and a place for the key
    figure, parts = panels(0.2 + 2 * rows, rows=rows, columns=2, sharey=True)
    said, dashed = (
        [],
        THEIRS | {"ls": DASHED, "lw": 1, "ms": 4, "label": "the original (full MNIST)"},
    )
    for axes, (label, group, color, section) in zip(parts, drawn, strict=False):
        losses = [run.history["loss"].to_numpy() for run in group]
        said.append(f"{with_n(label, group)}: the original ends at {section.epoch_loss[-1]:.3g}")
        if losses:
            mean = np.mean(losses, axis=0)
            axes.plot(mean, color=color, lw=4, alpha=0.4)
            said[-1] += f", ours at {mean[-1]:.3g}"
        for course in losses:
            axes.plot(course, color=color, lw=0.9)
        axes.plot(section.epoch_loss, **dashed)
    plain_log(parts[0])
    for axes, (label, group, *_) in zip(parts, drawn, strict=False):
        tidy(axes, with_n(label, group), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles = [
        Line2D([], [], color=INK, lw=0.9, label="a run of ours"),
        Line2D([], [], color=INK, lw=4, alpha=0.4, label="mean of our runs"),
        Line2D([], [], **dashed),
    ]
    for axes in parts[len(drawn) :]:
        axes.set_axis_off()
    parts[len(drawn)].legend(handles=handles, frameon=False, loc="center left", fontsize=9.5)
    figure.supylabel("mean training loss of the epoch (nats)", size=9.5, color=INK)
    return figure.described(
        "Line charts of the mean training loss by epoch on a shared log axis, a panel per setting. "
        f"{'; '.join(said)} nats.",
        divergences(runs),
    )


def _clauses(found: Iterable[tuple[claims.Part, bool | None]], agrees: bool) -> list[str]:
    """What is so by the comparisons with that verdict, a clause for all of whom the same is so, and
    for all that the same is so of."""
    of: dict[tuple[str, str], list[str]] = {}
    for part, verdict in found:
        if verdict is agrees:
            subject, so, otherwise, other = part.says
            of.setdefault((so if agrees else otherwise, other), []).append(subject)
    clauses: dict[str, list[str]] = {}
    for (so, other), subjects in of.items():
        clauses.setdefault(f"{listed(subjects)} {so}", []).append(other)
    return [f"{said} {listed(others)}" for said, others in clauses.items()]


@remakable
def abstract(runs: Runs) -> Text:
    """What was rebuilt, whether the original is one of ours, what holds, what does not, and what is
    open: five sentences, after Holm's correction."""
    found = claims.corrected(list(claims.judgements(runs)))
    if not found:
        return Text("These runs do not suffice to judge any of the original's claims.")
    parts = [(part, agrees) for _, part, _, agrees in found]
    groups = [group for group in runs.values() if original.section_of(group[0].config)]
    of = f"of the {plural(len(parts), 'comparison')} behind its claims"
    why = " when all are tested together: "
    lines = [
        _rebuilt(groups),
        _likeness(runs),
        _decided(parts, True, of, ("holds", "hold"), why),
        _decided(parts, False, "of them", ("fails", "fail"), ": here "),
        _open([(stated, part) for stated, part, _, agrees in found if agrees is None], len(found)),
    ]
    return Text(" ".join(lines))


def _rebuilt(groups: Sequence[Sequence[Run]]) -> str:
    """What was trained, in a sentence."""
    config, every = groups[0][0].config, len(original.SECTIONS)
    settings = "all" if len(groups) == every else f"{few(len(groups))} of the"
    runs = [run for group in groups for run in group]
    lost = sum(bool(run.diverged) for run in runs)
    return (
        "We rebuilt the ResNet-18 of a lab report and trained it on MNIST "
        f"({DATASETS[config.dataset][0]:,} images) in {settings} {few(every)} settings of the "
        f"report, for {few(config.epochs)} epoch{'s' * (config.epochs != 1)} each: "
        f"{few(len(runs))} run{'s' * (len(runs) != 1)} in all"
        f"{f', of which {few(lost)} diverged' * bool(lost)}."
    )


def _likeness(runs: Runs) -> str:
    """Whether the original could be one more run of ours, in a sentence."""
    ns = on_runs(map(len, runs.values()))
    if scale_name(next(iter(runs.values()))[0].config) != "paper":
        return f"The original had other images or epochs, so it cannot be one of these runs ({ns})."
    found = likeness.tested(likeness.likenesses(runs))
    if not found:
        return f"These runs are too few to say whether the original could be one of them ({ns})."
    apart = sorted(likeness.unlike(found), key=lambda one: one.p)
    of = f"of its {few(len(found))} curve{'s and tables' * (len(found) > 1)}"
    if not apart:
        return f"The original may be one more run of ours: none {of} differs from these ({ns})."
    named = "; ".join(f"{one.label}, {one.what.partition(',')[0]}" for one in apart[:3])
    return (
        f"The original is not simply one more run of ours: {of} {few(len(apart))} "
        f"lie{'s' * (len(apart) == 1)} outside what such a run would give "
        f"({'most clearly ' * (len(apart) > 3)}{named}; {on_runs(one.n for one in apart)})."
    )


def _decided(
    parts: Sequence[tuple[claims.Part, bool | None]],
    agrees: bool,
    of: str,
    verbs: tuple[str, str],
    why: str,
) -> str:
    """How many comparisons have that verdict, and which, in a sentence."""
    ns = [part.n for part, verdict in parts if verdict is agrees]
    if not ns:
        return f"None {of} {verbs[0]} ({on_runs(part.n for part, _ in parts)})."
    said = listed(_clauses(parts, agrees), ", and ")
    return f"{capital(few(len(ns)))} {of} {verbs[len(ns) > 1]}{why}{said} ({on_runs(ns)})."


def _open(found: Sequence[tuple[claims.Statement, claims.Part]], total: int) -> str:
    """What of all comparisons is undecided, and how many runs would settle it, in a sentence."""
    if not found:
        return "None of them stays open."
    many = len(found)
    head = f"All {few(many)}" if many == total else f"The other {few(many)}"
    ns = on_runs(part.n for _, part in found)

    def named_of(stated: Iterable[claims.Statement]) -> str:
        of = list(dict.fromkeys(str(one.number) for one in stated))
        return f"claim{'s' * (len(of) > 1)} {listed(of)}" * bool(of)

    def named(chosen: Callable[[float], bool]) -> str:
        return named_of(s for s, part in found if part.n > 1 and chosen(part.needed))

    takes, needed = [], sorted(part.needed for _, part in found if part.n > 1)
    if within := named(lambda n: n <= stats.MOST_RUNS):
        ends = [f"{n:.0f}" for n in needed if n <= stats.MOST_RUNS]
        span = " to ".join(dict.fromkeys((ends[0], ends[-1])))
        takes.append(f"about {span} runs of each setting would settle {within}")
    if more := named(lambda n: stats.MOST_RUNS < n < math.inf):
        takes.append(f"{more} would take more than {stats.MOST_RUNS:,}")
    if never := named(math.isinf):
        takes.append(f"no number of runs alone would settle {never}")
    takes = takes or ["these runs cannot tell how many it would take"]
    alone = [part.agrees for _, part in found if part.agrees is not None]
    counts = [(alone.count(True), "hold"), (alone.count(False), "fail")]
    said = [f"{few(times)} of them {verb}{'s' * (times == 1)}" for times, verb in counts if times]
    of = named_of(stated for stated, part in found if part.agrees is not None)
    takes[-1] += f"; tested alone, {listed(said)} ({of})" * bool(alone)
    return f"{head} stay{'s' * (many == 1)} open ({ns}): {listed(takes, ', and ')}."


@remakable
def finding(number: str, runs: Runs) -> Text:
    """What the claims of a section of the original come to, each by its own test, as a title; empty
    where these runs cannot judge them."""
    judged = [one for one in claims.judgements(runs) if one.claim.section.startswith(number)]
    return _title([part for one in judged for part in one.parts])


@remakable
def own_finding(judged: Sequence[tuple[Claim, Runs]]) -> Text:
    """What one's own claims come to, as `finding` does with the original's; of several that are not
    all decided, how many."""
    found = [part for one in verdicts_on(judged) for part in one.parts]
    if len(found) > 1 and any(part.agrees is None for part in found):
        said = claims.tally([part.agrees for part in found])
        return Text(
            f"{few(len(found)).capitalize()} claims: {said} ({on_runs(p.n for p in found)})"
        )
    return _title(found)


def _title(parts: Sequence[claims.Part]) -> Text:
    """What comparisons come to, as a title."""
    if not parts:
        return Text("")
    verdicts = [(part, part.agrees) for part in parts]
    pieces = _clauses(verdicts, True) + _clauses(verdicts, False)
    open_, tested = [part for part in parts if part.agrees is None], ""
    if len(" ".join(pieces).split()) > MOST_WORDS:
        counts = Counter(part.agrees for part in parts)
        words = (True, "holds", "hold"), (False, "fails", "fail"), (None, "is open", "are open")
        said = [f"{few(n)} {one if n == 1 else m}" for kind, one, m in words if (n := counts[kind])]
        # The abstract's counts are those of all claims together.
        pieces, tested = [pieces[0], f"in all {listed(said)}"], ", each tested alone"
    elif open_ == parts and len(parts) == 1 and parts[0].says[0]:
        subject, so, _, other = parts[0].says
        pieces = [f"whether {subject} {so} {other} is still undecided"]
    elif open_:
        said = f"{_subjects(open_, parts)} still undecided"
        long = len(" ".join([*pieces, said]).split()) > MOST_WORDS
        pieces.append(f"{few(len(open_))} open" if long else said)
    return Text(capital(f"{'; '.join(pieces)} ({on_runs(part.n for part in parts)}{tested})"))


def _subjects(open_: Sequence[claims.Part], parts: Sequence[claims.Part]) -> str:
    """Who of a title is undecided: by name where that is short and said of nothing else."""
    names = dict.fromkeys(part.says[0].partition(" with ")[0] for part in open_)
    decided = {part.says[0] for part in parts if part.agrees is not None}
    if len(names) < 3 and not decided & set(names) and "" not in names:
        return listed(list(names))
    head = "all " * (len(open_) == len(parts))
    return f"{head}{few(len(open_))} comparison{'s' * (len(open_) > 1)}"
