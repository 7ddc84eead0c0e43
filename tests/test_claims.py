"""Every verdict of the ledger, from runs made up by hand."""

import numpy as np
import pytest
from helpers import diverged_run, made_up_run

from labkit import conclusions, tables
from labkit.core.values import ConfigError
from labkit.judge import claims, original
from labkit.judge.claims import (
    CONTRADICTED,
    OWN_TABLE,
    REPRODUCED,
    Finding,
    claim,
    judge,
    verdict,
)

OTHERS = {(d, (d + 1) % 10): 5 for d in range(10)}


def seeds(*courses, **settings):
    """A run for each course of losses, with the seeds 0, 1, ..."""
    return [made_up_run(losses=c, seed=seed, **settings) for seed, c in enumerate(courses)]


def wrong(*counts, images=1000, **settings):
    """A run for each table of mistakes."""
    return [
        made_up_run(wrong=w, seed=seed, images=images, **settings) for seed, w in enumerate(counts)
    ]


def said(number, **groups):
    found = judge(claim(number), groups)
    return found.verdict, found.evidence


def test_several_comparisons_make_one_verdict():
    yes, no, open_ = (Finding(a, "", n, "") for a, n in ((True, 3), (False, 3), (None, 2)))
    assert verdict([yes, yes]) == REPRODUCED
    assert verdict([yes, no, open_]) == CONTRADICTED
    assert verdict([yes, open_]) == "not separable at n = 2"


@pytest.mark.parametrize("number", [0, -1, 9, "two", 1.5, None, True])
def test_a_claim_that_there_is_not_is_a_sentence(number):
    with pytest.raises(
        ConfigError, match=r"claim is .*; it must be a whole number of 1 or more and"
    ):
        conclusions.claim(number, {"": [made_up_run()]})


def test_the_ledger_names_each_claim_once_and_what_it_rests_on():
    assert [claim.number for claim in claims.CLAIMS] == list(range(1, 9))
    sections = {section.number for section in original.SECTIONS}
    assert {number for claim in claims.CLAIMS for number in claim.needs} == sections


def test_1_the_misprint_is_one_whatever_is_found_here(monkeypatch):
    base = seeds((1, 0.02), (1, 0.03))
    found, evidence = said(1, base=base)
    # One more run: 0.025 ± 12.7 · 0.00707 · √1.5, far wider than the two that there are.
    assert found == f"{OWN_TABLE}; these runs: {CONTRADICTED}"
    assert "its list of epochs ends at 0.020056; last loss here 0.0200 to 0.0300" in evidence
    assert "by 95 % in 0.0000 to 0.1350" in evidence
    # However far they scatter, 0.20056 above all of them is no success.
    wide = seeds((1, 0.015), (1, 0.02), (1, 0.1))
    assert said(1, base=wide)[0].endswith("these runs: not separable at n = 3")
    narrow = seeds((1, 0.02), (1, 0.021), (1, 0.02))
    assert said(1, base=narrow)[0] == f"{OWN_TABLE}; these runs: {CONTRADICTED}"
    assert said(1, base=seeds((1, 0.2)))[0].endswith("these runs: not separable at n = 1")
    monkeypatch.setattr(original, "STATED_FINAL_LOSS", original.SECTIONS[0].epoch_loss[-1])
    assert said(1, base=narrow)[0] == REPRODUCED


@pytest.mark.parametrize(
    ("mistakes", "expected"),
    [
        ((20, 21, 22), REPRODUCED),  # 99.8 % of 10,000
        ((300, 310, 320), CONTRADICTED),
        ((20, 90, 190), "not separable at n = 3"),  # the seeds cannot tell
        ((95, 95, 95), "not separable at n = 3"),  # 99.05 %: the 10,000 images cannot tell
        ((20,), "not separable at n = 1"),  # one network is no setting
    ],
)
def test_2_above_99_percent(mistakes, expected):
    assert said(2, base=wrong(*({(3, 5): m} for m in mistakes)))[0] == expected


def test_2_and_7_tell_the_splits_apart():
    """As good as perfect on one split, with a clear number of mistakes on the other."""

    def split(test, train, **settings):
        return [
            made_up_run(
                wrong={(3, 5): test + s},
                wrong_train={(3, 5): train + 2 * s},
                images=1000,
                seed=s,
                **settings,
            )
            for s in range(3)
        ]

    assert "training 97.99 % (" in judge(claim(2), {"a": split(20, 199)}).brief
    assert "test 99.79 % (" in judge(claim(2), {"a": split(20, 199)}).brief
    found = judge(claim(7), {"a": split(20, 20), "b": split(21, 300, lr=0.1)})
    assert found.verdict == "not separable at n = 3"  # by the test images; the others differ


