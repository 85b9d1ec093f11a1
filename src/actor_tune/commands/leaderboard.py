"""`actor leaderboard`: one HTML file of several measured models."""

from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from .terminal import Result, console


def leaderboard(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of `actor measure`, or folders of such folders.", metavar="DIR...")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file.", metavar="FILE")] = Path(
        "leaderboard.html"
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a file of that name.")] = False,
) -> Result:
    """Write one self-contained HTML page that ranks measured models by over-refusal and safety."""
    groups = at.leaderboard(folders)
    page = at.write_leaderboard(groups, output, force)
    console.print(f"Written to {page}", soft_wrap=True)
    return Result({"leaderboard": str(page), "groups": [group.json() for group in groups]})
