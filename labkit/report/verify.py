"""`labkit verify`: recompute from the records all that a page shows, render the page again from
that, and compare the two, element by element."""

import contextlib
import dataclasses
import difflib
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import numpy as np
from bs4 import BeautifulSoup, PageElement, Tag
from bs4.element import PreformattedString
from nbformat import NotebookNode
from papermill.exceptions import PapermillException
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from labkit.core import data
from labkit.core.network import own
from labkit.core.values import LabkitError
from labkit.report import build
from labkit.report.page import PageSection, body, export, extracts, own_cells, render, unrun
from labkit.show import conclusions, figure, gallery, overview, plots, reasons, remake, tables
from labkit.store.audit import record_problems
from labkit.store.files import MOST_JSON, file_sha256, parse, read
from labkit.store.folder import NAME, Store, StoreError, load
from labkit.store.run import Run

#: What reading something that nobody checked can raise.
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
MOST_PAGE = 2**28  # bytes; the report's own has four million
MOST_SAID = 120  # characters of what is shown in either place where two pages differ
KINDS = {
    module.__name__.rpartition(".")[2]: module
    for module in (tables, conclusions, plots, reasons, overview, gallery)
}
#: What builds a network, and of the user's own would run whatever is in its module.
BUILDING = ("tables.layers", "plots.architecture")
HEADINGS = ["h1", "h2", "h3", "h4", "h5"]
MANIFEST_TAG = {"name": "lab-report-manifest"}


class Missing(Exception):
    """A record that a page was made from is not to be had; the verdict says why."""


class Unsafe(Exception):
    """What would run somebody's own code is not made again; the text is whose."""


