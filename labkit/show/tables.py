"""Tables from runs. Each is a `Table`: the numbers as a data frame, and how to show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from labkit.core import data
from labkit.core.config import Config, scale_name
from labkit.core.measures import RECALIBRATED, RUNNING, STATISTICS
from labkit.core.words import SPLITS, number, plural
from labkit.judge import claims, likeness, original, recipes, stats
from labkit.judge.own import Claim, verdicts_on
from labkit.show.remake import MIME, remakable
from labkit.store.groups import (
    BOTH,
    Runs,
    answered,
    answering,
    at_once,
    class_noun,
    classes_of,
    divergences,
    finite,
    most_mistaken,
    off_diagonal,
    shares_of,
    total_confusion,
    trained_on,
    unanswered,
)
from labkit.store.run import Run


@dataclass
class Table:
    """A data frame with a caption; shows itself in a notebook.

    `decimals` says for a column (for the last part of its name, if it has several) how many
    digits follow the point. Missing values are shown as a dash.
    """

    frame: pd.DataFrame
    caption: str
    decimals: Mapping[str, int] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)  # how to make it again

    def _cells(self) -> pd.DataFrame:
        """What stands in the cells; the index's name in the corner, not on a line of its own."""
        shown = self.frame.astype(object)
        for name in shown:
            decimals = self.decimals.get(name[-1] if isinstance(name, tuple) else name, 0)
            texts = [_written(value, decimals) for value in shown[name]]
            shown[name] = pd.Series(texts, shown.index, dtype=object)
        levels = shown.columns.nlevels
        shown.columns = shown.columns.set_names([None] * (levels - 1) + [shown.index.name])
        return shown.rename_axis(index=None)

    def html(self) -> str:
        """The table as HTML: text to the left, numbers to the right, heads with their scope."""
        shown, levels = self._cells(), self.frame.columns.nlevels
        names = [name if isinstance(name, tuple) else (name,) for name in shown]
        lines = [f'<caption style="text-align: left">{escape(self.caption)}</caption>', "<thead>"]
        for level in range(levels):
            corner = escape(str(self.frame.index.name or "")) if level == levels - 1 else ""
            line = f'<th scope="col">{corner}</th>' if corner else "<td></td>"
            for head, group in groupby(names, itemgetter(slice(level + 1))):
                wide, text = len(list(group)), escape(str(head[level]))
                span = ' scope="col"'
                if wide > 1:
                    span = f' scope="colgroup" colspan="{wide}" style="text-align: center"'
                line += f"<th{span}>{text}</th>" if text else f'<td colspan="{wide}"></td>'
            lines.append(f"<tr>{line}</tr>")
        lines.append("</thead>\n<tbody>")
        marks = [
            ' style="text-align: left"' * _textual(self.frame.iloc[:, i]) for i in range(len(names))
        ]
        for label, *row in shown.itertuples(name=None):
            line = "".join(
                f"<td{mark}>{escape(cell)}</td>" for mark, cell in zip(marks, row, strict=True)
            )
            lines.append(f'<tr><th scope="row">{escape(str(label))}</th>{line}</tr>')
        return '<table class="labkit">\n' + "\n".join(lines) + "\n</tbody>\n</table>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/html": self.html(), "text/plain": repr(self), MIME: self.call}

    def __repr__(self) -> str:
        return f"{self.caption}\n{self._cells().to_string()}"


def _textual(column: pd.Series) -> bool:
    """Whether a column holds words."""
    return not all(isinstance(value, int | float | np.number) or value == "" for value in column)


def _written(value: object, decimals: int) -> str:
    return number(value, decimals) if isinstance(value, int | float | np.number) else str(value)


def seeds_of(runs: Runs, counted: Runs | None = None) -> str:
    """How many seeds the numbers rest on, in words, and which of them diverged.

    Where only those of `counted` count, also how many are older than such answers.
    """
    counts = {len((runs if counted is None else counted).get(label, ())) for label in runs}
    words = f"n = {' or '.join(map(str, sorted(counts)))} seeds per setting"
    words = "one run per setting (n = 1)" if counts == {1} else words
    older = "" if counted is None else unanswered(runs)
    older += " of the recalibrated numbers" * bool(older)
    return "; ".join(filter(None, (words, divergences(runs), older)))


