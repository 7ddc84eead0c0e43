"""The page: a pure function of executed notebooks, the records behind them, and what is written
down of how they were run; so that it can be computed again."""

import csv
import functools
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from bs4 import BeautifulSoup
from nbconvert.filters import Highlight2HTML, markdown2html, strip_ansi
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from papermill.execute import ERROR_MARKER_TAG
from pygments.formatters import HtmlFormatter

from labkit.core.config import MNIST, VARIED, Config, scale_name
from labkit.core.words import plural
from labkit.judge import claims, original, recipes
from labkit.judge.own import Claim, verdicts_on
from labkit.show import conclusions, figure, overview, remake, tables
from labkit.store.folder import Store, StoreError
from labkit.store.run import Run, Runs

TEMPLATES = Path(__file__).parent / "templates"
CLAIM = "conclusions.claim"  # what judges a claim, the original's or one's own
WORDS = {True: "holds", False: "fails", None: "undecided"}
HIDDEN = "remove-cell"  # the tag of a cell that is for the notebook alone
FOLDED = "fold"  # the tag of a heading whose part of the page is folded away


@dataclass
class Row:
    """What stands side by side on a wide page: prose, a figure, and what is said of it."""

    prose: list[NotebookNode] = field(default_factory=list)
    figure: list[NotebookNode] = field(default_factory=list)
    rest: list[NotebookNode] = field(default_factory=list)


@dataclass
class Part:
    """A heading with what belongs to it; `head` is its markdown."""

    head: str
    tags: list[str]
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class PageSection:
    """One executed notebook of the page."""

    name: str  # without its ending
    status: str  # "complete", "partial" (some of it is shown) or "failed" (nothing is)
    reason: str = ""  # why it is not complete, as a sentence
    title: str = ""  # its first heading
    parts: list["Part"] = field(default_factory=list)  # the title's first
    calls: list[dict[str, Any]] = field(default_factory=list)  # how what it shows was made

    @property
    def anchor(self) -> str:
        """Where it is on the page; the name alone is the whole section's."""
        place = slug(self.title.lstrip(". 0123456789"))
        return f"{place}-" if place == self.name else place

    @property
    def claims(self) -> set[int]:
        """The original's claims that it judges, by number."""
        made = (call["from"]["number"] for call in self.calls if call["made by"] == CLAIM)
        return {number for number in made if isinstance(number, int)}

    @property
    def number(self) -> str:
        """Of the original's section that it rebuilds; "" if there is none."""
        return (re.match(r"[\d.]*", self.title) or [""])[0]


def own_cells(executed: NotebookNode) -> list[NotebookNode]:
    """A notebook's cells without papermill's own words on a failure; the page has better ones."""
    return [c for c in executed.cells if ERROR_MARKER_TAG not in c.metadata.get("tags", [])]


def unrun(executed: NotebookNode) -> list[int]:
    """The numbers, from 1, of the code cells that did not run to their end."""
    code = [(n, c) for n, c in enumerate(executed.cells, start=1) if c.cell_type == "code"]
    errors = {n for n, c in code if any(out.output_type == "error" for out in c.outputs)}
    return [n for n, cell in code if cell.execution_count is None or n in errors]


def export(name: str, executed: NotebookNode | None, reason: str = "") -> PageSection:
    """An executed notebook as a part of the page, as far as it came.

    Args:
        executed: None if it did not even begin.
        reason: why it broke off, if it did.
    """
    cells = own_cells(executed) if executed else []
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    status = "complete" if executed and not reason and not unrun(executed) else "partial"
    shows = any(out.output_type in ("display_data", "execute_result") for out in outputs)
    if status == "partial" and not shows:
        return PageSection(name, "failed", reason, title=name)
    first = cells[0].source.splitlines()[:1] if cells else []
    title = first[0].removeprefix("# ") if first and first[0].startswith("# ") else name
    calls = [call for out in outputs if (call := out.get("data", {}).get(remake.MIME))]
    return PageSection(name, status, reason, title, parted(cells), calls)


