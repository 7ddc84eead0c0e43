"""Contradictions within a record: whatever it says twice is compared."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from labkit.core.config import DATASETS
from labkit.core.data import CHECKSUMS
from labkit.core.measures import STATISTICS, calibration_size, kept_as, sample_size
from labkit.store.integrity import record_sha256
from labkit.store.record import DamagedError, Record, StoreError
from labkit.store.run import Run


def record_problems(path: Path) -> list[str]:
    """What in a record does not fit the rest of it, each with its place; none for a good one."""
    return audited(path)[1]


def audited(path: Path) -> tuple[Run | None, list[str]]:
    """The run whose record is at `path`, if it can be read, and `record_problems`."""
    try:
        record = Record.read(path, altered=True)
    except DamagedError as error:
        return None, [f"{error.reason}."]
    except (StoreError, FileNotFoundError) as error:
        return None, [f"{str(error).rstrip('.')}."]
    problems = [f"{place}: {said}." for place, said in _misfits(record)]
    if not problems and record.content["sha256"] != record_sha256(record.content):
        problems.append(
            "its content does not have the checksum that it states; the change is in something "
            "that nothing else repeats, such as its provenance or the checksum itself."
        )
    if not problems and json.dumps(record.content, indent=1).encode() != record.text:
        problems.append(
            "it says the same, but not as it was written: a number's last digit, or a space."
        )
    return record.run, problems


def _misfits(record: Record) -> Iterator[tuple[str, str]]:
    """Place and sentence for each part of a record that another part contradicts."""
    run, rows = record.run, record.content["history"]
    for number, row in enumerate(rows):
        mean = run.iteration_loss[number].astype(np.float64).mean()
        stated = math.nan if row["loss"] is None else row["loss"]
        both_missing = math.isnan(stated) and math.isnan(mean)
        # The order of a sum decides its last digits; the first records have 15 decimals.
        if not both_missing and not math.isclose(stated, mean, rel_tol=1e-12, abs_tol=1e-15):
            place = f"history[{number}].loss"
            yield place, f"{stated}, where its batch losses have the mean {mean}"
    known = run.data_sha256 == CHECKSUMS.get(run.config.dataset)
    sizes = DATASETS.get(run.config.dataset, (0, 0))  # own images are never known
    for statistics in STATISTICS:
        for split, images in zip(("train", "test"), sizes, strict=True):
            place = f"confusion.{kept_as(split, statistics)}"
            counts = run.counts(split, statistics)
            total, right = counts.sum(), np.trace(counts)
            if known and total not in (0, images):
                yield place, f"it counts {total} answers to {images} images"
            column = kept_as(f"{split}_accuracy", statistics)
            shares = [row.get(column) for row in rows]
            if total and (shares[-1] is None or not abs(shares[-1] * total - right) < 1e-6):
                where = f"history[{len(rows) - 1}].{column}"
                yield where, f"{shares[-1]}, where {place} has {right} right answers"
            asked = {total}
            if split == "train":  # older records have it on twice the sample, the oldest on all
                asked |= {sample_size(total), calibration_size(total) // 2}
            for number, share in enumerate(shares[:-1]):
                if share is None:
                    continue
                counted = [
                    abs(share * n - round(share * n)) < 1e-6 for n in asked if 0 <= share <= 1
                ]
                if not any(counted):
                    where = f"history[{number}].{column}"
                    yield where, f"{share}, which is no share of {max(asked)} answers"
            yield from _answers(run, split, statistics, place)


def _answers(run: Run, split: str, statistics: str, place: str) -> Iterator[tuple[str, str]]:
    """What of the recorded answers the confusion counts at `place` contradict."""
    counts = run.counts(split, statistics)
    if split == "test":
        labels, predicted = run.test_labels, run.predicted(statistics)
        confidence = run.confidence(statistics)
        if len(confidence) != len(predicted) or not ((confidence > 0) & (confidence <= 1)).all():
            yield f"{statistics} confidence", "not a probability for every test image"
    else:
        predicted = run.measure(f"{statistics}_train_predicted")
        labels = np.repeat(np.arange(len(counts)), counts.sum(1))  # they are recorded by class
        bins = run.measure(f"{statistics}_train_confidence")
        by_right = [counts.sum() - np.trace(counts), np.trace(counts)]
        if bins.size and bins.sum(1).tolist() != by_right:
            yield f"{statistics}_train_confidence", "its sums are not the wrong and right answers"
    if not len(predicted):  # older than the measure, or diverged
        if split == "test" and counts.any():
            yield place, f"it counts {counts.sum()} answers, where none are recorded"
    elif len(labels) != len(predicted):
        yield place, f"it counts {len(labels)} answers, where {len(predicted)} are recorded"
    else:
        found = np.zeros_like(counts)
        np.add.at(found, (labels, predicted), 1)
        for true, answer in np.argwhere(found != counts):
            said = f"{counts[true, answer]}, where the predictions have {found[true, answer]}"
            yield f"{place}[{true}][{answer}]", said
