"""Every verdict of the ledger, from runs made up by hand."""

import math

import numpy as np
import pytest
from helpers import diverged_run, made_up_run
from scipy import stats as scipy_stats

from labkit import conclusions
from labkit.core.values import ConfigError
from labkit.judge import claims, likeness, original, stats
from labkit.judge.claims import FAILS, HOLDS, claim, judge, tally

OTHERS = {(d, (d + 1) % 10): 5 for d in range(10)}


@pytest.fixture(autouse=True)
def paper_scale(monkeypatch):
    """The runs made up here count as ones of the original's scale."""
    monkeypatch.setattr(claims, "scale_name", lambda config: "paper")


def seeds(*courses, **settings):
    """A run for each course of losses, with the seeds 0, 1, ..."""
    return [made_up_run(losses=c, seed=seed, **settings) for seed, c in enumerate(courses)]


def wrong(*counts, images=1000, **settings):
    """A run for each table of mistakes."""
    return [
        made_up_run(wrong=w, seed=seed, images=images, **settings) for seed, w in enumerate(counts)
    ]


def parts(number, **groups):
    return judge(claim(number), groups).parts


def verdicts(number, **groups):
    return [part.verdict for part in parts(number, **groups)]


def test_several_parts_make_one_verdict():
    assert tally([True, True]) == HOLDS and tally([False]) == FAILS
    assert tally([True, None, False, True]) == "2 hold, 1 does not hold, 1 is undecided"


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


def test_1_the_last_loss_of_one_more_run(monkeypatch):
    losses = (0.02, 0.021, 0.02)
    (part,) = parts(1, base=seeds(*((1, loss) for loss in losses)))
    error = np.log(losses).std(ddof=1) * math.sqrt(1 + 1 / 3)
    p = 2 * scipy_stats.t.sf(abs(np.log(0.20056) - np.log(losses).mean()) / error, 2)
    assert part.verdict == FAILS and part.p == pytest.approx(p)
    assert claim(1).own() == "disagree: its list of epochs ends at 0.020056"
    # That one more run could end there is no success, wherever the others ended.
    for wide in ((0.015, 0.02, 0.1), (0.02, 0.9), (0.15, 0.25, 0.2)):
        group = seeds(*((1, loss) for loss in wide))
        assert verdicts(1, base=group) == [f"undecided (n = {len(wide)})"]
    assert verdicts(1, base=seeds((1, 0.2))) == ["undecided (n = 1)"]
    monkeypatch.setattr(original, "STATED_FINAL_LOSS", original.SECTIONS[0].epoch_loss[-1])
    assert verdicts(1, base=seeds((1, 0.02), (1, 0.021), (1, 0.02))) == ["undecided (n = 3)"]
    assert claim(1).own() == "agree"


@pytest.mark.parametrize(
    ("mistakes", "expected"),
    [
        ((20, 21, 22), HOLDS),  # 99.8 % of 10,000
        ((300, 310, 320), FAILS),
        ((95, 94, 96), "undecided (n = 3); more runs alone would not settle it"),  # 99.05 %
        ((60, 20, 95), "undecided (n = 3); about n = "),  # 99.4 %: more runs would do
        ((20,), "undecided (n = 1)"),  # one network is no setting
    ],
)
def test_2_test_accuracy_above_99_percent(mistakes, expected):
    groups = wrong(*({(3, 5): m} for m in mistakes))
    assert verdicts(2, base=groups)[1].startswith(expected)
    left = "10,000 images alone leave ± 0." in parts(2, base=groups)[1].found
    assert left == (len(mistakes) > 1)


def test_2_training_accuracy_rests_on_the_seeds_alone():
    group = wrong(*({(3, 5): m} for m in (94, 95, 96)))
    training = parts(2, base=group)[0]
    test = scipy_stats.ttest_1samp([99.06, 99.05, 99.04], 99)
    assert training.verdict == HOLDS and training.p == pytest.approx(test.pvalue)
    assert training.size.startswith("outside: 99.48 against 99.0")


