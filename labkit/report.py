"""The report: the notebooks run by papermill, exported by nbconvert, joined into one HTML file.

What it leaves is a bundle that can be verified anywhere: the page, the executed notebooks, copies
of the records behind them, and a manifest that says what ran and how it ended.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import papermill
from bs4 import BeautifulSoup
from filelock import FileLock, Timeout
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from papermill.execute import ERROR_MARKER_TAG
from pygments.formatters import HtmlFormatter

from labkit import notebook, origin, published, tables
from labkit.config import (
    SCALE_SEEDS,
    SCALES,
    VARIED,
    Config,
    LabkitError,
    choice,
    scale_name,
    seed_range,
)
from labkit.provenance import commit
from labkit.runs import Run
from labkit.store import Store, StoreError, write_atomically

NOTEBOOKS = ("01_architecture", "02_activation", "03_lr", "04_batch_size", "05_recipe")
TEMPLATES = Path(__file__).parent / "templates"
PAGE = "lab-report.html"
MANIFEST = "manifest.json"
UNFINISHED = "unfinished"  # the folder of a report until it is complete


class ReportError(LabkitError):
    """A report that was not finished; the page that was there is as it was."""


@dataclass(frozen=True)
class Section:
    """One executed notebook of the page.

    Attributes:
        name: the notebook's, without its ending.
        status: "complete", "partial" (some of its cells ran) or "failed" (none, or not at all).
        reason: why it is not complete, as sentences.
        title, body: its first heading, and all of it as HTML.
        headings: anchor and text of those below.
        runs: what its outputs say of the runs behind them, see `origin.runs_in`.
    """

    name: str
    status: str
    reason: str = ""
    title: str = ""
    body: str = ""
    headings: list[tuple[str, str]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)


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
    seeds: Any = None,
    device: str = "auto",
    retrain: bool = False,
    parameters: Mapping[str, str] | None = None,
) -> Path:
    """Run the notebooks and write the page `folder/lab-report.html`; its path.

    Beside it stay the executed notebooks (`notebooks`), copies of the records behind the page
    (`runs`) and `manifest.json`. All of it is made in `folder/unfinished` and moved when it is
    complete; if a notebook fails, the others still run, and what there is stays in that folder.
    `dataset`, `epochs` and `seeds` default to the scale's. `parameters` go to every notebook that
    has one of that name.

    Raises:
        LabkitError: a value is not possible, the folder cannot be written, or a notebook failed;
            the page that was there before is left as it was.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    own = {"dataset": dataset, "epochs": epochs, "seeds": seeds}
    scale = choice("scale", scale, SCALES)
    shared = SCALES[scale] | {"seeds": SCALE_SEEDS[scale]}
    shared |= {name: value for name, value in own.items() if value is not None}
    shared["device"] = device
    # A date, so that the baseline is trained once and not by every notebook again.
    shared["retrain"] = started if retrain else "no"
    plans = plan(shared, dict(parameters or {}))
    draft = folder / UNFINISHED
    with contextlib.ExitStack() as held:
        try:
            for name in ("notebooks", "runs"):  # what runs are there may be needed
                (draft / name).mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / ".lock", timeout=0))
            for path in (draft / "notebooks").iterdir():
                path.unlink()
            held.enter_context(kept_runs(draft / "runs", folder / "runs"))
            sections = run_notebooks(plans, draft, started)
            broken = [part for part in sections if part.status != "complete"]
            if not broken:
                publish(draft, folder)
        except OSError as error:  # a timeout of the lock is one too
            reason = "another process writes a report there" if isinstance(error, Timeout) else ""
            raise ReportError(
                f"the output folder {folder} cannot be written "
                f"({reason or error.strerror or error}); choose another, or make room."
            ) from error
    if broken:
        raise ReportError(
            f"{len(broken)} of {len(sections)} notebooks did not finish: "
            f"{' '.join(part.reason for part in broken)} The page was not replaced; what there is "
            f"stands in {draft / PAGE}."
        )
    return folder / PAGE


def run_notebooks(
    plans: Mapping[str, Mapping[str, Any]], draft: Path, started: str
) -> list[Section]:
    """Run every notebook; after each, page and manifest in `draft` say how far it is."""
    store, sections = Store(), []
    finish(draft, plans, sections, store, started)
    for number, (name, values) in enumerate(plans.items(), start=1):
        print(f"[{number}/{len(plans)}] {name}", flush=True)
        sections.append(section(name, values, draft / "notebooks" / f"{name}.ipynb"))
        for run in sections[-1].runs:
            with contextlib.suppress(StoreError):  # `stale` says so
                store.copy(run["run"], draft / "runs")
        finish(draft, plans, sections, store, started)
    return sections


