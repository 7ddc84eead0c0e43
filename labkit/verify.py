"""`labkit verify`: make every table and sentence of a page again from the records, and compare."""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from bs4 import BeautifulSoup, Tag
from nbconvert.filters import markdown2html

from labkit import conclusions, origin, report, tables
from labkit.config import DATASETS, Config, LabkitError, identity
from labkit.data import CHECKSUMS
from labkit.runs import Run
from labkit.store import Store, StoreError, checksum, load, refuse_newer


@dataclass
class Verdict:
    """What was compared, as kind → how many, and a sentence with the place for each difference."""

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def verify(target: Path) -> Verdict:
    """Check a page, a report's folder, an executed notebook, a folder of records or one record.

    Needs neither the data nor a GPU.

    Raises:
        LabkitError: there is nothing of that kind at `target`.
    """
    page = target / report.PAGE if target.is_dir() else target
    if page.suffix == ".html" and page.is_file():
        return verify_page(page)
    if target.suffix == ".ipynb" and target.is_file():
        executed = nbformat.read(target, as_version=4)
        return verify_shown(report.export(target.stem, executed).body, Store())
    records = sorted(target.glob("*.json")) if target.is_dir() else [target]
    if not records or target.suffix not in ("", ".json") or not target.exists():
        raise LabkitError(
            f"there is nothing to verify at {target}; name a page, an executed notebook, a record "
            "or a folder of records."
        )
    verdict = Verdict()
    for path in records:
        verdict.checked["records"] += 1
        verdict.problems += [f"record {path.stem}, {words}" for words in record_problems(path)]
    return verdict


def verify_page(page: Path) -> Verdict:
    """Check a page by the records beside it, else by the user's, and by its manifest."""
    store = Store(page.parent / "runs")
    store.places[1:1] = Store().places
    verdict = verify_shown(page.read_text(encoding="utf-8", errors="replace"), store)
    manifest = page.parent / report.MANIFEST
    if not manifest.is_file():
        return verdict
    try:
        files = dict(json.loads(manifest.read_bytes())["files"])
    except (ValueError, KeyError, TypeError) as error:
        verdict.problems.append(f"{manifest.name} is damaged: {error}.")
        return verdict
    for name, sha256 in files.items():
        verdict.checked["files"] += 1
        path = page.parent / name
        if not path.is_file():
            verdict.problems.append(f"{name} is missing, which the manifest lists.")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            verdict.problems.append(f"{name} is not as it was written (by its manifest).")
    return verdict


def verify_shown(html: str, store: Store) -> Verdict:
    """Check the tables and sentences of some HTML that states how they were made."""
    verdict = Verdict()
    soup = BeautifulSoup(html, "html.parser")
    found: dict[str, Run] = {}
    failed: set[str] = set()

    def find(reference: dict[str, Any]) -> Run:
        name = reference["run"]
        if name not in found and name not in failed:
            verdict.checked["records"] += 1
            problems = [f"record {name} is not here."]
            for place in store.places:
                if (path := place / f"{name}.json").is_file():
                    problems = [f"record {name}, {words}" for words in record_problems(path)]
                    if not problems:
                        found[name] = load(path)
                    break
            if problems:
                failed.add(name)
                verdict.problems.extend(problems)
        if name in failed:
            raise LookupError(name)
        if found[name].checksum != reference["sha256"]:
            raise StoreError(f"record {name} is another one now than the page was made from.")
        return dataclasses.replace(found[name], recorded=reference["recorded"])

    for block in soup.find_all(attrs={origin.ATTRIBUTE: True}):
        place = name_of(block)
        try:
            made = again(json.loads(block[origin.ATTRIBUTE]), find)
        except LookupError:
            verdict.checked["not made again, for want of their records"] += 1
            continue
        except StoreError as error:
            verdict.problems.append(f"{place}: {error}")
            continue
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            verdict.problems.append(f"{place}: it does not say how it was made ({error}).")
            continue
        kind = "tables" if isinstance(made, tables.Table) else "conclusions"
        verdict.checked[kind] += 1
        compare = compare_table if kind == "tables" else compare_text
        verdict.problems += [f"{place}: {words}" for words in compare(block, made)]
    for table in soup.find_all("table", class_="labkit"):
        if not table.find_parent(attrs={origin.ATTRIBUTE: True}):
            verdict.problems.append(f"{name_of(table)}: it does not say how it was made.")
    return verdict


