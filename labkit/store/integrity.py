"""What a record and the header of a checkpoint must have, whoever wrote them.

Every reader may rely on it. A `ValueError` here is a sentence without its end that names the place.
"""

import hashlib
import io
import json
import math
import re
import sys
import zipfile
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np

from labkit.core.config import DATASETS, Config, identity
from labkit.core.measures import CONFIDENCE_EDGES, MEASURES
from labkit.store.run import HISTORY

#: The arrays that every record has: type and axes, of which "answers" are those to the test images.
#: Each of `MEASURES` may be there as well.
ARRAYS = {
    "iteration_loss": ("<f4", ("epochs", "iterations")),
    "test_labels": ("|u1", ("answers",)),
    "test_predicted": ("|u1", ("answers",)),
    "test_confidence": ("<f4", ("answers",)),
}
MOST_ARRAYS = 2**28  # bytes of a record's arrays, packed, and of each when unpacked
MOST_TEXT = 200  # characters of a name, a version or a date
NPY_HEADER = 256  # bytes before the numbers; numpy writes 128

SETTINGS = {field.name for field in fields(Config)}
KINDS = ARRAYS | {name: (measure.kind, measure.axes) for name, measure in MEASURES.items()}
#: The axes of measures along which a record names its layers; of each at most so many.
LAYERS = ("weights", "activations", "normalizations")
MOST_LAYERS, MOST_MOMENTS = 1000, 100


