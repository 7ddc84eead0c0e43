"""The report: the notebooks run by papermill, exported by nbconvert, joined into one HTML file.

What it leaves can be verified anywhere: the page, and beside it a folder with the executed
notebooks, copies of the records behind them, and a manifest that says what ran and how it ended.
"""

import contextlib
import copy
import json
import logging
import os
import re
import secrets
import shutil
import sys
import warnings
from collections import Counter
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

from labkit.core.config import SCALE_SEEDS, SCALES, VARIED, Config, scale_name, seed_range
from labkit.core.values import LabkitError, choice
from labkit.judge import original
from labkit.lab.provenance import commit
from labkit.report import notebook
from labkit.show import remake, tables
from labkit.store.files import MOST_JSON, file_sha256, parse, read, write_atomically
from labkit.store.folder import Store, StoreError
from labkit.store.run import Run

NOTEBOOKS = ("01_architecture", "02_activation", "03_lr", "04_batch_size", "05_recipe")
TEMPLATES = Path(__file__).parent / "templates"
PAGE = "lab-report.html"
MANIFEST = "manifest.json"
UNFINISHED = "unfinished"  # the folder of a report until it is complete
EVIDENCE = "lab-report-files"  # begins the name of the folder that a page's evidence is in
STOPPED = "The report was stopped while it ran."
LISTED = re.compile(r"lab-report\.html|notebooks/[\w.-]+\.ipynb|runs/[\w-]+\.(json|npz)")


class ReportError(LabkitError):
    """A report that was not finished; the page that was there is as it was."""


@dataclass(frozen=True)
class PageSection:
    """One executed notebook of the page.

    Attributes:
        name: the notebook's, without its ending.
        status: "complete", "partial" (some of its cells ran) or "failed" (none, or not at all).
        reason: why it is not complete, as sentences.
        title, body: its first heading, and all of it as HTML.
        headings: anchor and text of those below.
        calls: how each of its tables, texts and figures was made, see `remake`.
    """

    name: str
    status: str
    reason: str = ""
    title: str = ""
    body: str = ""
    headings: list[tuple[str, str]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What its outputs say of the runs behind them, see `remake.runs_in`."""
        return list(remake.runs_in(self.calls))


def notebook_folder() -> Path:
    """Where the notebooks are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent.parent
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

    Beside it stays a folder of its evidence, which the page names: the executed notebooks, copies
    of the records behind them, and `manifest.json`. All of it is made in `folder/unfinished`, and
    takes the place of an earlier page in one step when it is complete; if a notebook fails, the
    others still run, and what there is stays in that folder. Of earlier reports only files go that
    are still as their manifests list them.
    `dataset`, `epochs` and `seeds` default to the scale's. `parameters` go to every notebook that
    has one of that name.

    Raises:
        LabkitError: a value is not possible, the folder holds something else than a report or
            cannot be written, or a notebook failed; the page that was there before is left as it
            was.
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
            refuse_foreign(folder)
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / ".lock", timeout=0))
            earlier = evidence(folder / PAGE) / "runs"
            kept = held.enter_context(kept_runs(draft / "runs", earlier))
            remove_listed(draft, draft=True, runs=not kept)
            for name in ("notebooks", "runs"):
                (draft / name).mkdir(parents=True, exist_ok=True)
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


