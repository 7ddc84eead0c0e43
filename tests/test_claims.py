"""Every verdict of the ledger, from runs made up by hand."""

import numpy as np
import pytest
from conftest import diverged_run, made_up_run

from labkit import claims, published, tables
from labkit.claims import CONTRADICTED, OWN_TABLE, REPRODUCED, Finding, judge, numbered, verdict

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
    found = judge(numbered(number), groups)
    return found.verdict, found.evidence


def test_several_comparisons_make_one_verdict():
    yes, no, open_ = Finding(True, "", 3), Finding(False, "", 3), Finding(None, "", 2)
    assert verdict([yes, yes]) == REPRODUCED
    assert verdict([yes, no, open_]) == CONTRADICTED
    assert verdict([yes, open_]) == "not separable at n = 2"


def test_the_ledger_names_each_claim_once_and_what_it_rests_on():
    assert [claim.number for claim in claims.CLAIMS] == list(range(1, 9))
    sections = {section.number for section in published.SECTIONS}
    assert {number for claim in claims.CLAIMS for number in claim.needs} == sections


def test_1_the_misprint_is_one_whatever_is_found_here(monkeypatch):
    base = seeds((1, 0.02), (1, 0.03))
    found, evidence = said(1, base=base)
    assert found == OWN_TABLE
    assert "its list of epochs ends at 0.020056; last loss here 0.0200 to 0.0300" in evidence
    monkeypatch.setattr(published, "STATED_FINAL_LOSS", published.SECTIONS[0].epoch_loss[-1])
    assert said(1, base=base)[0] == REPRODUCED  # 0.020056 lies between 0.02 and 0.03
    assert said(1, base=seeds((1, 0.5), (1, 0.6)))[0] == CONTRADICTED
    assert said(1, base=seeds((1, 0.5)))[0] == "not separable at n = 1"


@pytest.mark.parametrize(
    ("mistakes", "expected"),
    [
        ((20, 21, 22), REPRODUCED),  # 99.8 % of 10,000
        ((300, 310, 320), CONTRADICTED),
        ((20, 90, 190), "not separable at n = 3"),  # the seeds cannot tell
        ((95, 95, 95), "not separable at n = 3"),  # 99.05 %: the 10,000 images cannot tell
        ((20,), REPRODUCED),  # of one run the images can
    ],
)
def test_2_above_99_percent(mistakes, expected):
    assert said(2, base=wrong(*({(3, 5): m} for m in mistakes)))[0] == expected


def test_3_its_own_tables_have_5_among_the_worst(monkeypatch):
    as_said = {(d, (d + 1) % 10): 20 + d for d in (0, 1, 3, 4, 5, 6, 9)}
    as_said |= {(8, 9): 1, (2, 7): 90, (7, 2): 90}
    more = {pair: count + 1 for pair, count in as_said.items()}
    found, evidence = said(3, base=wrong(as_said, more, as_said))
    assert found == OWN_TABLE
    assert "its training table has 8 best, 5 and 7 worst" in evidence
    assert "worst on the test images here: 2 (9" in evidence
    monkeypatch.setattr(claims, "_own_digits", lambda: "")
    claim = claims.Claim(3, "1.3", "", "", "", ("1",), claims._digits)
    assert judge(claim, {"": wrong(as_said, more, as_said)}).verdict == REPRODUCED
    otherwise = {**as_said, (8, 9): 300}
    assert judge(claim, {"": wrong(otherwise, otherwise)}).verdict == CONTRADICTED
    assert judge(claim, {"": wrong(OTHERS, OTHERS)}).verdict == "not separable at n = 2"
    assert judge(claim, {"": wrong(as_said)}).verdict == "not separable at n = 1"


def test_4_two_and_seven():
    often = [OTHERS | {(2, 7): 20, (7, 2): n} for n in (20, 22, 21)]
    found, evidence = said(4, base=wrong(*often))
    assert found == REPRODUCED
    assert "2 for 7 60 times, 7 for 2 63 times of 273 mistakes in 3 runs, place 1 of 45" in evidence
    never = [OTHERS | {(3, 5): n} for n in (20, 22, 21)]
    assert said(4, base=wrong(*never))[0] == CONTRADICTED
    now_and_then = [OTHERS | {(2, 7): n} for n in (0, 0, 9)]
    assert said(4, base=wrong(*now_and_then))[0] == "not separable at n = 3"
    assert said(4, base=wrong(often[0]))[0] == "not separable at n = 1"


