"""The records that the report ships: whole, enough, and the ledger's verdicts follow from them.

Here the verdicts are worked out again from the files alone, with numpy and scipy and nothing of
labkit's reading, statistics or claims.
"""

import io
import json
import math
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from labkit.core.config import SCALE_SEEDS, SCALES, Config
from labkit.core.data import CHECKSUMS
from labkit.judge import original, recipes
from labkit.judge.claims import corrected, judgements, tally
from labkit.store.audit import record_problems
from labkit.store.folder import SHIPPED, Store
from labkit.store.integrity import ARRAYS

SEEDS = range(SCALE_SEEDS["paper"])


@pytest.fixture(scope="module")
def by_recipe():
    """Recipe, see `OTHERS` → section → seed → the record, as it lies on disk."""
    found = {recipe: defaultdict(dict) for recipe in OTHERS}
    for path in SHIPPED.glob("*.json"):
        record = json.loads(path.read_text())
        arrays = next(SHIPPED.glob(f"{path.stem}-*.npz"))
        record["bytes"] = path.stat().st_size + arrays.stat().st_size
        with np.load(arrays) as arrays:
            if "recalibrated_predicted" in arrays:  # else from before there were such answers
                record["labels"] = arrays["test_labels"]
                record["answers"] = arrays["recalibrated_predicted"]
                record["right"] = record["labels"] == record["answers"]
                record["averaged"] = record["labels"] == arrays["test_predicted"]
        config = Config(**record["config"])
        usual = config.replace(activation="relu", lr=0.01, batch_size=64, seed=0)
        for recipe, changes in OTHERS.items():
            if usual == PAPER.replace(**changes):
                section = original.section_of(config.replace(**recipes.USUAL))
                found[recipe][section.number][config.seed] = record
    return {
        recipe: {number: dict(sorted(by_seed.items())) for number, by_seed in of.items()}
        for recipe, of in found.items()
    }


@pytest.fixture(scope="module")
def records(by_recipe):
    """The same of the default."""
    return by_recipe["default"]


@pytest.fixture(scope="module")
def shipped_runs(by_recipe):
    """The shipped runs of those recipes, as labkit reads them."""
    store = Store(SHIPPED, shipped=None)
    return {
        f"{recipe} {number}": [
            store.find(Config(**record["config"]), CHECKSUMS["mnist"])
            for record in by_seed.values()
        ]
        for recipe, records in by_recipe.items()
        for number, by_seed in records.items()
    }


@pytest.fixture(scope="module")
def ledger(shipped_runs):
    """Claim → what labkit finds on the shipped runs."""
    return {found.claim.number: found for found in judgements(shipped_runs)}


PAPER = Config(**SCALES["paper"])
#: What the recipes change that are trained whole.
OTHERS = {"default": {}, "second": recipes.SECOND}


def test_every_setting_has_its_seeds_and_every_record_is_whole(records, by_recipe):
    assert sorted(records) == sorted(section.number for section in original.SECTIONS)
    assert all(set(SEEDS) <= set(by_seed) for by_seed in records.values())
    # Of the other recipe as many of every section.
    assert by_recipe["second"].keys() == records.keys()
    assert len({tuple(by_seed) for by_seed in by_recipe["second"].values()}) == 1
    paths = list(SHIPPED.glob("*"))
    assert [record_problems(path) for path in paths if path.suffix == ".json"].count([]) == (
        len(paths) // 2
    )
    ours = sum(record["bytes"] for by_seed in records.values() for record in by_seed.values())
    assert ours < 12e6
    assert sum(path.stat().st_size for path in paths) < 15e6  # with landscape and appendix
    commits = {
        path.stem: json.loads(path.read_text())["provenance"]["commit"]
        for path in paths
        if path.suffix == ".json"
    }
    assert all(commit and not commit.endswith("+") for commit in commits.values())


def test_what_a_record_measures_takes_at_most_60_kilobytes():
    """Those that learnt less than 97 % aside: unsure answers take more, at most 65."""
    for path in SHIPPED.glob("*-*.npz"):
        with np.load(path) as arrays:
            right = (arrays["test_labels"] == arrays["recalibrated_predicted"]).mean()
            most = 60e3 if right >= 0.97 else 65e3
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{name: arrays[name] for name in ARRAYS})
        assert path.stat().st_size - buffer.getbuffer().nbytes < most, path.name