def again(made: Any, find: Any) -> tables.Table | conclusions.Text:
    """The table or text that an origin describes, made anew.

    Raises:
        ValueError: it names no function that makes tables or texts.
    """
    module, _, name = made["made by"].partition(".")
    function = getattr({"tables": tables, "conclusions": conclusions}.get(module), name, None)
    if not hasattr(function, "__wrapped__"):  # one that `origin.made` has wrapped
        raise ValueError(f"{made['made by']!r} makes nothing")
    return function(**{key: origin.decode(value, find) for key, value in made["from"].items()})


def compare_table(block: Tag, made: tables.Table) -> Iterator[str]:
    """The cells of a shown table that are not those of the one made again."""
    caption, shown = cells(block)
    right_caption, right = cells(BeautifulSoup(made.html(), "html.parser"))
    if caption != right_caption:
        yield f"its caption says {caption!r}; recomputed: {right_caption!r}."
    if [len(row) for row in shown] != [len(row) for row in right]:
        yield "it has other rows or columns than the one recomputed."
        return
    titles = [title if isinstance(title, tuple) else (title,) for title in made.frame.columns]
    heads = len(right) - len(made.frame)
    for number, (row, expected) in enumerate(zip(shown, right, strict=True)):
        for column, (found, value) in enumerate(zip(row, expected, strict=True)):
            if found == value:
                continue
            if number < heads:
                where = "its head"
            else:
                title = " ".join(titles[column - 1]).strip()
                where = f"row {expected[0]!r}, " + (f"column {title!r}" if column else "its name")
            yield f"{where} says {found!r}; recomputed: {value!r}."


def cells(block: Tag) -> tuple[str, list[list[str]]]:
    """A table's caption, and the text of its cells by row."""
    rows = [[words(cell) for cell in row.find_all(["th", "td"])] for row in block.find_all("tr")]
    caption = block.find("caption")
    return words(caption) if caption else "", rows


def compare_text(block: Tag, made: conclusions.Text) -> Iterator[str]:
    """The sentences of a shown text that are not those of the one made again."""
    expected = BeautifulSoup(markdown2html(made.markdown), "html.parser")
    shown, right = ([words(line) for line in lines(part)] for part in (block, expected))
    if words(block) == words(expected):
        return
    for found, value in zip(shown, right, strict=False):
        if found != value:
            yield f"it says {found!r}; recomputed: {value!r}."
            return
    yield f"it says {words(block)!r}; recomputed: {words(expected)!r}."


def lines(block: Tag) -> list[Tag]:
    """The paragraphs and list items that hold no others."""
    parts = block.find_all(["p", "li"])
    return [part for part in parts if not part.find(["p", "li"])] or [block]


def words(part: Tag) -> str:
    """The text of an element, its spaces made one."""
    return " ".join(part.get_text().split())


def name_of(block: Tag) -> str:
    """Where on a page an element is: its caption, or the heading above it."""
    heading = block.find_previous(["h1", "h2", "h3", "h4", "h5"])
    above = words(heading) if heading else "the top"
    caption = block.find("caption")
    if caption:
        return f"table “{words(caption).partition(';')[0]}” under “{above}”"
    return f"text under “{above}”"