def test_3_its_own_tables_have_5_among_the_worst():
    def like(*, eight, two):
        """Three runs with so many mistakes at 8, and at 2 and 7 each; the rest has 100 to 150."""
        return wrong(
            *(
                {(d, (d + 1) % 10): 100 + 5 * d + s * d % 3 for d in (0, 1, 3, 4, 5, 6, 9)}
                | {(8, 9): eight + (s == 2), (2, 3): two + s * s, (7, 8): two + 2 * s * s % 5}
                for s in range(3)
            )
        )

    own = f"{OWN_TABLE}; these runs: "
    found, evidence = said(3, base=like(eight=1, two=500))
    assert found == own + REPRODUCED
    assert evidence.startswith("its training table has 8 best, 5 and 7 worst; its test table has 8")
    assert "worst on the test images here: 2 (49.83 %) and 7 (49.83 %)" in evidence
    assert "2 and 7 in 16 of 16 comparisons below another digit and in 0 above" in evidence
    found, evidence = said(3, base=like(eight=300, two=500))
    assert found == own + CONTRADICTED
    assert "8 in 2 of 9 comparisons above another digit and in 7 below" in evidence
    assert said(3, base=wrong(OTHERS, OTHERS))[0] == own + "not separable at n = 2"
    assert said(3, base=like(eight=1, two=500)[:1])[0] == own + "not separable at n = 1"


def test_4_two_and_seven_in_both_directions():
    def like(*both):
        return wrong(*(OTHERS | {(2, 7): a, (7, 2): b} for a, b in both))

    found, evidence = said(4, base=like((20, 20), (22, 23), (21, 20)))
    assert found == REPRODUCED
    assert "2 taken for 7 in 63 of 78 mistakes" in evidence and "7 taken for 2 in 63 of" in evidence
    assert "place 1 of 45 pairs with 126 of 276 test mistakes" in evidence
    # The one direction alone is not to be mistaken for each other.
    assert said(4, base=like((20, 0), (22, 0), (21, 1)))[0] == "not separable at n = 3"
    others = [
        {(2, d): 9 + s for d in (1, 3, 4)} | {(7, d): 9 + s for d in (1, 9)} for s in range(3)
    ]
    assert said(4, base=wrong(*others))[0] == CONTRADICTED
    assert said(4, base=like((20, 20)))[0] == "not separable at n = 1"


FAST = ((0.2, 0.02), (0.21, 0.021), (0.19, 0.02))
SLOW = ((0.4, 0.04), (0.43, 0.041), (0.39, 0.04))
MIDDLE = ((0.3, 0.03), (0.31, 0.031), (0.28, 0.03))


def test_5_sigmoid_against_relu():
    relu, sigmoid = ({"activation": name} for name in ("relu", "sigmoid"))
    assert said(5, a=seeds(*FAST, **relu), b=seeds(*SLOW, **sigmoid))[0] == REPRODUCED
    assert said(5, a=seeds(*SLOW, **relu), b=seeds(*FAST, **sigmoid))[0] == CONTRADICTED
    found, evidence = said(5, a=seeds(*FAST, **relu), b=seeds(SLOW[0], **sigmoid))
    assert found == "not separable at n = 1" and "+0.693 (single run, no claim)" in evidence
    assert "the original's curves +0.497" in evidence
    apart = said(5, a=seeds(*FAST, **relu)[:1], b=seeds(*SLOW, **sigmoid)[1:])
    assert "no seed in common" in apart[1] and "single run" not in apart[1]
    crossing = seeds((0.4, 0.01), (0.1, 0.02), (0.3, 0.03), **sigmoid)
    assert said(5, a=seeds(*FAST, **relu), b=crossing)[0] == "not separable at n = 3"
    assert judge(claim(5), {"a": seeds(*FAST, **relu)}) is None


def test_6_tanh_between_relu_and_sigmoid():
    groups = {"relu": FAST, "tanh": MIDDLE, "sigmoid": SLOW}
    runs = {name: seeds(*courses, activation=name) for name, courses in groups.items()}
    own = f"{OWN_TABLE}; these runs: "
    found, evidence = said(6, **runs)
    assert found == own + REPRODUCED
    assert "its lists of epochs end at 0.0201 (ReLU), 0.0335 (tanh), 0.0286 (sigmoid)" in evidence
    assert "below tanh's in the original in epoch 7, 8, 9 and here in none" in evidence
    runs["sigmoid"] = seeds(*((0.1, 0.01), (0.11, 0.01), (0.12, 0.01)), activation="sigmoid")
    found, evidence = said(6, **runs)
    assert found == own + CONTRADICTED and "here in epoch 0, 1" in evidence
    runs["sigmoid"] = seeds(*MIDDLE, activation="sigmoid")
    assert said(6, **runs)[0] == own + "not separable at n = 3"


