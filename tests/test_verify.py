"""`labkit verify`: an altered digit anywhere is noticed, and its place is named."""

import json
import os
import random
import re
import shutil
import subprocess
import sys

import pytest
from bs4 import BeautifulSoup
from conftest import made_up_run

from labkit import conclusions, origin, tables
from labkit.config import LabkitError
from labkit.origin import decode, encode
from labkit.store import SHIPPED, Store, checksum
from labkit.verify import again, record_problems, verify


@pytest.fixture
def bundle(page, tmp_path):
    """A copy of a report's folder."""
    shutil.copytree(page.parent, tmp_path / "report")
    return tmp_path / "report"


def test_a_report_agrees_without_the_data_or_the_users_runs(bundle, tmp_path):
    environment = os.environ | {"LABKIT_DATA": "/nonexistent", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "labkit", "verify"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "35 records, 30 tables, 23 conclusions, 6 files checked" in done.stdout
    assert done.stdout.endswith("Everything agrees.\n")


def test_every_table_and_conclusion_of_the_page_is_among_the_checked(page):
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    marked = {"attrs": {origin.ATTRIBUTE: True}}
    assert all(table.find_parent(**marked) for table in soup.find_all("table"))
    for heading in soup.find_all("h3", string=re.compile("Conclusion")):
        bullets = [
            item
            for item in heading.find_all_next("li")
            if item.find_previous("h3") == heading and not item.find_parent("nav")
        ]
        assert bullets and all(item.find_parent(**marked) for item in bullets)


def other_digit(text: str, place: int) -> str:
    """The text with another digit at that place."""
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


def test_an_altered_digit_in_any_cell_is_named(bundle):
    path, chance = bundle / "lab-report.html", random.Random()
    good = path.read_text(encoding="utf-8")
    (bundle / "manifest.json").unlink()  # which would notice anything
    assert verify(bundle).problems == []
    cells = list(re.finditer(r"<t[dh][^>]*>([^<&]*\d[^<&]*)</t[dh]>", good))
    assert len(cells) > 500
    for cell in chance.sample(cells, 12):
        digits = [place for place in range(*cell.span(1)) if good[place].isdigit()]
        changed = other_digit(good, chance.choice(digits))
        shown = changed[cell.start(1) : cell.end(1)]
        path.write_text(changed, encoding="utf-8")
        (problem,) = verify(bundle).problems
        assert problem.startswith("table “") and f"says {shown!r}" in problem
        assert f"recomputed: {cell.group(1)!r}" in problem


def test_an_altered_digit_in_a_conclusion_is_named(bundle):
    path = bundle / "lab-report.html"
    good = path.read_text(encoding="utf-8")
    start = good.index("Conclusion</h3>")
    place = re.compile(r"\d(?=\s% of 1,000)").search(good, start).start()
    path.write_text(other_digit(good, place), encoding="utf-8")
    first, second = verify(bundle).problems
    assert first.startswith("text under “Conclusion”: it says ")
    assert second == "lab-report.html is not as it was written (by its manifest)."


def test_an_altered_figure_or_sentence_of_prose_is_noticed_by_the_manifest(bundle):
    path = bundle / "lab-report.html"
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace("which training never sees", "which training sees"), "utf-8")
    assert verify(path).problems == ["lab-report.html is not as it was written (by its manifest)."]
    path.write_text(good, encoding="utf-8")
    (bundle / "notebooks" / "03_lr.ipynb").unlink()
    assert verify(path).problems == ["notebooks/03_lr.ipynb is missing, which the manifest lists."]


def test_an_altered_digit_in_any_record_is_noticed(bundle):
    chance = random.Random()
    path = sorted((bundle / "runs").glob("*.json"))[0]
    good = path.read_text()
    path.write_text(re.sub(r'("seconds": [\d.]+)', r"\g<1>0", good, count=1))  # the same number
    assert "not as it was written" in record_problems(path)[0]
    path.write_text(good)
    for path in sorted((bundle / "runs").glob("*.json")):
        good = path.read_text()
        places = [match.start() for match in re.finditer(r"\d", good)]
        for place in chance.sample(places, 40):
            path.write_text(other_digit(good, place))
            problems = verify(bundle).problems if chance.random() < 0.05 else record_problems(path)
            assert problems, good[place - 20 : place + 20]
        path.write_text(good)
        assert record_problems(path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["history"][1].update(loss=0.4), r"history\[1\].loss: 0.4, where its batch"),
        (lambda r: r["history"][1].update(test_accuracy=0.9), r"history\[1\].test_accuracy: 0.9"),
        (lambda r: r["history"][0].update(train_accuracy=0.12345), "no share of 1000 answers"),
        (
            lambda r: r["confusion"]["test"][2].__setitem__(7, 5),
            r"confusion.test\[2\]\[7\]: 5, whe",
        ),
        (lambda r: r["confusion"]["train"][2].__setitem__(2, 1), r"history\[1\].train_accuracy"),
        (lambda r: r["config"].update(lr=0.02), "belong to the run"),
        (lambda r: r["config"].update(lr=-1), "config: lr is -1"),
        (lambda r: r.update(recipe=2), "belong to the run"),
        (lambda r: r["arrays"].update(sha256="0"), r"npz: it does not have the checksum"),
        (lambda r: r.pop("history"), "its parts are not those of a record"),
    ],
)
@pytest.mark.parametrize("forged", [False, True], ids=["", "with a checksum to fit"])
def test_the_place_in_a_record_is_named(tmp_path, change, said, forged):
    store = Store(tmp_path, shipped=None)
    run = store.save(made_up_run(wrong={(2, 7): 3}))
    path = tmp_path / f"{run.digest}.json"
    assert verify(path).problems == verify(tmp_path).problems == []
    record = json.loads(path.read_text())
    change(record)
    if forged:
        record["sha256"] = checksum(record)
    path.write_text(json.dumps(record))
    problems = verify(tmp_path).problems
    assert any(re.search(said, problem) for problem in problems), problems
    assert all(problem.startswith(f"record {run.digest}, ") for problem in problems)


