"""`actor report`: one HTML file from stored results."""

from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at


def report(
    paths: Annotated[
        list[Path], typer.Argument(help="Folders of `actor fit` and `actor measure`.", metavar="RUN_OR_RESULTS...")
    ],
    output: Annotated[Path, typer.Option(help="New HTML file.", metavar="FILE")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: rates with intervals, projections, the scan, and every answer."""
    typer.echo(f"Written to {at.write_report(paths, output)}")