def test_7_the_high_learning_rate():
    base = wrong({(1, 2): 10}, {(1, 2): 12}, {(1, 2): 13})
    high = wrong({(1, 2): 500}, {(1, 2): 520}, {(1, 2): 563}, lr=0.1)
    found, evidence = said(7, base=base, high=high)
    assert found == REPRODUCED and "test accuracy: −5.16 points" in evidence
    assert "the original's tables −5.25 points" in evidence
    (row,) = tables.ledger({"a": base, "b": high}).frame.query("section == '3.1'").iloc
    assert row["found here"].startswith("lr 0.1 − 0.01, test accuracy: −5.16 points (−")
    assert row["found here"].endswith("); by running averages −5.16; original −5.25")
    assert "p =" not in row["found here"]
    better = wrong({}, {(1, 2): 1}, {}, lr=0.1)
    assert said(7, base=base, high=better)[0] == CONTRADICTED
    spread = wrong({}, {(1, 2): 300}, {(1, 2): 9}, lr=0.1)
    assert said(7, base=base, high=spread)[0] == "not separable at n = 3"


def test_8_needs_both_loss_and_accuracy():
    def batch(courses, mistakes, size):
        return [
            made_up_run(losses=c, wrong={(1, 2): m}, images=1000, seed=s, batch_size=size)
            for s, (c, m) in enumerate(zip(courses, mistakes, strict=True))
        ]

    small = batch(SLOW, (100, 101, 102), 64)
    found, evidence = said(8, a=small, b=batch(FAST, (50, 54, 51), 1000))
    assert found == REPRODUCED
    assert (
        "(original 1.30 against 0.24)" in evidence
        and "counts by Fisher's test: p = 0.1" in evidence
    )
    assert said(8, a=small, b=batch(FAST, (150, 154, 151), 1000))[0] == CONTRADICTED
    assert said(8, a=small, b=batch(FAST, (90, 101, 110), 1000))[0] == "not separable at n = 3"


def test_seeds_are_paired_whatever_their_order():
    relu, sigmoid = (seeds(*c, activation=n) for c, n in ((FAST, "relu"), (SLOW, "sigmoid")))
    found = judge(claim(5), {"a": relu, "b": sigmoid[::-1]})
    assert (found.verdict, found.n) == (REPRODUCED, 3)
    area = [np.log(c).mean() for c in FAST]
    assert [claims.area(run) for run in relu] == pytest.approx(area)


def test_where_a_run_diverged_there_is_no_verdict_on_the_others():
    base = wrong({(1, 2): 10}, {(1, 2): 12}, {(1, 2): 13})
    better = [*wrong({}, {(1, 2): 1}, lr=0.1), diverged_run(seed=2, lr=0.1)]
    found = judge(claim(7), {"base": base, "high": better})
    assert found.verdict == "not separable at n = 2"
    assert found.evidence.startswith("section 3.1, seed 2, diverged at epoch 0, iteration 3, so")
    found = judge(claim(7), {"base": base, "high": [diverged_run(lr=0.1)]})
    assert found.verdict == "not separable at n = 0"
    assert found.brief.startswith("section 3.1, seed 0, diverged at epoch 0, iteration 3, so")
    assert judge(claim(7), {"base": base}) is None


def test_only_what_differs_as_in_the_original_is_compared():
    base = wrong({(1, 2): 10}, {(1, 2): 12}, {(1, 2): 13})
    high = wrong({(1, 2): 500}, {(1, 2): 520}, {(1, 2): 563}, lr=0.1)
    other = wrong({(1, 2): 900}, {(1, 2): 920}, {(1, 2): 913}, optimizer="sgd")
    assert said(7, base=base, high=high, other=other)[0] == REPRODUCED
    assert judge(claim(7), {"base": base, "other": wrong({}, lr=0.1, optimizer="sgd")}) is None


def test_the_ledgers_table_has_a_row_for_every_claim_that_can_be_judged():
    runs = {"baseline": wrong(OTHERS, OTHERS), "high": wrong(OTHERS, OTHERS, lr=0.1)}
    table = tables.ledger(runs)
    assert list(table.frame.index) == [1, 2, 3, 4, 7]
    assert table.frame.loc[1, "verdict"].startswith(OWN_TABLE)
    assert "not the original's" in table.caption
    paper = {"": wrong(OTHERS, dataset="mnist")}
    assert "with 2 epochs: not the original's" in tables.ledger(paper).caption
