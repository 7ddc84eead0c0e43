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
#: The prose before it, and a block of the README: commands, TOML or Python.
STEP = re.compile(r"(.*?)(?:```(toml|python)\n(.*?)```|((?:^    .*\n)+))", re.M | re.S)


def put_into_notebook(path: Path, source: str) -> None:
    """A cell that begins like one of the notebook's takes its place; any other is added."""
    notebook, begin = nbformat.read(path, as_version=4), re.split(r"[ (]", source)[0]
    if begin == "conclusions.claim":
        begin += '(claims["'  # not `conclusions.scale`
    cells = [cell for cell in notebook.cells if cell.source.startswith(begin)]
    if cells:
        (cell,) = cells
        cell.source = source
    else:
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, path)


def test_the_readmes_own_question_from_its_words(tmp_path):
    """In a copy of labkit, since the last part adds a setting to it; every run has one epoch."""
    package, lab = tmp_path / "labkit", tmp_path / "optimizers"
    shutil.copytree(
        Path(labkit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.npz")
    )
    for name in ("core/mnist-5k.npz", *(f"store/records/{p.name}" for p in BASELINE)):
        shutil.copy2(Path(labkit.__file__).parent / name, package / name)
    runs = str(tmp_path / "runs")
    environment = os.environ | {"LABKIT_SMOKE": "1", "PYTHONPATH": str(tmp_path)}
    environment |= {"LABKIT_RUNS": runs, "LABKIT_DATA": str(tmp_path / "none")}

    def labkit_says(command: str) -> str:
        words = shlex.split(command, comments=True)
        assert words.pop(0) == "labkit"
        done = subprocess.run(
            [sys.executable, "-m", "labkit", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def page() -> BeautifulSoup:
        return BeautifulSoup((tmp_path / "report" / build.PAGE).read_text("utf-8"), "html.parser")

    commands, last = [], ""
    for prose, kind, block, lines in STEP.findall(SECTION):
        named = re.findall(r"`(labkit/core/\w+\.py|optimizers/\S+)`", prose)
        last = named[-1] if named else last
        if lines:
            commands = lines.strip().splitlines()
            said = [labkit_says(command) for command in commands]
        elif kind == "toml":
            assert last == "optimizers/claims.toml"
            (tmp_path / last).write_text(block)
        elif last.startswith("labkit"):
            path = tmp_path / last
            text = path.read_text()
            ends = {"config": "\n\n    def __post_init__", "train": "\n    return F.cross_entropy"}
            end = ends[path.stem]
            before, _, after = text.partition(end)
            assert after and end not in after
            new = before + "\n" + block.rstrip("\n") + end + after
            if path.stem == "train":  # its last line is the one that it replaces
                new = before + "\n" + block + after.partition("\n")[2]
            path.write_text(new)
        else:
            put_into_notebook(lab / "question.ipynb", block.rstrip("\n"))
        if named and named[-1].endswith(".toml") and len(commands) > 1:
            last = "optimizers/question.ipynb"  # the cells that follow
        if len(commands) > 1 and kind == "" and lines:
            assert said[-1].endswith("Everything agrees.\n")
            soup = page()
            rows = [r.th.get_text() for r in soup.table.tbody.find_all("tr")]
            assert rows == ["baseline", "baseline, SGD, momentum 0.9"]
            assert [chip["href"] for chip in soup.find_all(class_="chip")] == ["#claim-momentum"]
            assert "Momentum converges faster than Adam." in soup.find(id="claim-momentum").text
            assert len(soup.find_all("svg")) == 3 and "original" not in soup.main.get_text()
    for command in commands:
        said = labkit_says(command)
    assert said.endswith("Everything agrees.\n")
    soup = page()
    assert [r.th.get_text() for r in soup.table.tbody.find_all("tr")] == [
        "baseline",
        "baseline, label smoothing 0.1",
    ]
    assert "undecided (n = 1)" in soup.find(id="claim-smoothing").get_text().lower()