def parted(cells: list[NotebookNode]) -> list[Part]:
    """The cells of a notebook by their headings, and in rows."""
    joined = nbformat.v4.new_notebook(cells=[nbformat.from_dict(cell) for cell in cells])
    joined, _ = CoalesceStreamsPreprocessor(enabled=True)(joined, {})
    parts = [Part("", [])]
    for cell in joined.cells:
        tags, rows = cell.metadata.setdefault("tags", []), parts[-1].rows
        if "injected-parameters" in tags and rows and rows[-1].rest:
            rows[-1].rest[-1].metadata.tags.append(HIDDEN)  # those by default
        shows = [out.get("data", {}) for out in cell.get("outputs", [])]
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            parts.append(Part(cell.source, tags))
        elif cell.cell_type == "markdown":
            rows += [Row([cell])] * (HIDDEN not in tags)
        elif any(figure.SVG in data for data in shows) and HIDDEN not in tags:
            if not rows or rows[-1].figure or rows[-1].rest:
                rows.append(Row())
            rows[-1].figure.append(cell)
        elif cell.cell_type == "code":
            rows += [Row()] * (not rows)
            rows[-1].rest.append(cell)
    return parts


def slug(text: str) -> str:
    """A heading as the name of a place on the page."""
    return "-".join(re.findall(r"\w+", text.lower()))


def prose(source: str, anchor: str = "") -> str:
    """Markdown as HTML; its headings go one level down and can be linked to."""

    def heading(found: re.Match[str]) -> str:
        level, text = int(found[1]) + 1, found[2]
        place = slug(f"{anchor} {re.sub('<[^>]*>', '', text)}")
        return f'<h{level} id="{place}"><a href="#{place}">{text}</a></h{level}>'

    pattern = r'<h(\d)[^>]*>(.*?)(?:<a class="anchor-link".*?</a>)?</h\1>'
    return re.sub(pattern, heading, markdown2html(source).strip(), flags=re.S)


def headed(html: str) -> tuple[str, str]:
    """HTML's first heading, and what follows it."""
    found = re.match(r"<h\d.*?</h\d>", html, re.S)
    return html[: found.end() if found else 0], html[found.end() if found else 0 :]


def unlinked(heading: str) -> str:
    """A heading that links nowhere, as one that can be clicked to unfold must not."""
    return re.sub("</?a[^>]*>", "", heading)


def caption(output: Mapping[str, Any]) -> str:
    """What a table shows, briefly: the first words of its caption."""
    return re.split("[;:.(] ", output["data"]["text/plain"].partition("\n")[0])[0]


@functools.cache
def templates() -> jinja2.Environment:
    """The templates, and what they can do to text."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {}  # parameters in their order, as papermill has it
    made.filters |= {"prose": prose, "headed": headed, "unlinked": unlinked}
    made.filters |= {"caption": caption, "plain": strip_ansi, "slug": slug}
    highlight = Highlight2HTML(pygments_lexer="ipython3")
    made.filters["code"] = lambda text: highlight(text).replace("<pre>", '<pre tabindex="0">')
    made.globals |= {"mime": remake.MIME, "hidden": HIDDEN, "folded": FOLDED}
    return made


def body(section: PageSection) -> str:
    """A section by itself, as HTML."""
    return templates().get_template("section.html.j2").module.section(section, Numbering(), None)


class Numbering:
    """Numbers the figures and tables of a page in their order."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def next(self, kind: str) -> int:
        """The number of one more of a kind."""
        self.counts[kind] += 1
        return self.counts[kind]


def extracts(page: str) -> dict[str, bytes]:
    """The tables of a page as CSV, as they are shown, and its figures as SVG, by file name."""
    soup, files = BeautifulSoup(page, "html.parser"), {}
    for table in soup.select("[id^=table-] table"):
        rows = io.StringIO()
        for row in table.find_all("tr"):
            cells = [(cell.get_text(), int(cell.get("colspan", 1))) for cell in row(["th", "td"])]
            csv.writer(rows).writerow(text for text, wide in cells for _ in range(wide))
        files[f"tables/{table.find_parent(id=True)['id']}.csv"] = rows.getvalue().encode()
    # Not from the soup, which writes the names of HTML's tags in small letters and SVG's too.
    for name, drawing in re.findall(r'<figure id="(figure-\d+)">.*?(<svg.*?</svg>)', page, re.S):
        files[f"figures/{name}.svg"] = drawing.encode()
    return files


def runs_shown(sections: Iterable[PageSection]) -> list[dict[str, Any]]:
    """What the outputs of the sections say of the runs behind them, see `remake.runs_in`."""
    return [run for part in sections for run in remake.runs_in(part.calls)]


