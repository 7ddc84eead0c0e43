"""`labkit report`: what it refuses, what it writes, and the page in a browser."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner

from labkit import report
from labkit.__main__ import cli
from labkit.config import LabkitError
from labkit.store import Store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a smoke run, made by the command itself."""
    folder = tmp_path_factory.mktemp("report")
    command = [
        sys.executable,
        "-m",
        "labkit",
        "report",
        "--output",
        folder / "out",
        "-p",
        "lr",
        "0.1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_SMOKE", "1")
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    path = folder / "out" / "lab-report.html"
    assert str(path) in done.stdout  # it says where the page is
    return path


@pytest.fixture(scope="module")
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_the_page_has_the_sections_in_the_originals_order(soup):
    assert [h.get_text(strip=True) for h in soup.find_all("h2")] == [
        "Summary",
        "1 Architecture and baseline",
        "2 Activation functions",
        "3.1 Learning rate",
        "3.2 Batch size",
        "Provenance",
    ]
    anchors = {tag["id"] for tag in soup.find_all(id=True)}
    assert len(anchors) == len(soup.find_all(id=True))  # no id twice
    links = [a["href"] for a in soup.find_all("a", href=True)]
    assert links and all(link[0] == "#" and link[1:] in anchors for link in links)


def test_the_summary_has_every_setting_beside_the_original(soup):
    table = soup.find(id="summary").find_next("table")
    rows = [
        [c.get_text() for c in row.find_all(["th", "td"])] for row in table.tbody.find_all("tr")
    ]
    assert [row[0] for row in rows] == [
        "baseline",
        "sigmoid",
        "tanh",
        "learning rate 0.1",
        "batch size 1000",
    ]
    assert rows[0][-1] == "99.05" and rows[1][-1] == "–"


def test_smoke_numbers_do_not_look_like_results(soup):
    banners = soup.find_all(class_="banner")
    assert len(banners) == 1 and "numbers mean nothing" in " ".join(banners[0].get_text().split())
    assert len([q for q in soup.find_all("blockquote") if "Smoke run" in q.get_text()]) == 4


def test_code_and_log_are_folded_and_every_figure_says_what_it_shows(soup):
    assert not [pre for pre in soup.find_all("pre") if not pre.find_parent("details")]
    assert not soup.find_all("details", open=True)
    images = soup.find_all("img")
    assert len(images) == 15
    assert all(len(image.get("alt", "")) > 60 for image in images)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)


def test_provenance_stands_at_the_end(soup):
    footer = soup.find("footer").get_text(" ")
    for word in ("torch", "python", "cpu", "commit", "seconds", "trained now"):
        assert word in footer
    assert "5 of its runs were trained meanwhile, 0 were on record" in " ".join(footer.split())


def test_the_page_refers_to_nothing_outside(page):
    text = re.sub(r"data:image/png;base64,[\w+/=]+", "", page.read_text(encoding="utf-8"))
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//|url\(|@import|<script|<link""", text
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_chromium_shows_it_without_errors_or_requests(page):
    sync_api = pytest.importorskip("playwright.sync_api")
    trouble, requests = [], []
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        for width in (1280, 420):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.on("console", lambda message: trouble.append(message.text))
            tab.on("pageerror", lambda error: trouble.append(str(error)))
            tab.on("request", lambda request: requests.append(request.url))
            tab.goto(page.as_uri())
            broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
            assert tab.evaluate(broken) == 0
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert trouble == []
    assert {url for url in requests if not url.startswith("data:")} == {page.as_uri()}