@dataclass
class Verdict:
    """What was compared, as kind → how many, and a sentence with the place for each difference.

    `missing` are sentences on what could not be compared, so that nothing is said of it.
    """

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Make a problem of whatever is raised by something that labkit would never write."""
        try:
            yield
        except (LabkitError, *BROKEN) as error:
            reason = error if isinstance(error, LabkitError) else f"{type(error).__name__}: {error}"
            self.problems.append(f"{what} is not as labkit writes it ({reason}).")


def verify(target: Path) -> Verdict:
    """Check a page, a report's folder, an executed notebook, a folder of records or one record.

    Needs neither a GPU nor the data, but for pictures of images.

    Raises:
        LabkitError: there is nothing of that kind at `target`.
    """
    verdict = Verdict()
    page = target / build.PAGE if target.is_dir() else target
    records = sorted(target.glob("*.json")) if target.is_dir() else [target]
    if page.suffix == ".html" and page.is_file():
        with verdict.reading("the page or its manifest"):
            verify_page(page, verdict)
    elif target.suffix == ".ipynb" and target.is_file():
        with verdict.reading(target.name):
            executed = nbformat.reads(text_of(target), as_version=4)
            again = Remaking(Store(), verdict).notebook(target.stem, executed, executed)
            verdict.problems += notebook_differences(target.stem, executed, again)
    elif records and target.suffix in ("", ".json") and target.exists():
        for path in records:
            verdict.checked["records"] += 1
            verdict.problems += [f"record {path.stem}, {words}" for words in record_problems(path)]
    else:
        raise LabkitError(
            f"there is nothing to verify at {target}; name a page, an executed notebook, a record "
            "or a folder of records."
        )
    return verdict


def verify_page(page: Path, verdict: Verdict) -> None:
    """Compare a page and its manifest with those that follow from its notebooks and records.

    Without a manifest the records are looked for in the user's stores as well, and this labkit's
    notebooks take the place of the executed ones.
    """
    soup, folder = parsed(text_of(page)), build.evidence(page)
    try:
        stated = json.loads(soup.find("meta", attrs=MANIFEST_TAG)["content"])
        list(stated["shown"]), stated["source"]
    except (TypeError, KeyError, ValueError, RecursionError):
        verdict.problems.append(
            f"{page.name} does not state what it shows: it is no page of this version of labkit, "
            "or its head was altered."
        )
        return
    for part in soup.find_all(["table", "img", "svg"]):
        if not part.find_parent(attrs={remake.ATTRIBUTE: True}):
            verdict.problems.append(f"{place_of(part)} does not say how it was made.")
    if not stated["notebooks"]:
        raise ValueError("it names no notebooks")
    alone = not (folder / build.MANIFEST).is_file()
    store = Store(folder / "runs", shipped=None)
    if alone:
        store.places += Store().places
        verdict.missing.append(
            f"There is no manifest beside {page.name}, so that nothing is known of its notebooks "
            "and records, or of the training logs on it."
        )
        if any(part.get("own") for part in stated["notebooks"].values()):
            verdict.missing.append("Nor can anything be said of notebooks that are not labkit's.")
            return
    remaking, notebooks, sections, differing = Remaking(store, verdict), {}, [], []
    for name, part in stated["notebooks"].items():
        executed, own = None, None if part.get("own") else source(name, part["parameters"])
        path = folder / "notebooks" / f"{Path(name).name}.ipynb"
        if part.get("own"):
            verdict.checked["own notebooks, by what they were when they ran"] += 1
        elif own is None:
            verdict.problems.append(f"{name} is no notebook of this labkit.")
        if alone and own is not None:
            executed = as_shown(soup.find(id=name), own)
        elif not alone and path.is_file():
            with verdict.reading(path.name):
                executed = nbformat.reads(text_of(path), as_version=4)
                verdict.checked["notebooks"] += 1
        section = PageSection(name, part["status"])
        if executed is not None:
            again = remaking.notebook(name, own or executed, executed)
            section = export(name, again, part["reason"] if unrun(again) else "")
            differing += [] if alone else notebook_differences(name, executed, again)
        notebooks[name] = dict(part)
        if part["status"] != "not run" and part["reason"] != build.STOPPED:
            sections.append(section)
            notebooks[name] |= {"status": section.status, "reason": section.reason}
    written = {key: stated[key] for key in ("started", "finished", "commit", "source", "evidence")}
    expected, text = render(written, notebooks, sections, store)
    verdict.problems += unequal("the page's head", stated, expected)
    pages = soup, parsed(text)
    for tree in pages:
        tree.find("meta", attrs=MANIFEST_TAG).decompose()  # it was compared
    verdict.problems += [*differences(*pages), *differing]
    verdict.checked["tables"] += sum(name.startswith("tables") for name in expected["head"])
    verdict.checked["texts and figures of the head"] += sum(
        not name.startswith("tables") for name in expected["head"]
    )
    verdict.checked["sections"] += len(sections)
    drawn = [part.get("data-matplotlib") for part in soup.find_all("svg")]
    if others := sum(version != matplotlib.__version__ for version in drawn):
        verdict.checked["figures by words and size, drawn by another matplotlib"] += others
    if not alone:
        paths = {n: folder / n for n in build.contents(folder, stated)} | {build.PAGE: page}
        files = {name: file_sha256(path) for name, path in paths.items()}
        verdict.checked["files"] += len(files)
        whole = len(sections) == len(stated["notebooks"])
        for name, content in extracts(text_of(page)).items() if whole else ():
            if files.get(name) != hashlib.sha256(content).hexdigest():
                verdict.problems.append(f"{name} does not hold what the page shows.")
        manifest = parse(read(folder / build.MANIFEST, MOST_JSON))
        verdict.problems += unequal(build.MANIFEST, manifest, {**expected, "files": files})


def unequal(place: str, found: Any, expected: Any) -> Iterator[str]:
    """Each difference between two structures of JSON, as a sentence."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in dict.fromkeys([*expected, *found]):
            yield from unequal(f"{place}, {key}", found.get(key), expected.get(key))
    elif found != expected:
        said, right = where_they_part(json.dumps(found), json.dumps(expected))
        yield f"{place}: it is stated as {said}; recomputed: {right}."


def text_of(path: Path) -> str:
    """The text of a page or notebook, within bounds."""
    return read(path, MOST_PAGE).decode(errors="replace")


def parsed(html: str) -> BeautifulSoup:
    """HTML as a browser reads it, which takes the first of two attributes of one name."""
    return BeautifulSoup(html, "html.parser", on_duplicate_attribute="ignore")


def source(name: str, parameters: Mapping[str, Any]) -> NotebookNode | None:
    """This labkit's notebook with the parameters set; None if there is none of that name."""
    path = build.notebook_folder() / f"{Path(name).name}.ipynb"
    if not path.is_file():
        return None
    try:
        own, given = load_notebook_node(str(path)), dict(parameters)
        return parameterize_notebook(own, given, kernel_name="python3", language="python")
    except PapermillException as error:
        raise ValueError(f"its parameters cannot be set: {error}") from error


def as_shown(section: Tag, own: NotebookNode) -> NotebookNode:
    """A notebook as it must have been executed to be shown so: its outputs are taken from the page,
    but of tables and texts only how they were made."""
    executed = nbformat.from_dict(own)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    for cell, block in zip(code, section.find_all("div", class_="cell"), strict=False):
        cell.execution_count, cell.outputs = 1, []
        for part in block.find_all(["div", "details"], recursive=False):
            if part.has_attr(remake.ATTRIBUTE):
                data = {remake.MIME: json.loads(part[remake.ATTRIBUTE])}
                if part.svg:
                    data[figure.SVG] = str(part.svg)
                cell.outputs.append(nbformat.v4.new_output("display_data", data))
            elif "log" in part.get("class", ()):
                name = "stderr" if words(part.summary) == "Messages" else "stdout"
                text = part.pre.get_text()
                cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
    return executed