def evidence(page: Path) -> Path:
    """The folder of the manifest, notebooks and records that belong to a page: the one that the
    page names, else its own."""
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            named = re.search(rf'<meta name="{EVIDENCE}" content="([\w-]+)">', file.read(4096))
    except OSError:
        named = None
    beside = page.parent / named[1] if named else page.parent
    return beside if beside.is_dir() and not beside.is_symlink() else page.parent


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest in a folder of evidence; `{}` if there is none that can be read."""
    try:
        manifest = parse(read(folder / MANIFEST, MOST_JSON))
        return manifest if isinstance(manifest["files"] | manifest["notebooks"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def own_places(folder: Path) -> list[Path]:
    """Where in an output folder reports have left a manifest; symbolic links are never followed."""
    places = [folder, folder / UNFINISHED, *sorted(folder.glob(f"{EVIDENCE}-*"))]
    return [p for p in places if (p == folder or not p.is_symlink()) and manifest_of(p)]


def refuse_foreign(folder: Path) -> None:
    """Refuse an output folder that holds something else than reports.

    Raises:
        ReportError: names some of what it holds.
    """
    draft = folder / UNFINISHED
    for path in (draft, draft / "notebooks", draft / "runs"):
        if path.is_symlink():
            raise ReportError(
                f"{path} is a symbolic link; a report is not written where it leads. Remove it, or "
                "choose another output folder."
            )
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in names if not name.startswith(".")]
    unused = foreign == [UNFINISHED] and not any(p.is_file() for p in draft.rglob("*"))
    if foreign and not unused and not own_places(folder):
        more = ", …" * (len(foreign) > 3)
        raise ReportError(
            f"the output folder {folder} holds files that are not of a report "
            f"({', '.join(foreign[:3])}{more}); choose another, or a new one."
        )


def remove_listed(folder: Path, *, draft: bool = False, runs: bool = True) -> None:
    """Remove what the manifest in `folder` lists, and then the folders that are empty.

    What somebody has changed since stays.

    Args:
        draft: of a report that was not finished: remove the notebook as well that it broke off in,
            and give what somebody has changed another name, so that it is not written over.
        runs: remove the records as well.
    """
    manifest = manifest_of(folder)
    if folder.is_symlink() or not manifest:
        return
    half = {f"notebooks/{name}.ipynb": None for name in manifest["notebooks"]} if draft else {}
    for name, sha256 in (half | manifest["files"]).items():
        path = folder / name
        plain = LISTED.fullmatch(name) and not path.is_symlink() and not path.parent.is_symlink()
        if not plain or not path.is_file() or (path.parent.name == "runs" and not runs):
            continue
        if sha256 in (None, file_sha256(path)):
            path.unlink()
        elif draft:
            path.rename(path.with_stem(f"{path.stem}-changed-{secrets.token_hex(2)}"))
    (folder / MANIFEST).unlink()
    for empty in (folder / "notebooks", folder / "runs", folder):
        with contextlib.suppress(OSError):  # not empty: somebody else's
            empty.rmdir()


def run_notebooks(
    plans: Mapping[str, Mapping[str, Any]], draft: Path, started: str
) -> list[PageSection]:
    """Run every notebook; after each, page and manifest in `draft` say how far it is."""
    store, sections = Store(), []
    finish(draft, plans, sections, store, started)
    for number, (name, values) in enumerate(plans.items(), start=1):
        print(f"[{number}/{len(plans)}] {name}", flush=True)
        sections.append(section(name, values, draft / "notebooks" / f"{name}.ipynb"))
        finish(draft, plans, sections, store, started)
    return sections


@contextlib.contextmanager
def kept_runs(folder: Path, earlier: Path) -> Iterator[bool]:
    """Let the notebooks keep their runs in `folder` where the user's own cannot be written, and say
    whether that is so.

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
        yield not writable
    finally:
        if not writable:
            os.environ.pop("LABKIT_RUNS")
            os.environ |= {"LABKIT_RUNS": before} if before else {}


def publish(draft: Path, folder: Path) -> None:
    """Let a complete report take the place of an earlier one, in one step: that of the page.

    The evidence of a page has a name of its own, so that whenever this is killed there is a page
    and the evidence that it names. A page that somebody has changed is kept beside it.
    """
    target = folder / manifest_of(draft)["evidence"]
    os.rename(draft, target)
    page, listed = folder / PAGE, {manifest_of(p)["files"].get(PAGE) for p in own_places(folder)}
    if page.is_file() and file_sha256(page) not in listed:
        shutil.copy2(page, folder / f"{target.name}-replaced.html")
    os.replace(target / PAGE, page)
    for place in own_places(folder):
        if place != target:
            remove_listed(place)