def _by_setting(rows: Mapping[str, Mapping[Any, Any]]) -> pd.DataFrame:
    """A row per setting; columns with a head of their own where the keys are pairs."""
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")
    if len(frame) and isinstance(frame.columns[0], tuple):
        frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    return frame


def shares(group: Sequence[Run], split: str, statistics: str = RECALIBRATED) -> pd.DataFrame:
    """The accuracy of each class and, last, in total, in percent; a row per run with answers.

    A frame, because its mean and range are missing, without a warning, where it has no row.
    """
    rows = [shares_of(run.counts(split, statistics)) for run in answering(group, statistics)]
    classes = group[0].classes if len(group) else ()
    return pd.DataFrame(rows, columns=[*classes, "total"], dtype=float)


def total(group: Sequence[Run], split: str, statistics: str = RECALIBRATED) -> pd.Series:
    """The accuracy in percent of each run with answers."""
    return shares(group, split, statistics).iloc[:, -1]  # by place: a class may be called so


def class_names(group: Sequence[Run]) -> list[str | int]:
    """What the classes are called in a table; one that is called by its number is a number."""
    return [i if name == str(i) else name for i, name in enumerate(group[0].classes)]


def _ends(group: Sequence[Run], split: str) -> tuple[pd.Series, pd.Series]:
    """Below and above the recalibrated `shares`: the lowest and the highest seed; of one seed the
    ends of its 95 % Wilson intervals."""
    ours, counted = shares(group, split), answering(group)
    if len(counted) != 1:
        return ours.min(), ours.max()
    counts = counted[0].counts(split)
    right, asked = (np.append(n, n.sum()) for n in (np.diag(counts), counts.sum(1)))
    low, high = zip(*map(stats.wilson, right, asked), strict=True)
    return tuple(100 * pd.Series(end, ours.columns) for end in (low, high))


def _ends_words(counted: Runs) -> str:
    """What `_ends` are, by how many runs the settings have."""
    several = {len(group) > 1 for group in counted.values()}
    if len(several) > 1:
        return "95\u00a0% Wilson interval for one seed, else lowest and highest seed"
    return "lowest and highest seed" if several == {True} else "95\u00a0% Wilson interval"


def printed(section: original.Section | None, split: str) -> list[float]:
    """The original's accuracy of each class and in total, in percent; [] where it has none."""
    table = getattr(section, split, None)
    return [*table.percent, table.total_percent] if table else []


def _inside(values: np.ndarray | pd.DataFrame, original: Sequence[float]) -> list[str]:
    """For each place whether the original's value lies in the range of `values` `[n, places]`.

    "yes", "above", "below", or "" where there is no value here to compare with.
    """
    places = min(values.shape[1], len(original))
    low, high = values.min(axis=0)[:places], values.max(axis=0)[:places]
    return [
        "" if not np.isfinite(a) else "below" if o < a else "above" if o > b else "yes"
        for a, b, o in zip(low, high, original, strict=False)
    ]


@remakable
def epochs(runs: Runs) -> Table:
    """Mean training loss by epoch and setting, with the original's printed loss beside it.

    With several seeds also the lowest and the highest, and whether the original lies between.
    """
    columns: dict[tuple[str, str], pd.Series] = {}
    printed_runs = original.beside(runs)
    for label, group in runs.items():
        losses = np.array([run.history["loss"] for run in group])
        found = {"here": losses.mean(0)}
        if len(group) > 1:
            found |= {"low": losses.min(0), "high": losses.max(0)}
        if section := printed_runs.get(label):
            found["original"] = section.epoch_loss
            if len(group) > 1:
                found["inside"] = _inside(losses, section.epoch_loss)
        columns |= {(label, name): pd.Series(values) for name, values in found.items()}
    frame = pd.DataFrame(columns).rename_axis("epoch")
    many = max(map(len, runs.values())) > 1
    range_ = "; low and high: of the seeds" * many
    range_ += "; inside: the original lies between them" * bool(many and printed_runs)
    caption = f"Training loss in nats, mean of each epoch's batch losses{range_}; {seeds_of(runs)}"
    return Table(frame, caption, dict.fromkeys(("here", "low", "high", "original"), 4))


