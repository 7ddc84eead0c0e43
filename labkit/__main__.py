"""The command line: `labkit report`, `train`, `verify`, `new` and `runs`."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import click

from labkit.core.config import DATASETS, SCALE_SEEDS, SCALES
from labkit.core.log import plain
from labkit.core.values import LabkitError
from labkit.core.words import plural

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
BY_SCALE = ", ".join(f"{count} at the {scale} scale" for scale, count in SCALE_SEEDS.items())
YES = "Do not ask before what takes more than ten minutes."
WHERE = "Let Dask train: local, slurm, or a scheduler's address, such as tcp://host:8786."
FIELD = "A setting of all runs, such as: -p optimizer sgd. May be repeated."
PARAMETER = "A notebook's parameter, such as: -p lr 0.05 -p dataset mnist-5k. May be repeated."
PATH = click.Path(path_type=Path)
MOST_SHOWN = 20  # of the places where something is wrong
MOST_NAMED = 200  # characters of a file's name in a sentence

# What a command needs is imported within it, so that --help need not wait for it.


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="labkit")
def cli() -> None:
    """An executable lab report on ResNet-18 and MNIST."""


@cli.command()
@click.argument("folder", type=PATH)
def new(folder: Path) -> None:
    """Lay out a lab of your own in FOLDER: a notebook, its claims, and a README."""
    from labkit.report.layout import lay_out

    lay_out(folder)
    print(f"{folder / 'README.md'} says how to go on; to begin with: labkit report {folder}")


@cli.command()
@click.argument("notebooks", nargs=-1, type=PATH)
@click.option("--scale", help=f"{' or '.join(SCALES)}; by default what each notebook says.")
@click.option("--dataset", help=f"Instead of the scale's: {', '.join(DATASETS)} or own:NAME.")
@click.option("--epochs", help="Instead of the scale's.")
@click.option("--seeds", help=f"Runs per setting, by default {BY_SCALE}.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--output", default="report", type=PATH, help="Folder for the page and its evidence.")
@click.option("--retrain", is_flag=True, help="Train every run again, recorded or not.")
@click.option("--yes", is_flag=True, help=YES)
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help=PARAMETER)
def report(
    notebooks: tuple[Path, ...],
    output: Path,
    parameters: tuple[tuple[str, str], ...],
    **options: Any,
) -> None:
    """Run NOTEBOOKS, or all of a folder, and join them into one HTML page.

    By default labkit's own, which are at the paper scale.
    """
    from labkit.report.build import write_report

    start = time.perf_counter()
    page = write_report(output, notebooks, parameters=dict(parameters), **options)
    print(f"The lab report is {page.absolute()} ({time.perf_counter() - start:.0f} s).")


@cli.command()
@click.option("--scale", default="paper", help=f"{' or '.join(SCALES)}.")
@click.option("--dataset", help=f"Instead of the scale's: {', '.join(DATASETS)} or own:NAME.")
@click.option("--epochs", help="Instead of the scale's.")
@click.option("--seeds", help=f"Runs per setting, by default {BY_SCALE}.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dask", metavar="WHERE", help=WHERE)
@click.option("--retrain", is_flag=True, help="Train every run again, recorded or not.")
@click.option("--yes", is_flag=True, help=YES)
@click.option("-p", "fields", nargs=2, multiple=True, metavar="FIELD VALUE", help=FIELD)
def train(fields: tuple[tuple[str, str], ...], **options: Any) -> None:
    """Train the original's five settings, and keep the runs for reports and notebooks."""
    from labkit.report.sweep import train_all

    train_all(fields=dict(fields), **options)


