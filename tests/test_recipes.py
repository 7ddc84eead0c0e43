"""How far recipes are from the original's curves, on runs made up by hand."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from helpers import diverged_run, made_up_run

from labkit import conclusions, plots, recipes, tables
from labkit.core.config import SCALES, Config
from labkit.judge import claims, original

PRINTED = {section.number: section.epoch_loss for section in original.SECTIONS}


def off_by(factor, *, seed=0, **settings):
    """Runs of the baseline (one epoch) and of batches of 1000 (two), off the printed losses."""
    return [
        made_up_run(losses=(factor * PRINTED["1"][0],), seed=seed, **settings),
        made_up_run(
            losses=tuple(factor * loss for loss in PRINTED["3.2"][:2]),
            batch_size=1000,
            seed=seed,
            **settings,
        ),
    ]


def test_settings_are_the_originals_with_little_changed():
    settings = recipes.settings("mnist")
    usual, together = Config(), [{"init", "normalization"}, set(recipes.TUTORIAL)]
    sections_of: dict[str, list[str]] = {}
    for label, config in settings.items():
        changed = {f for f in recipes.FIELDS if getattr(config, f) != getattr(usual, f)}
        assert len(changed) <= 1 or changed in together
        section = original.section_of(config.replace(**recipes.USUAL))
        assert label == f"{recipes.name(config)}: {section.name}"
        sections_of.setdefault(recipes.name(config), []).append(section.number)
        if changed in (set(), set(recipes.SECOND)):  # trained whole; without any the report's own
            assert config.replace(**recipes.USUAL) == Config(
                **SCALES["paper"],
                **{f: getattr(section, f) for f in ("activation", "lr", "batch_size")},
            )
        elif config.epochs == 10:  # whole for the rise, or of the recipe that is nearest at first
            rising = config.lr == 0.1 and {"weight_decay", "normalization"} & changed
            assert rising or (section.number in recipes.FAR and changed == set(recipes.TUTORIAL))
    assert len(sections_of) == len(recipes.CANDIDATES)
    assert all(numbers == list(PRINTED) for numbers in sections_of.values())


def test_a_distance_is_the_factor_between_the_curves():
    runs = {
        "near": off_by(1.5),
        "far": [*off_by(2, optimizer="sgd"), *off_by(8, seed=1, optimizer="sgd")],
    }
    found = recipes.distances(runs)
    assert list(found.index) == ["Adam", "SGD"]
    assert np.exp(found.loc["Adam", ["1", "3.2", "all"]]).tolist() == pytest.approx([1.5] * 3)
    # Two seeds, off by 2 and by 8.
    both = np.exp(np.sqrt((np.log(2) ** 2 + np.log(8) ** 2) / 2))
    assert np.exp(found.loc["SGD", ["all", "low", "high"]]).tolist() == pytest.approx([both, 2, 8])
    assert found["n"].tolist() == [1, 2]
    frame = tables.recipe_distances(runs).frame
    assert frame.loc["Adam", "baseline, 1 epoch"] == pytest.approx(1.5)
    said = str(conclusions.recipe(runs, {}))
    assert "In the first epochs **Adam** comes nearest of 2: its losses are typically off" in said
    assert "off by a factor of 1.50. Next with 4.71 is SGD. With n = 1 the order is not" in said
    tie = runs | {"too": off_by(1 / 4.711, optimizer="momentum")}
    assert "Next with 4.71 are SGD, momentum 0.9; SGD." in str(conclusions.recipe(tie, {}))
    assert "nearest over all is Adam" in plots.recipe_curves(runs).alt


def test_only_epochs_that_all_have_are_compared_and_whole_sets_ranked():
    longer = made_up_run(losses=(*PRINTED["1"][:1], 9.0))
    runs = {
        "": [longer, off_by(1)[1]],
        "b": off_by(2, init="default"),
        "c": [off_by(1, optimizer="sgd")[0], diverged_run(optimizer="sgd", batch_size=1000)],
    }
    found = recipes.distances(runs)
    assert found.attrs["epochs"] == {"1": 1, "3.2": 2}
    assert found.loc["Adam", "all"] == pytest.approx(0)
    assert np.isnan(found.loc["SGD", "all"])
    assert "not ranked: SGD" in str(conclusions.recipe(runs, {}))
    lost = {"": [diverged_run()]}
    assert recipes.distances(lost).empty and tables.recipe_distances(lost).frame.empty
    assert "no two recipes" in str(conclusions.recipe(lost, {}))
    assert "diverged" in plots.recipe_curves(lost).alt


def test_seeds_that_scatter_around_the_original_are_not_near():
    runs = {
        "a": [*off_by(2), *off_by(0.5, seed=1)],
        "b": [*off_by(1.3, weight_decay=1e-4), *off_by(1.3, seed=1, weight_decay=1e-4)],
    }
    assert recipes.distances(runs).index[0] == "Adam, weight decay 0.0001"


def test_with_several_seeds_the_nearest_may_be_certain():
    runs = {
        "a": [*off_by(1.1), *off_by(1.2, seed=1)],
        "b": [*off_by(2, weight_decay=1e-4), *off_by(3, seed=1, weight_decay=1e-4)],
    }
    assert "nearer than the best of any other (n = 2)" in str(conclusions.recipe(runs, {}))


def test_how_the_loss_of_section_3_1_rises():
    losses = (9.0, 0.1, *[0.5] * 7, 0.3)
    runs = {
        "a": [made_up_run(losses=losses, lr=0.1), made_up_run(losses=losses[::-1], lr=0.1, seed=1)],
        "b": [made_up_run(losses=losses[:3], lr=0.1, optimizer="sgd")],
    }
    assert recipes.rises(runs) == {"Adam": pytest.approx([3, 18])}
    more = {"c": [made_up_run(losses=losses[:3], lr=0.1, init="default")]}
    said = str(conclusions.recipe(runs | more, {}))
    assert "the original's loss of epoch 9 is 1.70 times that of epoch 1" in said
    assert "is 10.50 to 10.50, and the highest of all runs 18.00 (Adam, n = 2)." in said
    whole = recipes.settings("mnist")["Adam: learning rate 0.1"]
    assert whole == Config(dataset="mnist", lr=0.1)  # which the report has on record anyway


def test_what_two_runs_of_one_recipe_have_between_them_explains_nothing():
    """Against scipy's F test of two variances, of logarithms whose means are known."""
    factors = (0.9, 1.0, 1.2)
    own = {"default": [run for s, f in enumerate(factors) for run in off_by(f, seed=s)]}
    runs = {"near": off_by(1.15), "far": off_by(3, optimizer="sgd")}
    p = recipes.noise(runs, own)
    for number, epochs in (("1", 1), ("3.2", 2)):
        spread = np.var(np.log(factors), ddof=1)
        for recipe, factor in (("Adam", 1.15), ("SGD", 3)):
            ratio = np.log(factor) ** 2 / (2 * spread)
            expected = scipy.stats.f.sf(ratio, epochs, 2 * epochs)
            assert p.loc[recipe, number] == pytest.approx(expected)
    said = str(conclusions.recipe(runs, own))
    assert "(F test; n = 3 of the default), the nearest recipe is within noise on baseline" in said
    assert "Corrected for all curves together (Holm), the first epochs exclude all" in said
    assert "exclude all recipes but Adam." in said and "explains" not in said
    # One of two curves at p = 0.04 is no more than chance.
    once = {"": [off_by(1.0)[0], off_by(1.8)[1]]}
    p = recipes.noise(once, own)
    assert 0.025 < p.loc["Adam", "3.2"] < 0.05 and p.loc["Adam", "1"] > 0.9
    said = str(conclusions.recipe(once | {"far": runs["far"]}, own))
    assert "and beyond it on batch size 1000 (p = 0.0" in said
    assert "exclude all recipes but Adam." in said
    alone = {"default": off_by(1)}
    assert recipes.noise(runs, alone).isna().all(axis=None)
    assert "noise" not in str(conclusions.recipe(runs, alone))