@remakable
def beside(runs: Runs) -> Table:
    """Every curve and table of the original beside what one more run of ours would give.

    Values inside the 95 % prediction interval of the runs, above and below it, place by place; and
    p, that the curve or table is one more of ours, see `likeness.Likeness`.
    """
    rows = []
    for one in likeness.likenesses(runs):
        values = len(one.places) - one.places.count("")
        counts = [one.places.count(k) if values else np.nan for k in ("inside", "above", "below")]
        p = "–" if np.isnan(one.p) else stats.p_words(one.p).removeprefix("p ").removeprefix("= ")
        rows.append([one.label, one.number, one.what, one.n, values, *counts, p])
    columns = ["setting", "section", "of the original", "n", "values", "inside", "above", "below"]
    frame = pd.DataFrame(rows, columns=[*columns, "p"]).set_index("setting")
    caption = (
        "How many of the original's values lie inside the 95\u00a0% prediction interval for one "
        "more run of ours, how many above and below it; p: that it is one more of ours, by its "
        "mean ln loss or total accuracy and by the place that differs most; "
        f"{BOTH}; {seeds_of(runs, runs)}"
    )
    return Table(frame, caption)


@remakable
def ledger(runs: Runs, others: Runs | None = None) -> Table:
    """What the original states, and the verdict that these runs give, comparison by comparison.

    Args:
        others: runs of other recipes, each of which gets a column with its verdicts.
    """
    columns = ["claim", "the original says", "compared", "verdict", "n", "found here"]
    columns += ["the original's size", "its own numbers"]
    elsewhere = recipes.verdicts(others or {})
    rows = []
    for judgement in claims.judgements(runs):
        stated = judgement.claim
        says, own = f"{stated.says} (section {stated.section})", stated.own()
        for part in judgement.parts:
            found = part.what, part.verdict, part.n, part.brief, part.size
            again = [_again(part, parts.get(part.what)) for parts in elsewhere.values()]
            rows.append([stated.number, says, *found, own, *again])
            says = own = ""  # once per claim
    heads = [*columns, *(f"with {recipe}" for recipe in elsewhere)]
    frame = pd.DataFrame(rows, columns=heads).set_index("claim")
    first = next(iter(runs.values()))[0].config
    own = f" on {first.dataset} with {plural(first.epochs, 'epoch')}: not the original's"
    again = f"with another recipe: the verdict of its runs, {seeds_of(others)}; " if others else ""
    caption = (
        f"The original's claims and the verdicts on them{own * (scale_name(first) != 'paper')}, a "
        "row per comparison, each tested on its own at 5\u00a0%; the sections give intervals and "
        "tests; the original's size: whether it lies inside what one more run of ours would give; "
        f"{again}accuracies and answers are recalibrated unless stated otherwise; "
        f"{BOTH}; {seeds_of(runs, runs)}"
    )
    return Table(frame, caption)


def _again(part: claims.Part, other: claims.Part | None) -> str:
    """The verdict of other runs on the same comparison; where they decide nothing, on which side of
    the claim's border they lie."""
    if other is None or other.agrees is not None or not (part.numbers and other.numbers):
        return claims.VERDICTS[other.agrees] if other else "–"
    side = "same" if claims.alike(part, other) else "other"
    return f"{claims.UNDECIDED}, {side} side"


@remakable
def own_ledger(judged: Sequence[tuple[Claim, Runs]]) -> Table:
    """One's own claims and the verdict that their runs give, alone and all together (Holm)."""
    rows = []
    for stated, part, _, agrees in claims.corrected(verdicts_on(judged)):
        verdicts = part.verdict, claims.VERDICTS[agrees]
        found = part.n, part.brief, part.size
        rows.append([stated.name, stated.says, part.what, *verdicts, *found])
    columns = ["claim", "in words", "compared", "verdict", "all together", "n", "found here"]
    frame = pd.DataFrame(rows, columns=[*columns, "the claimed size"]).set_index("claim")
    if not frame["the claimed size"].any():
        frame = frame.drop(columns="the claimed size")
    size = "; the claimed size: whether it lies inside what one more run would give" * (
        "the claimed size" in frame
    )
    caption = (
        "The claims of this lab and the verdicts on them, each tested on its own at 5\u00a0%, and "
        f"all together by Holm's method{size}; accuracies are recalibrated"
    )
    return Table(frame, caption)