def finish(
    draft: Path,
    plans: Mapping[str, Mapping[str, Any]],
    sections: list[PageSection],
    store: Store,
    started: str,
) -> None:
    """Write the page as far as it is, and then the manifest that goes with it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    done = {name: {"status": "not run", "reason": ""} for name in plans}
    for name in list(plans)[len(sections) : len(sections) + 1]:  # it starts next
        done[name] = {"status": "partial", "reason": STOPPED}
    done |= {part.name: {"status": part.status, "reason": part.reason} for part in sections}
    notebooks = {name: done[name] | {"parameters": dict(plans[name])} for name in plans}
    written = {
        "started": started,
        "finished": now,
        "commit": commit(),
        "evidence": f"{EVIDENCE}-{re.sub('[^0-9]', '', now)[:14]}-{secrets.token_hex(2)}",
    }
    shown = dict.fromkeys(run["run"] for part in sections for run in part.runs)
    for name in shown:
        with contextlib.suppress(StoreError):  # `stale` says so
            store.copy(name, draft / "runs")
    copies = Store(draft / "runs", shipped=None)
    manifest, page = render(written, notebooks, sections, copies)
    write_atomically(draft / PAGE, page.encode())
    manifest["files"] = {name: file_sha256(draft / name) for name in contents(draft, manifest)}
    write_atomically(draft / MANIFEST, json.dumps(manifest, indent=1).encode())


def contents(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The report's own files in a folder of evidence, the manifest aside, by their paths in it."""
    names = [PAGE, *(f"notebooks/{name}.ipynb" for name in manifest["notebooks"])]
    records = [path.name for path in sorted(folder.glob("runs/*"))]
    names += [f"runs/{name}" for name in records if re.split("[-.]", name)[0] in manifest["runs"]]
    return [name for name in names if LISTED.fullmatch(name) and (folder / name).is_file()]


def facts(
    written: Mapping[str, Any],
    notebooks: Mapping[str, Mapping[str, Any]],
    sections: list[PageSection],
    copies: Store,
) -> tuple[dict[str, Any], Config, dict[str, Run]]:
    """All that the manifest says but for the files; the page's config; the runs by record.

    What can be computed is computed from the executed notebooks and the records, so that it can be
    computed again.

    Args:
        written: what cannot: dates, commit, and the name of the folder of evidence.
        notebooks: for each its status, reason and parameters.
    """
    shown = [run for part in sections for run in part.runs]
    runs, damaged = {}, []
    for name in dict.fromkeys(run["run"] for run in shown):
        try:
            runs[name] = copies.get(name)
        except StoreError as error:
            damaged.append(str(error))
    present = {name: run for name, run in runs.items() if run}
    base = next(iter(notebooks.values()))["parameters"]
    calls = [made for part in sections for made in part.calls]
    smoke = any(made["from"].get("smoke") for made in calls)
    config = Config(dataset=base["dataset"], epochs=1 if smoke else base["epochs"])
    every = len(sections) == len(notebooks)
    complete = every and all(part["status"] == "complete" for part in notebooks.values())
    manifest = {
        "format": 2,
        "status": "complete" if complete else "partial",
        "scale": "smoke" if smoke else scale_name(config),
        "stale": damaged + stale(shown, {name: run.checksum for name, run in present.items()}),
        **written,
        "notebooks": {name: dict(part) for name, part in notebooks.items()},
        "runs": {
            name: {
                "setting": setting_name(run.config),
                "seed": run.config.seed,
                "source": (
                    "trained now"
                    if run.dated(written["started"], written["finished"])
                    else "recorded"
                ),
                "scale": scale_name(run.config),
                "date": run.provenance["date"],
                "commit": run.provenance["commit"],
                "device": run.provenance["device"],
                "sha256": run.checksum,
            }
            for name, run in present.items()
        },
    }
    return manifest, config, present


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


def stale(shown: list[dict[str, Any]], kept: Mapping[str, str]) -> list[str]:
    """Sentences on runs of which the page shows other numbers than those on record.

    That is so when another process trained a run again while the notebooks ran.

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


def plan(shared: Mapping[str, Any], parameters: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Notebook → its parameters, all checked before the first notebook runs.

    Raises:
        LabkitError: a value is not possible, or no notebook has a parameter of that name.
    """
    from labkit.core.device import find_device  # here, since they bring torch along
    from labkit.lab.experiment import retrain_before

    known = {}
    for name in NOTEBOOKS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known[name] = set(papermill.inspect_notebook(notebook_folder() / f"{name}.ipynb"))
    notebook.check_names(set(parameters), set().union(*known.values()))
    values = {**shared, **parameters}
    base = Config(dataset=values["dataset"], epochs=values["epochs"])
    seed_range(values["seeds"])
    find_device(values["device"])
    retrain_before(values["retrain"])
    if "recipe_seeds" in parameters:
        seed_range(parameters["recipe_seeds"], "recipe_seeds")
    for name in ("activations", "lr", "batch_size"):
        if name in parameters:
            notebook.compared(base, **{name: parameters[name]})
    return {
        name: {key: value for key, value in values.items() if key in known[name]}
        for name in NOTEBOOKS
    }