def test_the_originals_size_is_compared_with_running_averages_as_it_most_likely_states_them():
    base = [
        made_up_run(wrong={(1, 2): 100}, wrong_running={(1, 2): 95 + s}, images=1000, seed=s)
        for s in range(3)
    ]
    high = [
        made_up_run(wrong={(1, 2): 150}, wrong_running={(1, 2): 620}, images=1000, seed=s, lr=0.1)
        for s in range(3)
    ]
    (part,) = parts(7, base=base, high=high)
    assert part.found.startswith("learning rate 0.1 − 0.01, test accuracy: −0.5 points")
    assert "by running averages −5.24 points" in part.brief and part.size.startswith(
        "inside: −5.25"
    )


def test_at_another_scale_there_is_no_size_and_no_tenth_epoch(monkeypatch):
    monkeypatch.setattr(claims, "scale_name", lambda config: "quick")
    assert verdicts(1, base=seeds((1, 0.02), (1, 0.021), (1, 0.02))) == ["undecided (n = 3)"]
    assert {part.size for part in parts(2, base=wrong({(3, 5): 9}, {(3, 5): 8}))} == {""}


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

    training, test = parts(2, a=split(20, 199))
    assert training.found.startswith("training accuracy: 97.99 % (")
    assert test.found.startswith("test accuracy: 99.79 % (")
    (part,) = parts(7, a=split(20, 20), b=split(21, 300, lr=0.1))
    assert part.agrees is None  # by the test images; the others differ


def test_3_counts_in_how_many_runs_a_digit_is_best():
    def like(eight, two, n=6):
        return wrong(
            *(
                {(d, (d + 1) % 10): 100 + 5 * d for d in (0, 1, 3, 4, 5, 6, 9)}
                | {(8, 9): eight + s, (2, 3): two + s, (7, 8): two + s}
                for s in range(n)
            )
        )

    found = parts(3, base=like(1, 500))
    assert [part.verdict for part in found] == [HOLDS] * 4
    assert found[0].found.startswith(
        "8 best on the training images: in 6 of 6 runs, on these images ("
    )
    assert "worst on average: 2 (49.75 %) and 7 (49.75 %)" in found[1].found
    assert verdicts(3, base=like(300, 500))[::2] == [FAILS] * 2
    for part in parts(3, base=like(1, 500, n=3)):  # three of three is no majority yet
        assert math.isnan(part.p) and part.verdict.startswith("undecided (n = 3); about n = ")
    perfect = parts(3, base=wrong(*[{}] * 6))  # nothing is best where all are alike
    assert [part.agrees for part in perfect] == [False] * 4
    assert claim(3).own() == (
        "disagree: its training table has 8 best, 5 and 7 worst; its test table has 8 best, "
        "5 and 7 worst"
    )


def test_4_two_and_seven_against_the_other_pairs():
    def like(*both):
        return wrong(*(OTHERS | {(2, 7): a, (7, 2): b} for a, b in both))

    against, most = parts(4, base=like((20, 20), (22, 23), (21, 20)))
    assert against.verdict == HOLDS and "126 of 276 mistakes, place 1 of 45" in against.brief
    # Each run has 50 other mistakes in 44 other pairs.
    mean = np.mean([40, 45, 41]) - 50 / 44
    assert against.found.startswith(
        f"2 and 7 against the mean of the other pairs: {mean:+.3g} mistakes per run ("
    )
    assert most.agrees is None and math.isnan(most.p)
    others = [{(3, 5): 90 + s, (2, 7): 1} for s in range(6)]
    assert [part.agrees for part in parts(4, base=wrong(*others))] == [None, False]
    # A few images, though the same in every run, are no more than chance on other images.
    few = [{(2, 7): 2 + s % 2, (3, 5): 1, (4, 9): 1} for s in range(6)]
    assert parts(4, base=wrong(*few))[0].agrees is None


FAST = ((0.2, 0.02), (0.21, 0.021), (0.19, 0.02))
SLOW = ((0.4, 0.04), (0.43, 0.041), (0.39, 0.04))
MIDDLE = ((0.3, 0.03), (0.31, 0.031), (0.28, 0.03))


