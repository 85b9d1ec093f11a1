"""The command `actor`: its commands, and what happens to errors."""

import logging
import sys

import typer
from rich.console import Console
from rich.logging import RichHandler

from .commands.compare import compare
from .commands.demo import demo, testbed
from .commands.fit import fit, scan
from .commands.judge import judge
from .commands.measure import measure
from .commands.probe import probe
from .commands.report import report
from .errors import UserError

EXIT_USER_ERROR = 2

app = typer.Typer(
    help="Measure and repair over-refusal of chat models by training one transformer block.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (testbed, scan, fit, measure, compare, probe, judge, report, demo):
    app.command()(command)


def main() -> None:
    """Run the command line; a mistake that the user can fix is one line and exit status 2."""
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("actor_tune").setLevel(logging.INFO)
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR) from None
