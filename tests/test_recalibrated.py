"""What is shown of recalibrated answers, of those by running averages, and where there are none."""

import dataclasses
import inspect
import io
import re
from collections.abc import Sequence

import numpy as np
import pytest
from helpers import diverged_run, made_up_run
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from labkit import Claim, conclusions, gallery, plots, tables
from labkit.core.config import Config
from labkit.core.measures import RECALIBRATED, RUNNING, STATISTICS
from labkit.judge import claims, stats
from labkit.store.groups import Runs, answered
from labkit.store.run import Run

SETTINGS = {
    "baseline": {},
    "sigmoid": {"activation": "sigmoid"},
    "tanh": {"activation": "tanh"},
    "lr 0.1": {"lr": 0.1},
    "batch 1000": {"batch_size": 1000},
}


def group(n=2, **settings):
    """Runs whose mistakes with recalibrated statistics are others than by running averages."""
    runs = [
        made_up_run(
            losses=(1.0, 0.5 + seed / 10),
            wrong={(2, 7): 3 + seed, (7, 2): 1},
            wrong_train={(8, 3): 2},
            wrong_running={(4, 9): 50 + seed},
            seed=seed,
            **settings,
        )
        for seed in range(n)
    ]
    return [dataclasses.replace(r, test_confidence=r.test_confidence[::-1].copy()) for r in runs]


def old(n=2, **settings):
    return [
        made_up_run(wrong={(4, 9): 50 + s}, recalibrated=False, seed=s, **settings)
        for s in range(n)
    ]


RUNS = {label: group(**settings) for label, settings in SETTINGS.items()}
OLD = {label: old(**settings) for label, settings in SETTINGS.items()}
GIVEN = {
    "old": OLD,
    "one old run": {label: runs[:1] for label, runs in OLD.items()},
    "an old run among others": {k: [RUNS[k][0], OLD[k][1]] for k in SETTINGS},
    "an old setting among others": RUNS | {"baseline": OLD["baseline"]},
    "another old setting": RUNS | {"lr 0.1": OLD["lr 0.1"]},
    "old and diverged": OLD | {"lr 0.1": [diverged_run(lr=0.1)]},
    "diverged": {k: [diverged_run(**settings)] for k, settings in SETTINGS.items()},
    "one diverged of each": {
        k: [RUNS[k][0], diverged_run(seed=1, **settings)] for k, settings in SETTINGS.items()
    },
}
SHOWN = {
    f"{module.__name__.rpartition('.')[2]}.{name}": function
    for module in (tables, plots, conclusions, gallery)
    for name, function in vars(module).items()
    if hasattr(function, "__wrapped__") and function.__module__ == module.__name__
}
#: Each with all runs; with one of them, what takes no runs at all.
PAIRS = [
    (name, given)
    for name, function in SHOWN.items()
    for given in (
        GIVEN if {"runs", "run", "group"} & set(inspect.signature(function).parameters) else ["old"]
    )
]
#: Those that rest on answers, and of these those that name the running averages as well.
BOTH = {"tables.per_class", "tables.summary", "tables.beside", "tables.ledger", "tables.lag"}
BOTH |= {"plots.accuracy_by_epoch", "plots.accuracy_by_class", "conclusions.lag"}
ALONE = {"tables.hardest", "tables.changed", "tables.confused_pairs", "plots.confusion"}
ALONE |= {"plots.confusion_difference", "plots.calibration", "gallery.mistakes"}
ALONE |= {"conclusions.compare"}


def show(name, runs):
    """What the function of that name gives for `runs`, or the claim of that number; where it takes
    one run, the first old one, or else the first."""
    if isinstance(name, int):
        return conclusions.claim(name, runs)
    every = [run for runs_ in runs.values() for run in runs_]
    one = next((run for run in every if not len(run.predicted())), every[0])
    usual = {
        Runs: runs,
        Sequence[Run]: next(iter(runs.values())),
        Run: one,
        Config: Config(),
        np.ndarray | None: None,
    }
    faster = Claim(name="a", says="It is faster.", first={"lr": 0.1}, expects="less")
    own = {"number": 7, "section_number": "3.1", "seeds": 1, "field": "lr"}
    own["judged"] = [(faster, runs)]
    wanted = inspect.signature(SHOWN[name]).parameters.values()
    return SHOWN[name](
        **{
            p.name: own[p.name] if p.name in own else usual[p.annotation]
            for p in wanted
            if p.default is p.empty
        }
    )