FAST = ((0.2, 0.02), (0.21, 0.021), (0.19, 0.02))
SLOW = ((0.4, 0.04), (0.43, 0.041), (0.39, 0.04))
MIDDLE = ((0.3, 0.03), (0.31, 0.031), (0.28, 0.03))


def test_5_sigmoid_against_relu():
    relu, sigmoid = ({"activation": name} for name in ("relu", "sigmoid"))
    assert said(5, a=seeds(*FAST, **relu), b=seeds(*SLOW, **sigmoid))[0] == REPRODUCED
    assert said(5, a=seeds(*SLOW, **relu), b=seeds(*FAST, **sigmoid))[0] == CONTRADICTED
    found, evidence = said(5, a=seeds(*FAST, **relu), b=seeds(SLOW[0], **sigmoid))
    assert found == "not separable at n = 1" and "+0.693 (single run, no claim)" in evidence
    crossing = seeds((0.4, 0.01), (0.1, 0.02), (0.3, 0.03), **sigmoid)
    assert said(5, a=seeds(*FAST, **relu), b=crossing)[0] == "not separable at n = 3"
    assert judge(numbered(5), {"a": seeds(*FAST, **relu)}) is None


def test_6_tanh_between_relu_and_sigmoid():
    groups = {"relu": FAST, "tanh": MIDDLE, "sigmoid": SLOW}
    runs = {name: seeds(*courses, activation=name) for name, courses in groups.items()}
    found, evidence = said(6, **runs)
    assert found == REPRODUCED
    assert "sigmoid's loss is below tanh's in its own curves in epoch 7, 8, 9 and here in none" in (
        evidence
    )
    runs["sigmoid"] = seeds(*((0.1, 0.01), (0.11, 0.01), (0.12, 0.01)), activation="sigmoid")
    found, evidence = said(6, **runs)
    assert found == CONTRADICTED and "here in epoch 0, 1" in evidence
    runs["sigmoid"] = seeds(*MIDDLE, activation="sigmoid")
    assert said(6, **runs)[0] == "not separable at n = 3"


def test_7_the_high_learning_rate():
    base = wrong({(1, 2): 10}, {(1, 2): 12}, {(1, 2): 11})
    high = wrong({(1, 2): 500}, {(1, 2): 520}, {(1, 2): 560}, lr=0.1)
    found, evidence = said(7, base=base, high=high)
    assert found == REPRODUCED and "test accuracy: -5.16 points" in evidence
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
    assert said(8, a=small, b=batch(FAST, (50, 52, 51), 1000))[0] == REPRODUCED
    assert said(8, a=small, b=batch(FAST, (150, 152, 151), 1000))[0] == CONTRADICTED
    assert said(8, a=small, b=batch(FAST, (90, 101, 110), 1000))[0] == "not separable at n = 3"


def test_seeds_are_paired_and_runs_that_diverged_left_out():
    relu, sigmoid = (seeds(*c, activation=n) for c, n in ((FAST, "relu"), (SLOW, "sigmoid")))
    found = judge(numbered(5), {"a": relu, "b": [*sigmoid[::-1], diverged_run(seed=7)]})
    assert found.verdict == REPRODUCED and found.n == 3
    area = [np.log(c).mean() for c in FAST]
    assert [claims.area(run) for run in relu] == pytest.approx(area)


def test_the_ledgers_table_has_a_row_for_every_claim_that_can_be_judged():
    runs = {"baseline": wrong(OTHERS, OTHERS), "high": wrong(OTHERS, OTHERS, lr=0.1)}
    table = tables.ledger(runs)
    assert list(table.frame.index) == [1, 2, 3, 4, 7]
    assert table.frame.loc[1, "verdict"] == OWN_TABLE
    assert "not the original's" in table.caption
    paper = {"": wrong(OTHERS, dataset="mnist")}
    assert "with 2 epochs: not the original's" in tables.ledger(paper).caption
