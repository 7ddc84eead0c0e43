"""What in a record another part of it contradicts: whatever stands twice is compared."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from labkit.core.config import DATASETS
from labkit.core.data import CHECKSUMS
from labkit.core.log import plain
from labkit.core.measures import STATISTICS, kept_as, sample_size
from labkit.store.files import version
from labkit.store.folder import StoreError, parts
from labkit.store.integrity import record_sha256
from labkit.store.run import Run


def record_problems(path: Path) -> list[str]:
    """What in a record does not fit the rest of it, each with its place; none for a good one."""
    before = version(path)
    try:
        problems = list(_problems(path))
    except StoreError as error:
        problems = [str(error)]
    except (OSError, ValueError) as error:
        problems = [f"{plain(str(error)).rstrip('.')}."]
    if problems and version(path) != before:  # another process has just replaced it
        return record_problems(path)
    return problems


def _problems(path: Path) -> Iterator[str]:
    """As `record_problems`; what makes it none at all is raised."""
    text, _, record, run = parts(path)
    found = [f"{place}: {said}." for place, said in _misfits(run, record)]
    yield from found
    if found:
        return
    if record["sha256"] != record_sha256(record):
        yield (
            "its content does not have the checksum that it states; the change is in something "
            "that nothing else repeats, such as its provenance or the checksum itself."
        )
    elif json.dumps(record, indent=1).encode() != text:
        yield "it says the same, but not as it was written: a number's last digit, or a space."


def _misfits(run: Run, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Place and sentence for each part of a record that another part contradicts."""
    dataset, known = run.config.dataset, run.data_sha256 == CHECKSUMS.get(run.config.dataset)
    sizes = dict(zip(("train", "test"), DATASETS[dataset], strict=True))
    for number, row in enumerate(record["history"]):
        mean = run.iteration_loss[number].astype(np.float64).mean()
        stated = math.nan if row["loss"] is None else row["loss"]
        both_missing = math.isnan(stated) and math.isnan(mean)
        # The order of a sum decides its last digits; the first records have 15 decimals.
        if not both_missing and not math.isclose(stated, mean, rel_tol=1e-12, abs_tol=1e-15):
            yield (
                f"history[{number}].loss",
                f"{stated}, where its batch losses have the mean {mean}",
            )
    for statistics in STATISTICS:
        for split, images in sizes.items():
            place = f"confusion.{kept_as(split, statistics)}"
            column = kept_as(f"{split}_accuracy", statistics)
            counts = run.counts(split, statistics)
            total, right = counts.sum(), np.trace(counts)
            if known and total and total != images:
                yield place, f"it counts {total} answers to {images} images"
            for number, row in enumerate(record["history"]):
                where, share = f"history[{number}].{column}", row.get(column)
                if number == run.config.epochs - 1:
                    if total and (share is None or not abs(share * total - right) < 1e-6):
                        yield where, f"{share}, where {place} has {right} right answers"
                elif share is not None:
                    # Records from before there were samples have it on all training images.
                    asked = {total, sample_size(total)} if split == "train" else {total}
                    if not any(abs(share * n - round(share * n)) < 1e-6 for n in asked):
                        yield where, f"{share}, which is no share of {max(asked)} answers"
            yield from _answers(run, split, statistics, place, counts)


def _answers(
    run: Run, split: str, statistics: str, place: str, counts: np.ndarray
) -> Iterator[tuple[str, str]]:
    """What of the recorded answers the confusion counts contradict."""
    if split == "test":
        labels, predicted = run.test_labels, run.predicted(statistics)
        confidence = run.confidence(statistics)
        if len(confidence) != len(predicted) or not ((confidence > 0) & (confidence <= 1)).all():
            yield f"{statistics} confidence", "not a probability for every test image"
    else:
        predicted = run.measure(f"{statistics}_train_predicted")
        labels = np.repeat(np.arange(10), counts.sum(1))  # they are recorded by class
        bins = run.measure(f"{statistics}_train_confidence")
        by_right = [counts.sum() - np.trace(counts), np.trace(counts)]
        if bins.size and bins.sum(1).tolist() != by_right:
            yield f"{statistics}_train_confidence", "its sums are not the wrong and right answers"
    if not len(predicted):  # older than the measure, or diverged
        if split == "test" and counts.any():
            yield place, f"it counts {counts.sum()} answers, where none are recorded"
        return
    if len(labels) != len(predicted):
        yield place, f"it counts {len(labels)} answers, where {len(predicted)} are recorded"
        return
    found = np.zeros((10, 10), int)
    np.add.at(found, (labels, predicted), 1)
    for true, answer in np.argwhere(found != counts):
        said = f"{counts[true, answer]}, where the predictions have {found[true, answer]}"
        yield f"{place}[{true}][{answer}]", said
