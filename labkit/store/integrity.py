"""What a record and the header of a checkpoint must have, whoever wrote them.

Every reader may rely on it. formats.schema.json says what each place may hold; here is what one
place must be for the sake of another. A `ValueError` is a sentence without its end that names the
place.
"""

import functools
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
from fastjsonschema import JsonSchemaValueException

from labkit.core.config import DATASETS, DIGITS, MOST_IMAGES, Config, identity
from labkit.core.measures import CONFIDENCE_EDGES
from labkit.core.values import class_names
from labkit.store.run import ALL_ARRAYS, ARRAYS

MOST_ARRAYS = 2**28  # bytes of a record's arrays, packed, and of each when unpacked
MOST_TEXT = 200  # characters of a value in a sentence
NPY_HEADER = 256  # bytes before the numbers; numpy writes 128
MOST_MOMENTS = 100
LAYERS = ("weights", "activations", "normalizations")  # the axes along which layers are named


def record_sha256(record: dict[str, Any]) -> str:
    """SHA-256 of a record's content, whatever its spaces and the order of its keys."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check(kind: str, content: dict[str, Any], name: str) -> Config:
    """The config of a "record" or of the header of a "checkpoint", once all that readers use has
    been checked; `name` is the name of the run, under which the file is kept.

    Raises:
        ValueError: names the place that holds what no such file can hold.
    """
    _check_places(kind, content)
    settings, date = content["config"], content["provenance"]["date"]
    try:
        config = Config(**settings)
    except ValueError as error:
        raise ValueError(f"config: {str(error).rstrip('.')}") from None
    stated = settings.get("model", config.model)
    _need(stated == config.model, "config.model", stated, "a network and its source's checksum")
    named = identity(settings, content["recipe"], content["data_sha256"])
    if named != name:
        raise ValueError(
            "it is of another run than its name says: its config, recipe or data_sha256 belong to "
            f"the run {named}"
        )
    try:
        in_utc = datetime.fromisoformat(date).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        in_utc = None
    _need(date == in_utc, "provenance.date", date, "a date as 2026-11-30T18:00:00+00:00")
    epochs, history = config.epochs, content["history"]
    if kind == "checkpoint":
        done, each, total = content["iterations"]
        good = done <= total == config.epochs * each > 0
        _need(good, "iterations", [done, each, total], "how many are done, per epoch, and in all")
        epochs = done // each
        # Stopped right after an epoch's last update, it is still to be evaluated.
        epochs -= epochs > 0 and done % each == 0 and len(history) < epochs
    _need(len(history) == epochs, "history", len(history), f"a list of {epochs} epochs")
    if kind == "record":
        for number, row in enumerate(history):
            alike = row.keys() == history[0].keys()
            _need(alike, f"history[{number}]", [*row], "alike in all epochs")
            _need(row["epoch"] == number, f"history[{number}].epoch", row["epoch"], str(number))
        classes = class_names("classes", content.get("classes", list(DIGITS)))
        fits = len(classes) == len(DIGITS) or config.dataset not in DATASETS
        _need(fits, "classes", classes, f"as many as {config.dataset} has")
        for split, counts in content["confusion"].items():
            _need(
                {len(counts), *map(len, counts)} == {len(classes)},
                f"confusion.{split}",
                counts,
                f"{len(classes)} × {len(classes)} counts",
            )
        file = f"{name}-{content['arrays']['sha256'][:12]}.npz"
        _need(content["arrays"]["file"] == file, "arrays.file", content["arrays"]["file"], file)
    return config


def _check_places(kind: str, content: dict[str, Any]) -> None:
    """Look at each place by itself."""
    try:
        _validator(kind)(content)
    except JsonSchemaValueException as error:
        place, wanted = error.name.removeprefix("data."), error.definition
        if error.rule == "required":
            missing = next(key for key in wanted["required"] if key not in error.value)
            place = missing if error.name == "data" else f"{place}.{missing}"
            part = wanted.get("properties", {}).get(missing)
            must = f"; it must be {_description(part)}" if part else ""
            raise ValueError(f"{place} is missing{must}") from None
        _need(False, place, error.value, wanted["description"])


@functools.cache
def _schema() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("formats.schema.json").read_text("utf-8"))


@functools.cache
def _validator(kind: str) -> Callable[[Any], Any]:
    return fastjsonschema.compile(_schema() | {"$ref": f"#/definitions/{kind}"})


def _description(part: dict[str, Any]) -> str:
    """What must stand in a place, as its schema or the one that it refers to says."""
    if "$ref" in part:
        part = _schema()["definitions"][part["$ref"].rpartition("/")[2]]
    return part["description"]


def unpack(
    packed: bytes, config: Config, layers: dict[str, list[str]], classes: int
) -> dict[str, np.ndarray]:
    """The arrays of a run of `config`, read without executing anything.

    Takes no more memory than such a run can need, whatever the archive says of itself.

    Args:
        packed: an npz file.
        layers: the names of the layers along the axes of measures.
        classes: how many there are.

    Raises:
        ValueError: it is damaged, or holds other arrays than such a run can have.
    """
    train, test = DATASETS.get(config.dataset, (MOST_IMAGES, MOST_IMAGES))
    exact = {"epochs": config.epochs, "right": 2, "bins": len(CONFIDENCE_EDGES) - 1}
    exact |= dict.fromkeys(LAYERS, 0) | {axis: len(names) for axis, names in layers.items()}
    most = {"answers": test, "images": train, "moments": MOST_MOMENTS}
    most |= {"iterations": -(-train // config.batch_size)} | exact
    found = {}
    try:
        if packed.count(b"PK\1\2") > 99:  # a list of members that takes memory by itself
            raise ValueError("they are too many")
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            for name in ALL_ARRAYS:
                if f"{name}.npy" in archive.namelist():
                    found[name] = _array(name, archive, most, exact, classes)
    except MemoryError:
        raise
    except Exception as error:  # as many kinds as there are ways to spoil an archive
        said = str(error) or type(error).__name__
        raise ValueError(f"arrays: they cannot be read ({said})") from error
    _need(ARRAYS.keys() <= found.keys(), "arrays", [*found], f"all of {', '.join(ARRAYS)}")
    return found


def _array(
    name: str, archive: zipfile.ZipFile, most: dict[str, int], sizes: dict[str, int], classes: int
) -> np.ndarray:
    """One array of an archive; adds the lengths of its axes to `sizes`, or finds them there."""
    kind, axes = ALL_ARRAYS[name].kind, ALL_ARRAYS[name].axes
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in an unknown way")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is in an unknown format")
        header = np.lib.format.read_array_header_1_0(file, max_header_size=NPY_HEADER)
        shape, transposed, dtype = header
        if dtype != np.dtype(kind) or transposed or len(shape) != len(axes):
            raise ValueError(f"{name} is {dtype}{list(shape)} instead of {kind}[{', '.join(axes)}]")
        for axis, length in zip(axes, shape, strict=True):
            least = axis not in ("answers", "images")  # a run that diverged gives none
            if sizes.setdefault(axis, length) != length or not least <= length <= most[axis]:
                raise ValueError(f"{name} has {length} {axis}")
        size = dtype.itemsize * math.prod(shape)
        content = file.read(
            min(size, MOST_ARRAYS) + 1
        )  # and no more, whatever the archive says of its size
    if len(content) != size:
        raise ValueError(f"{name} is not as long as it says")
    found = np.frombuffer(content, dtype).reshape(shape).copy()
    if kind == "|u1" and found.max(initial=0) >= classes:
        raise ValueError(f"{name} has a class above {classes - 1}")
    return found


def _need(good: bool, place: str, found: Any, wanted: str) -> None:
    if not good:
        raise ValueError(f"{place} is {repr(found)[:MOST_TEXT]}; it must be {wanted}")