def words(shown):
    """All that a table, figure or text says."""
    parts = [repr(shown)] if not isinstance(shown, plots.Figure) else [shown.alt]
    for axes in shown.axes if isinstance(shown, plots.Figure) else ():
        parts += [text.get_text() for text in (axes.title, axes.xaxis.label, *axes.texts)]
    return "\n".join(parts)


def test_every_function_that_shows_something_is_tried():
    assert len(SHOWN) >= 30 and set(SHOWN) >= BOTH | ALONE


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "given"), PAIRS)
def test_what_is_not_on_record_is_a_gap_and_never_a_failure(name, given):
    runs = GIVEN[given]
    shown = show(name, runs)
    if isinstance(shown, plots.Figure):
        shown.draw_without_rendering()
    said = words(shown)
    assert not re.search(r"\bnan\b", said, re.IGNORECASE)
    older = any(not r.diverged and not len(r.predicted()) for g in runs.values() for r in g)
    of_one_setting = {"tables.confused_pairs", "gallery.mistakes"}
    if older and name in BOTH | ALONE - of_one_setting:
        assert re.search(r"\d+ runs? made before labkit recalibrated (is|are) left out", said)
    if name in ALONE | BOTH and name.startswith("plots") and not answered(runs):
        assert not shown.axes and shown.alt == shown.texts[0].get_text().replace("\n", " ")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("number", range(1, 9))
def test_a_claim_without_recalibrated_answers_is_open_at_n_0(number, given):
    runs = GIVEN[given]
    said = str(conclusions.claim(number, runs)).replace("\u00a0", " ")
    assert not re.search(r"\bnan\b", said, re.IGNORECASE)
    if given not in ("old", "one old run"):
        return
    if number in (2, 3, 4, 7, 8):
        assert "Undecided (n = 0)." in said and "no run has recalibrated answers" in said
    else:
        assert "n = 0" not in said and "recalibrat" not in said


def test_running_averages_alone_stand_in_the_tables_of_old_records():
    row = tables.summary(OLD).frame.loc["baseline"]
    assert row["here", "n"] == 2 and row["recalibrated", "n"] == 0
    assert row["recalibrated"].drop("n").isna().all()
    # 50 and 51 of 1,000 wrong.
    assert row["by running averages", "test %"] == pytest.approx(94.95)
    per_class = tables.per_class(OLD).frame
    for label in ("baseline", "sigmoid"):
        assert per_class[label, "accuracy %"].isna().all()
        assert per_class.loc["4", (label, "running averages %")] == pytest.approx(49.5)
    assert per_class["", "images"].tolist() == [100] * 10 + [1000]
    beside = tables.beside(OLD).frame.set_index("of the original")
    recalibrated, running = (beside.filter(like=kind, axis=0) for kind in ("recalib", "running"))
    assert recalibrated[["n", "values"]].eq(0).all(None) and recalibrated["inside"].isna().all()
    assert running["n"].eq(2).all() and running["values"].eq(2).all()  # 4 and the total differ
    said = str(conclusions.claim(7, OLD))
    assert "no run has recalibrated answers; by running averages +0 points (p = 1, n = 2)" in said
    said = str(conclusions.claim(2, OLD))
    assert "no run has recalibrated answers; by running averages 94.95 % (p < 0.001, n = 2)" in said


