"""`labkit report`: what it refuses, what it writes, and the page in a browser."""

import ast
import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import alterations
import nbformat
import pytest
from alterations import RECORDS
from bs4 import BeautifulSoup
from click.testing import CliRunner
from filelock import FileLock
from helpers import RestrictedFileSize, made_up_run
from pypdf import PdfReader

from labkit import landscape, recipes
from labkit.__main__ import cli
from labkit.core.config import Config
from labkit.core.values import LabkitError
from labkit.judge import original
from labkit.judge.claims import CLAIMS, Judgement, Part
from labkit.lab import provenance
from labkit.report import build
from labkit.report.page import changed, grouped, missed
from labkit.report.verify import source, verify
from labkit.show import remake
from labkit.store.files import file_sha256
from labkit.store.folder import Store, lock_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


FIGURES = 39  # on the page of a smoke run


@pytest.fixture(scope="module")
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def table_of(soup: BeautifulSoup, caption: str) -> list[list[str]]:
    """The rows of the table whose caption begins so."""
    (table,) = [t for t in soup.find_all("table") if t.caption.get_text().startswith(caption)]
    return [[c.get_text() for c in row(["th", "td"])] for row in table.tbody.find_all("tr")]


def test_the_page_has_the_sections_in_the_originals_order(soup):
    assert [h.find(class_="kicker").get_text() for h in soup.find_all("h2")[:-1]] == [
        "1 Architecture and baseline",
        "2 Activation functions",
        "3.1 Learning rate",
        "3.2 Batch size",
        "Appendix: which recipe was it?",
        "Trained here, just now",
    ]
    anchors = {tag["id"] for tag in soup.find_all(id=True)}
    links = [a["href"] for a in soup.find_all("a", href=True)]
    assert links and all(link[0] == "#" and link[1:] in anchors for link in links)
    outside = [tag["id"] for tag in soup.find_all(id=True) if not tag.find_parent("svg")]
    assert len(set(outside)) == len(outside)  # no id twice; equal ones in drawings are equal


def test_the_summary_has_every_setting_beside_the_original(soup):
    rows = table_of(soup, "Every setting beside the original")
    names = ["baseline", "sigmoid", "tanh", "learning rate 0.1", "batch size 1000"]
    assert [row[0] for row in rows] == names
    assert rows[0][-1] == "99.05" and rows[1][-1] == "–"


def test_every_claim_has_a_chip_that_leads_to_its_verdict(soup):
    chips = soup.find_all(class_="chip")
    assert [chip["href"] for chip in chips] == [f"#claim-{claim.number}" for claim in CLAIMS]
    for chip, claim in zip(chips, CLAIMS, strict=True):
        assert "undecided" in chip["class"] and chip.get_text().startswith(claim.name)
        said = soup.find(id=chip["href"][1:]).get_text()
        assert claim.says in said and original.STATEMENTS[claim.number] in said
    rows = table_of(soup, "The original's claims and the verdicts")
    assert list(dict.fromkeys(row[0] for row in rows)) == [str(one.number) for one in CLAIMS]
    assert {row[3] for row in rows} == {"undecided (n = 1)"}


def test_a_chip_says_when_a_claim_holds_by_another_size():
    for agrees, size, another in (
        (True, "outside: −5.25 against −2 to 1", True),
        (True, "inside: −0.5 against −2 to 1", False),
        (True, "", False),
        (False, "outside: −5.25 against −2 to 1", False),
    ):
        parts = [Part("accuracy", agrees, 3, "", "", size=size), Part("loss", True, 3, "", "")]
        assert missed(Judgement(CLAIMS[6], parts, "")) is another


def test_smoke_numbers_do_not_look_like_results(soup):
    banners = soup.find_all(class_="banner")
    assert len(banners) == 1 and "numbers mean nothing" in " ".join(banners[0].get_text().split())
    assert "one of ours" not in soup.get_text()


def test_what_is_not_read_is_folded_and_every_figure_says_what_it_shows(soup):
    assert not [pre for pre in soup.find_all("pre") if not pre.find_parent("details")]
    assert not [table for table in soup.find_all("table") if not table.find_parent("details")]
    assert not soup.find_all("details", open=True)
    drawings = soup.find_all("svg")
    assert len(drawings) == FIGURES
    assert all(len(drawing["aria-label"]) > 60 for drawing in drawings)
    for kind in ("figure", "table"):
        numbers = [int(n["id"].split("-")[1]) for n in soup.select(f"[id^={kind}-]")]
        assert numbers == list(range(1, len(numbers) + 1))