SPLITS = {"train": "training", "test": "test"}
NUMBERS = tomllib.loads(Path(original.__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PRINTED = {section["number"]: section for section in NUMBERS["sections"]}


def areas(group):
    return [np.mean([math.log(row["loss"]) for row in r["history"]]) for r in group.values()]


def counts_of(group, split, statistics="_recalibrated"):
    """Confusion counts `[runs, 10, 10]` of the runs that have such answers."""
    name = f"{split}{statistics}"
    kept = [r["confusion"][name] for r in group.values() if name in r["confusion"]]
    return np.array(kept).reshape(-1, 10, 10)


def right(group, answers="right"):
    """100 where a test image was answered correctly, `[runs, images]`, by recalibrated answers."""
    return 100.0 * np.array([r[answers] for r in group.values() if answers in r])


def excess(group):
    """Of each image, 10,000 where a 2 and a 7 are mistaken for each other, and minus a 44th of that
    where it is another mistake, `[runs, images]`: the mean is how many more that pair has."""
    rows = []
    for record in group.values():
        if "right" in record:
            labels, answers = record["labels"], record["answers"]
            wrong = labels != answers
            pair = wrong & np.isin(labels, [2, 7]) & np.isin(answers, [2, 7])
            rows.append(len(labels) * np.where(pair, 1, np.where(wrong, -1 / 44, 0)))
    return np.array(rows)


def mean_squares(values):
    """Of runs and images crossed: the variance of the mean by runs, by images, and by both."""
    n, images = values.shape
    grand, of_runs, of_images = values.mean(), values.mean(1), values.mean(0)
    rest = values - of_runs[:, None] - of_images + grand
    scale = n * images
    return (
        images * ((of_runs - grand) ** 2).sum() / (n - 1) / scale,
        n * ((of_images - grand) ** 2).sum() / (images - 1) / scale,
        (rest**2).sum() / ((n - 1) * (images - 1)) / scale,
    )


def over_runs_and_images(first, second=None, about=0.0):
    """p-value and distance of a mean of accuracies, or a difference of two (Clark 1973)."""
    groups = [first] if second is None else [first, second]
    if min(map(len, groups)) < 2:
        return math.nan, math.nan
    squares = [mean_squares(values) for values in groups]
    squares = [(max(runs, both), images, both) for runs, images, both in squares]
    by_image = first.mean(0) - (0 if second is None else second.mean(0))
    images = len(by_image)
    of_runs = sum(s[0] for s in squares)
    freedom = of_runs**2 / sum(
        s[0] ** 2 / (len(g) - 1) for s, g in zip(squares, groups, strict=True)
    )
    of_images = max(by_image.var(ddof=1) / images - sum(s[2] for s in squares), 0)
    variance = of_runs + of_images
    freedom = variance**2 / (of_runs**2 / freedom + of_images**2 / (images - 1))
    distance = by_image.mean() - about
    return 2 * stats.t.sf(abs(distance) / math.sqrt(variance), freedom), distance


def decided(p, distance, expected):
    return (distance > 0) == (expected > 0) if p < 0.05 else None


def welch(first, second, expected):
    test = stats.ttest_ind(first, second, equal_var=False)
    return decided(test.pvalue, np.mean(first) - np.mean(second), expected), test.pvalue


def accuracies(first, second, expected):
    p, distance = over_runs_and_images(right(first), right(second))
    return decided(p, distance, expected), p


def in_most(times, n):
    p = stats.binomtest(int(times), n, 0.5).pvalue if n > 5 else math.nan
    return decided(p, times - n / 2, 1), p


def by_hand(records):
    """Claim → agreement and p-value of each of its parts."""
    base, sigmoid, tanh, high, large = (records[n] for n in ("1", "2.1", "2.2", "3.1", "3.2"))
    found = {}
    losses = np.log([record["history"][-1]["loss"] for record in base.values()])
    n, stated = len(losses), math.log(NUMBERS["stated_final_loss"])
    error = losses.std(ddof=1) * math.sqrt(1 + 1 / n)
    p = 2 * stats.t.sf(abs(stated - losses.mean()) / error, n - 1)
    found[1] = [(False if p < 0.05 else None, p)]

    counts = {split: counts_of(base, split) for split in SPLITS}
    shares = {
        split: 100 * np.diagonal(c, axis1=1, axis2=2) / c.sum(2) for split, c in counts.items()
    }
    n = len(counts["train"])
    trained = 100 * np.trace(counts["train"], axis1=1, axis2=2) / counts["train"].sum((1, 2))
    p = stats.ttest_1samp(trained, 99).pvalue if n > 1 else math.nan
    found[2] = [(decided(p, trained.mean() - 99, 1), p)]
    p, distance = over_runs_and_images(right(base), about=99.0)
    found[2].append((decided(p, distance, 1), p))

    found[3] = []
    for split in SPLITS:
        best = sum(row[8] > np.delete(row, 8).max() for row in shares[split])
        worst = sum(row[[2, 7]].max() < np.delete(row, [2, 7]).min() for row in shares[split])
        found[3] += [in_most(best, n), in_most(worst, n)]

    mistakes = [{} for _ in range(n)]
    for pairs, table in zip(mistakes, counts["test"], strict=True):
        for a in range(10):
            for b in range(a):
                pairs[b, a] = table[a, b] + table[b, a]
    ours = [pairs.pop((2, 7)) for pairs in mistakes]
    p, distance = over_runs_and_images(excess(base))
    most = sum(x > max(pairs.values()) for x, pairs in zip(ours, mistakes, strict=True))
    found[4] = [(decided(p, distance, 1), p), in_most(most, n)]

    found[5] = [welch(areas(sigmoid), areas(base), 1)]
    found[6] = [welch(areas(tanh), areas(base), 1), welch(areas(tanh), areas(sigmoid), -1)]
    found[7] = [accuracies(high, base, -1)]
    found[8] = [welch(areas(large), areas(base), -1), accuracies(large, base, 1)]
    return found


def test_every_verdict_follows_from_the_records(records, ledger):
    expected = by_hand(records)
    assert ledger.keys() == expected.keys()
    for number, parts in expected.items():
        agrees, p_values = zip(*parts, strict=True)
        assert [part.agrees for part in ledger[number].parts] == list(agrees), number
        found = [part.p for part in ledger[number].parts]
        assert found == pytest.approx(list(p_values), rel=1e-6, nan_ok=True), number


def test_the_verdicts_under_another_recipe_follow_too(by_recipe, shipped_runs):
    found = recipes.verdicts(shipped_runs)
    assert len(found) == len(OTHERS)
    for parts, records in zip(found.values(), by_recipe.values(), strict=True):
        expected = [part for of_claim in by_hand(records).values() for part in of_claim]
        agrees, p_values = zip(*expected, strict=True)
        assert [part.agrees for part in parts.values()] == list(agrees)
        ours = [part.p for part in parts.values()]
        assert ours == pytest.approx(list(p_values), nan_ok=True)


def test_so_do_the_distances_of_the_recipes(by_recipe, shipped_runs):
    distances = recipes.distances(shipped_runs, all_epochs=True)
    noise = recipes.noise(shipped_runs, shipped_runs, all_epochs=True)
    for recipe, records in by_recipe.items():
        name = "Adam" if recipe == "default" else "Adam, PyTorch's initialisation, pixels 0 to 1"
        squares = []
        for number, by_seed in records.items():
            logs = np.log([[row["loss"] for row in r["history"]] for r in by_seed.values()])
            default = np.log(
                [
                    [row["loss"] for row in r["history"]]
                    for r in by_recipe["default"][number].values()
                ]
            )
            squares.append(((logs - np.log(PRINTED[number]["epoch_loss"])) ** 2).mean())
            assert distances.loc[name, number] == pytest.approx(math.sqrt(squares[-1]))
            spread = 2 * default.var(0, ddof=1).mean()
            p = stats.f.sf(squares[-1] / spread, 10, 10 * (len(default) - 1))
            assert noise.loc[name, number] == pytest.approx(p)
        assert distances.loc[name, "all"] == pytest.approx(math.sqrt(np.mean(squares)))


def test_the_noise_of_one_epoch_says_little_of_the_next(records):
    """As `recipes.noise` takes for granted: how the losses of neighbouring epochs correlate."""
    for by_seed in records.values():
        logs = np.log([[row["loss"] for row in r["history"]] for r in by_seed.values()])
        neighbours = np.diag(np.corrcoef(logs.T), 1)
        assert abs(neighbours.mean()) < 0.4


def test_the_headline_follows_from_the_records(records, ledger):
    parts = [part for of_claim in by_hand(records).values() for part in of_claim]
    tested = sorted(p for _, p in parts if not math.isnan(p))
    left, kept = len(tested), set()
    for p in tested:  # Holm, step by step, until the first that does not pass
        if p * left >= 0.05:
            break
        kept.add(p)
        left -= 1
    agrees = [a for a, p in parts if p in kept]
    found = tally([agrees for *_, agrees in corrected(list(ledger.values()))])
    undecided = len(parts) - agrees.count(True) - agrees.count(False)
    numbers = [agrees.count(True), agrees.count(False), undecided]
    assert [int(n) for n in re.findall(r"\d+", found)] == [n for n in numbers if n]


def test_what_the_ledger_says_beside_the_verdicts_follows_too(records, ledger):
    base = records["1"]
    for number, other in ((7, "3.1"), (8, "3.2")):
        means = [
            100 * (np.trace(c, axis1=1, axis2=2) / c.sum((1, 2))).mean()
            for c in (counts_of(records[n], "test", "") for n in (other, "1"))
        ]
        said = f"by running averages {means[0] - means[1]:+.3g} points".replace("-", "−")
        p, _ = over_runs_and_images(right(records[other], "averaged"), right(base, "averaged"))
        tested = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
        assert ledger[number].parts[-1].found.endswith(f"{said} ({tested}, n = {len(SEEDS)})")
    last = [record["history"][-1]["loss"] for record in base.values()]
    assert ledger[1].parts[0].brief.startswith(f"{min(last):.4f} to {max(last):.4f} nats")
    area = np.mean(areas(records["2.1"])) - np.mean(areas(base))
    theirs = [np.log(PRINTED[n]["epoch_loss"]).mean() for n in ("2.1", "1")]
    ratio, own = math.exp(area), math.exp(theirs[0] - theirs[1])
    said = f"its loss is typically {ratio:.2f} times as high (original: {own:.2f} times)"
    assert ledger[5].parts[0].brief == said
