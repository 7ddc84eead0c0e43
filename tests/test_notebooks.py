"""The notebooks as files, as papermill sees them, and run by its command line."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
from alterations import RECORDS

from labkit.core.values import ConfigError
from labkit.report.build import find_notebooks, notebook_folder
from labkit.report.notebook import assigned, check_injected
from labkit.report.verify import source
from labkit.show.figure import SVG

FOLDER = notebook_folder()
NOTEBOOKS = find_notebooks()
PATHS = list(NOTEBOOKS.values())


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    found = nbformat.read(path, as_version=4).cells
    return [c for c in found if (c.cell_type == kind) and "injected-parameters" not in tags(c)]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize("path", PATHS, ids=NOTEBOOKS)
def test_a_notebook_reads_like_a_report(path):
    code, prose = cells(path, "code"), cells(path, "markdown")
    assert len(prose) >= len(code)
    text = "\n".join(c.source for c in prose)
    titles = re.findall(r"^## (.*)$", text, re.M)
    results = ["Results"] if path.stem != "06_here" else []
    why = ["Why"] if path.stem < "05" else []
    assert titles == ["Question", "Method", "Conclusion", *results, *why, "Provenance"]
    for cell in code:
        if "parameters" not in tags(cell):
            assert len([line for line in cell.source.splitlines() if line.strip()]) <= 8
        assert not re.search(r"^\s*(def|class|for|while)\s|plt\.", cell.source, re.M)


@pytest.mark.parametrize("path", PATHS, ids=NOTEBOOKS)
def test_a_notebook_is_committed_executed_and_says_at_which_scale(path):
    code = cells(path, "code")
    assert all(c.execution_count for c in code)
    outputs = [o for c in code for o in c.outputs]
    assert not any(o.output_type == "error" for o in outputs)
    if path.stem != "06_here":
        banner = code[1].outputs[0].data["text/markdown"]
        assert "Paper scale" in banner or "Appendix, on full MNIST" in banner
        pictures = [o for o in outputs if SVG in o.get("data", {})]
        assert pictures and all(o.metadata[SVG]["alt"] for o in pictures)
    shown = path.read_text()
    assert str(Path.home()) not in shown and str(FOLDER.parent) not in shown  # no machine's paths


@pytest.mark.parametrize("path", PATHS, ids=NOTEBOOKS)
def test_papermill_explains_every_parameter(path):
    (cell,) = (c for c in cells(path, "code") if "parameters" in tags(c))
    known = papermill.inspect_notebook(path)
    assert set(known) == assigned(cell.source)  # papermill drops lines that it cannot read
    for name, parameter in known.items():
        assert parameter["help"], name
        assert parameter["inferred_type_name"] in ("str", "int", "float", "list"), name


def papermill_run(tmp_path: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command as a user would give it, from another folder."""
    command = [sys.executable, "-m", "papermill", FOLDER / f"{name}.ipynb", "out.ipynb", *options]
    command += ["-p", "dataset", "mnist-5k"]
    runs = f"{os.environ['LABKIT_RUNS']}{os.pathsep}{RECORDS}"
    environment = os.environ | {"LABKIT_SMOKE": "1", "LABKIT_RUNS": runs}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        # papermill only warns of a parameter that is not there
        (["lr", "0.05", "batchsize", "64"], "there is no parameter 'batchsize'"),
        (["lr", "fast"], "lr is 'fast'; it must be a number above 0."),
    ],
)
def test_a_notebook_refuses_a_parameter_before_anything_is_trained(
    options, said, own_store, monkeypatch
):
    values = dict(zip(options[::2], options[1::2], strict=True))
    ran: list[str] = []
    shell = SimpleNamespace(user_ns={"In": ran})
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    scope: dict[str, object] = {}
    with pytest.raises(ConfigError, match=re.escape(said)):
        for cell in source("03_lr", values).cells:
            if cell.cell_type == "code":
                ran.append(cell.source)
                exec(cell.source, scope)
    assert "runs" not in scope and not own_store.exists()


def test_papermill_runs_a_notebook_from_any_folder(tmp_path, own_store):
    done = papermill_run(tmp_path, "03_lr", "-p", "lr", "1e-1")
    assert done.returncode == 0, done.stderr
    out = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    text = "\n".join(
        str(o.get("data", {}).get("text/plain", ""))
        for c in out.cells
        for o in c.get("outputs", [])
    )
    assert "Smoke run" in text
    assert "learning rate 0.1 against baseline" in text
    assert not list(own_store.glob("*.json"))  # both were on record


def test_an_injected_parameter_must_be_one_that_the_notebook_has():
    cells = ["", "lr: float = 0.1\nseeds: int = 1", "# Parameters\nlr = 0.2\n", "import labkit"]
    check_injected(cells)
    cells[2] = '# Parameters\nlr = 0.2\nsedes = "3"\n'
    with pytest.raises(
        ConfigError, match=r"no parameter 'sedes'; .* are lr, seeds. Did you mean se"
    ):
        check_injected(cells)
    assert assigned("%matplotlib inline") == set()
