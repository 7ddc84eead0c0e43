"""Tables from runs. Each is a `Table`: the numbers as a data frame, and how to show them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from labkit.core.config import DATASETS, Config, scale_name
from labkit.core.measures import NAMES, RECALIBRATED, RUNNING, STATISTICS
from labkit.judge import claims, original, recipes, stats
from labkit.show.remake import MIME, remakable
from labkit.store.run import (
    BOTH,
    Run,
    Runs,
    answered,
    answering,
    class_noun,
    divergences,
    finite,
    most_mistaken,
    off_diagonal,
    paired_by_seed,
    shares_of,
    total_confusion,
    unanswered,
)

#: What an accuracy rests on, in a head or a caption.


@dataclass(frozen=True)
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
        columns = [self._shown(name, self.frame[name]) for name in self.frame]
        shown = pd.concat(columns, axis=1) if columns else self.frame
        # The index's name goes into the header's corner, not on a line of its own.
        levels = self.frame.columns.nlevels
        shown.columns = self.frame.columns.set_names(
            [None] * (levels - 1) + [self.frame.index.name]
        )
        return shown.rename_axis(index=None)

    def _shown(self, name: str | tuple[str, str], values: pd.Series) -> pd.Series:
        last = name[-1] if isinstance(name, tuple) else name
        places = self.decimals.get(last, 0)

        def text(value: object) -> str:
            if isinstance(value, float | np.floating) and not np.isfinite(value):
                return "–" if np.isnan(value) else str(value)
            if isinstance(value, int | float | np.number) and not isinstance(value, bool):
                return f"{value:,.{places}f}".replace("-", "−")
            return str(value)

        return values.map(text).astype(object)

    def html(self) -> str:
        """The table as HTML."""
        table = self._cells().to_html(border=0, classes="labkit")
        return table.replace(">\n", f">\n  <caption>{escape(self.caption)}</caption>\n", 1)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = {"text/html": self.html(), "text/plain": repr(self)}
        return bundle | {MIME: self.call}

    def __repr__(self) -> str:
        return f"{self.caption}\n{self._cells().to_string()}"


@remakable
def epochs(runs: Runs) -> Table:
    """Mean training loss by epoch and setting, with the original's printed loss beside it.

    With several seeds also the lowest and the highest, and whether the original lies between.
    """
    columns: dict[tuple[str, str], pd.Series] = {}
    for label, group in runs.items():
        losses = np.array([run.history["loss"] for run in group])
        columns[label, "here"] = pd.Series(losses.mean(0))
        if len(group) > 1:
            columns[label, "low"] = pd.Series(losses.min(0))
            columns[label, "high"] = pd.Series(losses.max(0))
        if section := original.section_of(group[0].config):
            columns[label, "original"] = pd.Series(section.epoch_loss)
            if len(group) > 1:
                columns[label, "inside"] = pd.Series(_inside(losses, section.epoch_loss))
    frame = pd.DataFrame(columns).rename_axis("epoch")
    many = max(map(len, runs.values())) > 1
    range_ = "; low and high: of the seeds; inside: the original lies between them" if many else ""
    caption = f"Training loss in nats, mean of each epoch's batch losses{range_}; {seeds_of(runs)}"
    return Table(frame, caption, dict.fromkeys(("here", "low", "high", "original"), 4))


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
def beside(runs: Runs) -> Table:
    """Every curve and table of the original: how many of its values lie in our range of seeds.

    A place counts where both have a value; the original's percentages are compared as printed,
    with two decimals. Accuracies are those of the runs that have such answers.
    """
    rows = []

    def row(label: str, number: str, what: str, n: int, found: Sequence[str]) -> None:
        values = len(found) - found.count("")
        counts = [found.count(k) if values else np.nan for k in ("yes", "above", "below")]
        rows.append([label, number, what, n, values, *counts])

    columns = ["setting", "section", "of the original", "n", "values", "inside", "above", "below"]
    for label, group in finite(runs).items():
        if not (section := original.section_of(group[0].config)):
            continue
        losses = np.array([run.history["loss"] for run in group])
        n = len(group)
        row(label, section.number, "loss by epoch", n, _inside(losses, section.epoch_loss))
        for log in original.EXCERPTS if section is original.SECTIONS[0] else ():
            part = np.array([run.iteration_loss[log.epoch :][:1] for run in group]).reshape(
                len(group), -1
            )[:, log.first :]
            row(label, log.number, f"iterations of epoch {log.epoch}", n, _inside(part, log.losses))
        for split, name in (("train", "training"), ("test", "test")):
            for statistics in STATISTICS if getattr(section, split) else ():
                shares, printed = _shares(group, split, statistics), _printed(section, split)
                what = f"{name} accuracy, {NAMES[statistics]}"
                row(label, section.number, what, len(shares), _inside(shares.round(2), printed))
    frame = pd.DataFrame(rows, columns=columns).set_index("setting")
    caption = (
        "How many of the original's values lie in the range of our seeds, how many above and below "
        f"it. One run more lies in the range of n others with a chance of (n − 1)/(n + 1), if "
        f"nothing differs; {BOTH}; {seeds_of(runs)}{_older(runs)}"
    )
    return Table(frame, caption)


@remakable
def ledger(runs: Runs) -> Table:
    """What the original states, and the verdict that these runs give, claim by claim."""
    found = list(claims.judgements(runs))
    rows = [
        {
            "claim": judgement.claim.number,
            "section": judgement.claim.section,
            "the original says": judgement.claim.says,
            "verdict": judgement.verdict,
            "n": judgement.n,
            "found here": judgement.brief,
        }
        for judgement in found
    ]
    columns = ["claim", "section", "the original says", "verdict", "n", "found here"]
    frame = pd.DataFrame(rows, columns=columns).set_index("claim")
    first = next(iter(runs.values()))[0].config
    full = scale_name(first) == "paper"
    scale = "" if full else f" on {first.dataset} with {first.epochs} epochs: not the original's"
    caption = (
        f"The original's claims and their verdicts{scale}; in brackets intervals of 95 % for all "
        "comparisons of a claim together, not for all claims; the tests stand in the sections; "
        f"accuracies and answers are recalibrated unless said; {BOTH}; {seeds_of(runs)}"
        f"{_older(runs)}"
    )
    return Table(frame, caption)


@remakable
def convergence(runs: Runs, losses: Sequence[float] = (0.1, 0.05, 0.03)) -> Table:
    """How fast each setting learns: the area under its log-loss curve, and what it takes until an
    epoch's mean training loss is at most each of `losses` (nats).

    Medians over the seeds; a dash where half of them or more never get there.
    """
    rows = {}
    for label, group in finite(runs).items():
        updates = group[0].iteration_loss.shape[1]
        curves = [run.history["loss"].to_numpy() for run in group]
        areas = [stats.log_area(curve) for curve in curves]
        row = {("mean ln loss", "mean"): np.mean(areas)}
        if len(group) > 1:
            row["mean ln loss", "±"] = np.std(areas, ddof=1)
        for threshold in losses:
            taken = np.array([stats.first_below(curve, threshold) for curve in curves])
            taken = np.where(np.isnan(taken), np.inf, taken)
            seconds = [
                run.history["seconds"][: int(t)].sum() if np.isfinite(t) else np.inf
                for run, t in zip(group, taken, strict=True)
            ]
            middle = np.median(taken)
            reached = np.isfinite(middle)
            head = f"to a loss of {threshold:g}"
            row[head, "epochs"] = middle if reached else np.nan
            row[head, "updates"] = middle * updates if reached else np.nan
            row[head, "seconds"] = np.median(seconds) if reached else np.nan
        rows[label] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    if len(frame):  # else all diverged
        frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    caption = (
        "Convergence: the mean of ln(loss) over the epochs (the area under the curve on a log "
        "axis; lower is faster), and the epochs, updates and seconds until an epoch's mean loss is "
        f"at most so many nats, median of the seeds (a dash: half of them or more never get there);"
        f" {seeds_of(runs)}"
    )
    decimals = {"mean": 3, "±": 3, "epochs": 1, "seconds": 1}
    return Table(frame.rename_axis("setting"), caption, decimals)


@remakable
def recipe_distances(runs: Runs) -> Table:
    """By which factor each recipe's training losses are off the original's, see `recipes`."""
    found = recipes.distances(runs)
    epochs = found.attrs["epochs"]
    factors = np.exp(found.drop(columns="n"))
    names = {number: original.section(number).name for number in epochs}
    heads = {n: f"{names[n]}, {k} epoch{'s' * (k > 1)}" for n, k in epochs.items()} | {
        "all": "all",
        "low": "from",
        "high": "to",
    }
    frame = factors.rename(columns=heads)
    frame.insert(0, "n", found["n"])
    several = bool((found["n"] > 1).any())
    if not several:
        frame = frame.drop(columns=["from", "to"])
    caption = (
        "By which factor a recipe's mean training losses are typically off the original's (root "
        "mean square of the difference of logarithms; 1 is the same), nearest first"
        + "; from, to: of single seeds" * several
        + ". Test figures are not used"
    )
    return Table(frame, caption, dict.fromkeys(heads.values(), 2))


@remakable
def hardest(runs: Runs, most: int = 12) -> Table:
    """The test images that all runs together get wrong most often: how often, and as what.

    By recalibrated answers.
    """
    groups = answered(runs)
    every = [run for group in groups.values() for run in group]
    rows = []
    for index, answers in most_mistaken(every, most).items():
        row = {
            "image": index,
            "true": int(every[0].test_labels[index]),
            "wrong in": answers.total(),
            "taken for": ", ".join(f"{digit} ({times}×)" for digit, times in answers.most_common()),
        }
        for label, group in groups.items() if len(groups) > 1 else ():
            wrong = sum(not run.right()[index] for run in group)
            row[label] = f"{wrong} of {len(group)}"
        rows.append(row)
    right = np.array([run.right() for run in every] or [[]], bool)
    never, always = int(right.all(0).sum()), int((~right).all(0).sum())
    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["image"]).set_index("image")
    many = f"{len(every)} run{'s' * (len(every) != 1)}"
    caption = (
        f"The test images most often wrong in {many}, recalibrated, of equal ones the first by "
        f"number: {never:,} of {right.shape[1]:,} images are right in every run, {always:,} wrong "
        f"in every run; {seeds_of(runs, groups)}"
    )
    return Table(frame, caption)


@remakable
def changed(runs: Runs, most: int = 8) -> Table:
    """The test images whose verdict changes between the first setting and each other one.

    An image counts as right with a setting if more than half of its runs answer rightly, by
    recalibrated answers. Of those that change, the first `most` are named by their numbers.
    """
    first, groups = next(iter(runs)), answered(runs)
    rows = {}
    for label in groups if first in groups else ():
        if label == first:
            continue
        pairs = paired_by_seed(groups[first], groups[label])
        if not pairs:
            continue
        base, here = map(_mostly_right, zip(*pairs, strict=True))
        lost, won, p = stats.mcnemar(base, here)
        rows[label] = {
            "right with both": int((base & here).sum()),
            f"only with {first}": lost,
            "only with this": won,
            "with neither": int((~base & ~here).sum()),
            "McNemar": stats.p_words(min(1.0, p * (len(groups) - 1))),
            f"images only with {first}": _numbers(base & ~here, most),
            "images only with this": _numbers(here & ~base, most),
        }
    columns = ["right with both", f"only with {first}", "only with this", "with neither"]
    columns += ["McNemar", f"images only with {first}", "images only with this"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("setting")
    caption = (
        "Test images that change their verdict; right: with more than half of a setting's runs, "
        "recalibrated, of the seeds that both have; p: of the exact McNemar test on these "
        "majorities, times the number of settings compared; it says nothing on other seeds; "
        f"{seeds_of(runs, groups)}"
    )
    return Table(frame, caption)


def _numbers(chosen: np.ndarray, most: int) -> str:
    """The numbers of the images that were chosen, as far as `most` of them."""
    found = np.flatnonzero(chosen)
    return ", ".join(map(str, found[:most])) + ", …" * (len(found) > most)


def _mostly_right(group: Sequence[Run]) -> np.ndarray:
    return np.mean([run.right() for run in group], axis=0) > 0.5


@remakable
def per_class(runs: Runs, split: str = "test") -> Table:
    """Accuracy of every digit and in total on "train" or "test", beside the original's table.

    `accuracy %` is recalibrated. With one such run `low` and `high` are its 95 % Wilson interval;
    with several they are the lowest and the highest seed, and `accuracy %` is the mean. Running
    averages (the mean) stand beside the original's table, or where nothing else is on record.
    """
    columns: dict[tuple[str, str], Any] = {}
    sizes: Any = np.zeros(10, int)
    for label, group in runs.items():
        shares, counted = _shares(group, split), answering(group)
        low, high = shares.min(), shares.max()
        if len(counted) == 1:
            low, high = _wilson(counted[0].counts(split))
        columns[label, "accuracy %"] = shares.mean()
        columns[label, "low"], columns[label, "high"] = low, high
        section = original.section_of(group[0].config)
        table = section and getattr(section, split)
        if table or not counted:
            columns[label, "running averages %"] = _shares(group, split, RUNNING).mean()
        if table:
            columns[label, "original %"] = [*table.percent, table.total_percent]
            if len(group) > 1:
                columns[label, "inside"] = _inside(shares.round(2), _printed(section, split))
        for run, statistics in itertools.product(group, STATISTICS):
            sizes = np.maximum(sizes, run.counts(split, statistics).sum(1))
    index = pd.Index([*map(str, range(len(sizes))), "total"], name="class")
    frame = pd.DataFrame({name: list(values) for name, values in columns.items()}, index=index)
    frame.insert(0, ("", "images"), [*sizes, sizes.sum()])
    kind, counted = {"train": "training", "test": "test"}[split], answered(runs)
    caption = (
        f"Accuracy on the {kind} images, recalibrated; low and high: {_range_words(counted)}; "
        f"{BOTH}; {seeds_of(runs, counted)}"
    )
    decimals = ("accuracy %", "low", "high", "running averages %", "original %")
    return Table(frame, caption, dict.fromkeys(decimals, 2))


def _shares(group: Sequence[Run], split: str, statistics: str = RECALIBRATED) -> pd.DataFrame:
    """The accuracy of each class and, last, in total, in percent; a row a run with answers.

    A frame, because its mean and range are missing, without a warning, where it has no row.
    """
    rows = [shares_of(run.counts(split, statistics)) for run in answering(group, statistics)]
    return pd.DataFrame(rows, columns=range(11), dtype=float)


def _printed(section: original.Section, split: str) -> list[float]:
    """The original's accuracies as it prints them: of each class and in total, in percent."""
    table = getattr(section, split)
    return [*table.percent, round(table.total_percent, 2)]