@contextlib.contextmanager
def kept_runs(folder: Path, earlier: Path) -> Iterator[None]:
    """Let the notebooks keep their runs in `folder` where the user's own cannot be written.

    `earlier` holds what an earlier report kept in the same way.
    """
    store = Store()
    try:
        with store.claim("report"):
            writable = True
    except StoreError:
        writable = False
    before = os.environ.get("LABKIT_RUNS")
    try:
        if not writable:
            print(f"{store.folder} cannot be written; the report keeps its runs in {folder}.")
            os.environ["LABKIT_RUNS"] = os.pathsep.join(map(str, [folder, earlier, *store.places]))
        yield
    finally:
        if not writable:
            os.environ.pop("LABKIT_RUNS")
            os.environ |= {"LABKIT_RUNS": before} if before else {}


def publish(draft: Path, folder: Path) -> None:
    """Move a complete report out of its draft; the page comes last, so that it is never ahead."""
    shutil.rmtree(folder / "notebooks", ignore_errors=True)
    (folder / "runs").mkdir(exist_ok=True)
    for path in (draft / "runs").iterdir():
        if path.is_file():  # not the locks
            os.replace(path, folder / "runs" / path.name)
    for name in ("notebooks", MANIFEST, PAGE):
        os.replace(draft / name, folder / name)
    shutil.rmtree(draft)


