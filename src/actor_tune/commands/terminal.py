"""What all commands have in common in the terminal: how much is said, the result as JSON, and exit statuses."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.logging import RichHandler

from .. import progress
from ..errors import UnsafeError, UserError
from ..storage.files import storage_error

EXIT_BUG, EXIT_USER_ERROR, EXIT_NOT_SAFE, EXIT_STOPPED = 1, 2, 3, 130
EXIT_STATUSES = f"""Exit status:
  0  done
  {EXIT_BUG}  a bug, with its traceback; of `actor reproduce` also: other bytes
  {EXIT_USER_ERROR}  a mistake that you can mend, in one line
  {EXIT_NOT_SAFE}  withheld: the safety gate was not passed
  {EXIT_STOPPED}  stopped by Ctrl-C"""

# No markup: set names, paths and answers are not to be trusted with it.
console = Console(markup=False, emoji=False, highlight=False)

OPTIONS = {"margin": "--max-safety-drop", "evaluation": "--eval"}
"""Settings whose option has another name than theirs."""

WRONG_USAGE: Any = typer.BadParameter.__bases__[0]
"""What typer raises at options that it does not know and the like; in some of its versions it has no public name."""


@dataclass(frozen=True)
class Result:
    """What a command found, as it is stored, and the command's exit status."""

    found: dict[str, Any] = field(default_factory=dict)
    status: int = 0


def print_details(what: RenderableType) -> None:
    """Print what only --verbose shows: it is in the record and in the report too."""
    if logging.getLogger("actor_tune").isEnabledFor(logging.DEBUG):
        console.print(what)


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


def run_app(app: Callable[..., Any]) -> int:
    """Run the typer `app` on `sys.argv`, say what it found, and return the exit status.

    The options that all commands share are looked for here too: a mistake in other options is told as they say.
    """
    quiet, verbose, as_json = (f"--{name}" in sys.argv for name in ("quiet", "verbose", "json"))
    _say_so_much(quiet, verbose)
    with _stdout_kept() if as_json else nullcontext():
        result = _run(app)
    if as_json and (result.found or result.status):
        typer.echo(json.dumps(result.found | {"exit_status": result.status}, allow_nan=False))
    return result.status


def _run(app: Callable[..., Any]) -> Result:
    try:
        outcome = app(standalone_mode=False)
    except WRONG_USAGE as error:
        error.show()
        return Result({"error": error.format_message()}, EXIT_USER_ERROR)
    except typer.Abort:
        return Result({"error": "aborted"}, EXIT_BUG)
    except (UserError, OSError) as error:
        told = error if isinstance(error, UserError) else storage_error(error)
        if told is None:
            raise
        message = as_options(str(told))
        typer.echo(f"error: {message}", err=True)
        return Result({"error": message}, EXIT_NOT_SAFE if isinstance(told, UnsafeError) else EXIT_USER_ERROR)
    if outcome == EXIT_STOPPED:  # what typer makes of Ctrl-C
        typer.echo(
            "stopped; a fit, measurement, comparison or probe goes on where it was with the same command", err=True
        )
        return Result({"error": "stopped"}, EXIT_STOPPED)
    return outcome if isinstance(outcome, Result) else Result(status=outcome or 0)


def _say_so_much(quiet: bool, verbose: bool) -> None:
    """Errors alone, all that is logged, or what is between."""
    console.quiet = quiet
    progress.show_progress(not quiet)
    handler: logging.Handler = RichHandler(console=progress.console, show_time=verbose, show_path=verbose)
    if not progress.console.is_terminal:  # a line is one line, and nothing but text
        handler = logging.StreamHandler()
        place = "%(asctime)s %(levelname)-8s %(name)s: " if verbose else "%(levelname)-8s "
        handler.setFormatter(logging.Formatter(f"{place}%(message)s"))
    handler.addFilter(_AsOptions())
    logging.basicConfig(format="%(message)s", handlers=[handler])
    logging.getLogger().setLevel(logging.ERROR if quiet else logging.WARNING)
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.getLogger("actor_tune").setLevel(level)


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """What is printed meanwhile, by processes that are started too, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
        if sys.__stdout__:
            sys.__stdout__.flush()  # what was printed past the redirection
    finally:
        os.dup2(kept, 1)
        os.close(kept)