def test_a_change_that_nothing_else_contradicts_is_noticed_by_the_checksum(tmp_path):
    run = Store(tmp_path, shipped=None).save(made_up_run())
    path = tmp_path / f"{run.digest}.json"
    path.write_text(path.read_text().replace('"seconds": 4.0', '"seconds": 5.0'))
    (problem,) = verify(path).problems
    assert "does not have the checksum that it states" in problem


def test_a_page_of_other_runs_than_those_at_hand(bundle):
    (bundle / "manifest.json").unlink()
    kept = Store(bundle / "runs", shipped=None)
    trained = [
        p for p in sorted((bundle / "runs").glob("*.json")) if not (SHIPPED / p.name).exists()
    ]
    path = trained[0]
    run = kept.get(path.stem)
    run.provenance["seconds"] = 1.0  # trained again, say
    kept.save(run)
    problems = verify(bundle).problems
    assert problems and all("another one now than the page was made from" in p for p in problems)
    path.unlink()
    verdict = verify(bundle)
    assert verdict.problems == [f"record {path.stem} is not here."]
    assert verdict.checked["not made again, for want of their records"] == len(problems)


def test_a_table_that_does_not_say_how_it_was_made(bundle):
    (bundle / "manifest.json").unlink()
    path = bundle / "lab-report.html"
    good = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"data-made='[^']*'", "", good, count=2), encoding="utf-8")
    problems = verify(path).problems
    assert problems and all("it does not say how it was made" in said for said in problems)
    path.write_text(good.replace("tables.epochs", "os.system"), encoding="utf-8")
    assert "'os.system' makes nothing" in verify(path).problems[0]


def test_a_notebook_by_itself(bundle, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(bundle / "runs"))
    path = bundle / "notebooks" / "03_lr.ipynb"
    verdict = verify(path)
    assert verdict.problems == [] and verdict.checked["tables"] == 6
    text = path.read_text(encoding="utf-8")
    place = text.index("</td>") - 1
    path.write_text(other_digit(text, place), encoding="utf-8")
    assert len(verify(path).problems) == 1


def test_nothing_to_verify_is_a_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for target in (tmp_path, tmp_path / "none", tmp_path / "notes.txt", tmp_path / "x.html"):
        with pytest.raises(LabkitError, match="nothing to verify"):
            verify(target)


def test_the_command_fails_and_names_the_place(bundle):
    record = sorted((bundle / "runs").glob("*.json"))[0]
    text = record.read_text()
    record.write_text(text.replace('"loss": 1', '"loss": 2').replace('"loss":1', '"loss":2'))
    if record.read_text() == text:
        record.write_text(re.sub(r'"loss":\s*\d', '"loss": 9', text, count=1))
    command = [sys.executable, "-m", "labkit", "verify", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"record {record.stem}, history[0].loss" in done.stdout
    assert done.stderr.startswith("labkit: ") and "not agree" in done.stderr


RUNS = {"b": [made_up_run(wrong={(2, 7): 3})], "a": [made_up_run(lr=0.1, wrong={(3, 5): 9})]}


@pytest.mark.parametrize(
    "shown",
    [
        tables.epochs(RUNS),
        tables.per_class(RUNS, split="train"),
        tables.summary(RUNS),
        tables.work(RUNS),
        tables.confused_pairs(RUNS["b"], most=3),
        tables.layers(RUNS["b"][0].config),
        tables.provenance(RUNS),
        conclusions.scale(RUNS["b"][0].config, 1, smoke=True),
        conclusions.claim(4, RUNS),
        tables.ledger(RUNS),
        tables.beside(RUNS),
        tables.convergence(RUNS, losses=[0.6]),
        tables.hardest(RUNS),
        tables.changed(RUNS),
        tables.recipe_distances(RUNS),
        conclusions.recipe(RUNS),
        conclusions.loss(RUNS),
        conclusions.compare(RUNS),
        conclusions.printed("3.1"),
        conclusions.excerpt(RUNS["b"][0]),
    ],
    ids=lambda shown: shown.origin["made by"],
)
def test_whatever_is_shown_can_be_made_again_from_what_it_states(shown):
    known = {run.digest: run for group in RUNS.values() for run in group}
    stated = json.loads(json.dumps(shown.origin, sort_keys=True))
    assert repr(again(stated, lambda reference: known[reference["run"]])) == repr(shown)


def test_arguments_survive_as_json_in_their_order():
    value = {"b": [1, "x"], "a": [None, 0.5]}
    assert list(decode(json.loads(json.dumps(encode(value), sort_keys=True)), None)) == ["b", "a"]