def record_sha256(record: dict[str, Any]) -> str:
    """SHA-256 of a record's content, whatever its spaces and the order of its keys."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_record(record: dict[str, Any], name: str) -> Config:
    """The config of a record, after a look at all of it that readers use, but for its arrays.

    Args:
        name: the run's, by which the record is kept.

    Raises:
        ValueError: names the place in it that is not as in any record.
    """
    config = check_identity(record, name)
    history, provenance = record.get("history"), record.get("provenance")
    _need(
        isinstance(history, list) and len(history) == config.epochs,
        "history",
        len(history) if isinstance(history, list) else history,
        f"a list of {config.epochs} epochs",
    )
    check_epochs(history)
    for number, row in enumerate(history):
        good = row.keys() >= set(HISTORY) and row.keys() == history[0].keys()
        _need(good, f"history[{number}]", [*row], f"{', '.join(HISTORY)}, and alike in all epochs")
        _need(row["epoch"] == number, f"history[{number}].epoch", row["epoch"], str(number))
    confusion = record.get("confusion")
    splits = isinstance(confusion, dict) and confusion.keys() >= {"train", "test"}
    _need(splits, "confusion", confusion, "counts for train and test")
    for split, counts in confusion.items():
        good = isinstance(counts, list) and len(counts) == 10
        good = good and all(isinstance(row, list) and len(row) == 10 for row in counts)
        good = good and all(_whole(count) for row in counts for count in row)
        _need(good, f"confusion.{split}", counts, "10 × 10 counts")
    layers = record.get("layers", {})
    good = isinstance(layers, dict) and layers.keys() <= set(LAYERS)
    good = good and all(isinstance(names, list) for names in layers.values())
    good = good and all(0 < len(names) <= MOST_LAYERS for names in layers.values())
    good = good and all(_text(name) for names in layers.values() for name in names)
    _need(good, "layers", layers, f"names for {', '.join(LAYERS)}")
    check_provenance(provenance)
    seconds = provenance.get("seconds")
    _need(_measured(seconds), "provenance.seconds", seconds, "a number")
    arrays, stated = record.get("arrays"), record.get("sha256")
    _need(isinstance(arrays, dict), "arrays", arrays, "a file and its checksum")
    sha256, file = arrays.get("sha256"), arrays.get("file")
    _need(_sha256(sha256), "arrays.sha256", sha256, "a SHA-256")
    _need(file == f"{name}-{sha256[:12]}.npz", "arrays.file", file, f"{name}-{sha256[:12]}.npz")
    _need(_sha256(stated), "sha256", stated, "a SHA-256")
    return config


def check_header(header: dict[str, Any], name: str) -> Config:
    """The config of a checkpoint, after a look at all of its header.

    Raises:
        ValueError: names the place in it that is not as in any checkpoint.
    """
    config = check_identity(header, name)
    check_provenance(header.get("provenance"))
    threads, done = header["provenance"].get("threads"), header.get("iterations")
    _need(_whole(threads) and 0 < threads < 2**12, "provenance.threads", threads, "a whole number")
    good = isinstance(done, list) and len(done) == 3 and all(map(_whole, done))
    good = good and 0 <= done[0] <= done[2] == config.epochs * done[1] > 0
    _need(good, "iterations", done, "those done, of an epoch, and in all")
    for place in ("seconds", "epoch_seconds"):
        _need(_measured(header.get(place)), place, header.get(place), "a number")
    history = header.get("history")
    good = isinstance(history, list) and len(history) == done[0] // done[1]
    _need(good, "history", history, f"the {done[0] // done[1]} epochs that are done")
    check_epochs(history)
    return config


def check_identity(content: dict[str, Any], name: str) -> Config:
    """The config of the run that is meant, after a look at config, recipe and data.

    Raises:
        ValueError: they are none, or those of another run than `name`.
    """
    settings, recipe = content.get("config"), content.get("recipe")
    good = isinstance(settings, dict) and settings.keys() <= SETTINGS
    good = good and all(_text(value) or _number(value) for value in settings.values())
    _need(good, "config", settings, "settings of a Config")
    try:
        config = Config(**settings)
    except ValueError as error:
        raise ValueError(f"config: {str(error).rstrip('.')}") from None
    _need(_whole(recipe), "recipe", recipe, "a whole number")
    _need(_text(content.get("data_sha256")), "data_sha256", content.get("data_sha256"), "a SHA-256")
    named = identity(settings, recipe, content["data_sha256"])
    if named != name:
        raise ValueError(
            "it is of another run than its name says: its config, recipe or data_sha256 belong to "
            f"the run {named}"
        )
    return config


def check_provenance(provenance: Any) -> None:
    """Look at what every reader uses of where a run comes from.

    Raises:
        ValueError: names the part that cannot be.
    """
    _need(isinstance(provenance, dict), "provenance", provenance, "names and values")
    for name in ("date", "commit", "device"):
        text = provenance.get(name)
        _need(_text(text), f"provenance.{name}", text, "text of a line")
    date = provenance["date"]
    try:
        in_utc = datetime.fromisoformat(date).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        in_utc = ""
    _need(date == in_utc, "provenance.date", date, "a date as 2026-11-30T18:00:00+00:00")
    versions, resumed = provenance.get("versions"), provenance.get("resumed", [])
    good = isinstance(versions, dict) and _text(versions.get("torch"))
    good = good and all(v is None or _text(v) or _number(v) for v in versions.values())
    _need(good, "provenance.versions", versions, "torch's and others")
    good = isinstance(resumed, list) and all(isinstance(again, dict) for again in resumed)
    _need(good, "provenance.resumed", resumed, "a list")


def check_epochs(history: list[Any]) -> None:
    """Look at the rows of a history: numbers by name, None where there is none.

    Raises:
        ValueError: names the row that is not so.
    """
    for number, row in enumerate(history):
        good = isinstance(row, dict)
        good = good and all(value is None or _number(value) for value in row.values())
        _need(good, f"history[{number}]", row, "numbers by name")


def unpack(
    packed: bytes, sha256: str, config: Config, layers: dict[str, list[str]]
) -> dict[str, np.ndarray]:
    """The arrays of a run of `config`, read without executing anything.

    Takes no more memory than such a run can need, whatever the archive says of itself.

    Args:
        packed: an npz file.
        sha256: its checksum, as the record states it.
        layers: the names of the layers along each axis in `LAYERS`.

    Raises:
        ValueError: it is damaged, or holds other arrays than such a run can have.
    """
    if hashlib.sha256(packed).hexdigest() != sha256:
        raise ValueError("arrays: they do not have the checksum that the record states")
    train, test = DATASETS[config.dataset]
    exact = {"epochs": config.epochs, "right": 2, "bins": len(CONFIDENCE_EDGES) - 1}
    exact |= {axis: len(names) for axis, names in layers.items()}
    most = dict.fromkeys(LAYERS, 0) | {"answers": test, "images": train, "moments": MOST_MOMENTS}
    most |= {"iterations": -(-train // config.batch_size)} | exact
    sizes = dict(exact)
    found = {}
    try:
        if packed.count(b"PK\1\2") > 99:  # a list of members that takes memory by itself
            raise ValueError("they are too many")
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            for name in (name for name in KINDS if f"{name}.npy" in archive.namelist()):
                found[name] = _array(name, archive, most, sizes)
    except MemoryError:
        raise
    except Exception as error:  # as many kinds as there are ways to spoil an archive
        said = str(error) or type(error).__name__
        raise ValueError(f"arrays: they cannot be read ({said})") from error
    missing = ARRAYS.keys() - found.keys()
    _need(not missing, "arrays", [*found], f"all of {', '.join(ARRAYS)}")
    return found


def _array(
    name: str, archive: zipfile.ZipFile, most: dict[str, int], sizes: dict[str, int]
) -> np.ndarray:
    """One array of an archive; adds the lengths of its axes to `sizes`, or finds them there."""
    kind, axes = KINDS[name]
    allowed = NPY_HEADER + np.dtype(kind).itemsize * math.prod(most[axis] for axis in axes)
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in an unknown way")
    with archive.open(member) as file:  # what it says of its size may be false
        content = io.BytesIO(file.read(min(allowed, MOST_ARRAYS) + 1))
    if content.getbuffer().nbytes > min(allowed, MOST_ARRAYS):
        raise ValueError(f"{name} is larger than such a run can need")
    if np.lib.format.read_magic(content) != (1, 0):
        raise ValueError(f"{name} is in an unknown format")
    header = np.lib.format.read_array_header_1_0(content, max_header_size=NPY_HEADER)
    shape, transposed, dtype = header
    if dtype != np.dtype(kind) or transposed or len(shape) != len(axes):
        raise ValueError(f"{name} is {dtype}{list(shape)} instead of {kind}[{', '.join(axes)}]")
    for axis, length in zip(axes, shape, strict=True):
        least = axis not in ("answers", "images")  # a run that diverged gives none
        if sizes.setdefault(axis, length) != length or not least <= length <= most[axis]:
            raise ValueError(f"{name} has {length} {axis}")
    array = np.frombuffer(content.read(), dtype).reshape(shape).copy()
    if kind == "|u1" and array.max(initial=0) > 9:
        raise ValueError(f"{name} has a class above 9")
    return array


def _need(good: Any, place: str, found: Any, wanted: str) -> None:
    if not good:
        raise ValueError(f"{place} is {repr(found)[:MOST_TEXT]}; it must be {wanted}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _measured(value: Any) -> bool:
    return _number(value) and not isinstance(value, bool) and value >= 0


def _text(value: Any) -> bool:
    # Halves of characters, which JSON can state, cannot be written anywhere.
    good = isinstance(value, str) and len(value) <= MOST_TEXT
    return good and re.search("[\ud800-\udfff]", value) is None


def _sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