@dataclass
class Remaking:
    """Makes again what notebooks show from the records in a store, each of which is checked when
    it is first asked for."""

    store: Store
    verdict: Verdict
    runs: dict[str, Run | None] = field(default_factory=dict)

    def notebook(self, name: str, own: NotebookNode, executed: NotebookNode) -> NotebookNode:
        """The notebook `own` with the outputs of an executed one, made again."""
        again, left = nbformat.from_dict(own), iter(own_cells(executed))
        again.cells = own_cells(again)
        for number, cell in enumerate(again.cells, start=1):
            done = next(left, {})
            if cell.cell_type == "code":
                place, outputs = f"{name}, cell {number}", done.get("outputs", [])
                cell.execution_count = done.get("execution_count")
                cell.outputs = [self.output(place, output) for output in outputs]
        return again

    def output(self, place: str, output: NotebookNode) -> NotebookNode:
        """An output made again, if it says how it was made; if that fails, it stays, and so does a
        picture of images that are not at hand."""
        if not (call := output.get("data", {}).get(remake.MIME)):
            return output
        checked, problems = self.verdict.checked, self.verdict.problems
        try:
            made = again(call, self.find)
            bundle = made._repr_mimebundle_()
        except Unsafe as whose:
            said = f"{place}: not made again, since that would run the code of {whose}."
            self.verdict.missing.append(said)
        except Missing:
            checked["not made again, for want of their records"] += 1
        except StoreError as error:
            problems.append(f"{place}: {error}")
        except BROKEN as error:
            problems.append(f"{place}: it does not say how it was made ({error}).")
        else:
            kind = type(made).__name__.lower()
            checked["galleries" if kind == "gallery" else f"{kind}s"] += 1
            data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
            if kind == "gallery" and ' src=""' in made.html:
                checked["of these by their words alone, for want of the images"] += 1
                shown = iter(re.findall(r' src="[^"]*"', str(output.data.get("text/html"))))
                data["text/html"] = re.sub(' src=""', lambda _: next(shown, ""), made.html)
            data |= {remake.MIME: call}
            return nbformat.from_dict({**output, "data": data, "metadata": metadata})
        return output

    def find(self, reference: dict[str, Any]) -> Any:
        """The run or the images that a call names."""
        if "images" in reference:
            shown = {run.config.dataset for run in self.runs.values() if run}
            return images_of(reference["images"], shown)
        name, verdict = reference["run"], self.verdict
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{repr(name)[:40]} is no record's name")
        if name not in self.runs:
            verdict.checked["records"] += 1
            paths = [p for place in self.store.places if (p := place / f"{name}.json").is_file()]
            problems = [f"record {name} is not here."]
            if paths:
                problems = [f"record {name}, {words}" for words in record_problems(paths[0])]
            verdict.problems += problems
            self.runs[name] = None if problems else load(paths[0])
        run = self.runs[name]
        if run is None:
            raise Missing
        if run.checksum != reference["sha256"]:
            raise StoreError(f"record {name} is no longer the one that the page was made from.")
        return dataclasses.replace(run, recorded=reference["recorded"])


def images_of(sha256: str, datasets: Iterable[str]) -> np.ndarray | None:
    """The test images of that checksum in one of the datasets, where they are at hand without a
    download; else None."""
    for dataset in datasets:
        with contextlib.suppress(data.DataError):  # damaged ones are as good as none
            images = data.load(dataset).test.images.numpy() if data.at_hand(dataset) else b""
            if hashlib.sha256(images).hexdigest() == sha256:
                return images
    return None


def again(made: Any, find: Any) -> tables.Table | conclusions.Text | plots.Figure:
    """The table, text or figure that a call describes, made anew.

    Raises:
        Unsafe: it would run code of the user's own.
        ValueError: it names no function that makes any.
    """
    if not isinstance(made, dict) or not {"made by", "from"} <= set(made):
        raise ValueError("its call names no function and what it was given")
    module, _, name = str(made["made by"]).partition(".")
    function = getattr(KINDS.get(module), name, None)
    if not hasattr(function, "__wrapped__"):  # one that `remake.remakable` has wrapped
        raise ValueError(f"{made['made by']!r} makes nothing")
    given = {key: remake.decode(value, find) for key, value in made["from"].items()}
    if made["made by"] in BUILDING and own(given["config"].model):
        raise Unsafe(given["config"].model)
    return function(**given)