@remakable
def convergence(runs: Runs, losses: Sequence[float] = (0.1, 0.05, 0.03)) -> Table:
    """How fast each setting learns: the area under its log-loss curve, and what it takes until an
    epoch's mean training loss is at most each of `losses` (nats).

    Medians over the seeds; a dash where half of them or more never get there.
    """
    rows: dict[str, dict[tuple[str, str], float]] = {}
    for label, group in finite(runs).items():
        areas = [stats.log_area(run.history["loss"].to_numpy()) for run in group]
        rows[label] = {("mean ln loss", "mean"): np.mean(areas)}
        if len(group) > 1:
            rows[label]["mean ln loss", "±"] = np.std(areas, ddof=1)
        for threshold in losses:
            taken = np.median([_until(run, threshold) for run in group], axis=0)
            for unit, value in zip(("epochs", "updates", "seconds"), taken, strict=True):
                value = value if np.isfinite(value) else np.nan
                rows[label][f"to a loss of {threshold:g}", unit] = value
    caption = (
        "Convergence: the mean of ln(loss) over the epochs (the area under the curve on a log "
        "axis; lower is faster), and the epochs, updates and seconds until an epoch's mean loss is "
        "at most so many nats, median of the seeds (a dash: half of them or more never get there); "
        f"seconds: of training{at_once(runs)}; {seeds_of(runs)}"
    )
    decimals = {"mean": 3, "±": 3, "epochs": 1, "seconds": 1}
    return Table(_by_setting(rows), caption, decimals)


def _until(run: Run, loss: float) -> tuple[float, float, float]:
    """Epochs, updates and seconds until an epoch's mean loss is at most `loss`, or infinity."""
    epochs = stats.first_below(run.history["loss"].to_numpy(), loss)
    if np.isnan(epochs):
        return np.inf, np.inf, np.inf
    seconds = run.history["seconds"].iloc[: int(epochs)].sum()
    return epochs, epochs * run.iteration_loss.shape[1], seconds


@remakable
def recipe_distances(runs: Runs, all_epochs: bool = False) -> Table:
    """By which factor each recipe's training losses are off the original's, see
    `recipes.distances`."""
    found = recipes.distances(runs, all_epochs)
    heads = {
        place: f"{original.section(place).name}, {plural(count, 'epoch')}"
        for place, count in found.attrs["epochs"].items()
    } | {"all": "all", "low": "from", "high": "to"}
    frame = np.exp(found.drop(columns="n")).rename(columns=heads)
    frame.insert(0, "n", found["n"])
    several = bool((found["n"] > 1).any())
    where = " over all epochs of all its curves" * all_epochs
    caption = (
        f"By which factor a recipe's mean training losses are typically off the original's{where}, "
        "nearest first; the factor: by the root mean square of the difference of logarithms, 1 is "
        "the same" + "; from, to: of single seeds" * several + ". Test figures are not used"
    )
    frame = frame if several else frame.drop(columns=["from", "to"])
    return Table(frame, caption, dict.fromkeys(heads.values(), 2))


