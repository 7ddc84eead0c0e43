"""Tables from runs. Each is a `Table`: the numbers as a data frame, and how to show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from labkit import published, stats
from labkit.config import DATASETS, Config
from labkit.origin import MIME, made
from labkit.runs import Run, Runs, class_noun, divergences, off_diagonal, total_confusion


@dataclass(frozen=True)
class Table:
    """A data frame with a caption; shows itself in a notebook.

    `decimals` says for a column (for the last part of its name, if it has several) how many
    digits follow the point. Missing values are shown as a dash.
    """

    frame: pd.DataFrame
    caption: str
    decimals: Mapping[str, int] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)  # how to make it again

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
        return bundle | {MIME: self.origin}

    def __repr__(self) -> str:
        return f"{self.caption}\n{self._cells().to_string()}"


@made
def epochs(runs: Runs) -> Table:
    """Mean training loss by epoch and setting, with the original's printed loss beside it."""
    columns = {}
    for label, group in runs.items():
        loss = np.mean([run.history["loss"] for run in group], axis=0)
        columns[label, "here"] = pd.Series(loss)
        if section := published.section_of(group[0].config):
            columns[label, "original"] = pd.Series(section.epoch_loss)
    frame = pd.DataFrame(columns).rename_axis("epoch")
    caption = f"Training loss in nats, mean of each epoch's batch losses; {seeds_of(runs)}"
    return Table(frame, caption, {"here": 6, "original": 6})


@made
def per_class(runs: Runs, split: str = "test") -> Table:
    """Accuracy of every digit and in total on "train" or "test", beside the original's table.

    With one seed `low` and `high` are the 95 % Wilson interval; with several they are the lowest
    and the highest seed, and `accuracy %` is the mean.
    """
    columns: dict[tuple[str, str], list[float]] = {}
    sizes: np.ndarray | None = None
    for label, group in runs.items():
        counts = np.array([run.confusion[split] for run in group])
        right = np.array([[*np.diag(c), np.trace(c)] for c in counts])
        each = np.array([[*c.sum(1), c.sum()] for c in counts])  # all 0 for a run that diverged
        sizes = each.max(0) if sizes is None else np.maximum(sizes, each.max(0))
        share = 100 * np.divide(right, each, out=np.full(each.shape, np.nan), where=each > 0)
        if len(group) == 1:
            bounds = [stats.wilson(k, n) for k, n in zip(right[0], each[0], strict=True)]
            low, high = (100 * np.array(bounds)).T
        else:
            low, high = share.min(0), share.max(0)
        columns[label, "accuracy %"] = list(share.mean(0))
        columns[label, "low"], columns[label, "high"] = list(low), list(high)
        section = published.section_of(group[0].config)
        if section and (table := getattr(section, split)):
            columns[label, "original %"] = [*table.percent, table.total_percent]
    index = pd.Index([*(str(i) for i in range(len(sizes) - 1)), "total"], name="class")
    frame = pd.DataFrame(columns, index=index)
    frame.insert(0, ("", "images"), [int(size) for size in sizes])
    kind = {"train": "training", "test": "test"}[split]
    what = "lowest and highest seed" if max(map(len, runs.values())) > 1 else "95 % Wilson interval"
    caption = f"Accuracy on the {kind} images; low and high: {what}; {seeds_of(runs)}"
    return Table(frame, caption, dict.fromkeys(("accuracy %", "low", "high", "original %"), 2))


@made
def summary(runs: Runs) -> Table:
    """One row a setting: loss of the first and the last epoch and both accuracies, and theirs."""
    rows = {}
    for label, group in runs.items():
        section = published.section_of(group[0].config)
        test = [100 * run.accuracy("test") for run in group]
        train = [100 * run.accuracy("train") for run in group]
        counts = group[0].confusion["test"]
        interval = 100 * np.array(stats.wilson(np.trace(counts), counts.sum()))
        low, high = interval if len(group) == 1 else (min(test), max(test))
        rows[label] = {
            ("", "section"): section.number if section else "–",
            ("here", "n"): len(group),
            ("here", "first loss"): np.mean([run.history["loss"].iloc[0] for run in group]),
            ("here", "last loss"): np.mean([run.history["loss"].iloc[-1] for run in group]),
            ("here", "train %"): np.mean(train),
            ("here", "test %"): np.mean(test),
            ("here", "from"): low,
            ("here", "to"): high,
            ("original", "first loss"): section.epoch_loss[0] if section else np.nan,
            ("original", "last loss"): section.epoch_loss[-1] if section else np.nan,
            ("original", "train %"): _percent(section, "train"),
            ("original", "test %"): _percent(section, "test"),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    caption = (
        "Every setting beside the original (full MNIST, ten epochs, n = 1). Loss: mean of the "
        "first and of the last epoch, nats. Accuracy: after the last epoch. From, to: of the test "
        "accuracy, 95 % Wilson interval for one seed, else lowest and highest seed; "
        f"{seeds_of(runs)}"
    )
    decimals = {"first loss": 4, "last loss": 4} | dict.fromkeys(
        ("train %", "test %", "from", "to"), 2
    )
    return Table(frame.rename_axis("setting"), caption, decimals)


@made
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


@made
def confused_pairs(group: Sequence[Run], split: str = "test", most: int = 8) -> Table:
    """The classes most often taken for another one, summed over the runs of one setting."""
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
        f"Most frequent mistakes: {int(wrong.sum())} of {int(counts.sum()):,} {split} answers are "
        f"wrong; {seeds_of({'': group})}"
    )
    return Table(frame, caption, {f"% of the {noun}": 2})


@made
def layers(config: Config) -> Table:
    """The layer table of the config's network, see `model.layer_table`, with its totals."""
    from labkit import model  # here: no other table needs torch

    frame = model.layer_table(model.build(config))
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


@made
def provenance(runs: Runs, since: str = "9999") -> Table:
    """What ran, when, where and from which commit; the record's name finds it in the store.

    `since` is the date, ISO 8601 in UTC, from which on a recorded run counts as trained now.
    """

    def recorded(run: Run) -> bool:
        return run.recorded and run.provenance["date"] < since

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


def seeds_of(runs: Runs) -> str:
    """How many seeds the numbers rest on, in words, and which of them diverged."""
    counts = {len(group) for group in runs.values()}
    words = f"n = {' or '.join(map(str, sorted(counts)))} seeds a setting"
    found = divergences(runs)
    return ("one run a setting (n = 1)" if counts == {1} else words) + (f"; {found}" * bool(found))


def _percent(section: published.Section | None, split: str) -> float:
    table = getattr(section, split) if section else None
    return table.total_percent if table else np.nan
