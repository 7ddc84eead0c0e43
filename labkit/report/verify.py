"""`labkit verify`: make whatever a page shows again from the records, and compare."""

import base64
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import PreformattedString
from nbconvert.filters import markdown2html
from papermill.exceptions import PapermillException
from papermill.execute import ERROR_MARKER_TAG
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image

from labkit.core.config import DATASETS
from labkit.core.values import LabkitError
from labkit.report import build
from labkit.show import conclusions, plots, reasons, remake, tables
from labkit.store.audit import record_problems
from labkit.store.files import MOST_JSON, file_sha256, parse, read
from labkit.store.folder import Store, StoreError, load
from labkit.store.run import Run

#: What reading something that nobody checked can raise.
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
MOST_PAGE = 2**28  # bytes; the report's own has four million
KINDS = {"tables": tables, "conclusions": conclusions, "plots": plots, "reasons": reasons}


class Missing(Exception):
    """A record that a page was made from is not to be had; the verdict says why."""


@dataclass
class Verdict:
    """What was compared, as kind → how many, and a sentence with the place for each difference.

    `missing` are sentences on what could not be compared, so that nothing is said of it.
    """

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def verify(target: Path) -> Verdict:
    """Check a page, a report's folder, an executed notebook, a folder of records or one record.

    Needs neither a GPU nor the data, but for pictures of images.

    Raises:
        LabkitError: there is nothing of that kind at `target`.
    """
    page = target / build.PAGE if target.is_dir() else target
    if page.suffix == ".html" and page.is_file():
        return verify_page(page)
    if target.suffix == ".ipynb" and target.is_file():
        verdict = Verdict()
        if (executed := read_notebook(target, verdict)) is not None:
            soup = BeautifulSoup(build.export(target.stem, executed).body, "html.parser")
            verify_shown(soup, Store(), verdict)
        return verdict
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
    """Check all of a page: what it shows by the records, its words by the notebooks, and what the
    manifest says by both.

    Without a manifest the records are looked for in the user's stores, and the words are compared
    with the notebooks of this labkit.
    """
    verdict, folder = Verdict(), build.evidence(page)
    store = Store(folder / "runs")
    store.places[1:1] = Store().places
    soup = BeautifulSoup(text_of(page), "html.parser")
    head = soup.find("meta", attrs={"name": "lab-report-manifest"})
    try:
        stated = json.loads(head["content"])
        shown = list(stated["shown"])
    except (TypeError, KeyError, ValueError, RecursionError):
        verdict.problems.append(
            f"{page.name} does not state what it shows: it is no page of this version of labkit, "
            "or its head was altered."
        )
        return verdict
    verify_shown(soup, store, verdict)
    there = [made_by(block) for block in soup.find_all(attrs={remake.ATTRIBUTE: True})]
    if there != shown:
        verdict.problems += differences_of_order(there, shown)
    written = folder / build.MANIFEST
    try:
        if not stated["notebooks"]:
            raise ValueError("it names no notebooks")
        alone = not written.is_file()
        if alone:
            verdict.missing.append(
                f"There is no manifest beside {page.name}, so that nothing is known of its "
                "notebooks and records, or of the training logs on it."
            )
            expected = by_sources(stated, soup, store)
        else:
            manifest = parse(read(written, MOST_JSON))
            files = dict(manifest.pop("files"))
            verify_files(page, build.contents(folder, stated), files, verdict)
            for place, found, right in unequal(manifest, stated):
                problem = f"the manifest's {place} is {found}; the page states {right}."
                verdict.problems.append(problem)
            expected = by_notebooks(stated, folder, verdict)
        for place, found, right in unequal(stated, expected[0]):
            verdict.problems.append(f"{place} is stated as {found}; recomputed: {right}.")
        verify_words(soup, expected[1], verdict, outputs=not alone)
    except (LabkitError, *BROKEN) as error:
        said = f"{type(error).__name__}: {error}" if not isinstance(error, LabkitError) else error
        verdict.problems.append(f"the page or its manifest is not as labkit writes it ({said}).")
    return verdict