def whole(factors, epochs=10, **settings):
    """Runs of all five sections, off the printed losses by a factor per seed."""
    return {
        f"{settings} {epochs} {section.name}": [
            made_up_run(
                losses=tuple(factor * loss for loss in section.epoch_loss[:epochs]),
                dataset="mnist",
                activation=section.activation,
                lr=section.lr,
                batch_size=section.batch_size,
                seed=seed,
                **settings,
            )
            for seed, factor in enumerate(factors)
        ]
        for section in original.SECTIONS
    }


def test_recipes_that_were_trained_whole_are_compared_on_every_epoch_of_every_curve():
    own, near = whole((1.9, 2.0, 2.2)), whole((1.4, 1.5), init="default")
    runs = own | near | {"short": off_by(1.01, optimizer="sgd")}
    found = recipes.distances(runs, all_epochs=True)
    assert found.attrs["epochs"] == dict.fromkeys(PRINTED, 10)
    assert list(found.index) == ["Adam, PyTorch's initialisation", "Adam"]
    assert found["n"].tolist() == [2, 3]
    off = np.sqrt((np.log(1.4) ** 2 + np.log(1.5) ** 2) / 2)
    assert found.loc[found.index[0], [*PRINTED, "all"]].tolist() == pytest.approx([off] * 6)
    p = recipes.noise(runs, own, all_epochs=True)
    ratio = off**2 / (2 * np.var(np.log((1.9, 2.0, 2.2)), ddof=1))
    assert p.loc[found.index[0]].tolist() == pytest.approx([scipy.stats.f.sf(ratio, 10, 20)] * 5)
    frame = tables.recipe_distances(runs, all_epochs=True).frame
    assert frame.loc["Adam", "tanh, 10 epochs"] == pytest.approx(np.exp(found.loc["Adam", "2.2"]))
    said = str(conclusions.recipe(runs, own))
    assert "Over all 10 epochs of all 5 curves Adam, PyTorch's initialisation is off by" in said
    assert f"a factor of {np.exp(off):.2f} (n = 2), beyond noise on each of them; Adam" in said
    assert "**None of the 2 recipes with several whole curves explains the original's.**" in said
    assert "Not excluded" not in said
    close = own | whole((1.05,), init="default")
    assert "**Adam, PyTorch's initialisation explains the original's curves.**" in str(
        conclusions.recipe(close, own)
    )
    assert "a factor of 1.09 between what look like two of its runs" in said
    assert "tanh" in plots.recipe_curves(runs).alt
    # A recipe with a curve less is compared on the others, and not ranked.
    *kept, last = near
    rest = own | {label: near[label] for label in kept}
    found = recipes.distances(rest, all_epochs=True)
    less = found.loc["Adam, PyTorch's initialisation"]
    assert list(found.index) == ["Adam", less.name]
    assert less[list(PRINTED)[:-1]].tolist() == pytest.approx([off] * 4)
    assert less[["all", "low", list(PRINTED)[-1]]].isna().all() and less["n"] == 2
    short = whole((1.4,), epochs=2, init="default")
    said = str(conclusions.recipe(rest | short, own))
    assert f"of {np.exp(off):.2f} on baseline, sigmoid, tanh, learning rate 0.1 (n = 2)," in said
    assert "Do the verdicts" not in said
    close = whole((1.05,), init="default")
    close = {label: group for label, group in close.items() if not label.endswith("tanh")}
    assert "original's.** Not excluded by those that it has: Adam, PyTorch's initial" in str(
        conclusions.recipe(own | close | whole((1.4,), epochs=2, init="default"), own)
    )
    # One that has a single whole curve is in the table alone.
    few = own | short | {last: near[last]}
    assert np.isnan(recipes.distances(few, all_epochs=True).loc[less.name, "1"])
    assert "Over all 10 epochs" not in str(conclusions.recipe(few, own))


