"""The command line: `labkit report`."""

import sys
import time
from pathlib import Path

import click

from labkit.config import DATASETS, SCALES, LabkitError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="labkit")
def cli() -> None:
    """An executable lab report on ResNet-18 and MNIST."""


@cli.command()
@click.option("--scale", default="quick", show_default=True, help=f"{' or '.join(SCALES)}.")
@click.option("--dataset", help=f"Instead of the scale's: {', '.join(DATASETS)}.")
@click.option("--epochs", help="Instead of the scale's.")
@click.option("--seeds", default="1", show_default=True, help="Runs per setting.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--output",
    default="report",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the page and the executed notebooks.",
)
@click.option("--retrain", is_flag=True, help="Train every run again, recorded or not.")
@click.option(
    "-p",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="A notebook's parameter, such as: -p lr 0.05. May be repeated.",
)
def report(output: Path, parameters: tuple[tuple[str, str], ...], **options: str) -> None:
    """Run the four notebooks and join them into one HTML page."""
    from labkit.report import build  # here, so that --help need not wait for it

    start = time.perf_counter()
    page = build(output, parameters=dict(parameters), **options)
    print(f"The lab report is {page.absolute()} ({time.perf_counter() - start:.0f} s).")


def main() -> None:
    """The command `labkit`; a `LabkitError` becomes its sentence and exit code 1."""
    try:
        cli(prog_name="labkit")
    except LabkitError as error:
        print(f"labkit: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
