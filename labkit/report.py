"""The report: the notebooks run by papermill, exported by nbconvert, joined into one HTML file."""

import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import papermill
from bs4 import BeautifulSoup
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from pygments.formatters import HtmlFormatter

from labkit import conclusions, notebook, published, tables
from labkit.config import SCALES, Config, LabkitError, choice, seed_range
from labkit.runs import Run
from labkit.store import Store, write_atomically

NOTEBOOKS = ("01_architecture", "02_activation", "03_lr", "04_batch_size")
TEMPLATES = Path(__file__).parent / "templates"
PAGE = "lab-report.html"


class ReportError(LabkitError):
    """A report that was not finished; the page that was there is as it was."""


@dataclass(frozen=True)
class Section:
    """One executed notebook of the page: its title, its HTML and the records that it shows."""

    name: str
    title: str
    body: str
    headings: list[tuple[str, str]]  # anchor and text
    records: list[str]


def notebook_folder() -> Path:
    """Where the notebooks are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent
    places = [package.parent / "notebooks", package / "notebooks"]
    return next((p for p in places if (p / f"{NOTEBOOKS[0]}.ipynb").is_file()), places[0])


def build(
    folder: Path,
    *,
    scale: str = "quick",
    dataset: str | None = None,
    epochs: Any = None,
    seeds: Any = 1,
    device: str = "auto",
    retrain: bool = False,
    parameters: Mapping[str, str] | None = None,
) -> Path:
    """Run the four notebooks and write the page `folder/lab-report.html`; its path.

    The executed notebooks stay in `folder/notebooks`. `dataset` and `epochs` default to the
    scale's. `parameters` go to every notebook that has one of that name.

    Raises:
        LabkitError: a value is not possible, the folder cannot be written, or a notebook failed;
            the page that was there before is left as it was.
    """
    started = datetime.now(UTC)
    own = {"dataset": dataset, "epochs": epochs}
    shared = SCALES[choice("scale", scale, SCALES)] | {
        k: v for k, v in own.items() if v is not None
    }
    shared |= {"seeds": seeds, "device": device}
    # A date, so that the baseline is trained once and not by every notebook again.
    shared["retrain"] = started.isoformat(timespec="seconds") if retrain else "no"
    plans = plan(shared, dict(parameters or {}))
    try:
        (folder / "notebooks").mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise ReportError(
            f"the output folder {folder} cannot be written ({error.strerror}); choose another."
        ) from error
    sections = []
    for number, (name, values) in enumerate(plans.items(), start=1):
        print(f"[{number}/{len(plans)}] {name}", flush=True)
        sections.append(export(name, execute(name, values, folder / "notebooks" / f"{name}.ipynb")))
    seconds = (datetime.now(UTC) - started).total_seconds()
    page = render(sections, started, seconds)
    write_atomically(folder / PAGE, page.encode())
    return folder / PAGE


def plan(shared: Mapping[str, Any], parameters: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Notebook → its parameters, all checked before the first notebook runs.

    Raises:
        LabkitError: a value is not possible, or no notebook has a parameter of that name.
    """
    from labkit import data, experiment  # here, since they bring torch along

    known = {}
    for name in NOTEBOOKS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known[name] = set(papermill.inspect_notebook(notebook_folder() / f"{name}.ipynb"))
    notebook.check_names(set(parameters), set().union(*known.values()))
    values = {**shared, **parameters}
    base = Config(dataset=values["dataset"], epochs=values["epochs"])
    seed_range(values["seeds"])
    data.find_device(values["device"])
    experiment.retrain_before(values["retrain"])
    for name in ("activations", "lr", "batch_size"):
        if name in parameters:
            notebook.compared(base, **{name: parameters[name]})
    return {
        name: {key: value for key, value in values.items() if key in known[name]}
        for name in NOTEBOOKS
    }


def execute(name: str, values: Mapping[str, Any], target: Path) -> nbformat.NotebookNode:
    """Run one notebook with papermill and keep it, executed, at `target`.

    Raises:
        ReportError: a cell failed, or the kernel died; says which cell.
    """
    source = notebook_folder() / f"{name}.ipynb"
    try:
        executed = papermill.execute_notebook(
            source,
            target,
            dict(values),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            extra_arguments=["--IPKernelApp.log_level=50"],  # its own warnings help no reader
        )
    except papermill.PapermillExecutionError as error:
        first = error.source.strip().splitlines()[0]
        raise ReportError(
            f"notebook {name} failed in cell {error.cell_index + 1} ({first}): {error.ename}: "
            f"{error.evalue} The page was not replaced; the notebook as far as it came is {target}."
        ) from error
    except DeadKernelError as error:
        raise ReportError(
            f"notebook {name} failed: its kernel died in cell {_next_cell(target)}. The page was "
            f"not replaced; the notebook as far as it came is {target}."
        ) from error
    unrun = [c for c in executed.cells if c.cell_type == "code" and c.execution_count is None]
    if unrun:
        raise ReportError(
            f"notebook {name} failed: {len(unrun)} of its cells never ran. The page was not "
            "replaced."
        )
    return executed


def _next_cell(path: Path) -> int:
    """The number, from 1, of the first code cell that has no execution count."""
    cells = nbformat.read(path, as_version=4).cells
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type == "code" and cell.execution_count is None:
            return number
    return len(cells)


def export(name: str, executed: nbformat.NotebookNode) -> Section:
    """An executed notebook as a part of the page; its headings go one level down."""
    exporter = HTMLExporter(
        template_name="section",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    body, _ = exporter.from_notebook_node(executed)
    soup = BeautifulSoup(body, "html.parser")
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
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    return Section(name, title, str(soup), headings, list(records(executed)))


def records(executed: nbformat.NotebookNode) -> Iterator[str]:
    """The names of the records behind a notebook's tables, as its outputs state them."""
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            yield from output.get("data", {}).get(tables.MIME, {}).get("records", [])


def render(sections: list[Section], started: datetime, seconds: float) -> str:
    """The page, from its sections and from the records that they name."""
    store = Store()
    names = dict.fromkeys(digest for section in sections for digest in section.records)
    runs: dict[str, list[Run]] = {}
    for run in filter(None, map(store.get, names)):
        runs.setdefault(setting_name(run.config), []).append(run)
    first = next(iter(runs.values()))
    since = started.isoformat(timespec="seconds")
    dates = [run.provenance["date"] for group in runs.values() for run in group]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        scale=conclusions.scale_name(first[0].config),
        smoke=notebook.smoke(),
        config=first[0].config,
        n=len(first),
        sections=sections,
        summary=tables.summary(runs).html(),
        provenance=tables.provenance(runs, since).html(),
        versions=first[0].provenance["versions"],
        commit=first[0].provenance["commit"],
        date=started.strftime("%Y-%m-%d %H:%M UTC"),
        seconds=seconds,
        trained=sum(date >= since for date in dates),
        recorded=sum(date < since for date in dates),
        code_style=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )


def setting_name(config: Config) -> str:
    """The original's name for this setting if it has one, else a description without the seed."""
    section = published.section_of(config)
    return section.name if section else config.describe().rpartition(",")[0]