def section(name: str, values: Mapping[str, Any], target: Path) -> PageSection:
    """One notebook run and exported; also if it failed, as far as it came."""
    try:
        return export(name, execute(name, values, target))
    except ReportError as error:
        print(error, flush=True)
        executed = nbformat.read(target, as_version=4) if target.is_file() else None
        return as_far_as_it_came(name, executed, str(error))


def as_far_as_it_came(
    name: str, executed: nbformat.NotebookNode | None, reason: str
) -> PageSection:
    """The section of a notebook that failed."""
    cells = executed.cells if executed else []
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    if any(out.output_type in ("display_data", "execute_result") for out in outputs):
        return replace(export(name, executed), status="partial", reason=reason)
    return PageSection(name, "failed", reason, title=name)


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
    if left := unrun(executed):  # papermill takes an aborted notebook for a complete one
        raise ReportError(f"notebook {name} failed: {left} of its cells never ran.")
    return executed


def unrun(executed: nbformat.NotebookNode) -> int:
    """How many of a notebook's code cells did not run to their end."""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    failed = [any(out.output_type == "error" for out in cell.outputs) for cell in code]
    return sum(c.execution_count is None or f for c, f in zip(code, failed, strict=True))


def _next_cell(path: Path) -> int:
    """The number, from 1, of the first code cell that has no execution count."""
    cells = nbformat.read(path, as_version=4).cells
    for number, cell in enumerate(cells, start=1):
        if cell.cell_type == "code" and cell.execution_count is None:
            return number
    return len(cells)


def export(name: str, executed: nbformat.NotebookNode) -> PageSection:
    """An executed notebook as a part of the page; its headings go one level down."""
    exporter = HTMLExporter(
        template_name="section",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    executed = copy.deepcopy(executed)
    executed.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
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
    for cell in soup.find_all("div", class_="cell"):
        del cell["id"]  # by chance in papermill's own cells; nothing points there
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    outputs = [output for cell in kept for output in cell.get("outputs", [])]
    stated = [out.get("data", {}).get(remake.MIME) for out in outputs]
    return PageSection(name, "complete", "", title, str(soup), headings, list(filter(None, stated)))


def render(
    written: Mapping[str, Any],
    notebooks: Mapping[str, Mapping[str, Any]],
    sections: list[PageSection],
    copies: Store,
) -> tuple[dict[str, Any], str]:
    """The manifest but for its files, and the page; see `facts` for the arguments.

    Runs of the page's own images and epochs are compared; the others are only listed. The page
    states the manifest, and how each of its tables, texts and figures was made, in their order.
    """
    manifest, config, runs = facts(written, notebooks, sections, copies)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {}  # parameters in their order, as papermill has it
    compared, others = grouped(runs.values(), config)
    first = next(iter(compared.values()), [])
    head = [tables.summary(compared), tables.ledger(compared)] if compared else []
    beside = len(first) > 1 and manifest["scale"] == "paper"
    head += [tables.beside(compared)] if beside else []
    tail = (
        [tables.provenance({**compared, **others}, manifest["started"], manifest["finished"])]
        if runs
        else []
    )
    shown = dict.fromkeys(("summary", "ledger", "beside", "provenance"), "") | {
        table.call["made by"].removeprefix("tables."): remake.marked(table.html(), table.call)
        for table in head + tail
        if len(table.frame)
    }
    calls = [table.call for table in head if len(table.frame)]
    calls += [made for part in sections for made in part.calls]
    manifest["shown"] = [made["made by"] for made in calls + [t.call for t in tail]]
    took = datetime.fromisoformat(manifest["finished"]) - datetime.fromisoformat(
        manifest["started"]
    )
    sources = [run["source"] for run in manifest["runs"].values()]
    kinds = Counter(made.partition(".")[0] for made in manifest["shown"])
    return manifest, environment.get_template("page.html.j2").render(
        manifest=manifest,
        config=config,
        n=len(first),
        sections=sections,
        shown=shown,
        kinds=kinds,
        versions=first[0].provenance["versions"] if first else {},
        date=manifest["started"][:16].replace("T", " ") + " UTC",
        seconds=took.total_seconds(),
        trained=sources.count("trained now"),
        recorded=sources.count("recorded"),
        code_style=HtmlFormatter(style="default").get_style_defs(".highlight"),
    )


def setting_name(config: Config) -> str:
    """The original's name for this setting if it has one, and whatever else is unusual."""
    if section := original.section_of(config):
        return ", ".join([section.name, *config.unusual()])
    return config.setting()