def test_what_is_said_to_whoever_runs_a_notebook_is_not_on_the_page(soup):
    words = soup.main.get_text()
    assert "The next cell" not in words and "papermill" not in words
    assert words.count("The runs behind these numbers") == 2  # a summary and a caption


def test_provenance_stands_at_the_end(soup):
    footer = soup.find("footer").get_text(" ")
    for word in ("torch", "python", "cpu", "commit", "seconds", "trained now"):
        assert word in footer
    # The appendix's with more seeds of two recipes, those of the tests, and one of an epoch.
    recorded = len(recipes.settings("mnist")) + (9 + 1) * len(recipes.EPOCHS) + 4
    # The landscape's but for the original's own, three and two of each.
    recorded += 3 * (len(landscape.learning_rates()) + len(landscape.batch_sizes()) - 4)
    said = f"2 of its runs were trained meanwhile, {recorded} were on record"
    assert said in " ".join(footer.split())


def test_the_page_refers_to_nothing_outside(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//|url\([^#]|@import|<script .*src|<link""", text
    )


def test_tables_and_figures_are_in_the_bundle(page, soup):
    folder = build.evidence(page)
    names = {f"tables/{t['id']}.csv" for t in soup.select("[id^=table-]")}
    names |= {f"figures/{f['id']}.svg" for f in soup.select("[id^=figure-]")}
    found = [*folder.glob("tables/*"), *folder.glob("figures/*")]
    assert {path.relative_to(folder).as_posix() for path in found} == names
    for name in names:
        shown = soup.find(id=Path(name).stem)
        if name.startswith("tables"):
            rows = list(csv.reader((folder / name).open(encoding="utf-8", newline="")))
            assert len({*map(len, rows)}) == 1 and len(rows) == len(shown("tr"))
            for row, line in zip(rows, shown("tr"), strict=True):
                assert [row[0], row[-1]] == [line(["td", "th"])[i].get_text() for i in (0, -1)]
        else:
            assert ElementTree.parse(folder / name).getroot().tag.endswith("}svg")