def test_5_sigmoid_against_relu():
    relu, sigmoid = ({"activation": name} for name in ("relu", "sigmoid"))
    (part,) = parts(5, a=seeds(*FAST, **relu), b=seeds(*SLOW, **sigmoid))
    areas = [[np.log(c).mean() for c in courses] for courses in (SLOW, FAST)]
    test = scipy_stats.ttest_ind(*areas, equal_var=False)
    assert part.verdict == HOLDS and part.p == pytest.approx(test.pvalue)
    ratio = math.exp(np.mean(areas[0]) - np.mean(areas[1]))
    assert part.brief.startswith(f"its loss is typically {ratio:.2f} times as high (original: 1.64")
    assert part.size.startswith("outside: +0.497 against +0.5")
    assert verdicts(5, a=seeds(*SLOW, **relu), b=seeds(*FAST, **sigmoid)) == [FAILS]
    (alone,) = parts(5, a=seeds(*FAST, **relu), b=seeds(SLOW[0], **sigmoid))
    assert alone.verdict == "undecided (n = 1)" and "(n = 1, no claim)" in alone.found
    crossing = seeds((0.4, 0.01), (0.1, 0.02), (0.3, 0.03), **sigmoid)
    assert verdicts(5, a=seeds(*FAST, **relu), b=crossing)[0].endswith(
        "it would take more than 1,000 runs"
    )
    assert judge(claim(5), {"a": seeds(*FAST, **relu)}) is None


def test_6_tanh_between_relu_and_sigmoid():
    groups = {"relu": FAST, "tanh": MIDDLE, "sigmoid": SLOW}
    runs = {name: seeds(*courses, activation=name) for name, courses in groups.items()}
    assert verdicts(6, **runs) == [HOLDS, HOLDS]
    assert claim(6).own() == (
        "agree: +0.355 in mean ln loss from ReLU, −0.142 from sigmoid; its lists end at "
        "0.0201 (ReLU), 0.0335 (tanh), 0.0286 (sigmoid)"
    )
    runs["sigmoid"] = seeds(*((0.1, 0.01), (0.11, 0.01), (0.12, 0.01)), activation="sigmoid")
    assert verdicts(6, **runs) == [HOLDS, FAILS]
    assert judge(claim(6), runs).verdict == "1 holds, 1 does not hold"
    runs["sigmoid"] = seeds(*MIDDLE, activation="sigmoid")
    assert parts(6, **runs)[1].agrees is None


def test_7_the_high_learning_rate():
    base = wrong({(1, 2): 10}, {(1, 2): 12}, {(1, 2): 13})
    high = wrong({(1, 2): 500}, {(1, 2): 520}, {(1, 2): 563}, lr=0.1)
    (part,) = parts(7, base=base, high=high)
    assert part.verdict == HOLDS and "test accuracy: −5.16 points" in part.found
    assert part.brief.startswith("loses 52 images in 1,000; the original loses 52 images in 1,000;")
    assert part.size.startswith("inside: −5.25 against −")
    assert claim(7).own() == "agree: −5.25 points (Fisher's test p < 0.001)"
    better = wrong({}, {(1, 2): 1}, {}, lr=0.1)
    assert verdicts(7, base=base, high=better) == [FAILS]
    spread = wrong({}, {(1, 2): 300}, {(1, 2): 9}, lr=0.1)
    assert parts(7, base=base, high=spread)[0].agrees is None


def test_7_a_difference_must_hold_over_the_images_too():
    """Three seeds agree to the image that 3 of 10,000 more are wrong; others might turn that."""
    base = wrong({(1, 2): 7}, {(1, 2): 7}, {(1, 2): 8})
    high = wrong({(3, 5): 10}, {(3, 5): 10}, {(3, 5): 11}, lr=0.1)
    shares = [[run.accuracy("test") for run in group] for group in (high, base)]
    assert scipy_stats.ttest_ind(*shares, equal_var=False).pvalue < 0.01
    assert parts(7, base=base, high=high)[0].agrees is None


def test_8_judges_loss_and_accuracy_apart():
    def batch(courses, mistakes, size):
        return [
            made_up_run(losses=c, wrong={(1, 2): m}, images=1000, seed=s, batch_size=size)
            for s, (c, m) in enumerate(zip(courses, mistakes, strict=True))
        ]

    small = batch(SLOW, (100, 101, 102), 64)
    assert verdicts(8, a=small, b=batch(FAST, (50, 54, 51), 1000)) == [HOLDS, HOLDS]
    assert verdicts(8, a=small, b=batch(FAST, (150, 154, 151), 1000)) == [HOLDS, FAILS]
    assert parts(8, a=small, b=batch(FAST, (90, 101, 110), 1000))[1].agrees is None
    assert claim(8).own().startswith("disagree: curves +0.00751 in mean ln loss; agree: +0.22 po")


