"""The records that the report ships: whole, enough, and the ledger's verdicts follow from them.

Here the verdicts are worked out again from the JSON files alone, with scipy and nothing of labkit's
statistics.
"""

import json
import math
from collections import defaultdict

import numpy as np
import pytest
from scipy import stats

from labkit import published
from labkit.claims import CONTRADICTED, OWN_TABLE, REPRODUCED, judgements
from labkit.config import SCALE_SEEDS, SCALES, Config
from labkit.data import CHECKSUMS
from labkit.store import SHIPPED, Store
from labkit.verify import record_problems

SEEDS = range(SCALE_SEEDS["paper"])


@pytest.fixture(scope="module")
def records():
    """Section → seed → the record, as it lies on disk."""
    found = defaultdict(dict)
    for path in SHIPPED.glob("*.json"):
        record = json.loads(path.read_text())
        config = Config(**record["config"])
        if config.replace(activation="relu", lr=0.01, batch_size=64, seed=0) == PAPER:
            found[published.section_of(config).number][config.seed] = record
    return found


@pytest.fixture(scope="module")
def verdicts():
    """Claim → the verdict that labkit gives on the shipped runs."""
    store = Store(SHIPPED, shipped=None)
    runs = {}
    for section in published.SECTIONS:
        config = PAPER.replace(
            activation=section.activation, lr=section.lr, batch_size=section.batch_size
        )
        runs[section.name] = [
            store.find(config.replace(seed=seed), CHECKSUMS["mnist"]) for seed in SEEDS
        ]
    return {found.claim.number: found.verdict for found in judgements(runs)}


PAPER = Config(**SCALES["paper"])


def test_every_setting_has_its_seeds_and_every_record_is_whole(records):
    assert sorted(records) == sorted(section.number for section in published.SECTIONS)
    assert all(set(SEEDS) <= set(by_seed) for by_seed in records.values())
    paths = list(SHIPPED.glob("*"))
    assert [record_problems(path) for path in paths if path.suffix == ".json"].count([]) == (
        len(paths) // 2
    )
    assert sum(path.stat().st_size for path in paths) < 10e6
    for by_seed in records.values():
        for record in by_seed.values():
            assert not record["provenance"]["commit"].endswith("+")


def by_hand(first, second, measure, expected, comparisons=1):
    """True, False or None, as a claim's single comparison."""
    differences = np.array([measure(first[s]) - measure(second[s]) for s in SEEDS])
    n, level = len(differences), 1 - 0.05 / comparisons
    half = stats.t.ppf(0.5 + level / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n)
    if abs(differences.mean()) <= half:
        return None
    # The bootstrap's interval lies within the range of the differences.
    assert (differences > 0).all() or (differences < 0).all()
    return (differences.mean() > 0) == (expected > 0)


def combined(*answers):
    if False in answers:
        return CONTRADICTED
    return REPRODUCED if None not in answers else f"not separable at n = {len(SEEDS)}"


def area(record):
    return np.mean([math.log(row["loss"]) for row in record["history"]])


def right(record, split="test"):
    return np.trace(record["confusion"][split]) / np.sum(record["confusion"][split])


def test_the_verdicts_follow_from_the_records(records, verdicts):
    base, sigmoid, tanh, high, large = (records[n] for n in ("1", "2.1", "2.2", "3.1", "3.2"))
    expected = {
        1: OWN_TABLE,
        3: OWN_TABLE,
        5: combined(by_hand(sigmoid, base, area, 1)),
        6: combined(by_hand(tanh, base, area, 1, 2), by_hand(tanh, sigmoid, area, -1, 2)),
        7: combined(by_hand(high, base, right, -1)),
        8: combined(by_hand(large, base, area, -1, 2), by_hand(large, base, right, 1, 2)),
    }
    assert {number: verdicts[number] for number in expected} == expected


def test_whether_accuracy_passes_99_percent_follows_too(records, verdicts):
    answers = []
    for split in ("train", "test"):
        shares = np.array([right(records["1"][s], split) for s in SEEDS])
        n, total = len(shares), np.sum(records["1"][0]["confusion"][split])
        half = stats.t.ppf(0.975, n - 1) * shares.std(ddof=1) / math.sqrt(n)
        wilson = stats.binomtest(round(shares.mean() * total), int(total)).proportion_ci(
            method="wilson"
        )
        low, high = min(wilson.low, shares.mean() - half), max(wilson.high, shares.mean() + half)
        answers.append(True if low > 0.99 else False if high < 0.99 else None)
    assert verdicts[2] == combined(*answers)


def test_2_and_7_follow_too(records, verdicts):
    more = []
    for seed in SEEDS:
        counts = np.array(records["1"][seed]["confusion"]["test"])
        pairs = {(a, b): counts[a, b] + counts[b, a] for a in range(10) for b in range(a)}
        here = pairs.pop((7, 2))
        more.append(here - np.mean(list(pairs.values())))
    half = stats.t.ppf(0.975, len(more) - 1) * np.std(more, ddof=1) / math.sqrt(len(more))
    answer = None if abs(np.mean(more)) <= half else bool(np.mean(more) > 0)
    assert verdicts[4] == combined(answer)