@pytest.fixture(scope="module")
def browser():
    """Chromium, where there is one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_browser_shows_it_without_errors_requests_or_barriers(page, browser, width, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    trouble, requests = [], []
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width  # nothing is cut off
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    found = axe.Axe().run(tab).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200], len(v["nodes"])) for v in found] == []
    assert trouble == []
    assert {url for url in requests if not url.startswith("data:")} == {page.as_uri()}
    tab.close()


def test_a_print_is_whole(page, browser, tmp_path):
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.emulate_media(media="print")
    paper = 180 * 96 / 25.4  # A4 without its margins, in pixels
    tab.set_viewport_size({"width": round(paper), "height": 1000})
    tab.evaluate("document.querySelectorAll('details.table').forEach(part => part.open = true)")
    cut = "[...document.querySelectorAll('table, svg')].filter(t => t.getBoundingClientRect().right"
    assert tab.evaluate(f"{cut} > {paper} + 1).map(t => t.textContent.slice(0, 80))") == []
    tab.reload()
    tab.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    assert 5 < len(PdfReader(tmp_path / "page.pdf").pages) <= 35
    tab.close()


def test_a_click_on_a_confusion_shows_its_images_alone_also_without_scripts(page, browser):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    link = tab.locator("svg a[href^='#mistakes-']").first
    place = link.get_attribute("href")
    link.click()
    assert tab.locator(place).is_visible()
    assert tab.locator(".gallery > div:visible").count() == 1
    tab.locator(".gallery p a").click()
    assert tab.locator(".gallery > div:visible").count() > 1
    context.close()


def test_arrow_keys_and_the_mouse_read_a_figures_values(page, browser):
    tab = browser.new_page()
    tab.goto(page.as_uri())
    drawing = tab.locator(".row .drawing:has(circle)").first  # the losses by epoch
    losses = re.findall(r"<circle.*?<title>(.*?)</title>", page.read_text(encoding="utf-8"))
    place = drawing.evaluate("d => [...document.querySelectorAll('svg circle')]"
                             ".indexOf(d.querySelector('circle'))")  # fmt: skip
    drawing.press("ArrowRight")
    drawing.press("ArrowRight")
    assert drawing.get_by_role("status").text_content() == losses[place + 1]
    assert re.fullmatch(
        r"baseline, epoch \d: [\d.]+ nats|original, epoch \d: .*", losses[place + 1]
    )
    drawing.press("ArrowLeft")
    assert drawing.get_by_role("status").text_content() == losses[place]
    drawing.locator("circle").last.hover()
    assert drawing.get_by_role("status").text_content().startswith("original, epoch 9: 0.0201")
    drawing.press("Escape")
    assert tab.locator(".tip").count() == 0
    tab.close()


def test_the_copy_button_copies_a_table(page, browser):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.click("#table-1 summary")
    tab.click("#table-1 button")
    copied = tab.evaluate("navigator.clipboard.readText()")
    kept = (build.evidence(page) / "tables" / "table-1.csv").read_text(encoding="utf-8")
    assert [row[0] for row in csv.reader(copied.splitlines())] == [
        row[0] for row in csv.reader(kept.splitlines())
    ]
    context.close()


BAD = [
    (["-p", "activations", "relu,rleu"], "activations is 'rleu'", "Did you mean 'relu'?"),
    (["--dataset", "minst"], "dataset is 'minst'", "Did you mean 'mnist'?"),
    (["-p", "lr", "0"], "lr is '0'", "a number above 0"),
    (["-p", "lr", "nan"], "lr is 'nan'", "a number above 0"),
    (["-p", "lr", "fast"], "lr is 'fast'", "a number above 0"),
    (["-p", "lr", "0.01"], "lr is '0.01'", "must differ from the baseline's"),
    (["-p", "batch_size", "2.5"], "batch_size is '2.5'", "a whole number"),
    (["-p", "batch_size", "59999"], "batch_size is 59999", "single image"),
    (["--epochs", "0"], "epochs is '0'", "a whole number of 1 or more"),
    (["--epochs", "ten"], "epochs is 'ten'", "a whole number"),
    (["--seeds", "-1"], "seeds is '-1'", "a whole number"),
    (["-p", "recipe_seeds", "many"], "recipe_seeds is 'many'", "a whole number"),
    (["--scale", "papper"], "scale is 'papper'", "Did you mean 'paper'?"),
    (["--device", "tpu"], "device is 'tpu'", "one that this machine has"),
    (["-p", "learning_rate", "0.1"], "there is no parameter 'learning_rate'", "lr"),
    (["-p", "retrain", "perhaps"], "retrain is 'perhaps'", "true, false or a date"),
]


@pytest.mark.parametrize(("options", "said", "allowed"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_a_sentence_and_nothing_runs(options, said, allowed, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "execute", lambda *_: pytest.fail("a notebook ran"))
    old_report(tmp_path)
    done = CliRunner().invoke(cli, ["report", "--output", str(tmp_path), *options])
    assert isinstance(done.exception, LabkitError)
    assert said in str(done.exception) and allowed in str(done.exception)
    assert (tmp_path / "lab-report.html").read_text() == "the old page"


def test_the_command_prints_the_sentence_and_fails(tmp_path, command, capsys):
    assert command("report", "--epochs", "x", "--output", tmp_path / "out") == 1
    assert (
        capsys.readouterr().err
        == "labkit: epochs is 'x'; it must be a whole number of 1 or more and at most 10000.\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "execute", lambda *_: pytest.fail("a notebook ran"))
    (tmp_path / "file").write_text("")
    with pytest.raises(LabkitError, match=r"output folder .* cannot be written"):
        build.write_report(tmp_path / "file" / "out")


def test_two_reports_in_one_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "execute", lambda *_: pytest.fail("a notebook ran"))
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(LabkitError, match="another process writes a report there"),
    ):
        build.write_report(tmp_path)


def test_a_disk_that_fills_up_is_a_sentence_and_leaves_the_page(tmp_path, monkeypatch):
    out = made_of([SHOWS], tmp_path, monkeypatch)
    with (
        RestrictedFileSize(2000),
        pytest.raises(LabkitError, match=r"out cannot be written \(File too large\)"),
    ):
        build.write_report(out)
    assert (out / "lab-report.html").read_text() == "the old page"


def old_report(folder: Path) -> Path:
    """A folder with a report in it, as short as can be."""
    folder.mkdir(exist_ok=True)
    (folder / "lab-report.html").write_text("the old page")
    files = {"lab-report.html": file_sha256(folder / "lab-report.html")}
    (folder / "manifest.json").write_text(json.dumps({"files": files, "notebooks": {}}))
    return folder


def test_a_folder_that_is_not_a_reports_own_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "execute", lambda *_: pytest.fail("a notebook ran"))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "03_lr.ipynb").write_text("mine")
    (tmp_path / "data.csv").write_text("mine")
    with pytest.raises(LabkitError, match=r"not part of a report \(data.csv, notebooks\); choose"):
        build.write_report(tmp_path)
    assert sorted(tmp_path.rglob("*.*")) == [
        tmp_path / "data.csv",
        tmp_path / "notebooks" / "03_lr.ipynb",
    ]


@pytest.mark.parametrize("place", ["unfinished", "unfinished/notebooks", "unfinished/runs"])
def test_nothing_is_written_or_deleted_through_a_symbolic_link(place, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "execute", lambda *_: pytest.fail("a notebook ran"))
    out, mine = old_report(tmp_path / "out"), old_report(tmp_path / "mine")
    (out / place).parent.mkdir(exist_ok=True)
    (out / place).symlink_to(mine)
    with pytest.raises(LabkitError, match="is a symbolic link"):
        build.write_report(out)
    assert len(list(mine.iterdir())) == 2


def test_what_the_user_put_beside_a_report_or_changed_in_it_stays(tmp_path, monkeypatch):
    out = made_of([SHOWS], tmp_path, monkeypatch)
    page = build.write_report(out)
    first = build.evidence(page)
    mine = [
        out / "notes.txt",
        first / "notebooks" / "own.ipynb",
        first / "notebooks" / "01_part.ipynb",
    ]
    for path in mine:
        path.write_text("mine")
    page.write_text("my page")
    build.write_report(out)
    assert [path.read_text() for path in mine] == ["mine"] * 3
    (kept,) = out.glob("*-replaced.html")
    assert kept.read_text() == "my page"
    assert not (first / "manifest.json").exists() and build.evidence(page) != first
    assert verify(out).problems == []


def test_what_the_user_put_into_an_unfinished_report_or_changed_in_it_stays(tmp_path, monkeypatch):
    out = made_of(["x / 0", SHOWS], tmp_path, monkeypatch)
    with pytest.raises(LabkitError, match="did not finish"):
        build.write_report(out)
    (out / "unfinished" / "notebooks" / "own.ipynb").write_text("mine")
    (out / "unfinished" / "notebooks" / "02_part.ipynb").write_text("mine too")
    for _ in range(2):
        with pytest.raises(LabkitError, match="did not finish"):
            build.write_report(out)
    repaired = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOWS)], metadata=PYTHON)
    nbformat.write(repaired, tmp_path / "01_part.ipynb")
    for _ in range(2):
        build.write_report(out)
    kept = [path.read_text() for path in out.rglob("*.ipynb")]
    assert kept.count("mine") == kept.count("mine too") == 1
    assert verify(out).problems == []


def test_a_manifest_cannot_have_other_files_removed(tmp_path):
    folder, away = tmp_path / "report", tmp_path / "away"
    (folder / "runs").mkdir(parents=True)
    away.mkdir()
    (folder / "notebooks").symlink_to(away)
    for path in (tmp_path / "a.json", away / "b.ipynb", folder / "runs" / "c.txt"):
        path.write_text("mine")
    (folder / "runs" / "d.json").symlink_to(tmp_path / "a.json")
    names = ["../a.json", str(tmp_path / "a.json"), "runs/../../a.json", "notebooks/b.ipynb"]
    names += ["runs/c.txt", "runs/d.json"]
    files = dict.fromkeys(names, file_sha256(tmp_path / "a.json"))
    (folder / "manifest.json").write_text(json.dumps({"files": files, "notebooks": {}}))
    build.remove_listed(folder, draft=True)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "a.json",
        "b.ipynb",
        "c.txt",
        "d.json",
    ]


def test_whenever_publishing_is_killed_there_is_a_page_with_its_evidence(short_report, tmp_path):
    """A second report takes the place of the first, and is stopped before each of its steps."""

    def whole(folder: Path) -> str:
        shown = folder / "lab-report.html"
        listed = build.manifest_of(build.evidence(shown))["files"]
        assert listed["lab-report.html"] == file_sha256(shown)
        assert all((build.evidence(shown) / n).exists() for n in listed if n != shown.name)
        return build.evidence(shown).name

    class Killed(BaseException):
        pass

    reached, stops = set(), itertools.count(1)
    for stop in stops:
        folder = tmp_path / str(stop)
        shutil.copytree(short_report.parent, folder)
        before = whole(folder)
        draft = folder / "unfinished"
        shutil.copytree(folder / before, draft)
        text = (folder / "lab-report.html").read_text("utf-8").replace(before, f"{before}2")
        (draft / "lab-report.html").write_text(text, "utf-8")
        manifest = build.manifest_of(draft) | {"evidence": f"{before}2"}
        manifest["files"]["lab-report.html"] = file_sha256(draft / "lab-report.html")
        (draft / "manifest.json").write_text(json.dumps(manifest))
        steps = itertools.count(1)

        def killed(call, steps=steps, stop=stop):
            def step(*args, **options):
                if next(steps) == stop:
                    raise Killed
                return call(*args, **options)

            return step

        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "replace", "unlink", "rmdir"):
                patch.setattr(os, name, killed(getattr(os, name)))
                patch.setattr(Path, name, killed(getattr(Path, name)))
            try:
                build.publish(draft, folder)
                break
            except Killed:
                reached.add(whole(folder))
    assert reached == {before, f"{before}2"} and stop > 10
    assert whole(folder) == f"{before}2" and not (folder / before).exists()


def made_of(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: bool = False
) -> Path:
    """A report's folder with an old page; its notebooks will have one code cell each.

    Without `kernels` they are executed here, in no time.
    """
    plans = {}
    for number, code in enumerate(sources, start=1):
        name = f"0{number}_part"
        cells = [nbformat.v4.new_markdown_cell(f"# Part {number}")]
        cells += [nbformat.v4.new_code_cell("dataset, epochs = '', 0")]
        cells[1].metadata["tags"] = ["parameters"]
        cells += [nbformat.v4.new_code_cell(part) for part in code.split("---\n")]
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=PYTHON), tmp_path / f"{name}.ipynb"
        )
        plans[name] = {"dataset": "mnist-5k", "epochs": 5}
    monkeypatch.setattr(build, "notebook_folder", lambda: tmp_path)
    monkeypatch.setattr(build, "plan", lambda *_: plans)
    if not kernels:
        monkeypatch.setattr(build, "execute", execute_here)
    return old_report(tmp_path / "out")


def execute_here(path: Path, values: dict[str, object], target: Path) -> str:
    """`build.execute` without a kernel."""
    name = path.stem
    executed, scope, reason = source(name, values), {}, ""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        *body, last = ast.parse(cell.source).body
        value = isinstance(last, ast.Expr)
        try:
            exec(compile(ast.Module(body if value else [*body, last], []), name, "exec"), scope)
            shown = (
                eval(compile(ast.Expression(last.value), name, "eval"), scope) if value else None
            )
        except Exception as error:
            reason = f"notebook {name} failed: {error!r}."
            break
        cell.execution_count = number
        if shown is not None:
            data = shown._repr_mimebundle_()
            cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=number)]
    nbformat.write(executed, target)
    return reason


PYTHON = alterations.PYTHON
SHOWS = "from labkit import conclusions\nconclusions.printed('3.1')"


def test_a_failing_notebook_leaves_the_page_and_the_others_still_run(tmp_path, monkeypatch):
    sources = [SHOWS, f"{SHOWS}\n---\nx = 1\nx / 0\n---\n{SHOWS}", "y / 0", SHOWS]
    out = made_of(sources, tmp_path, monkeypatch, kernels=True)
    with pytest.raises(LabkitError) as caught:
        build.write_report(out)
    said = str(caught.value)
    assert "2 of 4 notebooks did not finish" in said and "The page was not replaced" in said
    assert "notebook 02_part failed in cell 5 (x = 1): ZeroDivisionError: division by zero." in said
    assert "notebook 03_part failed in cell 4 (y / 0): NameError" in said
    assert (out / "lab-report.html").read_text() == "the old page"

    draft = out / "unfinished"
    manifest = json.loads((draft / "manifest.json").read_text())
    assert manifest["status"] == "partial"
    states = [part["status"] for part in manifest["notebooks"].values()]
    assert states == ["complete", "partial", "failed", "complete"]
    soup = BeautifulSoup((draft / "lab-report.html").read_text(encoding="utf-8"), "html.parser")
    first, *banners = [" ".join(b.get_text().split()) for b in soup.find_all(class_="bad")]
    assert first.startswith("Partial. This page is not complete: 02_part is partial")
    assert len(banners) == 2 and banners[1].startswith("03_part is failed.")
    assert len(soup.find_all(attrs={remake.ATTRIBUTE: True})) == 3  # what was shown stays
    assert not [pre for pre in soup.find_all("pre") if not pre.find_parent("details")]
    assert verify(draft).problems == []

    monkeypatch.setattr(build, "execute", execute_here)
    repaired = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOWS)], metadata=PYTHON)
    for name in ("02_part", "03_part"):
        nbformat.write(repaired, tmp_path / f"{name}.ipynb")
    assert build.write_report(out) == out / "lab-report.html"
    names = {path.name for path in out.iterdir() if path.name != ".lock"}
    assert names == {"lab-report.html", build.evidence(out / "lab-report.html").name}
    assert verify(out).problems == []
    assert "Partial" not in (out / "lab-report.html").read_text(encoding="utf-8")


def test_a_dead_kernel_leaves_the_page_and_names_the_cell(tmp_path, monkeypatch):
    out = made_of(["import os; os._exit(1)\n---\n1"], tmp_path, monkeypatch, kernels=True)
    with pytest.raises(LabkitError, match="01_part failed: its kernel died in cell 4"):
        build.write_report(out)
    assert (out / "lab-report.html").read_text() == "the old page"


#: A notebook that trains until it is stopped, and the command that runs it in a report.
TRAINS = """
import signal
from labkit.store.folder import Store
with Store().claim("0123456789ab"):
    print("training", flush=True)
    signal.pause()