@remakable
def hardest(runs: Runs, most: int = 12) -> Table:
    """The test images that all runs together get wrong most often: how often, and as what.

    By recalibrated answers.
    """
    groups, names = answered(runs), class_names(next(iter(runs.values())))
    every = [run for group in groups.values() for run in group]
    rows = []
    for index, answers in most_mistaken(every, most).items():
        row = {
            "image": index,
            "true": names[every[0].test_labels[index]],
            "wrong in": answers.total(),
            "taken for": ", ".join(f"{names[a]} ({times}×)" for a, times in answers.most_common()),
        }
        for label, group in groups.items() if len(groups) > 1 else ():
            row[label] = f"{sum(not run.right()[index] for run in group)} of {len(group)}"
        rows.append(row)
    right = np.array([run.right() for run in every] or [[]], bool)
    never, always = int(right.all(0).sum()), int((~right).all(0).sum())
    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["image"]).set_index("image")
    caption = (
        f"The test images most often wrong in {plural(len(every), 'run')}, recalibrated, ties "
        f"by number: {never:,} of {right.shape[1]:,} images are right in every run, "
        f"{always:,} wrong in every run; {seeds_of(runs, groups)}"
    )
    return Table(frame, caption)


@remakable
def changed(runs: Runs, most: int = 8) -> Table:
    """The test images that are answered differently by the first setting and by each other one.

    An image counts as right with a setting if more than half of its runs answer correctly, by
    recalibrated answers. Of those that change, the first `most` are named by their numbers. A
    majority is no test: what other seeds or images would give, `conclusions.compare` says.
    """
    first, groups = next(iter(runs)), answered(runs)
    columns = ["right with both", f"only with {first}", "only with this", "with neither"]
    columns += [f"images only with {first}", "images only with this"]
    rows, right = {}, {}
    for label, group in groups.items():
        right[label] = np.mean([run.right() for run in group], axis=0) > 0.5
    for label in groups if first in groups else ():
        if label == first:
            continue
        base, here = right[first], right[label]
        kinds = base & here, base & ~here, here & ~base, ~base & ~here
        rows[label] = [*(int(kind.sum()) for kind in kinds)]
        rows[label] += [_numbers(kind, most) for kind in kinds[1:3]]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("setting")
    caption = (
        "Test images that are answered differently; right: by more than half of a setting's runs, "
        f"recalibrated; {seeds_of(runs, groups)}"
    )
    return Table(frame, caption)


def _numbers(chosen: np.ndarray, most: int) -> str:
    """The numbers of the chosen images, of the first `most` of them."""
    found = np.flatnonzero(chosen)
    return ", ".join(map(str, found[:most])) + ", …" * (len(found) > most)


@remakable
def per_class(runs: Runs, split: str = "test") -> Table:
    """Accuracy of every class and in total on "train" or "test", beside the original's table.

    `accuracy %` is recalibrated. With one such run `low` and `high` are its 95 % Wilson interval;
    with several they are the lowest and the highest seed, and `accuracy %` is the mean. Running
    averages (the mean) stand beside the original's table, or where nothing else is on record.
    """
    columns: dict[tuple[str, str], Any] = {}
    printed_runs = original.beside(runs)
    index = pd.Index([*classes_of(runs), "total"], name="class")
    for label, group in runs.items():
        ours, theirs = shares(group, split), printed(printed_runs.get(label), split)
        low, high = _ends(group, split)
        columns |= {(label, "accuracy %"): ours.mean(), (label, "low"): low, (label, "high"): high}
        if theirs or ours.empty:
            columns[label, "running averages %"] = shares(group, split, RUNNING).mean()
        if theirs:
            columns[label, "original %"] = theirs
            if len(group) > 1:
                columns[label, "inside"] = _inside(ours.round(2), np.round(theirs, 2))
    every = [run for group in runs.values() for run in group]
    sizes = np.max([run.counts(split, kind).sum(1) for run in every for kind in STATISTICS], axis=0)
    frame = pd.DataFrame({name: list(values) for name, values in columns.items()}, index=index)
    frame.insert(0, ("", "images"), [*sizes, sizes.sum()])
    counted = answered(runs)
    caption = (
        f"Accuracy on the {SPLITS[split]} images, recalibrated; low and high: "
        f"{_ends_words(counted)}; {BOTH}; {seeds_of(runs, counted)}"
    )
    decimals = ("accuracy %", "low", "high", "running averages %", "original %")
    return Table(frame, caption, dict.fromkeys(decimals, 2))