def record_problems(path: Path) -> list[str]:
    """What in a record does not fit the rest of it, each with its place; none for a good one."""
    try:
        written = path.read_bytes()
        record = json.loads(written)
    except (OSError, ValueError, RecursionError) as error:
        return [f"it cannot be read as JSON: {error}."]
    problems = []
    try:
        problems = [f"{place}: {said}." for place, said in _misfits(path, record)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        problems = [f"its parts are not those of a record ({type(error).__name__}: {error})."]
    if not problems and record.get("sha256") != checksum(record):
        problems = [
            "its content does not have the checksum that it states; the change is in something "
            "that nothing else repeats, such as its provenance or the checksum itself."
        ]
    if not problems and json.dumps(record, indent=1).encode() != written:
        problems = [
            "it says the same, but not as it was written: a number's last digit, or a space."
        ]
    if not problems:
        try:
            load(path)
        except StoreError as error:
            problems = [str(error)]
    return problems


def _misfits(path: Path, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Place and sentence for each part of a record that another part contradicts."""
    try:
        refuse_newer(path, record)
        config = Config(**record["config"])
    except LabkitError as error:
        yield "config", str(error).rstrip(".")
        return
    named = identity(record["config"], record["recipe"], record["data_sha256"])
    if named != path.stem:
        yield "config, recipe or data_sha256", f"they belong to the run {named}"
    packed = (path.parent / record["arrays"]["file"]).read_bytes()
    if hashlib.sha256(packed).hexdigest() != record["arrays"]["sha256"]:
        yield record["arrays"]["file"], "it does not have the checksum that the record states"
        return
    with np.load(path.parent / record["arrays"]["file"], allow_pickle=False) as arrays:
        losses, labels, predicted, confidence = (
            arrays[name]
            for name in ("iteration_loss", "test_labels", "test_predicted", "test_confidence")
        )
    history, confusion = record["history"], record["confusion"]
    if len(history) != config.epochs or len(losses) != config.epochs:
        yield "history", f"it has {len(history)} epochs and {len(losses)} of losses"
        return
    sizes = dict(zip(("train", "test"), DATASETS[config.dataset], strict=True))
    totals = {split: np.array(counts).sum() for split, counts in confusion.items()}
    diverged = not np.isfinite(losses).all()
    for split, total in totals.items():
        known = record["data_sha256"] == CHECKSUMS.get(config.dataset)
        if known and not diverged and total != sizes[split]:
            yield f"confusion.{split}", f"it counts {total} answers to {sizes[split]} images"
    for number, row in enumerate(history):
        mean = losses[number].astype(np.float64).mean()
        stated = math.nan if row["loss"] is None else row["loss"]
        both_missing = math.isnan(stated) and math.isnan(mean)
        if not both_missing and not math.isclose(stated, mean, rel_tol=1e-12):
            yield (
                f"history[{number}].loss",
                f"{stated}, where its batch losses have the mean {mean}",
            )
        if row["epoch"] != number:
            yield f"history[{number}].epoch", f"{row['epoch']} instead of {number}"
        for split in ("train", "test"):
            share, place = row[f"{split}_accuracy"], f"history[{number}].{split}_accuracy"
            right = np.nan if share is None else share * totals[split]
            if np.isfinite(right) and abs(right - round(right)) > 1e-6:
                yield place, f"{share}, which is no share of {totals[split]} answers"
            if number == config.epochs - 1 and totals[split]:
                trace = int(np.trace(confusion[split]))
                if not abs(right - trace) < 1e-6:
                    yield place, f"{share}, where confusion.{split} has {trace} right answers"
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, predicted), 1)
    for true, answer in np.argwhere(counts != np.array(confusion["test"])):
        stated = confusion["test"][true][answer]
        said = f"{stated}, where the predictions have {counts[true, answer]}"
        yield f"confusion.test[{true}][{answer}]", said
    if len(confidence) != len(labels) or not ((confidence > 0) & (confidence <= 1)).all():
        yield "test_confidence", "not a probability for every test image"
