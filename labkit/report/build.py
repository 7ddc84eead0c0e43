"""The report: the notebooks run by papermill and joined into one page; what it leaves on disk.

What it leaves can be verified anywhere: the page, and beside it a folder with the executed
notebooks, copies of the records behind them, and a manifest that says what ran and how it ended.
"""

import ast
import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from filelock import FileLock, Timeout
from nbclient.exceptions import DeadKernelError

from labkit.core import data
from labkit.core.config import SCALE_SEEDS, SCALES
from labkit.core.device import check_device, find_device
from labkit.core.values import LabkitError, choice
from labkit.lab.provenance import commit, commit_address
from labkit.lab.reuse import on_record
from labkit.report import notebook
from labkit.report.page import PageSection, export, extracts, render, runs_shown, unrun
from labkit.store.files import MOST_JSON, file_sha256, parse, read, write_atomically
from labkit.store.folder import Store, StoreError

PAGE = "lab-report.html"
MANIFEST = "manifest.json"
UNFINISHED = "unfinished"  # the folder of a report until it is complete
EVIDENCE = "lab-report-files"  # begins the name of the folder that a page's evidence is in
STOPPED = "The report was stopped while it ran."
FOLDERS = ("notebooks", "runs", "tables", "figures")  # of a page's evidence
LISTED = re.compile(
    r"lab-report\.html|notebooks/[\w.-]+\.ipynb|runs/[\w-]+\.(json|npz)|"
    r"tables/table-\d+\.csv|figures/figure-\d+\.svg"
)


def notebook_folder() -> Path:
    """Where the notebooks are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent.parent
    places = [package.parent / "notebooks", package / "notebooks"]
    return next((place for place in places if any(place.glob("*.ipynb"))), places[0])


def find_notebooks(places: Sequence[Path] = ()) -> dict[str, Path]:
    """Name → notebook: of each folder all, in the order of their names; by default labkit's own.

    Raises:
        LabkitError: there is none, two have one name, or a name is none that a page can have.
    """
    found: dict[str, Path] = {}
    for place in places or [notebook_folder()]:
        inside = sorted(place.glob("*.ipynb")) if place.is_dir() else [place]
        if not inside or not all(path.is_file() and path.suffix == ".ipynb" for path in inside):
            raise LabkitError(f"there is no notebook at {place}; name some, or a folder of some.")
        for path in inside:
            if path.stem in found:
                raise LabkitError(f"two notebooks are called {path.stem}; a page needs two names.")
            if not re.fullmatch(r"\w[\w.-]*", path.stem):
                raise LabkitError(
                    f"the notebook {path.name!r} needs a name of letters, digits, '_' and '-'."
                )
            found[path.stem] = path.absolute()
    return found


def write_report(
    folder: Path,
    notebooks: Sequence[Path] = (),
    *,
    scale: str | None = None,
    dataset: str | None = None,
    epochs: Any = None,
    seeds: Any = None,
    device: str = "auto",
    retrain: bool = False,
    parameters: Mapping[str, str] | None = None,
    yes: bool = True,
) -> Path:
    """Run notebooks, see `find_notebooks`, and write the page `folder/lab-report.html`; its path.

    Beside it stays a folder of its evidence, which the page names: the executed notebooks, copies
    of the records behind them, and `manifest.json`. All of it is made in `folder/unfinished`, and
    takes the place of an earlier page in one step when it is complete; if a notebook fails, the
    others still run, and what there is stays in that folder. Of earlier reports only those files
    are removed that still match their manifests.
    `dataset`, `epochs` and `seeds` default to the scale's, and where there is none to what each
    notebook says. They and `parameters` go to every notebook that has one of that name. Without
    `yes` it asks before long training, if there is a terminal.

    Raises:
        LabkitError: a value is not possible, the folder holds something else than a report or
            cannot be written, or a notebook failed; the page that was there before is left as it
            was.
    """
    started = _now()
    values = {}
    if scale is not None:
        scale = choice("scale", scale, SCALES)
        values = SCALES[scale] | {"seeds": SCALE_SEEDS[scale]}
    # A date, so that the baseline is trained once and not by every notebook again.
    values |= {"device": device, "retrain": started if retrain else "no"}
    own = {"dataset": dataset, "epochs": epochs, "seeds": seeds}
    own = {name: value for name, value in own.items() if value is not None}
    paths = find_notebooks(notebooks)
    plans = plan(paths, values, own | dict(parameters or {}))
    announce(paths, plans, device, values["retrain"], yes)
    draft = folder / UNFINISHED
    try:
        refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        runs = draft / "runs", evidence(folder / PAGE) / "runs"
        with FileLock(folder / ".lock", timeout=0), kept_runs(*runs) as kept:
            remove_listed(draft, draft=True, runs=not kept)
            for name in FOLDERS:
                (draft / name).mkdir(parents=True, exist_ok=True)
            sections = run_notebooks(paths, plans, draft, started)
            broken = [part for part in sections if part.status != "complete"]
            if not broken:
                publish(draft, folder)
    except OSError as error:  # a timeout of the lock is one too
        reason = "another process writes a report there" if isinstance(error, Timeout) else ""
        raise LabkitError(
            f"the output folder {folder} cannot be written "
            f"({reason or error.strerror or error}); choose another, or make room."
        ) from error
    if broken:
        raise LabkitError(
            f"{len(broken)} of {len(sections)} notebooks did not finish: "
            f"{' '.join(part.reason for part in broken)} The page was not replaced; the "
            f"unfinished one is {draft / PAGE}."
        )
    return folder / PAGE


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def plan(
    paths: Mapping[str, Path], values: Mapping[str, Any], parameters: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Notebook → its parameters, all checked before the first notebook runs.

    Args:
        values: for the notebooks that have such parameters.
        parameters: the same, but some notebook must.

    Raises:
        LabkitError: a value is not possible, or no notebook has a parameter of that name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {name: papermill.inspect_notebook(path) for name, path in paths.items()}
    notebook.check_names(set(parameters), set().union(*known.values()))
    plans = {}
    for name, own in known.items():
        stated = {k: own[k]["default"] for k in ("dataset", "epochs", "seeds") if k in own}
        given = {k: v for k, v in {**values, **parameters}.items() if k in own}
        plans[name] = {k: ast.literal_eval(text) for k, text in stated.items()} | given
        notebook.checked(_ours(paths[name]), **plans[name])
    return plans


def _ours(path: Path) -> bool:
    """Whether a notebook is labkit's own."""
    return path.parent.resolve() == notebook_folder().resolve()


