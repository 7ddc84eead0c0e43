"""The first cell of a notebook: its parameters checked before anything is trained."""

import ast
import difflib
import os
from collections.abc import Sequence
from typing import Any

from labkit.config import ACTIVATIONS, Config, ConfigError, names, seed_range, vary


def smoke() -> bool:
    """Whether `$LABKIT_SMOKE` asks for one epoch of one seed, to see that everything runs."""
    return os.environ.get("LABKIT_SMOKE", "") not in ("", "0")


def start(
    *, dataset: Any, epochs: Any, seeds: Any, device: Any, retrain: Any
) -> tuple[Config, dict[str, Any]]:
    """The baseline's config, and the options for `run_all`, from a notebook's parameters.

    Raises:
        LabkitError: a value is not possible, or papermill handed over a parameter that the
            notebook does not have (papermill itself only warns of that).
    """
    from labkit import data, experiment  # here, since they bring torch along

    check_injected(_cells_so_far())
    base = Config(dataset=dataset, epochs=1 if smoke() else epochs)
    count = 1 if smoke() else len(seed_range(seeds))
    data.find_device(device)
    experiment.retrain_before(retrain)
    return base, {"seeds": count, "device": device, "retrain": retrain}


def compared(
    base: Config, *, activations: Any = None, lr: Any = None, batch_size: Any = None
) -> dict[str, Config]:
    """The settings that a notebook compares: its parameter's values beside the baseline's.

    Raises:
        ConfigError: a value is not possible, or is the baseline's own.
    """
    if activations is not None:
        return vary(base, activation=names("activations", activations, ACTIVATIONS))
    if lr is not None:
        return vary(base, lr=[base.lr, lr])
    return vary(base, batch_size=[base.batch_size, batch_size])


def check_injected(cells: Sequence[str]) -> None:
    """Refuse a parameter that papermill injected and that no cell before it has set.

    Args:
        cells: the sources of the cells that ran so far; papermill's own begins with "# Parameters".

    Raises:
        ConfigError: names the parameter and the nearest right one.
    """
    known: set[str] = set()
    for cell in cells:
        if cell.startswith("# Parameters\n"):
            check_names(assigned(cell), known)
        else:
            known |= assigned(cell)


def check_names(given: set[str], known: set[str]) -> None:
    """Refuse parameters that are not known.

    Raises:
        ConfigError: names the first of them and the nearest right one.
    """
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"there is no parameter {name!r}; the parameters are {', '.join(sorted(known))}.{hint}"
        )


def assigned(source: str) -> set[str]:
    """The names that a cell's top level assigns; none if it is not plain Python (a magic, say)."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    found: set[str] = set()
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _cells_so_far() -> list[str]:
    try:
        return list(get_ipython().user_ns["In"])
    except NameError:  # not in a notebook
        return []