def test_n_counts_the_runs_that_count():
    runs = GIVEN["an old run among others"]
    assert tables.summary(runs).frame.loc["tanh", ("recalibrated", "n")] == 1
    assert tables.lag(runs).frame["", "n"].tolist() == [1] * 5
    assert "(n = 1)" in plots.accuracy_by_epoch(runs).alt
    assert "n = 0 or 2 seeds per setting" in tables.per_class(GIVEN["another old setting"]).caption
    assert "5 runs made before" in tables.per_class(runs).caption
    # One seed is left, so that the range is that of its images.
    assert "95\u00a0% Wilson interval" in tables.per_class(runs).caption
    assert plots.confusion_difference(runs).alt.count("n = 1 and 1") == 1


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", [*sorted(ALONE), 3, 4])
def test_these_rest_on_recalibrated_answers_alone(name, seeds):
    """Other running averages change nothing; other recalibrated answers do. Numbers: of claims."""
    plain = made_up_run(wrong={(d, (d + 3) % 10): 4 for d in range(10)}, recalibrated=False)
    two = {label: RUNS[label][:seeds] for label in ("baseline", "sigmoid")}
    lagging = {
        label: [
            dataclasses.replace(
                run,
                test_predicted=plain.test_predicted,
                test_confidence=plain.test_confidence,
                confusion=run.confusion | plain.confusion,
            )
            for run in runs
        ]
        for label, runs in two.items()
    }
    assert words(show(name, lagging)) == words(show(name, two))
    assert pixels(show(name, lagging)) == pixels(show(name, two))
    other = made_up_run(wrong={(0, 1): 9})
    learnt = {split: other.confusion[split] for split in other.confusion if "recal" in split}
    changed = [
        dataclasses.replace(run, measures=other.measures, confusion=run.confusion | learnt)
        for run in two["baseline"]
    ]
    assert words(show(name, two | {"baseline": changed})) != words(show(name, two))


def pixels(shown):
    buffer = io.BytesIO()
    if isinstance(shown, plots.Figure):
        shown.savefig(buffer, format="rgba", dpi=50)
    return buffer.getvalue()


@pytest.mark.parametrize("statistics", STATISTICS)
def test_counts_are_those_of_scikit_learn(statistics):
    run = RUNS["baseline"][0]
    labels, predicted = run.test_labels, run.predicted(statistics)
    assert np.array_equal(run.counts("test", statistics), confusion_matrix(labels, predicted))
    column = {RECALIBRATED: "accuracy %", RUNNING: "running averages %"}[statistics]
    shown = tables.per_class({"": [run]}).frame["", column].tolist()
    expected = [*recall_score(labels, predicted, average=None), accuracy_score(labels, predicted)]
    assert shown == pytest.approx([100 * share for share in expected])
    if statistics == RECALIBRATED:
        bounds = tables.per_class({"": [run]}).frame.loc["2", ""][["low", "high"]]
        assert bounds.tolist() == pytest.approx([100 * end for end in stats.wilson(97, 100)])
        ends = tables.summary({"": [run]}).frame.loc["", "recalibrated"][["from", "to"]]
        assert ends.tolist() == pytest.approx([100 * end for end in stats.wilson(996, 1000)])
    head = {RECALIBRATED: "recalibrated", RUNNING: "by running averages"}[statistics]
    total = tables.summary({"": [run]}).frame.loc["", (head, "test %")]
    assert total == pytest.approx(100 * accuracy_score(labels, predicted))
    if statistics == RECALIBRATED:
        counts = confusion_matrix(labels, predicted)
        for row in tables.confused_pairs([run]).frame.reset_index().itertuples():
            assert row.times == counts[row.true, row[2]]


def test_the_running_figure_stands_beside_the_claims_accuracies():
    runs = {
        "baseline": [
            made_up_run(wrong={(1, 2): 2}, wrong_running={(1, 2): 30 + 2 * s}, seed=s)
            for s in range(2)
        ],
        "lr 0.1": [
            made_up_run(wrong={(1, 2): 52 + s}, wrong_running={(1, 2): 35 + s}, lr=0.1, seed=s)
            for s in range(2)
        ],
        "batch 1000": [
            made_up_run(wrong={(1, 2): 2}, wrong_running={(1, 2): 1}, batch_size=1000, seed=s)
            for s in range(2)
        ],
    }
    for number, recalibrated, running in (
        (2, "test accuracy: 99.80 %", "by running averages 96.90 % (p < 0.001, n = 2)"),
        (7, "test accuracy: −5.05 points", "by running averages −0.45 points (p = 0.043, n = 2)"),
        (8, "test accuracy: +0 points", "by running averages +3 points (p < 0.001, n = 2)"),
    ):
        part = claims.judge(claims.claim(number), runs).parts[-1]
        assert recalibrated in part.found and running in part.found and running in part.brief