def test_where_a_run_diverged_there_is_no_verdict_on_the_others():
    base = wrong({(1, 2): 10}, {(1, 2): 12}, {(1, 2): 13})
    better = [*wrong({}, {(1, 2): 1}, lr=0.1), diverged_run(seed=2, lr=0.1)]
    found = judge(claim(7), {"base": base, "high": better})
    assert [part.verdict for part in found.parts] == ["undecided (n = 2)"]
    assert found.note.startswith("section 3.1, seed 2, diverged at epoch 0, iteration 3, so")
    found = judge(claim(7), {"base": base, "high": [diverged_run(lr=0.1)]})
    assert [part.verdict for part in found.parts] == ["undecided (n = 0)"]
    assert judge(claim(7), {"base": base}) is None


def test_only_what_differs_as_in_the_original_is_compared():
    base = wrong({(1, 2): 10}, {(1, 2): 12}, {(1, 2): 13})
    high = wrong({(1, 2): 500}, {(1, 2): 520}, {(1, 2): 563}, lr=0.1)
    other = wrong({(1, 2): 900}, {(1, 2): 920}, {(1, 2): 913}, optimizer="sgd")
    assert verdicts(7, base=base, high=high, other=other) == [HOLDS]
    assert judge(claim(7), {"base": base, "other": wrong({}, lr=0.1, optimizer="sgd")}) is None


def test_the_headline_is_corrected_for_all_parts_together():
    close = ((0.22, 0.022), (0.23, 0.023), (0.21, 0.022))  # p = 0.033
    groups = {"relu": FAST, "tanh": close, "sigmoid": SLOW}
    runs = {name: seeds(*courses, activation=name) for name, courses in groups.items()}
    runs["high"] = wrong({(1, 2): 3}, {(1, 2): 9}, {(1, 2): 1}, images=100, lr=0.1)
    found = list(claims.judgements(runs))
    decided = [part for one in found for part in one.parts if part.agrees is not None]
    every = [part for one in found for part in one.parts if not math.isnan(part.p)]
    tests = sorted(part.p for part in every)
    kept = 0
    while kept < len(tests) and tests[kept] * (len(tests) - kept) < 0.05:
        kept += 1
    assert kept < len(decided)  # alone, more of them would be
    open_ = sum(len(one.parts) for one in found) - kept
    assert f"{open_} are undecided**." in str(conclusions.headline(runs))


def test_the_original_beside_one_more_run(monkeypatch):
    close = [np.array(original.SECTIONS[0].epoch_loss) * f for f in (0.9, 1.0, 1.12)]
    far = [5 * np.array(original.section("2.2").epoch_loss) * f for f in (0.9, 1.0, 1.1)]
    runs = {"base": seeds(*close), "tanh": seeds(*far, activation="tanh")}
    found = {one.label: one for one in likeness.likenesses(runs) if one.what == "loss by epoch"}
    assert found["base"].places == ["inside"] * 10 and found["tanh"].places == ["below"] * 10
    logs = np.log(far)
    theirs = np.log(original.section("2.2").epoch_loss)
    places = [stats.p_of_one_more(logs[:, i], theirs[i]) for i in range(10)]
    whole = stats.p_of_one_more(logs.mean(1), theirs.mean())
    assert found["tanh"].p == pytest.approx(2 * min(whole, 10 * min(places)))
    tested = likeness.tested(likeness.likenesses(runs))
    assert not [one for one in tested if "recalibrated" in one.what]
    assert [one.label for one in likeness.unlike(list(found.values()))] == ["tanh"]


def test_a_curve_that_only_crosses_ours_on_average_is_not_one_of_ours():
    zigzag = np.array([1.5, 1 / 1.5] * 5) * original.SECTIONS[0].epoch_loss
    runs = {"base": seeds(*(zigzag * scale for scale in (0.99, 1.0, 1.01)))}
    (curve,) = (one for one in likeness.likenesses(runs) if one.what == "loss by epoch")
    assert curve.places.count("inside") == 0 and curve.p < 0.05
