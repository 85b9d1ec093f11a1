"""The command `actor`: its commands."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .. import __version__
from .apply import apply, revert
from .compare import compare
from .demo import demo, testbed
from .export import export
from .fit import fit, scan
from .judge import judge
from .label import label
from .leaderboard import leaderboard
from .measure import measure
from .probe import probe
from .push import push, reproduce
from .report import report
from .settings import Config
from .terminal import EXIT_STATUSES, console, run_app
from .tune import tune

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=f"\b\n{EXIT_STATUSES}\n\nAny option can also be set in the environment, as ACTOR_FIT_SEED for --seed of "
    "`actor fit`, or in a file: --config.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Measure and repair over-refusal of chat models by training one transformer block."""


def _switch(name: str, text: str) -> Any:
    """An option of every command that the command itself need not know; `terminal.run_app` looks for it."""
    return Annotated[bool, typer.Option(f"--{name}", help=text, expose_value=False, allow_from_autoenv=False)]


SHARED = {
    "config": (Config, None),
    "quiet": (_switch("quiet", "Say nothing but errors."), False),
    "verbose": (_switch("verbose", "Say all that is logged, with time and place."), False),
    "json": (_switch("json", "Print the result as one JSON object on stdout; all else goes to stderr."), False),
}


def _register(command: Callable[..., Any]) -> None:
    """Make `command` a command of the app, with the options that all share, and its summary uncut."""

    @functools.wraps(command)
    def run(**given: Any) -> Any:  # by the signature below
        return command(**{name: value for name, value in given.items() if name not in SHARED})

    own = inspect.signature(command)
    for parameter in own.parameters.values():
        for option in getattr(parameter.annotation, "__metadata__", ()):
            option.show_envvar = False  # said once, in the help of `actor`
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
        for name, (option, default) in SHARED.items()
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *shared])
    setattr(run, "__signature__", signature)  # noqa: B010 - functions have it by custom
    environment = {"auto_envvar_prefix": f"ACTOR_{command.__name__.upper()}"}
    app.command(short_help=inspect.getdoc(command), context_settings=environment)(run)


for command in (
    testbed,
    scan,
    fit,
    tune,
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
    leaderboard,
    demo,
):
    _register(command)


def main() -> None:
    """Run the command line; a mistake that the user can fix is one line and exit status 2."""
    if status := run_app(app):
        sys.exit(status)
