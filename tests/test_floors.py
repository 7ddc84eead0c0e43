"""The package reads from its file tree: each folder is a floor, and imports only those below it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import labkit

BELOW = {
    "core": (),
    "store": ("core",),
    "lab": ("store", "core"),
    "judge": ("store", "core"),
    "show": ("judge", "store", "core"),
    "report": ("show", "judge", "lab", "store", "core"),
}
MODULES = {
    f"labkit.{path.parent.name}.{path.stem}": path
    for path in Path(labkit.__file__).parent.glob("*/*.py")
}


def imports(path: Path) -> Iterator[str]:
    """What of labkit a module imports, in its functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES else node.module for name in found]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] == "labkit")


def test_a_floor_imports_only_those_below():
    for module, path in MODULES.items():
        floor = module.split(".")[1]
        for other in imports(path):
            allowed = [f"labkit.{name}." for name in (floor, *BELOW[floor])]
            assert other.startswith(tuple(allowed)), f"{module} imports {other}"


def test_no_module_imports_itself_in_a_circle():
    TopologicalSorter({module: set(imports(path)) for module, path in MODULES.items()}).prepare()


def test_public_names_lead_to_their_homes_and_only_training_needs_torch():
    source = """
import sys
from labkit import Config, ConfigError, LabkitError, vary
from labkit import conclusions, notebook, plots, reasons, recipes, tables
assert vary(Config(), lr=[0.1]) and issubclass(ConfigError, LabkitError)
from labkit import run, run_all
assert tables.__name__ == "labkit.show.tables" and run.__module__ == "labkit.lab.experiment"
(found,) = run_all({"": Config(dataset="mnist")})[""]  # which is recorded
assert found.recorded and "torch" not in sys.modules
from labkit import *
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