@remakable
def summary(runs: Runs) -> Table:
    """One row per setting: loss of the first and last epochs and both accuracies, beside the
    original's where it has any."""
    rows, printed_runs = {}, original.beside(runs)
    for label, group in runs.items():
        section = printed_runs.get(label)
        first, last = np.mean([run.history["loss"].iloc[[0, -1]] for run in group], axis=0)
        test, (low, high) = total(group, "test"), _ends(group, "test")
        asked = max(run.counts("test").sum() for run in group)
        learnt, averaged = (
            {f"{split} %": total(group, split, kind).mean() for split in SPLITS}
            for kind in STATISTICS
        )
        theirs = {f"{split} %": (printed(section, split) or [np.nan])[-1] for split in SPLITS}
        ends = (section.epoch_loss[0], section.epoch_loss[-1]) if section else (np.nan, np.nan)
        scatter = {
            "± seeds": test.std(),
            "± images": 100 * stats.deviation(test.mean() / 100, asked),
            "from": low.iloc[-1],
            "to": high.iloc[-1],
        }
        heads = {
            "here": {"n": len(group), "first loss": first, "last loss": last},
            "recalibrated": {"n": len(test)} | learnt | scatter,
            "by running averages": averaged,
        }
        if printed_runs:
            heads["original"] = {"first loss": ends[0], "last loss": ends[1]} | theirs
        rows[label] = {(head, k): v for head, part in heads.items() for k, v in part.items()}
    theirs = " beside the original, one run on full MNIST of ten epochs" * bool(printed_runs)
    caption = (
        f"Every setting{theirs}. Loss: mean of the "
        "first and of the last epoch, nats. Accuracy: after the last epoch. For the test accuracy, "
        "± seeds: standard deviation over the seeds on these images; ± images: of one network on "
        f"other sets of as many images (binomial); from, to: {_ends_words(answered(runs))}; "
        f"{BOTH}; {seeds_of(runs, runs)}"
    )
    decimals = {"first loss": 4, "last loss": 4} | dict.fromkeys(
        ("train %", "test %", "± seeds", "± images", "from", "to"), 2
    )
    return Table(_by_setting(rows), caption, decimals)


@remakable
def lag(runs: Runs) -> Table:
    """What the running averages cost after the last epoch: accuracy with either statistics.

    In percent, and their difference in points: the mean of the runs that have both and, with
    several, the lowest and the highest seed.
    """
    counted = answered(runs)
    several = max(map(len, counted.values()), default=0) > 1
    rows: dict[str, dict[tuple[str, str], float]] = {}
    for label, group in runs.items():
        kept = answering(group)
        rows[label] = {("", "n"): len(kept)}
        for split, name in SPLITS.items():
            learnt, averaged = (total(kept, split, kind) for kind in STATISTICS)
            hidden = learnt - averaged
            found = {"recalibrated %": learnt.mean(), "running averages %": averaged.mean()}
            found["difference"] = hidden.mean()
            if several:
                found |= {"from": hidden.min(), "to": hidden.max()}
            rows[label] |= {(f"{name} images", head): value for head, value in found.items()}
    range_ = "; from, to: lowest and highest seed" * several
    caption = (
        "What the running averages hide after the last epoch: accuracy in percent, and the "
        f"difference in points{range_}; {BOTH}; {seeds_of(runs, counted)}"
    )
    decimals = ("recalibrated %", "running averages %", "difference", "from", "to")
    return Table(_by_setting(rows), caption, dict.fromkeys(decimals, 2))


@remakable
def work(runs: Runs) -> Table:
    """What an epoch costs with each setting: equal epochs are not equal work."""
    rows = {}
    for label, group in runs.items():
        config, updates = group[0].config, group[0].iteration_loss.shape[1]
        rows[label] = {
            "images per epoch": trained_on(group[0]),
            "updates per epoch": updates,
            "updates in all": updates * config.epochs,
            "seconds per epoch": pd.concat([run.history["seconds"] for run in group]).median(),
            "device": group[0].provenance["device"],
        }
    seconds = f"seconds: median of all epochs, training alone{at_once(runs)}"
    caption = f"Work per epoch; {seconds}; {seeds_of(runs)}"
    return Table(_by_setting(rows), caption, {"seconds per epoch": 2})


