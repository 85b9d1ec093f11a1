"""The command `actor`: its commands, and what happens to errors."""

import logging
import re
import sys

import typer
from rich.console import Console
from rich.logging import RichHandler

from ..errors import UnsafeError, UserError
from ..storage.files import storage_error
from .apply import apply, revert
from .compare import compare
from .demo import demo, testbed
from .export import export
from .fit import fit, scan
from .judge import judge
from .label import label
from .measure import measure
from .options import EXIT_NOT_SAFE
from .probe import probe
from .push import push, reproduce
from .report import report

EXIT_USER_ERROR = 2

OPTIONS = {"margin": "--max-safety-drop", "evaluation": "--eval"}
"""Settings whose option has another name than theirs."""

app = typer.Typer(
    help="Measure and repair over-refusal of chat models by training one transformer block.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    testbed,
    scan,
    fit,
    measure,
    apply,
    revert,
    export,
    push,
    reproduce,
    compare,
    probe,
    judge,
    label,
    report,
    demo,
):
    app.command()(command)


def as_options(message: str) -> str:
    """`message` with the settings that it names, as in `layer=3`, written as options of the command line: --layer 3."""

    def option(match: re.Match[str]) -> str:
        setting, value = match.groups()
        name = OPTIONS.get(setting, "--" + setting.replace("_", "-"))
        if value == "False":
            return name.replace("--", "--no-", 1)
        return name if value in ("", "True") else f"{name} {value}"

    return re.sub(r"`([a-z_]+)=([^`]*)`", option, message)


class _AsOptions(logging.Filter):
    """Settings in log lines, as in errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = as_options(record.getMessage()), None
        return True


def main() -> None:
    """Run the command line; a mistake that the user can fix is one line and exit status 2."""
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    handler.addFilter(_AsOptions())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("actor_tune").setLevel(logging.INFO)
    try:
        app()
    except (UserError, OSError) as error:
        told = error if isinstance(error, UserError) else storage_error(error)
        if told is None:
            raise
        print(f"error: {as_options(str(told))}", file=sys.stderr)
        raise SystemExit(EXIT_NOT_SAFE if isinstance(told, UnsafeError) else EXIT_USER_ERROR) from None