def announce(
    paths: Mapping[str, Path],
    plans: Mapping[str, Mapping[str, Any]],
    device: str,
    retrain: bool | str,
    yes: bool,
) -> None:
    """Say what is to be trained at least, and ask before what takes long, unless `yes`.

    Raises:
        DataError: it needs images that are not to be had.
    """
    check_device(device)
    store, configs = Store(), []
    for name, values in plans.items():
        if _ours(paths[name]):  # of what others train nothing is known before they do
            known = papermill.inspect_notebook(paths[name])
            compared = known.keys() & notebook.COMPARED
            usual = {key: ast.literal_eval(known[key]["default"]) for key in compared}
            configs += notebook.trained(usual | dict(values))
    kept = on_record(configs, retrain, store)
    missing = [config for config in dict.fromkeys(configs) if config not in kept]
    for dataset in dict.fromkeys(config.dataset for config in missing):
        data.load(dataset)
    if missing:
        from labkit.lab import cost, workers  # here, since they bring torch along

        where = find_device(device)
        at_once = workers.together(missing, where, "epoch", store)
        seconds, words = cost.estimate(missing, where, store, at_once)
        cost.agreed(seconds, f"at least {words}", yes)


def run_notebooks(
    paths: Mapping[str, Path],
    plans: Mapping[str, Mapping[str, Any]],
    draft: Path,
    started: str,
) -> list[PageSection]:
    """Run every notebook; after each, while the next one runs, page and manifest in `draft` are
    brought up to how far it is."""
    sections: list[PageSection] = []
    draft = draft.absolute()  # papermill changes the folder of this process
    with ThreadPoolExecutor(1) as aside:
        writing = aside.submit(write_draft, draft, paths, plans, [], started)
        for number, (name, values) in enumerate(plans.items(), start=1):
            print(f"[{number}/{len(plans)}] {name}", flush=True)
            target = draft / "notebooks" / f"{name}.ipynb"
            if reason := execute(paths[name], values, target):
                print(reason, flush=True)
            executed = nbformat.read(target, as_version=4) if target.is_file() else None
            sections.append(export(name, executed, reason))
            writing.result()
            writing = aside.submit(write_draft, draft, paths, plans, list(sections), started)
        writing.result()
    return sections


def execute(path: Path, values: Mapping[str, Any], target: Path) -> str:
    """Run one notebook with papermill in its own folder and keep it, executed, at `target`.

    Returns why it did not finish, as a sentence that names the cell; "" if it did.
    """
    name = path.stem
    try:
        papermill.execute_notebook(
            path,
            target.absolute(),
            dict(values),
            cwd=path.parent,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            extra_arguments=["--IPKernelApp.log_level=50"],  # its own warnings help no reader
        )
    except papermill.PapermillExecutionError as error:
        first = error.source.strip().splitlines()[0]
        return (
            f"notebook {name} failed in cell {error.cell_index + 1} ({first}): {error.ename}: "
            f"{error.evalue.rstrip('.')}."
        )
    except KeyboardInterrupt:
        # The kernel dies too; asyncio would print what waited for it as a traceback.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except DeadKernelError:
        executed = nbformat.read(target, as_version=4)
        cells = [c for c in executed.cells if c.metadata.papermill.start_time is not None]
        cells[-1].execution_count = None  # papermill takes it for one that ran to its end
        nbformat.write(executed, target)
        return f"notebook {name} failed: its kernel died in cell {unrun(executed)[0]}."
    left = unrun(nbformat.read(target, as_version=4))  # of which papermill says nothing
    return f"notebook {name} failed: {len(left)} of its cells never ran." if left else ""


