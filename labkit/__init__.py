"""labkit: an executable lab report on ResNet-18 and MNIST.

`run(config)` gives the recorded or newly trained run of a `Config`; `tables`, `plots` and
`conclusions` read runs. Heavy parts are imported when they are first used.
"""

import importlib
from typing import Any

from labkit.config import Config, vary
from labkit.values import ConfigError, LabkitError
from labkit.version import __version__ as __version__

__all__ = ["Config", "ConfigError", "LabkitError", "run", "run_all", "vary"]


def __getattr__(name: str) -> Any:
    # These bring torch along, which takes seconds to import; a reader of records needs none.
    if name in ("run", "run_all"):
        return getattr(importlib.import_module("labkit.experiment"), name)
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")
