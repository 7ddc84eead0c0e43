"""Dependencies stand in pyproject.toml once, and their versions in its extra `pinned` once."""

import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = [Requirement(line) for line in EXTRAS["pinned"]]


def test_every_dependency_is_pinned_to_a_version_that_it_allows():
    pins = {canonicalize_name(pin.name): pin for pin in PINNED}
    assert len(pins) == len(PINNED)
    for line in PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["cluster"]:
        wanted = Requirement(line)
        (pin,) = pins[canonicalize_name(wanted.name)].specifier
        assert pin.operator == "==", line
        assert wanted.specifier.contains(pin.version), line


def test_environment_yml_installs_from_pyproject_and_repeats_nothing():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["--editable .[dev,pinned]"]}
    python = next(line for line in conda if line.startswith("python="))
    assert python.removeprefix("python=") in PROJECT["requires-python"]
    assert set(conda) == {python, "pip"}
    assert "'.[dev,pinned]'" in (ROOT / "Makefile").read_text()  # make installs the same


def test_importing_labkit_only_defines_names_and_training_needs_no_matplotlib():
    check = """
import labkit, sys
labkit.Config()
assert not {"torch", "matplotlib", "pandas", "fastjsonschema"} & sys.modules.keys()
import labkit.lab.experiment
assert "matplotlib" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_the_readmes_example_works_as_written(monkeypatch):
    import re

    from helpers import made_up_run

    monkeypatch.setattr("labkit.core.data.checksum", lambda dataset: "made up")

    def training(config, *rest):
        yield
        return made_up_run(
            losses=(2.0, 1.0, 0.5), lr=config.lr, seed=config.seed, optimizer=config.optimizer
        )

    monkeypatch.setattr("labkit.lab.dispatch.training_steps", training)
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert list(names["runs"]) == [
        "baseline, SGD",
        "learning rate 0.03, SGD",
        "learning rate 0.1, SGD",
    ]