def write_draft(
    draft: Path,
    paths: Mapping[str, Path],
    plans: Mapping[str, Mapping[str, Any]],
    sections: list[PageSection],
    started: str,
) -> None:
    """Write the page as far as it is, and then the manifest that goes with it."""
    own = {name for name in plans if not _ours(paths[name])}
    states = [(part.status, part.reason) for part in sections] + [("partial", STOPPED)]
    states += [("not run", "")] * len(plans)
    notebooks = {
        name: {"status": status, "reason": reason, "parameters": dict(values)}
        | ({"own": True} if name in own else {})
        for (name, values), (status, reason) in zip(plans.items(), states, strict=False)
    }
    finished = _now()
    written = {
        "started": started,
        "finished": finished,
        "commit": commit(),
        "source": commit_address(),
        "evidence": f"{EVIDENCE}-{re.sub('[^0-9]', '', finished)[:14]}-{secrets.token_hex(2)}",
    }
    store = Store()
    for name in dict.fromkeys(run["run"] for run in runs_shown(sections)):
        with contextlib.suppress(StoreError):  # the page says that it is stale
            store.copy(name, draft / "runs")
    copies = Store(draft / "runs", shipped=None)
    manifest, page = render(written, notebooks, sections, copies)
    write_atomically(draft / PAGE, page.encode())
    for name, content in extracts(page).items() if len(sections) == len(plans) else ():
        write_atomically(draft / name, content)
    manifest["files"] = {name: file_sha256(draft / name) for name in contents(draft, manifest)}
    write_atomically(draft / MANIFEST, json.dumps(manifest, indent=1).encode())


@contextlib.contextmanager
def kept_runs(folder: Path, earlier: Path) -> Iterator[bool]:
    """Let the notebooks keep their runs in `folder` where the user's own cannot be written, and say
    whether that is so. `earlier` holds what an earlier report kept in the same way.

    Each notebook runs in its own folder, so that folders are named to it by whole paths.
    """
    store, before = Store(), dict(os.environ)
    kept = not store.writable()
    places = [folder, earlier] * kept + [p for p in store.places if p != store.shipped]
    if kept:
        print(f"{store.folder} cannot be written; the report keeps its runs in {folder}.")
    os.environ["LABKIT_RUNS"] = os.pathsep.join(str(place.absolute()) for place in places)
    if "LABKIT_DATA" in os.environ:
        os.environ["LABKIT_DATA"] = str(Path(os.environ["LABKIT_DATA"]).expanduser().absolute())
    try:
        yield kept
    finally:
        os.environ.clear()
        os.environ.update(before)


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


def contents(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The report's own files in a folder of evidence, the manifest aside, by their paths in it."""
    names = [PAGE, *(f"notebooks/{name}.ipynb" for name in manifest["notebooks"])]
    records = [path.name for path in sorted(folder.glob("runs/*"))]
    names += [f"runs/{name}" for name in records if re.split("[-.]", name)[0] in manifest["runs"]]
    extracted = [*folder.glob("tables/*.csv"), *folder.glob("figures/*.svg")]
    names += [path.relative_to(folder).as_posix() for path in sorted(extracted)]
    return [name for name in names if LISTED.fullmatch(name) and (folder / name).is_file()]


def own_places(folder: Path) -> list[Path]:
    """Where in an output folder reports have left a manifest; symbolic links are never followed."""
    places = [folder, folder / UNFINISHED, *sorted(folder.glob(f"{EVIDENCE}-*"))]
    return [p for p in places if (p == folder or not p.is_symlink()) and manifest_of(p)]


def refuse_foreign(folder: Path) -> None:
    """Refuse an output folder that holds something else than reports.

    Raises:
        LabkitError: names some of what it holds.
    """
    draft = folder / UNFINISHED
    for path in (draft, *(draft / name for name in FOLDERS)):
        if path.is_symlink():
            raise LabkitError(
                f"{path} is a symbolic link; a report is not written where it leads. Remove it, or "
                "choose another output folder."
            )
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in names if not name.startswith(".")]
    unused = foreign == [UNFINISHED] and not any(p.is_file() for p in draft.rglob("*"))
    if foreign and not unused and not own_places(folder):
        more = ", …" * (len(foreign) > 3)
        raise LabkitError(
            f"the output folder {folder} holds files that are not part of a report "
            f"({', '.join(foreign[:3])}{more}); choose another folder."
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
    for empty in (*(folder / name for name in FOLDERS), folder):
        with contextlib.suppress(OSError):  # not empty: somebody else's
            empty.rmdir()
