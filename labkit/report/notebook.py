"""The first cell of a notebook: its parameters checked before anything is trained."""

import ast
import builtins
import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labkit.core import data
from labkit.core.config import ACTIVATIONS, Config, read_field, seed_range, vary
from labkit.core.device import check_device
from labkit.core.values import ConfigError, names
from labkit.lab.reuse import retrain_before

#: The parameters of labkit's notebooks that say what is compared with the baseline.
COMPARED = {"activations", "lr", "batch_size"}


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
    check(device=device)
    base = checked(dataset=dataset, epochs=1 if smoke() else epochs, seeds=seeds, retrain=retrain)
    count = 1 if smoke() else len(seed_range(seeds))
    return base, {"seeds": count, "device": device, "retrain": retrain}


def check(*, device: Any) -> None:
    """Check what papermill handed over, and the device.

    Raises:
        LabkitError: the notebook has no such parameter, or this machine no such device.
    """
    if shell := getattr(builtins, "get_ipython", None):  # in a notebook
        check_injected(shell().user_ns["In"])
    checked(device=device)


def checked(ours: bool = True, /, **values: Any) -> Config:
    """The baseline's config by any parameters of notebooks, after a check of each that labkit
    knows: its own notebooks', and what is named as a field of `Config`.

    Args:
        ours: whether the notebooks are labkit's, and so compare these values with the baseline's.

    Raises:
        LabkitError: a value is not possible, or the images are not to be had.
    """
    base = Config(**{name: values[name] for name in ("dataset", "epochs") if name in values})
    data.checksum(base.dataset)  # which loads what nothing is known of
    settings = [base]
    for name, value in values.items():
        if name in ("seeds", "recipe_seeds"):
            seed_range(value, name)
        elif name == "device":
            check_device(value)
        elif name == "retrain":
            retrain_before(value)
        elif ours and name in COMPARED:
            settings += compared(base, **{name: value}).values()
        elif name in Config.__dataclass_fields__:
            read_field(name, value)
    for config in settings:
        config.check_batches(data.training_images(base.dataset))
    return base


def compared(
    base: Config, *, activations: Any = None, lr: Any = None, batch_size: Any = None
) -> dict[str, Config]:
    """The settings that a notebook compares: its parameter's values beside the baseline's.

    Raises:
        ConfigError: a value is not possible, or is the baseline's own.
    """
    if activations is not None:
        return vary(base, activation=names("activations", activations, ACTIVATIONS))
    name, value = ("batch_size", batch_size) if lr is None else ("lr", lr)
    if read_field(name, value) == getattr(base, name):
        raise ConfigError(
            f"{name} is {value!r}; it must differ from the baseline's, to compare them."
        )
    return vary(base, **{name: [getattr(base, name), value]})


def trained(values: Mapping[str, Any]) -> list[Config]:
    """What a notebook of labkit's with these parameters trains at least, unless it is recorded."""
    if not {"dataset", "epochs", "seeds"} <= values.keys():
        return []
    base = Config(dataset=values["dataset"], epochs=1 if smoke() else values["epochs"])
    settings = [base]
    for name in values.keys() & COMPARED:
        settings += compared(base, **{name: values[name]}).values()
    seeds = seed_range(1 if smoke() else values["seeds"])
    return [config.replace(seed=seed) for config in settings for seed in seeds]


def sizes(base: Config) -> tuple[int, int, int, int]:
    """Channels, height and width of the baseline's images, and how many classes they have."""
    return data.sizes(base.dataset)


def test_images(base: Config) -> np.ndarray | None:
    """The test images of the baseline's dataset, uint8 `[n, C, H, W]`; None, with a line that says
    why, where they are neither on disk nor to be downloaded: the records have none."""
    try:
        return data.load(base.dataset).test.images.numpy()
    except data.DataError as error:
        print(f"The images cannot be shown: {error}")
        return None


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
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]}?" if near else ""
        there = f"the parameters are {', '.join(sorted(known))}" if known else "there are none"
        raise ConfigError(f"there is no parameter {name!r}; {there}.{hint}")


def assigned(source: str) -> set[str]:
    """The names that a cell's top level assigns; none if it is not plain Python (a magic, say)."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return set()
    assignments = [part for part in statements if isinstance(part, ast.Assign | ast.AnnAssign)]
    nodes = [node for part in assignments for node in ast.walk(part) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