@remakable
def confused_pairs(group: Sequence[Run], split: str = "test", most: int = 8) -> Table:
    """The classes most often taken for another one, summed over the runs of one setting.

    By recalibrated answers.
    """
    share, names = f"% of the {class_noun(group[0])}", class_names(group)
    counts = total_confusion(group, split)
    wrong = off_diagonal(counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows = [
        (names[true], names[other], wrong[true, other],
         100 * wrong[true, other] / counts[true].sum(), wrong[other, true])
        for true, other in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, other]
    ]  # fmt: skip
    columns = ["true", "taken for", "times", share, "the other way"]
    frame = pd.DataFrame(rows, columns=columns).set_index("true")
    caption = (
        f"Most frequent mistakes: {wrong.sum():,} of {counts.sum():,} {SPLITS[split]} answers, "
        f"recalibrated, are wrong; {seeds_of({'': group}, answered({'': group}))}"
    )
    return Table(frame, caption, {share: 2})


@remakable
def layers(config: Config, sizes: Sequence[int] | None = None) -> Table:
    """The layer table of the config's network, see `layers.layer_table`, with its totals.

    `sizes` are `data.sizes` of the dataset, which for an own one means to load it.
    """
    from labkit.core import model  # here: no other table needs torch
    from labkit.core.layers import layer_table

    channels, height, width, classes = sizes or data.sizes(config.dataset)
    network = model.build(config, channels, classes, (height, width))
    frame = layer_table(network, (channels, height, width))
    norms, weighted = frame["kind"] == "BatchNorm2d", frame["multiply_adds"] > 0
    shown = frame[weighted].set_index("name")
    shown = shown.assign(
        output_shape=["×".join(map(str, shape)) for shape in shown["output_shape"]],
        kernel=[f"{k}×{k}" if k and isinstance(k, int) else k or "" for k in shown["kernel"]],
        stride=[str(s or "") for s in shown["stride"]],
    ).astype(object)
    sums = ["parameters", "can_learn", "multiply_adds"]
    others = frame[~norms & ~weighted & (frame["parameters"] > 0)]
    for part, kind in ((frame[norms], "BatchNorm2d"), (others, "")):
        if len(part):
            what = f"{len(part)} normalisations" if kind else "other parameters"
            shown.loc[what] = part[sums[:2]].sum()
            shown.loc[what, "kind"] = kind
    shown.loc["total"] = frame[sums].sum()
    titles = {"output_shape": "output (C×H×W)", "can_learn": "can learn"}
    titles["multiply_adds"] = "multiply-adds"
    usual = (weighted & ~frame["name"].str.contains("downsample")).sum()
    caption = (
        f"The layers with weights, for one image of {height}×{width} pixels: {usual} weighted "
        "layers by the usual count, which leaves out the shortcuts and the normalisations; can "
        "learn: the parameters that meet at least one pixel, not only the padding of small maps"
    )
    return Table(shown.fillna("").rename(columns=titles), caption)


@remakable
def provenance(runs: Runs, since: str = "9999", until: str = "9999") -> Table:
    """What ran, when, where and from which commit; the record's name finds it in the store.

    A recorded run that was begun between `since` and `until`, dates in ISO 8601 in UTC, counts as
    trained now.
    """
    rows = [
        {
            "setting": label,
            "seed": run.config.seed,
            "record": run.digest,
            "source": "recorded" if run.recorded and not run.dated(since, until) else "trained now",
            "date (UTC)": run.provenance["date"][:16].replace("T", " "),
            "device": run.provenance["device"],
            "seconds": run.provenance["seconds"],
            "commit": run.provenance["commit"] or "–",
            "torch": run.provenance["versions"]["torch"],
        }
        for label, group in runs.items()
        for run in group
    ]
    frame = pd.DataFrame(rows).set_index("setting")
    caption = f"The runs behind these numbers; seconds: training and evaluation{at_once(runs)}"
    if frame["device"].str.startswith("cuda").any():
        caption += "; on CUDA devices convolutions multiply in TF32, as is PyTorch's default"
    return Table(frame, caption, {"seconds": 1})
