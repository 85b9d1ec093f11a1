"""`actor report`: one HTML file from stored results."""

from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from .terminal import Result, console


def report(
    paths: Annotated[
        list[Path], typer.Argument(help="Folders of `actor fit` and `actor measure`.", metavar="RUN_OR_RESULTS...")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file.", metavar="FILE")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file of that name.")] = False,
) -> Result:
    """Write one self-contained HTML page: rates with intervals, projections, the scan, and every answer."""
    page = at.write_report(paths, output, force)
    console.print(f"Written to {page}", soft_wrap=True)
    return Result({"report": str(page)})