def made_by(block: Tag) -> str:
    """The name of the function that made what a block shows; "" if it does not say."""
    try:
        return str(json.loads(block[remake.ATTRIBUTE])["made by"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def differences_of_order(there: list[str], stated: list[str]) -> Iterator[str]:
    """What a page should show and does not, or shows and should not, or in another order."""
    lost, added = (Counter(stated) - Counter(there)), (Counter(there) - Counter(stated))
    for name, times in lost.items():
        yield f"{name} is missing {times}×: the page states that it shows {len(stated)} things."
    for name, times in added.items():
        yield f"{name} is there {times}× more often than the page states."
    if not lost and not added:
        yield "what it shows is there in another order than the page states."


def verify_files(
    page: Path, contents: list[str], files: Mapping[str, str], verdict: Verdict
) -> None:
    """Check that the files that belong to a page are those that its manifest lists."""
    there = [build.PAGE, *(name for name in contents if name != build.PAGE)]
    for name in there:
        path = page if name == build.PAGE else build.evidence(page) / name
        verdict.checked["files"] += 1
        if name not in files:
            verdict.problems.append(f"{name} is not listed in the manifest.")
        elif file_sha256(path) != files[name]:
            verdict.problems.append(f"{name} is not as it was written (by its manifest).")
    for name in sorted(set(files) - set(there)):
        verdict.problems.append(f"{name} is missing, which the manifest lists.")


def unequal(found: Any, expected: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Place, found and expected value of each difference between two structures of JSON."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in dict.fromkeys([*expected, *found]):
            yield from unequal(found.get(key), expected.get(key), f"{place}.{key}".strip("."))
    elif found != expected:
        yield place, *(json.dumps(value)[:80] for value in (found, expected))


def text_of(path: Path) -> str:
    """The text of a page or notebook.

    Raises:
        LabkitError: it cannot be read, is no regular file, or too large for one.
    """
    try:
        return read(path, MOST_PAGE).decode(errors="replace")
    except (OSError, ValueError) as error:
        raise LabkitError(f"{path} cannot be read ({error}).") from error


def read_notebook(path: Path, verdict: Verdict) -> nbformat.NotebookNode | None:
    """The notebook at `path`; None, and a problem, if it is none."""
    try:
        return nbformat.reads(text_of(path), as_version=4)
    except (LabkitError, ValueError, KeyError, AttributeError, RecursionError) as error:
        verdict.problems.append(f"{path.name} is no notebook ({type(error).__name__}: {error}).")
        return None


def by_notebooks(
    stated: Mapping[str, Any], folder: Path, verdict: Verdict
) -> tuple[dict[str, Any], str]:
    """Manifest and page as they follow from the executed notebooks and the records.

    Each notebook is compared with its source on the way.
    """
    notebooks, sections = {}, []
    for name, part in stated["notebooks"].items():
        path = folder / "notebooks" / f"{Path(name).name}.ipynb"
        executed = read_notebook(path, verdict) if path.is_file() else None
        status, reason = part["status"], part["reason"]
        if executed is not None:
            verdict.checked["notebooks"] += 1
            verdict.problems += not_by_source(name, executed, part["parameters"])
            whole = not build.unrun(executed)
            status = "complete" if whole else "failed" if status == "complete" else status
            reason = "" if whole else reason
        notebooks[name] = {**part, "status": status, "reason": reason}
        if status == "complete" and executed is not None:
            sections.append(build.export(name, executed))
        elif status != "not run" and reason != build.STOPPED:
            sections.append(build.as_far_as_it_came(name, executed, reason))
    written = {key: stated[key] for key in ("started", "finished", "commit", "evidence")}
    return build.render(written, notebooks, sections, Store(folder / "runs", shipped=None))


def not_by_source(
    name: str, executed: nbformat.NotebookNode, parameters: Mapping[str, Any]
) -> Iterator[str]:
    """Where an executed notebook differs from this labkit's, given these parameters."""
    expected = source(name, parameters)
    if expected is None:
        yield f"{name} is no notebook of this labkit, so that its words cannot be compared."
        return
    cells = [c for c in executed.cells if ERROR_MARKER_TAG not in c.metadata.get("tags", [])]
    for number, (found, right) in enumerate(itertools.zip_longest(cells, expected.cells), start=1):
        pair = [cell and (cell.cell_type, cell.source) for cell in (found, right)]
        if pair[0] != pair[1]:
            said, should = where_they_part(*(part and part[1] for part in pair))
            yield f"{name}, cell {number}: it is {said}; in this labkit's notebook: {should}."
            return


def source(name: str, parameters: Mapping[str, Any]) -> nbformat.NotebookNode | None:
    """This labkit's notebook with the parameters set and without outputs; None if there is none."""
    path = build.notebook_folder() / f"{Path(name).name}.ipynb"
    if not path.is_file():
        return None
    try:
        read = load_notebook_node(str(path))
        made = parameterize_notebook(
            read, dict(parameters), kernel_name="python3", language="python"
        )
    except PapermillException as error:
        raise ValueError(f"its parameters are no parameters: {error}") from error
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    return made


def by_sources(
    stated: Mapping[str, Any], soup: BeautifulSoup, store: Store
) -> tuple[dict[str, Any], str]:
    """Manifest and page as they follow from this labkit's notebooks, without what these show."""
    sections = []
    for name, part in stated["notebooks"].items():
        made = source(name, part["parameters"])
        if made is None:
            raise ValueError(f"{name} is no notebook of this labkit")
        blocks = soup.find(id=name).find_all(attrs={remake.ATTRIBUTE: True})
        calls = [json.loads(block[remake.ATTRIBUTE]) for block in blocks]
        sections.append(dataclasses.replace(build.export(name, made), calls=calls))
    return build.render(written_of(stated), stated["notebooks"], sections, store)


def written_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says that nothing else tells."""
    return {key: stated[key] for key in ("started", "finished", "commit", "evidence")}


def verify_words(soup: BeautifulSoup, page: str, verdict: Verdict, *, outputs: bool) -> None:
    """Check a page by one that was made again, section by section: its words, order and style.

    Args:
        outputs: compare what the notebooks show as well; else leave it out on both sides.
    """
    pages = soup, BeautifulSoup(page, "html.parser")
    for tree in pages:
        tree.find("meta", attrs={"name": "lab-report-manifest"}).decompose()
        for part in () if outputs else (is_shown, is_empty_box):
            for shown in tree.find_all(part):
                shown.decompose()
    found, right = ({s.get("id"): s.extract() for s in tree.find_all("section")} for tree in pages)
    for name in dict.fromkeys([*right, *found]):
        verdict.checked["sections"] += 1
        pair = (tokens(part[name]) if name in part else [] for part in (found, right))
        verdict.problems += [f"section {name}, {words}" for words in first_difference(*pair)]
    verdict.problems += first_difference(*map(tokens, pages))


def is_shown(part: Tag) -> bool:
    """Whether an element is something that says how it was made, or a training log."""
    if "log" in part.get("class", ()):
        return all(tag.name in ("summary", "pre", "span") for tag in part.find_all(True))
    return part.has_attr(remake.ATTRIBUTE)


def is_empty_box(part: Tag) -> bool:
    """Whether an element is the box of a notebook's outputs, and these were taken out of it."""
    box = "output_wrapper" in part.get("class", ()) and not part.get_text().strip()
    return box and all(tag.name == "div" for tag in part.find_all(True))


def tokens(part: Tag) -> list[str]:
    """The tags of an element with their attributes, and its words, in their order."""
    found = []
    for node in part.descendants:
        if isinstance(node, Tag):
            attributes = "".join(f' {key}="{node[key]}"' for key in sorted(node.attrs))
            found.append(f"<{node.name}{attributes}>")
        elif type(node) is NavigableString or not isinstance(node, PreformattedString):
            found += filter(None, [" ".join(node.split())])
    return found


def first_difference(found: list[str], expected: list[str]) -> Iterator[str]:
    """The first place where two lists of `tokens` differ, as a sentence."""
    heading, after = "the top", False
    for one, other in itertools.zip_longest(found, expected):
        if one != other:
            said, right = where_they_part(one, other)
            yield f"under “{heading}”: it says {said}; remade: {right}."
            return
        heading = one if after and not one.startswith("<") else heading
        after = one.startswith(("<h1", "<h2", "<h3", "<h4", "<h5"))


def where_they_part(one: str | None, other: str | None) -> tuple[str, str]:
    """Two texts, quoted from shortly before the place where they begin to differ."""
    alike = (a == b for a, b in zip(one or "", other or "", strict=False))
    start = max(sum(itertools.takewhile(bool, alike)) - 20, 0)
    said = ["nothing" if text is None else repr(text[start : start + 120]) for text in (one, other)]
    return said[0], said[1]


def verify_shown(soup: BeautifulSoup, store: Store, verdict: Verdict) -> None:
    """Check the tables, texts and figures of some HTML that states how they were made."""
    found: dict[str, Run] = {}
    failed: set[str] = set()

    def find(reference: dict[str, Any]) -> Any:
        if "images" in reference:
            return images_of(reference["images"])
        name = reference["run"]
        if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{12}", name):
            raise ValueError(f"{repr(name)[:40]} is no record's name")
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
            raise Missing
        if found[name].checksum != reference["sha256"]:
            raise StoreError(f"record {name} is another one now than the page was made from.")
        return dataclasses.replace(found[name], recorded=reference["recorded"])

    for block in soup.find_all(attrs={remake.ATTRIBUTE: True}):
        place = name_of(block)
        try:
            made = again(json.loads(block[remake.ATTRIBUTE]), find)
            kind = type(made).__name__.lower()
            verdict.checked[{"table": "tables", "text": "texts", "figure": "figures"}[kind]] += 1
            compare = {"table": compare_table, "text": compare_text, "figure": compare_figure}
            verdict.problems += [f"{place}: {words}" for words in compare[kind](block, made)]
            if kind == "figure" and made.call["from"].get("images", ...) is None:
                verdict.checked["of these by their words alone, for want of the images"] += 1
        except Missing:
            verdict.checked["not made again, for want of their records"] += 1
        except StoreError as error:
            verdict.problems.append(f"{place}: {error}")
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            verdict.problems.append(f"{place}: it does not say how it was made ({error}).")
    for name in ("table", "img"):
        for part in soup.find_all(name):
            if not part.find_parent(attrs={remake.ATTRIBUTE: True}):
                verdict.problems.append(f"{name_of(part)}: it does not say how it was made.")


def images_of(sha256: str) -> np.ndarray | None:
    """The test images of that checksum, where they are at hand without a download; else None."""
    from labkit.core import data  # here, since only galleries need it, and it brings torch along

    for dataset in DATASETS:
        with contextlib.suppress(data.DataError):  # damaged ones are as good as none
            images = data.load(dataset).test.images.numpy() if data.at_hand(dataset) else b""
            if hashlib.sha256(images).hexdigest() == sha256:
                return images
    return None


def again(made: Any, find: Any) -> tables.Table | conclusions.Text | plots.Figure:
    """The table, text or figure that a call describes, made anew.

    Raises:
        ValueError: it names no function that makes any.
    """
    if not isinstance(made, dict) or not {"made by", "from"} <= set(made):
        raise ValueError("its call names no function and what it was given")
    module, _, name = str(made["made by"]).partition(".")
    function = getattr(KINDS.get(module), name, None)
    if not hasattr(function, "__wrapped__"):  # one that `remake.remakable` has wrapped
        raise ValueError(f"{made['made by']!r} makes nothing")
    return function(**{key: remake.decode(value, find) for key, value in made["from"].items()})


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
    if added := not_in(block, BeautifulSoup(made.html(), "html.parser")):
        yield added


def cells(block: Tag) -> tuple[str, list[list[str]]]:
    """A table's caption, and the text of its cells by row."""
    rows = [[words(cell) for cell in row.find_all(["th", "td"])] for row in block.find_all("tr")]
    caption = block.find("caption")
    return words(caption) if caption else "", rows


def compare_text(block: Tag, made: conclusions.Text) -> Iterator[str]:
    """The sentences of a shown text that are not those of the one made again."""
    expected = BeautifulSoup(markdown2html(made.markdown), "html.parser")
    for found, value in itertools.zip_longest(
        *([words(line) for line in lines(part)] for part in (block, expected))
    ):
        if found != value:
            yield f"it says {found!r}; recomputed: {value!r}."
            return
    if words(block) != words(expected):
        yield f"it says {words(block)!r}; recomputed: {words(expected)!r}."
    elif drawn := not_in(block, expected):
        yield drawn


def not_in(block: Tag, expected: Tag) -> str:
    """A sentence if a block has an element that could hide or add something; else ""."""
    plain = Counter(token for token in tokens(expected) if token.startswith("<"))
    for token, times in Counter(t for t in tokens(block) if t.startswith("<")).items():
        boxed = token.startswith("<div class=\"['output") or token == "<div class=\"['scroll']\">"
        if not boxed and times > plain[token]:
            return f"it has an element {token[:100]!r} that the one recomputed has not."
    return ""


def compare_figure(block: Tag, made: plots.Figure) -> Iterator[str]:
    """Whether a shown figure is the one drawn again, by its words and pixel by pixel.

    Where another matplotlib drew it, or the images in it are not at hand, by its words and size.
    """
    pictures = block.find_all("img")
    if len(pictures) != 1:
        yield f"it has {len(pictures)} pictures instead of one."
        return
    (shown,) = pictures
    if shown.get("alt") != made.alt:
        yield f"it is described as {shown.get('alt')!r}; recomputed: {made.alt!r}."
        return
    without = {key: value for key, value in shown.attrs.items() if key not in ("alt", "src")}
    bundle, shape = made._repr_mimebundle_()
    size = {key: str(shape["image/png"][key]) for key in ("width", "height")}
    if without != size:
        yield f"its attributes are {without}; recomputed: {size}."
        return
    written = base64.b64decode(str(shown.get("src")).partition("base64,")[2])
    right = base64.b64decode(bundle["image/png"])
    if written == right or made.call["from"].get("images", ...) is None:
        return
    one, other = (Image.open(io.BytesIO(part)) for part in (written, right))
    same_tool = one.info.get("Software") == other.info.get("Software")
    if one.size != other.size or (same_tool and pixels(one) != pixels(other)):
        yield "its picture is not the one drawn again."


def pixels(image: Image.Image) -> bytes:
    """The picture without what else its file says."""
    return image.convert("RGBA").tobytes()


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