BAD = [
    (["-p", "activations", "relu,rleu"], "activations is 'rleu'", "Did you mean 'relu'?"),
    (["--dataset", "minst"], "dataset is 'minst'", "Did you mean 'mnist'?"),
    (["-p", "lr", "0"], "lr is '0'", "a number above 0"),
    (["-p", "lr", "nan"], "lr is 'nan'", "a number above 0"),
    (["-p", "lr", "fast"], "lr is 'fast'", "a number above 0"),
    (["-p", "lr", "0.01"], "lr is '0.01' twice", "must differ"),
    (["-p", "batch_size", "2.5"], "batch_size is '2.5'", "a whole number"),
    (["-p", "batch_size", "3999"], "batch_size is 3999", "single image"),
    (["--epochs", "0"], "epochs is '0'", "a whole number of 1 or more"),
    (["--epochs", "ten"], "epochs is 'ten'", "a whole number"),
    (["--seeds", "-1"], "seeds is '-1'", "a whole number"),
    (["--scale", "papper"], "scale is 'papper'", "Did you mean 'paper'?"),
    (["--device", "tpu"], "device is 'tpu'", "one that this machine has"),
    (["-p", "learning_rate", "0.1"], "there is no parameter 'learning_rate'", "lr"),
    (["-p", "retrain", "perhaps"], "retrain is 'perhaps'", "true, false or a date"),
]


@pytest.mark.parametrize(("options", "said", "allowed"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_a_sentence_and_nothing_runs(options, said, allowed, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "execute", lambda *_: pytest.fail("a notebook ran"))
    (tmp_path / "lab-report.html").write_text("the old page")
    done = CliRunner().invoke(cli, ["report", "--output", str(tmp_path), *options])
    assert isinstance(done.exception, LabkitError)
    assert said in str(done.exception) and allowed in str(done.exception)
    assert (tmp_path / "lab-report.html").read_text() == "the old page"


def test_the_command_prints_the_sentence_and_fails(tmp_path):
    command = [sys.executable, "-m", "labkit", "report", "--epochs", "x", "--output", "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "labkit: epochs is 'x'; it must be a whole number of 1 or more.\n"
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "execute", lambda *_: pytest.fail("a notebook ran"))
    (tmp_path / "file").write_text("")
    with pytest.raises(LabkitError, match=r"output folder .* cannot be written"):
        report.build(tmp_path / "file" / "out")


def failing(tmp_path, monkeypatch, source: str) -> str:
    """The error of a report whose second cell is `source`; the old page stays."""
    cells = [nbformat.v4.new_markdown_cell("# 1"), nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_architecture.ipynb")
    monkeypatch.setattr(report, "notebook_folder", lambda: tmp_path)
    monkeypatch.setattr(report, "plan", lambda *_: {"01_architecture": {}})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lab-report.html").write_text("the old page")
    with pytest.raises(LabkitError) as caught:
        report.build(tmp_path / "out")
    assert (tmp_path / "out" / "lab-report.html").read_text() == "the old page"
    return str(caught.value)


def test_a_failing_notebook_leaves_the_page_and_names_the_cell(tmp_path, monkeypatch):
    said = failing(tmp_path, monkeypatch, "x = 1\nx / 0")
    assert "notebook 01_architecture failed in cell 2 (x = 1): ZeroDivisionError" in said
    assert "The page was not replaced" in said


def test_a_dead_kernel_leaves_the_page_and_names_the_cell(tmp_path, monkeypatch):
    said = failing(tmp_path, monkeypatch, "import os; os._exit(1)")
    assert "notebook 01_architecture failed: its kernel died in cell 2" in said


def test_retrain_trains_each_setting_once(monkeypatch, tmp_path):
    plans = {}
    monkeypatch.setattr(
        report, "execute", lambda name, values, target: plans.update({name: values})
    )
    monkeypatch.setattr(report, "export", lambda name, executed: None)
    monkeypatch.setattr(report, "render", lambda *_: "page")
    report.build(tmp_path, retrain=True, scale="paper", parameters={"lr": "0.05"})
    dates = {values["retrain"] for values in plans.values()}
    assert len(dates) == 1 and re.fullmatch(r"20\d\d-.*\+00:00", dates.pop())
    assert {v["dataset"] for v in plans.values()} == {"mnist"}
    assert [name for name, v in plans.items() if "lr" in v] == ["03_lr"]


def test_the_report_reads_its_runs_from_the_store(page, monkeypatch):
    store = Store(page.parent.parent / "runs", shipped=None)
    names = []
    for name in report.NOTEBOOKS:
        executed = nbformat.read(page.parent / "notebooks" / f"{name}.ipynb", as_version=4)
        names += report.records(executed)
    assert len(set(names)) == 5
    assert all(store.get(name) for name in names)