@cli.command()
@click.argument("target", required=False, type=PATH)
def verify(target: Path | None) -> None:
    """Make everything that TARGET shows again from the records, and compare.

    TARGET is a page, a report's folder, an executed notebook, a record or a folder of records; by
    default ./report, or else the user's records. Fails, and names the place, where an altered
    digit is found.
    """
    from labkit.report import verify as checking
    from labkit.store.folder import Store

    start = time.perf_counter()
    target = target or (Path("report") if Path("report").is_dir() else Store().folder)
    verdict = checking.verify(target)
    counts = ", ".join(f"{count} {kind}" for kind, count in verdict.checked.items())
    print(f"{target}: {counts} checked in {time.perf_counter() - start:.1f} s.")
    many = len(verdict.problems)
    for sentence in verdict.problems[:MOST_SHOWN] or verdict.missing:
        print(f"- {sentence}")
    if many > MOST_SHOWN:
        print(f"- and {many - MOST_SHOWN} more")
    if many:
        raise LabkitError(f"{many} place{'s do' if many > 1 else ' does'} not agree.")
    if verdict.missing:
        raise LabkitError("nothing disagrees, but not everything could be checked.")
    print("Everything agrees.")


@cli.group(invoke_without_command=True)
@click.option("--shipped", is_flag=True, help="List those that ship with labkit, too.")
@click.pass_context
def runs(context: click.Context, shipped: bool) -> None:
    """List the runs at hand; or show, export and delete some."""
    if context.invoked_subcommand:
        return
    from labkit.store.folder import Store
    from labkit.store.inventory import listing, overview

    table = listing()
    if str(own := Store().folder) not in set(table["folder"]):
        print(f"There are no runs in {own}.")
    for place, part in table.groupby("folder", sort=False):
        if place == "shipped" and not shipped:
            print(f"shipped: {plural(len(part), 'run')}; labkit runs --shipped lists them")
        else:
            print(f"{place}:")
            print(overview(part).to_string(index=False))
        for problem in part["problem"].dropna():
            print(f"- {problem}")


@runs.command()
@click.argument("record")
def show(record: str) -> None:
    """What is known of RECORD, named as `labkit runs` lists it or by its first letters."""
    from labkit.show import tables
    from labkit.store.audit import record_problems
    from labkit.store.checkpoint import SUFFIX, read_header
    from labkit.store.folder import DamagedError, Store
    from labkit.store.inventory import listing, resolve

    store, table = Store(), listing()
    name = resolve(table, record)
    print(f"{name}: {'; '.join(table[table['record'] == name]['status'])}")
    for path in (place / f"{name}.json" for place in store.places):
        for problem in record_problems(path) if path.exists() else []:
            print(f"{path}: {problem}")
    found = None
    with contextlib.suppress(DamagedError):
        found = store.get(name)
    known = read_header(store.folder / f"{name}{SUFFIX}")
    if found:
        known = {"config": found.config.to_dict(), **found.provenance}
    for key, value in known.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner} {item}" for inner, item in value.items())
        print(plain(f"{key}: {value}"))
    if found:
        print(found.history.to_string(index=False, na_rep="–"))
        print(tables.per_class({"": [found]}))


@runs.command()
@click.argument("file", default="-", type=click.File("w"))
def export(file: TextIO) -> None:
    """Write the list to FILE as CSV, with full precision; by default to the terminal."""
    from labkit.store.inventory import listing

    listing().to_csv(file, index=False)


@runs.command()
@click.argument("records", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(records: tuple[str, ...], yes: bool) -> None:
    """Delete what is left of partial runs, and damaged files that were set aside.

    Of all, or only of RECORDS. Finished runs stay.
    """
    from labkit.store.inventory import leftovers, listing, resolve

    table, paths = listing(), []
    names = [resolve(table, record) for record in records]
    for name in names or dict.fromkeys(table["record"]):
        left = leftovers(name)
        if names and not left:
            raise LabkitError(
                f"{name} is neither partial nor set aside; finished runs are not deleted here."
            )
        paths += left
    if not paths:
        print("There is nothing to delete.")
        return
    for path in paths:
        print(f"{path} ({path.stat().st_size / 1e6:,.1f} MB)")
    if not yes:
        click.confirm("Delete these?", abort=True)
    for path in paths:
        path.unlink(missing_ok=True)


def main() -> None:
    """The command `labkit`; a `LabkitError` becomes its sentence and exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII alone gets \u2013
        stream.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="labkit")
    except LabkitError as error:
        said = str(error)
    except OSError as error:  # such as a name that is too long
        said = f"{str(error.filename or 'a file')[:MOST_NAMED]}: {error.strerror or error}."
    print(f"labkit: {plain(said)}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