"""
REPORT = """
import sys
from pathlib import Path
from labkit.__main__ import main
from labkit.report import build
folder = Path(sys.argv.pop())
build.notebook_folder = lambda: folder
build.plan = lambda *_: dict.fromkeys(["01_part", "02_part"], {"dataset": "mnist-5k", "epochs": 5})
main()
"""


@pytest.mark.parametrize("chosen", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_report_that_is_stopped_leaves_the_page_and_says_partial(
    chosen, tmp_path, own_store, monkeypatch
):
    out = made_of([TRAINS, SHOWS], tmp_path, monkeypatch)
    child = subprocess.Popen(
        [sys.executable, "-c", REPORT, "report", "--output", out, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = "".join(itertools.takewhile(lambda line: "training" not in line, child.stdout))
    child.send_signal(chosen)
    said += "".join(child.communicate(timeout=60))
    assert child.returncode != 0 and "Traceback" not in said
    assert (out / "lab-report.html").read_text() == "the old page"
    draft = out / "unfinished"
    manifest = json.loads((draft / "manifest.json").read_text())
    assert manifest["status"] == "partial"
    assert [part["status"] for part in manifest["notebooks"].values()] == ["partial", "not run"]
    assert "Partial" in (draft / "lab-report.html").read_text(encoding="utf-8")
    lock = lock_of(own_store, "0123456789ab")
    lock.acquire(timeout=30)  # its kernel has stopped as well
    lock.release()


def test_a_run_that_changed_meanwhile_makes_the_page_stale():
    first, second = ({"run": "a1", "sha256": sha256} for sha256 in ("old", "new"))
    assert changed([first], {"a1": "old"}) == []
    words = "Run a1 was trained again while the notebooks ran."
    assert changed([first], {"a1": "new"}) == [words]
    assert changed([second, first], {"a1": "new"}) == [words]
    assert changed([{"run": "b2", "sha256": ""}], {}) == ["Run b2 is not on record."]


def test_where_no_run_can_be_kept_the_report_keeps_its_own(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "file" / "runs"))
    source = (
        "from pathlib import Path\nfrom labkit import tables\n"
        "from labkit.store.folder import Store, load\n"
        f"run = Store().save(load(Path({str(RECORDS)!r}) / '24057cd178c4.json'))\n"
        "tables.provenance({'a': [run]})"
    )
    out = made_of([source], tmp_path, monkeypatch, kernels=True)
    build.write_report(out)
    assert len(list((build.evidence(out / "lab-report.html") / "runs").glob("*.json"))) == 1
    assert verify(out).problems == []
    assert os.environ["LABKIT_RUNS"] == str(tmp_path / "file" / "runs")


def test_the_appendix_is_not_compared_with_the_other_runs():
    usual = [made_up_run(seed=seed) for seed in range(2)]
    high = made_up_run(lr=0.1)
    others = [
        made_up_run(lr=0.1, weight_decay=1e-4),
        made_up_run(losses=(1.0,)),
        made_up_run(dataset="mnist", init="default"),
        made_up_run(epoch_accuracy=False),
    ]
    compared, rest = grouped([*others, *usual, high], Config(epochs=2))
    assert compared == {"baseline": usual, "learning rate 0.1": [high]}
    assert list(rest) == [
        "learning rate 0.1, weight decay 0.0001 (mnist-5k, 2 epochs)",
        "baseline (mnist-5k, 1 epoch)",
        "baseline, PyTorch's initialisation (mnist, 2 epochs)",
        "baseline, accuracy at the end alone (mnist-5k, 2 epochs)",
    ]
    assert list(rest.values()) == [[run] for run in others]


def test_retrain_trains_each_setting_once(monkeypatch, tmp_path):
    plans = {}

    def execute(path, values, target):
        plans[path.stem] = values
        return "It was not run."

    monkeypatch.setattr(build, "execute", execute)
    with pytest.raises(LabkitError, match="6 of 6 notebooks did not finish: It was not run"):
        build.write_report(tmp_path / "out", retrain=True, scale="paper", parameters={"lr": "0.05"})
    # These are always of the images that they are of.
    assert set(plans.pop("05_recipe")) == set(plans.pop("06_here")) == {"device"}
    dates = {values["retrain"] for values in plans.values()}
    assert len(dates) == 1 and re.fullmatch(r"20\d\d-.*\+00:00", dates.pop())
    assert {v["dataset"] for v in plans.values()} == {"mnist"}
    assert [name for name, v in plans.items() if "lr" in v] == ["03_lr"]


def test_a_commit_has_an_address_where_its_origin_on_the_web_has_it(tmp_path, monkeypatch):
    def git(*words):
        done = subprocess.run(
            ["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "labkit" / "lab").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "labkit/lab/provenance.py"))
    git("init", "--quiet")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git(*author, "commit", "--quiet", "--allow-empty", "--message", "first")
    head = git("rev-parse", "HEAD")
    assert provenance.commit_address() == ""  # no origin
    git("remote", "add", "origin", "git@example.org:lab/labkit.git")
    assert provenance.commit_address() == ""  # where nobody has pushed it
    git("update-ref", "refs/remotes/origin/main", head)
    address = f"https://example.org/lab/labkit/commit/{head}"
    assert provenance.commit_address() == address
    git("remote", "set-url", "origin", "https://someone:token@example.org/lab/labkit")
    assert provenance.commit_address() == address
    git("remote", "set-url", "origin", str(tmp_path))
    assert provenance.commit_address() == ""  # not on the web


def test_the_manifest_says_what_ran(page):
    folder = build.evidence(page)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "complete" and manifest["scale"] == "smoke"
    assert [part["status"] for part in manifest["notebooks"].values()] == ["complete"] * 6
    assert manifest["notebooks"]["03_lr"]["parameters"]["lr"] == "0.1"
    trained = {n: run for n, run in manifest["runs"].items() if run["source"] == "trained now"}
    assert len(trained) == 2 and manifest["stale"] == []
    for name, run in trained.items():
        assert run["scale"] == "own"
        kept = Store(folder / "runs", shipped=None).get(name)
        users = Store(page.parent.parent / "runs", shipped=None).get(name)
        assert run["sha256"] == kept.checksum == users.checksum
    assert manifest["commit"] == provenance.commit()
