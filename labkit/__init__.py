"""labkit: an executable lab report on ResNet-18 and MNIST.

`run(config)` gives the recorded or newly trained run of a `Config`; `tables`, `plots` and
`conclusions` read runs. Heavy parts are imported when they are first used.
"""

import importlib
from typing import Any

from labkit.core.version import __version__ as __version__

#: Every public name, and where it lives.
HOMES = {
    "Config": "core.config",
    "ConfigError": "core.values",
    "LabkitError": "core.values",
    "vary": "core.config",
    "run": "lab.experiment",
    "run_all": "lab.experiment",
    "Claim": "judge.own",
    "read_claims": "judge.own",
    "recipes": "judge.recipes",
    "landscape": "judge.landscape",
    "tables": "show.tables",
    "plots": "show.plots",
    "conclusions": "show.conclusions",
    "reasons": "show.reasons",
    "gallery": "show.gallery",
    "notebook": "report.notebook",
}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    home = importlib.import_module(f"labkit.{HOMES[name]}")
    return home if HOMES[name].endswith(f".{name}") else getattr(home, name)


def __dir__() -> list[str]:
    return [*globals(), *HOMES]