def test_claims_are_judged_again_under_another_recipe():
    own, near = whole((0.9, 1.0, 1.1)), whole((0.99, 1.0, 1.01), init="default")
    # Under the other recipe sigmoid is the fastest of all.
    sigmoid = next(label for label in near if label.endswith("sigmoid"))
    fast = {"dataset": "mnist", "activation": "sigmoid", "init": "default"}
    near[sigmoid] = [made_up_run(losses=(1e-4 + k * 1e-6,) * 10, seed=k, **fast) for k in range(3)]
    found = recipes.verdicts(own | near)
    assert list(found) == ["Adam", "Adam, PyTorch's initialisation"]
    parts = [part for one in claims.judgements(own) for part in one.parts]
    assert [part.found for part in parts] == [part.found for part in found["Adam"].values()]
    for recipe, agrees in zip(found, (True, False), strict=True):
        assert found[recipe]["sigmoid − ReLU, mean ln loss"].agrees is agrees
    frame = tables.ledger(own, near).frame
    verdicts = frame.set_index("compared")["with Adam, PyTorch's initialisation"]
    assert verdicts["sigmoid − ReLU, mean ln loss"] == "does not hold"
    assert verdicts["tanh − ReLU, mean ln loss"] == "holds"
    assert verdicts["learning rate 0.1 − 0.01, test accuracy"] == "undecided, same side"
    assert "of its runs, n = 3 seeds per setting" in tables.ledger(own, near).caption
    assert "with another recipe" not in tables.ledger(own).caption
    said = str(conclusions.recipe(own | near, own))
    assert "With Adam, PyTorch's initialisation, n = 3, 4 of 15 comparisons are decided" in said
    assert "Of the 3 that the default decides too, 2 have the same verdict" in said
    # A run that diverged is no fair comparison.
    lost = diverged_run(activation="tanh", init="default", dataset="mnist", seed=3)
    near["lost"] = [dataclasses.replace(lost, config=lost.config.replace(epochs=10))]
    parts = recipes.verdicts(own | near)["Adam, PyTorch's initialisation"]
    tanh = [part.agrees for what, part in parts.items() if what.startswith("tanh")]
    assert tanh == [None, None] and parts["sigmoid − ReLU, mean ln loss"].agrees is False