def with_courses(run, learnt, averaged):
    """The run with these test accuracies after its epochs."""
    history = run.history.assign(test_accuracy_recalibrated=learnt, test_accuracy=averaged)
    return dataclasses.replace(run, history=history)


def test_what_the_running_averages_hide_by_hand():
    sigmoid = [
        with_courses(
            made_up_run(losses=(1, 1, 1), wrong={(1, 2): 20}, wrong_running=running, seed=seed),
            (0.9, 0.95, 0.98),
            course,
        )
        for seed, (running, course) in enumerate(
            [({(1, 2): 100, (3, 4): 20}, (0.1, 0.5, 0.88)), ({(1, 2): 60}, (0.2, 0.1, 0.94))]
        )
    ]
    relu = [
        with_courses(made_up_run(wrong={(1, 2): 9}, wrong_running={}), (np.nan, 0.991), (np.nan, 1))
    ]
    runs = {"sigmoid": sigmoid, "relu": relu, "old": old(1)}
    frame = tables.lag(runs).frame
    assert frame.loc["sigmoid", "test images"].tolist() == pytest.approx([98, 91, 7, 4, 10])
    assert frame.loc["relu", "test images"].tolist() == pytest.approx([99.1, 100, -0.9, -0.9, -0.9])
    assert frame["", "n"].tolist() == [2, 1, 0] and frame.loc["old"].iloc[1:].isna().all()
    said = str(conclusions.lag(runs)).replace("\u00a0", " ").splitlines()
    # The mean over the seeds hides 75, 65 and 7 points.
    assert said[1:4] == [
        "- **sigmoid**: 98.00 % recalibrated, 91.00 % by running averages after the last epoch "
        "(n = 2): the averages hide 7.00 points (4.00 to 10.00 by seed); at most 75.00 in epoch 0.",
        "- **relu**: 99.10 % recalibrated, 100.00 % by running averages after the last epoch "
        "(n = 1): the averages add 0.90 points; it was measured after no other epoch.",
        "- **old**: no run has recalibrated answers (n = 0).",
    ]
    assert said[0].startswith("- 1 run made before labkit recalibrated")
    single = tables.lag({"relu": relu}).frame
    assert "from" not in single.columns.get_level_values(1)


def test_the_error_by_epoch_has_three_lines_a_run():
    made_up = made_up_run(wrong={(1, 2): 10}, wrong_running={(1, 2): 20})
    run = with_courses(made_up, (0.9, 0.99), (0.2, 0.98))
    figure = plots.accuracy_by_epoch({"a": [run], "b": [made_up_run(lr=0.1)], "c": old()})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a (n = 1)", "b (n = 1)"]
    learnt, trained, averaged = figure.axes[0].lines[:3]
    assert list(learnt.get_ydata()) == pytest.approx([10, 1])
    assert list(averaged.get_ydata()) == pytest.approx([80, 2])
    assert learnt.get_color() == trained.get_color() != averaged.get_color()
    assert learnt.get_linestyle() == "-" and trained.get_linestyle() == "--"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "test, recalibrated",
        "training, recalibrated",
        "test, by running averages",
    ]
    assert "1.00\u00a0% on test, recalibrated" in figure.alt
    assert "2.00\u00a0% on test, by running averages" in figure.alt


def test_the_error_by_class_says_what_running_averages_give_in_words():
    far = made_up_run(wrong={(1, 2): 4}, wrong_running={(1, 2): 90}, activation="sigmoid")
    figure = plots.accuracy_by_class({"far": [far]})
    assert max(max(line.get_ydata()) for line in figure.axes[0].lines) == pytest.approx(4)
    assert "0.40\u00a0% recalibrated, 9.00\u00a0% by running averages" in figure.alt
