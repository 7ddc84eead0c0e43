"""The page: a pure function of executed notebooks, the records behind them, and what is written
down of how they were run; so that it can be computed again."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from papermill.execute import ERROR_MARKER_TAG
from pygments.formatters import HtmlFormatter

from labkit.core.config import VARIED, Config, scale_name
from labkit.core.words import plural
from labkit.judge import original
from labkit.show import conclusions, remake, tables
from labkit.store.folder import Store, StoreError
from labkit.store.run import Run

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class PageSection:
    """One executed notebook of the page."""

    name: str  # without its ending
    status: str  # "complete", "partial" (some of it is shown) or "failed" (nothing is)
    reason: str = ""  # why it is not complete, as a sentence
    title: str = ""  # its first heading
    body: str = ""  # all of it as HTML
    # Of those below the title, anchor and text.
    headings: list[tuple[str, str]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)  # how what it shows was made


def own_cells(executed: NotebookNode) -> list[NotebookNode]:
    """A notebook's cells without papermill's own words on a failure; the page has better ones."""
    return [c for c in executed.cells if ERROR_MARKER_TAG not in c.metadata.get("tags", [])]


def unrun(executed: NotebookNode) -> list[int]:
    """The numbers, from 1, of the code cells that did not run to their end."""
    code = [(n, c) for n, c in enumerate(executed.cells, start=1) if c.cell_type == "code"]
    errors = {n for n, c in code if any(out.output_type == "error" for out in c.outputs)}
    return [n for n, cell in code if cell.execution_count is None or n in errors]


@functools.cache
def exporter() -> HTMLExporter:
    """What makes HTML of notebooks; it takes a while to begin."""
    made = HTMLExporter(
        template_name="section",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    made.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    return made


def export(name: str, executed: NotebookNode | None, reason: str = "") -> PageSection:
    """An executed notebook as a part of the page, as far as it came; headings go one level down.

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
    language = {"name": "python", "pygments_lexer": "ipython3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": language})
    soup = BeautifulSoup(exporter().from_notebook_node(notebook)[0], "html.parser")
    title, headings = name, []
    for heading in soup.find_all(["h1", "h2", "h3", "h4"]):
        for link in heading.find_all("a", class_="anchor-link"):
            link.decompose()
        text, level = heading.get_text().strip(), int(heading.name[1])
        heading.name = f"h{level + 1}"
        heading["id"] = f"{name}-{heading.get('id', text)}"  # ids are unique on a page
        if level == 1:
            title = text
        elif level == 2:
            headings.append((heading["id"], text))
    for cell in soup.find_all("div", class_="cell"):
        del cell["id"]  # by chance in papermill's own cells; nothing points there
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    calls = [call for out in outputs if (call := out.get("data", {}).get(remake.MIME))]
    return PageSection(name, status, reason, title, str(soup), headings, calls)


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
        written: what cannot be computed: `started`, `finished`, `commit`, and the name of the
            folder of `evidence`.
        notebooks: for each its status, reason and parameters.
        store: the records behind the page.
    """
    shown, runs, stale = runs_shown(sections), {}, []
    for name in dict.fromkeys(run["run"] for run in shown):
        try:
            if run := store.get(name):
                runs[name] = run
        except StoreError as error:
            stale.append(str(error))
    stale += changed(shown, {name: run.checksum for name, run in runs.items()})
    calls = [call for part in sections for call in part.calls]
    smoke = any(call["from"].get("smoke") for call in calls)
    base = next(iter(notebooks.values()))["parameters"]
    config = Config(dataset=base["dataset"], epochs=1 if smoke else base["epochs"])
    scale = "smoke" if smoke else scale_name(config)
    compared, others = grouped(runs.values(), config)
    first = next(iter(compared.values()), [])
    n = min(map(len, compared.values()), default=0)
    head: list[tables.Table | conclusions.Text] = []
    if compared:
        found = [tables.summary(compared), tables.ledger(compared)]
        head += [table for table in found if len(table.frame)]
    if len(first) > 1 and scale == "paper":
        head = [conclusions.headline(compared), conclusions.ours(compared), *head]
        head += [tables.beside(compared)]
    dates = written["started"], written["finished"]
    foot = [tables.provenance({**compared, **others}, *dates)] if runs else []
    made_by = [call["made by"] for call in [*(t.call for t in head), *calls]]
    made_by += [table.call["made by"] for table in foot]
    complete = all(part["status"] == "complete" for part in notebooks.values())
    manifest = {
        "format": 2,
        "status": "complete" if complete and len(sections) == len(notebooks) else "partial",
        "scale": scale,
        "stale": stale,
        **written,
        "notebooks": {name: dict(part) for name, part in notebooks.items()},
        "runs": {name: described(run, *dates) for name, run in runs.items()},
        "shown": made_by,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {}  # parameters in their order, as papermill has it
    began, ended = map(datetime.fromisoformat, dates)
    return manifest, environment.get_template("page.html.j2").render(
        manifest=manifest,
        banner=conclusions.banner(config, n, smoke),
        n=n,
        sections=sections,
        shown={
            part.call["made by"].rpartition(".")[2]: remake.marked(part.html(), part.call)
            for part in head + foot
        },
        kinds=Counter(name.partition(".")[0] for name in made_by),
        sources=Counter(run["source"] for run in manifest["runs"].values()),
        versions=first[0].provenance["versions"] if first else {},
        seconds=(ended - began).total_seconds(),
        code_style=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )


def described(run: Run, started: str, finished: str) -> dict[str, Any]:
    """What the manifest says of a run."""
    return {
        "setting": setting_name(run.config),
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
        name, own = setting_name(run.config), run.config
        if own.replace(**{field: getattr(config, field) for field in VARIED}) == config:
            compared.setdefault(name, []).append(run)
        else:
            scale = f"{own.dataset}, {plural(own.epochs, 'epoch')}"
            others.setdefault(f"{name} ({scale})", []).append(run)
    return compared, others


def setting_name(config: Config) -> str:
    """The original's name for this setting if it has one, and whatever else is unusual."""
    if section := original.section_of(config):
        return ", ".join([section.name, *config.unusual()])
    return config.setting()