def same_drawing(one: Tag, other: Tag) -> bool:
    """Whether a figure is the one drawn again; of one that says that another version of matplotlib
    drew it only the size, the alt text and the kinds of its elements can be compared."""
    if one.get("data-matplotlib") == other.get("data-matplotlib"):
        return str(one) == str(other)
    if {part.name for part in one(True)} - {part.name for part in other(True)}:  # a script, say
        return False
    return all(one.get(key) == other.get(key) for key in ("viewbox", "aria-label"))


def notebook_differences(name: str, executed: NotebookNode, again: NotebookNode) -> list[str]:
    """Each place where an executed notebook is not as it was made again, as a sentence."""
    pair = [[{**c, "id": 0, "metadata": 0} for c in own_cells(nb)] for nb in (executed, again)]
    if pair[0] == pair[1]:
        return []
    pages = (parsed(body(export(name, notebook))) for notebook in (executed, again))
    return [f"notebook {name}, {sentence}" for sentence in differences(*pages)]


def differences(found: Tag, expected: Tag) -> Iterator[str]:
    """Each place where a page is not as it was made again, as a sentence."""
    pairs: list[tuple[PageElement, PageElement]] = [(found, expected)]
    while pairs:
        one, other = pairs.pop()
        if not isinstance(one, Tag) or not isinstance(other, Tag) or one.name != other.name:
            if said([one]) != said([other]):
                yield difference([one], [other])
            continue
        if one.name == "svg":
            if not same_drawing(one, other):
                yield f"{place_of(other)} has a picture that is not the one drawn again."
            continue
        for key in dict.fromkeys([*other.attrs, *one.attrs]):
            if one.get(key) != other.get(key):
                texts = where_they_part(str(one.get(key)), str(other.get(key)))
                yield f"{place_of(other)} has the {key} {texts[0]!r}; recomputed: {texts[1]!r}."
        parts, right = contents(one), contents(other)
        if len(parts) == len(right):
            pairs += reversed(list(zip(parts, right, strict=True)))
            continue
        texts = [list(map(str, side)) for side in (parts, right)]
        steps = difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes()
        for _, start, end, begin, stop in (step for step in steps if step[0] != "equal"):
            both = min(end - start, stop - begin)
            pairs += zip(parts[start:end], right[begin:stop], strict=False)
            if end - start != stop - begin:
                yield difference(parts[start + both : end], right[begin + both : stop])


def contents(part: Tag) -> list[PageElement]:
    """What an element holds: other elements and text, but for spaces and comments."""
    texts = [child for child in part.children if not isinstance(child, PreformattedString)]
    return [child for child in texts if isinstance(child, Tag) or child.strip()]


def difference(found: list[PageElement], expected: list[PageElement]) -> str:
    """What stands in a place of a page instead of what should stand there."""
    texts = [
        repr(text) if text else "nothing" for text in where_they_part(said(found), said(expected))
    ]
    return f"{place_of((expected or found)[0])} says {texts[0]}; recomputed: {texts[1]}."


def said(parts: list[PageElement]) -> str:
    """The words of some elements, each with its name."""
    return " ".join(f"<{p.name}> {words(p)}" if isinstance(p, Tag) else words(p) for p in parts)


def where_they_part(one: str, other: str) -> tuple[str, str]:
    """Two texts; if they are long, from shortly before the place where they begin to differ."""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    longer = max(len(one), len(other)) > MOST_SAID
    start = max(sum(1 for _ in alike) - 20, 0) if longer else 0
    return one[start : start + MOST_SAID], other[start : start + MOST_SAID]


def words(part: PageElement) -> str:
    """The text of an element, its spaces made one."""
    return " ".join((part.get_text() if isinstance(part, Tag) else str(part)).split())


def place_of(part: PageElement) -> str:
    """Where on a page something is, as the subject of a sentence."""
    around = {tag.name: tag for tag in reversed([part, *part.parents]) if isinstance(tag, Tag)}
    heading, table, row = part.find_previous(HEADINGS), around.get("table"), around.get("tr")
    under = f"under “{words(heading) if heading else 'the top'}”"
    if table is None:
        return f"{'figure' if 'figure' in around else 'text'} {under}: it"
    caption = re.split("[;.(]", words(table.caption))[0] if table.caption else ""
    place, cell = f"table “{caption.strip()}” {under}:", around.get("td") or around.get("th")
    if cell is None or row is None:
        return f"{place} it"
    if "thead" in around:
        return f"{place} its head"
    column, titles = len(cell.find_previous_siblings(["td", "th"])), []
    for head in table.select("thead tr"):
        spread = [[words(title)] * int(title.get("colspan", 1)) for title in head.find_all("th")]
        titles += list(itertools.chain(*spread))[column : column + 1]
    named = f"column {' '.join(titles).strip()!r}" if column else "its name"
    return f"{place} row {words(row.find(['td', 'th']))!r}, {named}"
