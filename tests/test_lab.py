"""A lab of one's own: laid out, reported and verified, by the words of the README."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

import labkit
from labkit.core.values import LabkitError
from labkit.report import build

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "README.md").read_text().split("## Your own question\n")[1].split("\n## ")[0]
#: Prose, and what follows it: a block of TOML or Python, or commands.
STEP = re.compile(r"(.*?)(?:```\w+\n(.*?)```|((?:^ {4}[^\n]*\n)+))", re.M | re.S)
FILE = re.compile(r"`((?:optimizers|labkit)/[\w/]+\.\w+)`")


def edit(path: Path, block: str) -> None:
    """Put a block of the README where its prose says."""
    if path.suffix == ".toml":
        path.write_text(block)
    elif path.suffix == ".ipynb":  # in the place of the cell that begins so, or at the end
        notebook = nbformat.read(path, as_version=4)
        begin = re.match(r"settings =|conclusions.claim|", block)[0] or block
        cells = [cell for cell in notebook.cells if cell.source.startswith(begin)]
        cells = cells or [nbformat.v4.new_code_cell()]
        cells[0].source = block.strip()
        notebook.cells += [cell for cell in cells if cell not in notebook.cells]
        nbformat.write(notebook, path)
    else:  # the last field of `Config`, and the last line of `batch_loss`
        places = {"config": r"(?=\n    def __post_init__)", "train": r"    return F.cross_.*\n"}
        text, times = re.subn(places[path.stem], lambda _: block, path.read_text())
        assert times == 1
        path.write_text(text)


def test_the_words_of_the_readme_make_a_lab_and_add_a_setting(tmp_path):
    """In a copy of labkit, and every run with one epoch."""
    shutil.copytree(Path(labkit.__file__).parent, tmp_path / "labkit")
    runs = {"LABKIT_RUNS": str(tmp_path / "runs"), "LABKIT_DATA": str(tmp_path / "none")}
    environment = os.environ | runs | {"LABKIT_SMOKE": "1", "PYTHONPATH": str(tmp_path)}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}

    def done(commands: list[str]) -> None:
        for command in commands:
            _, *words = shlex.split(command)
            ended = subprocess.run([sys.executable, "-m", "labkit", *words], **options)
            assert ended.returncode == 0, (command, ended.stdout, ended.stderr)

    def shown(claim: str, *settings: str) -> None:
        """What is on the page."""
        page = tmp_path / "report" / build.PAGE
        soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
        assert [row.th.get_text() for row in soup.table.tbody.find_all("tr")] == list(settings)
        (chip,) = soup.find_all(class_="chip")
        assert chip["href"] == f"#claim-{claim}" and "undecided" in chip["class"]
        assert "(n = 1)" in soup.find(id=f"claim-{claim}").get_text()
        assert len(soup.find_all("figure")) == 3
        assert "riginal" not in soup.get_text()

    place = ""
    for prose, block, lines in STEP.findall(SECTION):
        place = (FILE.findall(prose) or [place])[0]
        if block:
            edit(tmp_path / place, block)
        else:
            done(commands := lines.strip().splitlines())
    shown("momentum", "baseline", "baseline, SGD, momentum 0.9")
    done(commands)  # "report and verify as before"
    shown("smoothing", "baseline", "baseline, label smoothing 0.1")


def test_a_new_lab_needs_a_folder_of_its_own(tmp_path, command, capsys):
    (tmp_path / "mine.txt").write_text("")
    assert command("new", tmp_path) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_notebooks_are_found_by_folder_and_by_name(tmp_path):
    for name in ("b.ipynb", "a.ipynb", "notes.txt"):
        (tmp_path / name).write_text("{}")
    assert list(build.find_notebooks([tmp_path])) == ["a", "b"]
    assert list(build.find_notebooks([tmp_path / "b.ipynb", tmp_path / "a.ipynb"])) == ["b", "a"]
    (tmp_path / "my lab.ipynb").write_text("{}")
    for places, said in (
        ([tmp_path / "c.ipynb"], "there is no notebook at"),
        ([tmp_path / "notes.txt"], "there is no notebook at"),
        ([tmp_path / "a.ipynb", tmp_path / "a.ipynb"], "two notebooks are called a"),
        ([tmp_path], "'my lab.ipynb' needs a name"),
    ):
        with pytest.raises(LabkitError, match=said):
            build.find_notebooks(places)
