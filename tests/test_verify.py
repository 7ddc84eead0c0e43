"""`labkit verify`: an altered digit anywhere is noticed, and its place is named."""

import json
import re
import shutil
from html import escape

import alterations
import matplotlib
import pytest
from bs4 import BeautifulSoup
from helpers import made_up_run

from labkit import conclusions, plots, tables
from labkit.core.values import LabkitError
from labkit.report import build
from labkit.report.verify import again, parsed, same_drawing, verify
from labkit.show import remake
from labkit.show.remake import decode, encode
from labkit.store.audit import record_problems
from labkit.store.files import file_sha256
from labkit.store.folder import Store
from labkit.store.integrity import record_sha256


@pytest.fixture
def bundle(page, tmp_path):
    """A copy of a report's folder."""
    shutil.copytree(page.parent, tmp_path / "report")
    return tmp_path / "report"


ONCE = alterations.making_once()


@pytest.fixture(autouse=True)
def making_once(monkeypatch):
    """Whatever several tests make again is made once."""
    monkeypatch.setattr("labkit.report.verify.again", ONCE)


def test_a_report_agrees_without_the_data_or_the_users_runs(
    bundle, tmp_path, command, monkeypatch, capsys
):
    monkeypatch.setenv("LABKIT_DATA", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    assert command("verify") == 0
    said = capsys.readouterr().out
    things = ("156 records", "34 tables", "36 texts", "37 figures", "1 galleries", "6 sections")
    assert all(count in said for count in things), said
    assert said.endswith("Everything agrees.\n")


def test_every_table_and_conclusion_of_the_page_is_among_the_checked(page):
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    marked = {"attrs": {remake.ATTRIBUTE: True}}
    assert all(table.find_parent(**marked) for table in soup.find_all("table"))
    assert all(drawing.find_parent(**marked) for drawing in soup.find_all("svg"))
    verdicts = soup.find_all(id=re.compile("^claim-"))
    assert verdicts and all(one.has_attr(remake.ATTRIBUTE) for one in verdicts)


def other_digit(text: str, place: int) -> str:
    """The text with another digit at that place."""
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


def test_altered_digits_in_cells_are_named(bundle, chance):
    path = bundle / "lab-report.html"
    good = path.read_text(encoding="utf-8")
    cells = list(re.finditer(r"<t[dh][^>]*>([^<&]*\d[^<&]*)</t[dh]>", good))
    assert len(cells) > 500
    changed = good
    chosen = chance.sample(cells, 12)
    for cell in chosen:
        digits = [place for place in range(*cell.span(1)) if good[place].isdigit()]
        changed = other_digit(changed, chance.choice(digits))
    path.write_text(changed, encoding="utf-8")
    problems = verify(bundle).problems
    for cell in chosen:
        shown, expected = changed[cell.start(1) : cell.end(1)], cell.group(1)
        said = f"says {shown!r}; recomputed: {expected!r}"
        assert any(p.startswith("table “") and said in p for p in problems), (said, problems)


def test_an_altered_digit_in_a_conclusion_is_named(bundle):
    path = bundle / "lab-report.html"
    good = path.read_text(encoding="utf-8")
    start = good.index('id="claim-2"')
    place = re.compile(r"\d(?= images in 1,000)").search(good, start).start()
    path.write_text(other_digit(good, place), encoding="utf-8")
    problems = verify(bundle).problems
    assert any(p.startswith("text under “") and "images in 1,000" in p for p in problems), problems
    assert any(p.startswith("manifest.json, files, lab-report.html: ") for p in problems)


def places(bundle) -> Store:
    return Store(build.evidence(bundle / "lab-report.html") / "runs")


def swapped(pattern: str, text: str) -> str:
    """The text with the first and the last match of the pattern in each other's place."""
    found = list(re.finditer(pattern, text))
    a, b = found[0], found[-1]
    between = text[a.end() : b.start()]
    return text[: a.start()] + b.group() + between + a.group() + text[b.end() :]


def without_a_table(text: str) -> str:
    start = text.index('<details class="table"', text.index('id="03_lr"'))
    return text[:start] + text[text.index("</details>", start) + len("</details>") :]


#: A page altered so that a reader would be misled, and what is said of it.
ALTERED_PAGES = {
    "empty": (lambda t: "", "does not state what it shows"),
    "no body": (
        lambda t: re.sub("<body>.*</body>", "", t, flags=re.S),
        "it says nothing; recomputed: '<body> ",
    ),
    "prose": (lambda t: t.replace("training never sees", "training sees"), "training sees"),
    "a table gone": (
        without_a_table,
        "says nothing; recomputed: .<details> Table",
    ),
    "style": (lambda t: t.replace("</style>", "tr:nth-child(3){display:none}</style>"), "display"),
    "hidden row": (
        lambda t: t.replace("<tr>", '<tr style="display:none">', 2),
        "has the style 'display:none'",
    ),
    "hidden None": (lambda t: t.replace("<p>", '<p hidden="None">', 1), "has the hidden 'None'"),
    "hidden cell": (lambda t: t.replace("<td>", "<td hidden>", 3), "has the hidden ''"),
    "log": (lambda t: t.replace("log</summary>", "log</summary><p>x</p>", 1), "under “"),
    "pictures": (lambda t: swapped(r"<svg.*?</svg>", t), "not the one drawn again"),
    "alts": (lambda t: swapped(r'aria-label="[^"]{60,}"', t), "not the one drawn again"),
    "call": (
        lambda t: re.sub(r'data-made="[^"]*tables[^"]*"', "", t, count=1),
        "not say how it was made",
    ),
    "function": (lambda t: t.replace("tables.epochs", "os.system"), "os.system"),
    "nested": (
        lambda t: re.sub('data-made="[^"]*"', f'data-made="{"[" * 10**5}"', t, count=1),
        "data-made",
    ),
    "script": (lambda t: t.replace("</header>", "<script>1</script></header>"), "<script>"),
    "own script": (lambda t: t.replace('"Copied"', '"Gone"'), "Gone"),
    "added": (lambda t: t.replace("</header>", "<p>It is certain.</p></header>"), "says .<p>"),
    "count": (lambda t: re.sub(r"\d+\s+tables,", "99 tables,", t), "99 tables"),
    "order": (lambda t: swapped(r"<h4.*?</h4>", t), "under “"),
}


ALONE = ("empty", "prose", "a table gone", "style", "hidden row", "pictures", "added")


@pytest.mark.parametrize(
    ("name", "manifest"), [*((n, True) for n in ALTERED_PAGES), *((n, False) for n in ALONE)]
)
def test_an_altered_page_is_noticed_also_without_its_manifest(short, name, manifest):
    folder = build.evidence(short)
    alter, said = ALTERED_PAGES[name]
    good = short.read_text(encoding="utf-8")
    changed = alter(good)
    assert changed != good
    short.write_text(changed, encoding="utf-8")
    if manifest:  # which is made to fit
        stated = json.loads((folder / "manifest.json").read_text())
        stated["files"]["lab-report.html"] = file_sha256(short)
        (folder / "manifest.json").write_text(json.dumps(stated))
        (short.parent / "manifest.json").write_text(json.dumps(stated))
    else:
        (folder / "manifest.json").unlink()
    problems = verify(short).problems
    assert any(re.search(said, problem) for problem in problems), "\n".join(problems)


#: The manifest altered, in the page's head as well, and what is said of it.
ALTERED_MANIFESTS = {
    "status": (lambda m: m.update(status="partial"), "status: it is stated as"),
    "scale": (lambda m: m.update(scale="paper"), "scale: it is stated as"),
    "stale": (lambda m: m.update(stale=["x"]), "stale: it is stated as"),
    "started": (lambda m: m.update(started="2001-01-01T00:00:00+00:00"), "Made on 2001"),
    "commit": (lambda m: m.update(commit="0123456789"), "under “"),
    "device": (lambda m: run_of(m).update(device="cuda (NVIDIA H100)"), "device: it is stated as"),
    "seed": (lambda m: run_of(m).update(seed=7), "seed: it is stated as"),
    "checksum": (lambda m: run_of(m).update(sha256="0"), "sha256: it is stated as"),
    "date": (lambda m: run_of(m).update(date="2026-01-01T00:00:00+00:00"), "date: it is stated as"),
    "run gone": (lambda m: m["runs"].popitem(), "runs.*: it is stated as null"),
    "parameter": (
        lambda m: part_of(m)["parameters"].update(epochs=9),
        "under “Question”: it says '1'; recomputed: '9'",
    ),
    "notebook": (lambda m: part_of(m).update(status="failed"), "status: it is stated as"),
    "no notebooks": (lambda m: m.update(notebooks={}), "not as labkit writes it"),
    "files": (lambda m: m.update(files={}), "^manifest.json, files, .* is stated as null"),
    "file gone": (lambda m: m["files"].popitem(), "^manifest.json, files, .* is stated as null"),
    "shown": (lambda m: m["shown"].append("tables.epochs"), "shown: it is stated as"),
    "no list": (lambda m: m.update(shown=5), "does not state what it shows"),
    "text": (lambda m: m.update(runs="none"), "runs: it is stated as"),
}


def run_of(manifest):
    return next(iter(manifest["runs"].values()))


def part_of(manifest):
    return next(iter(manifest["notebooks"].values()))


@pytest.mark.parametrize("name", ALTERED_MANIFESTS)
def test_an_altered_manifest_is_noticed_also_where_the_page_says_the_same(short, name):
    alter, said = ALTERED_MANIFESTS[name]
    path = build.evidence(short) / "manifest.json"
    manifest = json.loads(path.read_text())
    before = json.dumps(manifest)
    alter(manifest)
    assert json.dumps(manifest) != before
    stated = escape(json.dumps({key: manifest[key] for key in manifest if key != "files"}))
    head, rest = short.read_text(encoding="utf-8").split('name="lab-report-manifest" content="')
    rest = rest.partition('">')[2]
    text = f'{head}name="lab-report-manifest" content="{stated}">{rest}'
    short.write_text(text, encoding="utf-8")
    if not name.startswith("file"):
        manifest["files"]["lab-report.html"] = file_sha256(short)
    path.write_text(json.dumps(manifest))
    problems = verify(short).problems
    assert any(re.search(said, problem) for problem in problems), "\n".join(problems)


def test_a_manifest_that_says_other_things_than_its_page_is_noticed(short):
    path = build.evidence(short) / "manifest.json"
    manifest = json.loads(path.read_text())
    names = ALTERED_MANIFESTS.keys() - {"files", "file gone", "no notebooks", "shown", "text"}
    for name in sorted(names):
        ALTERED_MANIFESTS[name][0](manifest)
    path.write_text(json.dumps(manifest))
    problems = verify(short).problems
    assert sum(problem.startswith("manifest.json, ") for problem in problems) == len(names), (
        problems
    )


@pytest.mark.parametrize("text", ["[" * 10**5, "[]", "{}", "null", '{"files": 5}'])
def test_a_manifest_that_is_none_is_a_problem_and_no_traceback(short, text):
    (build.evidence(short) / "manifest.json").write_text(text)
    assert any("manifest" in problem for problem in verify(short).problems)


def test_words_of_an_executed_notebook_are_those_of_its_source(short):
    path = build.evidence(short) / "notebooks" / "03_lr.ipynb"
    path.write_text(path.read_text().replace("training never sees", "training sees"))
    problems = verify(short).problems
    assert any(re.search("notebook 03_lr, .* says .*training sees", p) for p in problems), problems


def test_a_page_without_a_manifest_does_not_simply_agree(short, own_store, command, capsys):
    assert (verify(short).problems, verify(short).missing) == ([], [])
    evidence = build.evidence(short)
    shutil.copytree(evidence / "runs", own_store)
    shutil.rmtree(evidence)
    verdict = verify(short)
    assert verdict.problems == [] and "no manifest beside" in verdict.missing[0]
    assert command("verify", short) == 1 and "Everything agrees" not in capsys.readouterr().out


@pytest.fixture
def short(short_report, tmp_path, monkeypatch):
    """A copy of a report of one short notebook, with two runs and something of every kind."""
    monkeypatch.setattr(build, "notebook_folder", lambda: short_report.parent.parent)
    shutil.copytree(short_report.parent, tmp_path / "short")
    return tmp_path / "short" / "lab-report.html"


def test_an_altered_digit_in_any_record_is_noticed(bundle, chance):
    paths = sorted(places(bundle).folder.glob("*.json"))
    good = paths[0].read_text()
    paths[0].write_text(re.sub(r'("seconds": [\d.]+)', r"\g<1>0", good, count=1))  # the same number
    assert "not as it was written" in record_problems(paths[0])[0]
    paths[0].write_text(good)
    for path in chance.sample(paths, 8):
        good = path.read_text()
        digits = [match.start() for match in re.finditer(r"\d", good)]
        for place in chance.sample(digits, 15):
            path.write_text(other_digit(good, place))
            assert record_problems(path), good[place - 20 : place + 20]
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
        (lambda r: r["arrays"].update(sha256="0"), r"arrays.sha256 is '0'; it must be a SHA"),
        (lambda r: r.pop("history"), "history is missing; it must be a list with a row per epoch"),
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
        record["sha256"] = record_sha256(record)
    path.write_text(json.dumps(record))
    problems = verify(tmp_path).problems
    assert any(re.search(said, problem) for problem in problems), "\n".join(problems)
    assert all(problem.startswith(f"record {run.digest}, ") for problem in problems)


def test_a_change_that_nothing_else_contradicts_is_noticed_by_the_checksum(tmp_path):
    run = Store(tmp_path, shipped=None).save(made_up_run())
    path = tmp_path / f"{run.digest}.json"
    path.write_text(path.read_text().replace('"seconds": 4.0', '"seconds": 5.0'))
    (problem,) = verify(path).problems
    assert "does not have the checksum that it states" in problem


def test_a_page_of_other_runs_than_those_at_hand(short):
    kept = Store(places(short.parent).folder, shipped=None)
    path = sorted(kept.folder.glob("*.json"))[0]
    run = kept.get(path.stem)
    run.provenance["seconds"] = 1.0  # trained again, say
    kept.save(run)
    problems = verify(short).problems
    blocks = sum("tables." in cell or "plots." in cell for cell in alterations.CELLS[3:])
    said = [p for p in problems if "no longer the one that the page was made from" in p]
    assert len(said) == blocks + 1 and all(p.startswith("03_lr, cell ") for p in said)
    path.unlink()
    verdict = verify(short)
    assert f"record {path.stem} is not here." in verdict.problems
    assert verdict.checked["not made again, for want of their records"] == blocks + 1


def test_a_notebook_by_itself(bundle, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(places(bundle).folder))
    path = places(bundle).folder.parent / "notebooks" / "03_lr.ipynb"
    verdict = verify(path)
    assert verdict.problems == [] and verdict.checked["tables"] == 6
    text = path.read_text(encoding="utf-8")
    place = re.search(r"\d</td>", text).start()
    path.write_text(other_digit(text, place), encoding="utf-8")
    assert len(verify(path).problems) == 1


def test_nothing_to_verify_is_a_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for target in (tmp_path, tmp_path / "none", tmp_path / "notes.txt", tmp_path / "x.html"):
        with pytest.raises(LabkitError, match="nothing to verify"):
            verify(target)


def test_the_command_fails_and_names_the_place(short, command, capsys):
    record = sorted(places(short.parent).folder.glob("*.json"))[0]
    record.write_text(re.sub(r'"loss": *\d', '"loss": 9', record.read_text(), count=1))
    assert command("verify", short.parent) == 1
    said = capsys.readouterr()
    assert f"record {record.stem}, history[0].loss" in said.out
    assert said.err.startswith("labkit: ") and "not agree" in said.err


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
        tables.lag(RUNS),
        tables.recipe_distances(RUNS),
        conclusions.recipe(RUNS, RUNS),
        conclusions.loss(RUNS),
        conclusions.compare(RUNS),
        conclusions.lag(RUNS),
        conclusions.printed("3.1"),
        conclusions.excerpt(RUNS["b"][0]),
    ],
    ids=lambda shown: shown.call["made by"],
)
def test_whatever_is_shown_can_be_made_again_from_what_it_states(shown):
    known = {run.digest: run for group in RUNS.values() for run in group}
    stated = json.loads(json.dumps(shown.call, sort_keys=True))
    assert repr(again(stated, lambda reference: known[reference["run"]])) == repr(shown)


def test_arguments_survive_as_json_in_their_order():
    value = {"b": [1, "x"], "a": [None, 0.5]}
    assert list(decode(json.loads(json.dumps(encode(value), sort_keys=True)), None)) == ["b", "a"]


def test_drawings_are_compared_only_where_the_same_matplotlib_drew_them():
    drawn = plots.loss_by_epoch({"baseline": [made_up_run()]}).svg()
    tool = f'data-matplotlib="{matplotlib.__version__}"'
    moved = re.sub(r"M (\d)", "M 9\\1", drawn, count=1)
    assert tool in drawn and moved != drawn

    def same(text):
        return same_drawing(parsed(text).svg, parsed(drawn).svg)

    assert same(drawn) and not same(moved)
    older = moved.replace(tool, 'data-matplotlib="9"')
    assert same(older)
    assert not same(older.replace("</svg>", "<script>1</script></svg>"))
    assert not same(re.sub('aria-label="', 'aria-label="Not so: ', older))
    assert not same(moved.replace(tool, 'data-matplotlib="9"').replace("viewBox=", "x="))