def _wilson(counts: np.ndarray) -> np.ndarray:
    """The lower and the upper ends `[2, 11]` of what `run.shares_of` gives, in percent."""
    right, asked = np.diag(counts), counts.sum(1)
    pairs = [*zip(right, asked, strict=True), (right.sum(), asked.sum())]
    return 100 * np.array([stats.wilson(k, n) for k, n in pairs]).T


def _range_words(counted: Runs) -> str:
    """What the range of an accuracy is, by how many runs the settings have."""
    several = {len(group) > 1 for group in counted.values()}
    if len(several) > 1:
        return "95 % Wilson interval for one seed, else lowest and highest seed"
    return "lowest and highest seed" if several == {True} else "95 % Wilson interval"


@remakable
def summary(runs: Runs) -> Table:
    """One row a setting: loss of the first and the last epoch and both accuracies, and theirs."""
    rows, counted = {}, answered(runs)
    for label, group in runs.items():
        section = original.section_of(group[0].config)
        shares = {
            (split, statistics): _shares(group, split, statistics).iloc[:, -1]
            for split in ("train", "test")
            for statistics in STATISTICS
        }
        test = shares["test", RECALIBRATED]
        low, high = test.min(), test.max()
        asked = max(run.counts("test").sum() for run in group)
        if len(test) == 1:
            low, high = _wilson(answering(group)[0].counts("test"))[:, -1]
        rows[label] = {
            ("here", "n"): len(group),
            ("here", "first loss"): np.mean([run.history["loss"].iloc[0] for run in group]),
            ("here", "last loss"): np.mean([run.history["loss"].iloc[-1] for run in group]),
            ("recalibrated", "n"): len(test),
            ("recalibrated", "train %"): shares["train", RECALIBRATED].mean(),
            ("recalibrated", "test %"): test.mean(),
            ("recalibrated", "± seeds"): test.std(),
            ("recalibrated", "± images"): 100 * stats.deviation(test.mean() / 100, asked),
            ("recalibrated", "from"): low,
            ("recalibrated", "to"): high,
            ("by running averages", "train %"): shares["train", RUNNING].mean(),
            ("by running averages", "test %"): shares["test", RUNNING].mean(),
            ("original", "first loss"): section.epoch_loss[0] if section else np.nan,
            ("original", "last loss"): section.epoch_loss[-1] if section else np.nan,
            ("original", "train %"): _percent(section, "train"),
            ("original", "test %"): _percent(section, "test"),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    caption = (
        "Every setting beside the original (full MNIST, ten epochs, n = 1). Loss: mean of the "
        "first and of the last epoch, nats. Accuracy: after the last epoch. Of the test accuracy, "
        "± seeds: standard deviation of the seeds on these images, ± images: of a network on "
        f"other sets of as many images (binomial); from, to: {_range_words(counted)}; {BOTH}; "
        f"{seeds_of(runs)}{_older(runs)}"
    )
    decimals = {"first loss": 4, "last loss": 4} | dict.fromkeys(
        ("train %", "test %", "± seeds", "± images", "from", "to"), 2
    )
    return Table(frame.rename_axis("setting"), caption, decimals)


@remakable
def lag(runs: Runs) -> Table:
    """What the running averages cost after the last epoch: accuracy with either statistics.

    In percent, and their difference in points: the mean of the runs that have both and, with
    several, the lowest and the highest seed.
    """
    rows, counted = {}, answered(runs)
    several = max(map(len, counted.values()), default=0) > 1
    for label, group in runs.items():
        kept = answering(group)
        rows[label] = {("", "n"): len(kept)}
        for split, head in (("train", "training images"), ("test", "test images")):
            learnt, averaged = (_shares(kept, split, kind).iloc[:, -1] for kind in STATISTICS)
            hidden = learnt - averaged
            rows[label] |= {
                (head, "recalibrated %"): learnt.mean(),
                (head, "running averages %"): averaged.mean(),
                (head, "difference"): hidden.mean(),
            }
            if several:
                rows[label] |= {(head, "from"): hidden.min(), (head, "to"): hidden.max()}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    range_ = "; from, to: lowest and highest seed" * several
    caption = (
        "What the running averages hide after the last epoch: accuracy in percent, and the "
        f"difference in points{range_}; {BOTH}; {seeds_of(runs, counted)}"
    )
    decimals = ("recalibrated %", "running averages %", "difference", "from", "to")
    return Table(frame.rename_axis("setting"), caption, dict.fromkeys(decimals, 2))


@remakable
def work(runs: Runs) -> Table:
    """What an epoch of each setting costs: equal epochs are not equal work."""
    rows = {}
    for label, group in runs.items():
        config, updates = group[0].config, group[0].iteration_loss.shape[1]
        rows[label] = {
            "images an epoch": DATASETS[config.dataset][0],
            "updates an epoch": updates,
            "updates in all": updates * config.epochs,
            "seconds an epoch": pd.concat([run.history["seconds"] for run in group]).median(),
            "device": group[0].provenance["device"],
        }
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")
    caption = f"Work an epoch; seconds: median of all epochs, training alone; {seeds_of(runs)}"
    return Table(frame, caption, {"seconds an epoch": 2})


@remakable
def confused_pairs(group: Sequence[Run], split: str = "test", most: int = 8) -> Table:
    """The classes most often taken for another one, summed over the runs of one setting.

    By recalibrated answers.
    """
    noun = class_noun(group[0])
    counts = total_confusion(group, split)
    wrong = off_diagonal(counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows = [
        {
            "true": int(true),
            "taken for": int(predicted),
            "times": int(wrong[true, predicted]),
            f"% of the {noun}": 100 * wrong[true, predicted] / counts[true].sum(),
            "the other way": int(wrong[predicted, true]),
        }
        for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, predicted]
    ]
    columns = ["true", "taken for", "times", f"% of the {noun}", "the other way"]
    frame = pd.DataFrame(rows, columns=columns).set_index("true")
    caption = (
        f"Most frequent mistakes: {int(wrong.sum())} of {int(counts.sum()):,} {split} answers, "
        f"recalibrated, are wrong; {seeds_of({'': group}, answered({'': group}))}"
    )
    return Table(frame, caption, {f"% of the {noun}": 2})


@remakable
def layers(config: Config) -> Table:
    """The layer table of the config's network, see `layers.layer_table`, with its totals."""
    from labkit.core import model  # here: no other table needs torch
    from labkit.core.layers import layer_table

    frame = layer_table(model.build(config))
    norms = frame[frame["kind"] == "BatchNorm2d"]
    shown = frame[frame["multiply_adds"] > 0].set_index("name")
    shown = shown.assign(
        output_shape=["×".join(map(str, shape)) for shape in shown["output_shape"]],
        kernel=[f"{k}×{k}" if k else "" for k in shown["kernel"]],
        stride=[str(s) if s else "" for s in shown["stride"]],
    )
    blank = dict.fromkeys(shown, "")
    rest = blank | {name: norms[name].sum() for name in ("parameters", "can_learn")}
    rest["kind"] = "BatchNorm2d"
    counts = ("parameters", "can_learn", "multiply_adds")
    total = blank | {name: frame[name].sum() for name in counts}
    last = pd.DataFrame([rest, total], index=[f"{len(norms)} normalisations", "total"])
    shown = pd.concat([shown, last]).rename_axis("name")
    titles = {
        "output_shape": "output (C×H×W)",
        "can_learn": "can learn",
        "multiply_adds": "multiply-adds",
    }
    shown = shown.rename(columns=titles)
    weighted = frame["kind"].isin(["Conv2d", "Linear"]) & ~frame["name"].str.contains("downsample")
    caption = (
        f"The layers with weights, for one image of 28×28 pixels: {int(weighted.sum())} weighted "
        "layers by the usual count, which leaves out the shortcuts and the normalisations; can "
        "learn: the parameters that ever meet a pixel and not only the padding around small maps"
    )
    return Table(shown, caption)


@remakable
def provenance(runs: Runs, since: str = "9999", until: str = "9999") -> Table:
    """What ran, when, where and from which commit; the record's name finds it in the store.

    A recorded run that was begun between `since` and `until`, dates in ISO 8601 in UTC, counts as
    trained now.
    """

    def recorded(run: Run) -> bool:
        return run.recorded and not run.dated(since, until)

    rows = [
        {
            "setting": label,
            "seed": run.config.seed,
            "record": run.digest,
            "source": "recorded" if recorded(run) else "trained now",
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
    caption = "The runs behind these numbers; seconds: training and evaluation"
    return Table(frame, caption, {"seconds": 1})


def seeds_of(runs: Runs, counted: Runs | None = None) -> str:
    """How many seeds the numbers rest on, in words, and which of them diverged.

    Where only those of `counted` count, also how many are older than such answers.
    """
    kept = runs if counted is None else counted
    counts = {len(kept.get(label, ())) for label in runs}
    words = f"n = {' or '.join(map(str, sorted(counts)))} seeds a setting"
    found = divergences(runs)
    words = ("one run a setting (n = 1)" if counts == {1} else words) + f"; {found}" * bool(found)
    return words if counted is None else words + _older(runs)


def _older(runs: Runs) -> str:
    """How many runs do not count where answers are recalibrated, as words for a caption's end."""
    found = unanswered(runs)
    return f"; {found} of what is recalibrated" * bool(found)


def _percent(section: original.Section | None, split: str) -> float:
    table = getattr(section, split) if section else None
    return table.total_percent if table else np.nan