def finish(
    draft: Path,
    plans: Mapping[str, Mapping[str, Any]],
    sections: list[Section],
    store: Store,
    started: str,
) -> None:
    """Write the page as far as it is, and then the manifest that goes with it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    done = {name: {"status": "not run", "reason": ""} for name in plans}
    for name in list(plans)[len(sections) : len(sections) + 1]:  # it starts next
        done[name] = {"status": "partial", "reason": "The report was stopped while it ran."}
    done |= {part.name: {"status": part.status, "reason": part.reason} for part in sections}
    shown = [run for part in sections for run in part.runs]
    copies = Store(draft / "runs", shipped=None)
    runs = {name: copies.get(name) for name in dict.fromkeys(run["run"] for run in shown)}
    present = {name: run for name, run in runs.items() if run}
    base = next(iter(plans.values()))
    config = Config(dataset=base["dataset"], epochs=1 if notebook.smoke() else base["epochs"])
    complete = all(part.status == "complete" for part in sections) and len(sections) == len(plans)
    manifest = {
        "format": 1,
        "status": "complete" if complete else "partial",
        "scale": "smoke" if notebook.smoke() else scale_name(config),
        "stale": stale(shown, store, {name: run.checksum for name, run in present.items()}),
        "started": started,
        "finished": now,
        "commit": commit(),
        "notebooks": {
            name: done[name] | {"parameters": dict(values)} for name, values in plans.items()
        },
        "runs": {
            name: {
                "setting": setting_name(run.config),
                "seed": run.config.seed,
                "source": "recorded" if run.provenance["date"] < started else "trained now",
                "scale": scale_name(run.config),
                "date": run.provenance["date"],
                "commit": run.provenance["commit"],
                "device": run.provenance["device"],
                "sha256": run.checksum,
            }
            for name, run in present.items()
        },
    }
    compared, others = grouped(present.values(), config)
    page = render(manifest, config, sections, compared, others)
    write_atomically(draft / PAGE, page.encode())
    paths = [draft / PAGE, *sorted((draft / "notebooks").glob("*.ipynb"))]
    manifest["files"] = {
        str(path.relative_to(draft)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }
    write_atomically(draft / MANIFEST, json.dumps(manifest, indent=1).encode())


def grouped(
    runs: Iterable[Run], config: Config
) -> tuple[dict[str, list[Run]], dict[str, list[Run]]]:
    """The runs by setting: those of the page's images, epochs and recipe, and the appendix's."""
    compared: dict[str, list[Run]] = {}
    others: dict[str, list[Run]] = {}
    for run in runs:
        name = setting_name(run.config)
        if run.config.replace(**{field: getattr(config, field) for field in VARIED}) == config:
            compared.setdefault(name, []).append(run)
        else:
            epochs = f"{run.config.epochs} epoch{'s' * (run.config.epochs > 1)}"
            others.setdefault(f"{name} ({run.config.dataset}, {epochs})", []).append(run)
    return compared, others


def stale(shown: list[dict[str, Any]], store: Store, copied: Mapping[str, str]) -> list[str]:
    """Sentences on runs of which the page shows other numbers than those on record.

    That is so when another process trained a run again while the notebooks ran.
    """
    sentences = []
    for name in dict.fromkeys(run["run"] for run in shown):
        checksums = {run["sha256"] for run in shown if run["run"] == name}
        try:
            kept = store.get(name)
        except StoreError as error:
            sentences.append(str(error))
            continue
        if kept is None or name not in copied:
            sentences.append(f"Run {name} is not on record.")
        elif checksums | {copied[name]} != {kept.checksum}:
            sentences.append(f"Run {name} was trained again while the notebooks ran.")
    return sentences


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
    if "recipe_seeds" in parameters:
        seed_range(parameters["recipe_seeds"], "recipe_seeds")
    for name in ("activations", "lr", "batch_size"):
        if name in parameters:
            notebook.compared(base, **{name: parameters[name]})
    return {
        name: {key: value for key, value in values.items() if key in known[name]}
        for name in NOTEBOOKS
    }


def section(name: str, values: Mapping[str, Any], target: Path) -> Section:
    """One notebook run and exported; also if it failed, as far as it came."""
    try:
        return export(name, execute(name, values, target))
    except ReportError as error:
        print(error, flush=True)
        executed = nbformat.read(target, as_version=4) if target.is_file() else None
        outputs = (
            [out for cell in executed.cells for out in cell.get("outputs", [])] if executed else []
        )
        if any(out.output_type in ("display_data", "execute_result") for out in outputs):
            return replace(export(name, executed), status="partial", reason=str(error))
        return Section(name, "failed", str(error), title=name)


def execute(name: str, values: Mapping[str, Any], target: Path) -> nbformat.NotebookNode:
    """Run one notebook with papermill and keep it, executed, at `target`.

    Raises:
        ReportError: a cell failed, or the kernel died; says which cell.
    """
    try:
        executed = papermill.execute_notebook(
            notebook_folder() / f"{name}.ipynb",
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
            f"{error.evalue.rstrip('.')}."
        ) from error
    except KeyboardInterrupt:
        # The kernel dies too; asyncio would print what waited for it as a traceback.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except DeadKernelError as error:
        raise ReportError(
            f"notebook {name} failed: its kernel died in cell {_next_cell(target)}."
        ) from error
    # Papermill takes an aborted notebook for a complete one.
    unrun = [c for c in executed.cells if c.cell_type == "code" and c.execution_count is None]
    if unrun:
        raise ReportError(f"notebook {name} failed: {len(unrun)} of its cells never ran.")
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
    kept = [
        cell for cell in executed.cells if ERROR_MARKER_TAG not in cell.metadata.get("tags", [])
    ]
    executed.cells = kept  # without papermill's own words on a failure; the page has better ones
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
    outputs = [output for cell in kept for output in cell.get("outputs", [])]
    runs = list(origin.runs_in([out.get("data", {}).get(origin.MIME) for out in outputs]))
    return Section(name, "complete", "", title, str(soup), headings, runs)


def render(
    manifest: Mapping[str, Any],
    config: Config,
    sections: list[Section],
    runs: Mapping[str, list[Run]],
    others: Mapping[str, list[Run]],
) -> str:
    """The page, from what ran and from the runs that it names, grouped by setting.

    `runs` are of the page's own images and epochs, and are compared; `others` are only listed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    first = next(iter(runs.values()), [])

    def shown(make: Any, of: Mapping[str, list[Run]], *more: Any) -> str:
        table = make(of, *more) if of else None
        return origin.marked(table.html(), table.origin) if table and len(table.frame) else ""

    took = datetime.fromisoformat(manifest["finished"]) - datetime.fromisoformat(
        manifest["started"]
    )
    sources = [run["source"] for run in manifest["runs"].values()]
    return environment.get_template("page.html.j2").render(
        manifest=manifest,
        config=config,
        n=len(first),
        sections=sections,
        summary=shown(tables.summary, runs),
        ledger=shown(tables.ledger, runs),
        beside=shown(tables.beside, runs),
        provenance=shown(tables.provenance, {**runs, **others}, manifest["started"]),
        versions=first[0].provenance["versions"] if first else {},
        date=manifest["started"][:16].replace("T", " ") + " UTC",
        seconds=took.total_seconds(),
        trained=sources.count("trained now"),
        recorded=sources.count("recorded"),
        code_style=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )


def setting_name(config: Config) -> str:
    """The original's name for this setting if it has one, and whatever else is unusual."""
    if section := published.section_of(config):
        return ", ".join([section.name, *config.unusual()])
    return config.setting()