def render(
    written: Mapping[str, Any],
    notebooks: Mapping[str, Mapping[str, Any]],
    sections: list[PageSection],
    store: Store,
) -> tuple[dict[str, Any], str]:
    """The manifest but for its files, and the page.

    Runs of the page's own images and epochs are compared; the others are only listed. The page
    states the manifest, and how each of its tables, texts and figures was made, in their order.

    Args:
        written: what cannot be computed: `started`, `finished`, `commit`, its address on the web
            (`source`; "" if it has none), and the name of the folder of `evidence`.
        notebooks: for each its status, reason and parameters.
        store: the records behind the page.
    """
    behind, runs, stale = runs_shown(sections), {}, []
    for name in dict.fromkeys(run["run"] for run in behind):
        try:
            if run := store.get(name):
                runs[name] = run
        except StoreError as error:
            stale.append(str(error))
    stale += changed(behind, {name: run.checksum for name, run in runs.items()})
    calls = [call for part in sections for call in part.calls]
    smoke = any(call["from"].get("smoke") for call in calls)
    config = page_config(notebooks, runs.values(), smoke)
    scale = "smoke" if smoke else scale_name(config)
    own = own_settings(sections, notebooks, runs, config)
    compared, others = grouped(runs.values(), config)
    listed = {run.digest for group in own.values() for run in group}
    others = {k: [run for run in g if run.digest not in listed] for k, g in others.items()}
    others = {k: group for k, group in others.items() if group}
    numbers = set().union(*(part.claims for part in sections))
    judged = [one for one in claims.judgements(compared) if one.claim.number in numbers]
    pairs = own_claims(calls, runs)
    rows = compared if judged or not own else own
    first = next(iter(rows.values()), [])
    n = min(map(len, [*rows.values(), *own.values()]), default=0)
    head: list[Any] = []
    if judged and len(first) > 1 and scale == "paper":
        head = [overview.abstract(compared), conclusions.headline(compared)]
        head += [conclusions.ours(compared), tables.beside(compared)]
    if judged:
        again = {
            f"{recipe}: {original.section(number).name}": group
            for recipe, by_section in recipes.whole(others if scale == "paper" else {}).items()
            for number, group in by_section.items()
        }
        head += [overview.verdicts(compared), overview.curves(compared)]
        head += [tables.ledger(compared, again)]
    head += [tables.summary(rows)] if rows else []
    head += [tables.own_ledger(pairs)] if pairs else []
    own_summary = [tables.summary(own)] if own and judged else []
    head += own_summary
    dates = written["started"], written["finished"]
    head += [tables.provenance({**own, **compared, **others}, *dates)] if runs else []
    findings = {}
    for part in sections:
        text = overview.own_finding(own_claims(part.calls, runs))
        if part.claims and part.number and compared:
            text = overview.finding(part.number, compared)
        if text.markdown:
            findings[part.name] = text
    head += findings.values()
    made_by = [call["made by"] for call in calls]
    head_by = [part.call["made by"] for part in head]
    complete = all(part["status"] == "complete" for part in notebooks.values())
    manifest = {
        "format": 3,
        "status": "complete" if complete and len(sections) == len(notebooks) else "partial",
        "scale": scale,
        "stale": stale,
        **written,
        "notebooks": {name: dict(part) for name, part in notebooks.items()},
        "runs": {name: described(run, *dates) for name, run in runs.items()},
        "head": head_by,
        "shown": made_by,
    }
    every = [*judged, *verdicts_on(pairs)]
    shown = {
        part.call["made by"].rpartition(".")[2]: as_output(part)
        for part in reversed(head)  # of two summaries the first
    }
    if own_summary:
        shown["own_summary"] = as_output(own_summary[0])
    began, ended = map(datetime.fromisoformat, dates)
    return manifest, templates().get_template("page.html.j2").render(
        manifest=manifest,
        banner=conclusions.banner(config, n, smoke, beside=bool(judged or original.beside(rows))),
        title="; ".join(part.title for part in sections) or "An unfinished report",
        foreign=config.dataset not in MNIST,
        dataset=config.dataset,
        n=n,
        sections=sections,
        shown=shown,
        findings={name: as_output(text) for name, text in findings.items()},
        judged=judged,
        chips=[
            (one.claim.number or slug(one.claim.name), one.claim.name, state(one), missed(one))
            for one in every
        ],
        stated=claims.CLAIMS,
        quotes=original.STATEMENTS,
        numbering=Numbering(),
        kinds=Counter(name.partition(".")[0] for name in head_by + made_by),
        sources=Counter(run["source"] for run in manifest["runs"].values()),
        versions=versions_of(runs.values()),
        seconds=(ended - began).total_seconds(),
        themes=figure.THEMES,
        code_style=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )


def versions_of(runs: Iterable[Run]) -> dict[str, str]:
    """The versions that the runs were trained with, by program."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.provenance["versions"].items():
            found.setdefault(name, set()).add(version)
    return {name: " or ".join(sorted(versions)) for name, versions in found.items()}


def page_config(
    notebooks: Mapping[str, Mapping[str, Any]], runs: Iterable[Run], smoke: bool
) -> Config:
    """The images and epochs that the page is about: its first notebook's that has any, else those
    of its first run."""
    stated = [part["parameters"] for part in notebooks.values()]
    stated = [values for values in stated if {"dataset", "epochs"} <= set(values)]
    if stated:
        return Config(dataset=stated[0]["dataset"], epochs=1 if smoke else stated[0]["epochs"])
    first = next((run.config for run in runs), Config())
    return Config(dataset=first.dataset, epochs=first.epochs)


def own_settings(
    sections: Sequence[PageSection],
    notebooks: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Run],
    config: Config,
) -> dict[str, list[Run]]:
    """The runs by setting of the sections that go beyond what the original varied, at the page's
    scale; not of a section that has a scale of its own, as the appendix on recipes has."""
    free = [part for part in sections if "dataset" in notebooks[part.name]["parameters"]]
    found: dict[str, dict[str, Run]] = {}
    for part in free or sections:
        named = (runs.get(run["run"]) for run in remake.runs_in(part.calls))
        scale = config.dataset, config.epochs
        of_scale = [r for r in named if r and (r.config.dataset, r.config.epochs) == scale]
        if any(run.config.unusual("epoch_accuracy") for run in of_scale):
            for run in of_scale:
                found.setdefault(run.config.setting(), {})[run.digest] = run
    return {setting: list(group.values()) for setting, group in found.items()}


def own_claims(
    calls: Iterable[Mapping[str, Any]], runs: Mapping[str, Run]
) -> list[tuple[Claim, Runs]]:
    """The claims of one's own that outputs judge, each once and with the runs that it is judged by;
    not those of which a run is not on record."""
    judged = [call["from"] for call in calls if call["made by"] == CLAIM]
    found: list[tuple[Claim, Runs]] = []
    for given in (given for i, given in enumerate(judged) if given not in judged[:i]):
        known = all(run["run"] in runs for run in remake.runs_in(given))
        if known and not isinstance(given["number"], int):
            keys = ("number", "runs")
            found.append(tuple(remake.decode(given[k], lambda ref: runs[ref["run"]]) for k in keys))
    return found


def as_output(shown: Any) -> dict[str, Any]:
    """A table, text or figure as a notebook would have it among its outputs."""
    bundle = shown._repr_mimebundle_()
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def state(judgement: claims.Judgement) -> str:
    """How a claim stands, in a word: holds, fails, undecided, or mixed."""
    found = {part.agrees for part in judgement.parts}
    return "mixed" if len(found) > 1 else WORDS[found.pop()]


def missed(judgement: claims.Judgement) -> bool:
    """Whether a claim holds, though by another size than the one stated or shown with it."""
    found = judgement.parts
    return all(part.agrees for part in found) and any(map(claims.outside, found))


def described(run: Run, started: str, finished: str) -> dict[str, Any]:
    """What the manifest says of a run."""
    return {
        "setting": run.config.setting(),
        "seed": run.config.seed,
        "source": "trained now" if run.dated(started, finished) else "recorded",
        "scale": scale_name(run.config),
        **{name: run.provenance[name] for name in ("date", "commit", "device")},
        "sha256": run.checksum,
    }


def changed(shown: list[dict[str, Any]], kept: Mapping[str, str]) -> list[str]:
    """Sentences on runs that another process trained again while the notebooks ran.

    Args:
        shown: what the page's outputs say of the runs behind them.
        kept: record → checksum, of the records that go with the page.
    """
    sentences = []
    for name in dict.fromkeys(run["run"] for run in shown):
        if name not in kept:
            sentences.append(f"Run {name} is not on record.")
        elif {run["sha256"] for run in shown if run["run"] == name} != {kept[name]}:
            sentences.append(f"Run {name} was trained again while the notebooks ran.")
    return sentences


def grouped(
    runs: Iterable[Run], config: Config
) -> tuple[dict[str, list[Run]], dict[str, list[Run]]]:
    """The runs by setting: those of the page's images, epochs and recipe, and the appendix's."""
    compared: dict[str, list[Run]] = {}
    others: dict[str, list[Run]] = {}
    for run in runs:
        name, own = run.config.setting(), run.config
        if own.replace(**{field: getattr(config, field) for field in VARIED}) == config:
            compared.setdefault(name, []).append(run)
        else:
            scale = f"{own.dataset}, {plural(own.epochs, 'epoch')}"
            others.setdefault(f"{name} ({scale})", []).append(run)
    return compared, others
