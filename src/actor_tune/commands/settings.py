"""Settings of a command from a file, `--config`, and the copy of all that it ran with, to be given back the same way.

Commands describe their settings once, in their signatures. What a file says is read as if it had been typed.
"""

import difflib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ..errors import UserError
from ..records.run import SETTINGS_FILE
from ..storage.files import replacing
from ..storage.tables import read_text

log = logging.getLogger(__name__)

PERMISSIONS = ("allow_unsafe", "trust_remote_code")
"""Settings that allow what may do harm: where a file gives them, and not the one who typed, that is said."""

_context: Any = None
"""typer's, of the command that runs."""


def _settings(command: Any) -> Iterator[tuple[str, Any]]:
    """Each setting of a `command` of typer that a file may hold: its name there, and the parameter."""
    for parameter in command.params:
        if getattr(parameter, "expose_value", True) and parameter.name != "help":
            long = [name for name in parameter.opts if name.startswith("--")]
            yield (long[0][2:].replace("-", "_") if long else parameter.name), parameter


def _from_file(context: typer.Context, file: Path | None) -> None:
    global _context
    _context = context
    if file:
        tables = _tables(file, context.parent.command if context.parent else None)
        context.default_map = tables.get(str(context.info_name), {})
        for name in PERMISSIONS:
            if context.default_map.get(name) == "True":
                log.warning("%s says `%s=True`", file, name)


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A file with a table for each command; the command line and the environment go before it.",
        metavar="FILE.toml",
        show_default=False,
        is_eager=True,
        expose_value=False,
        allow_from_autoenv=False,
        callback=_from_file,
    ),
]


def _tables(file: Path, app: Any) -> dict[str, dict[str, Any]]:
    """What `file` says, by command of the `app`, by parameter."""
    try:
        read = msgspec.toml.decode(read_text(file))
    except msgspec.DecodeError as error:
        raise UserError(file, str(error), "TOML", "correct it") from None
    found = {}
    for name, table in read.items():
        command = app.commands[_known(name, app.commands, "table", file)]
        if not isinstance(table, dict):
            raise UserError(f"{file}, {name}", "a value", f"a table [{name}]", "put it into the table of a command")
        known = dict(_settings(command))
        given = {known[_known(key, known, "setting", f"{file}, [{name}]")]: value for key, value in table.items()}
        found[name] = {parameter.name: _as_typed(value, parameter) for parameter, value in given.items()}
    return found


def _known(name: str, names: Any, what: str, where: object) -> str:
    """`name`, dashes or not, among `names`."""
    if (known := name.replace("-", "_")) in names:
        return known
    near = difflib.get_close_matches(known, names, 1, 0)
    raise UserError(where, f"no {what} {name!r} is known", f"for example {near[0]}", "correct it, or take it out")


def _as_typed(value: Any, parameter: Any) -> Any:
    """`value` as the command line would have had it."""
    if parameter.multiple or parameter.nargs == -1:
        return [str(item) for item in (value if isinstance(value, list) else [value])]
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)


def resolved(changed: Mapping[str, Any] | None = None) -> str:
    """The settings that the command runs with, wherever they come from, as a file to be given to --config.

    Where results go is left out, because they go elsewhere the next time. `changed`: those that a part of the command
    had of its own.
    """
    lines, given = [], _context.params | dict(changed or {})
    for name, parameter in _settings(_context.command):
        value = given.get(parameter.name)
        if parameter.name != "output_dir" and value not in (None, [], ()):
            # JSON of what settings are is TOML too, but for one control character; what is left are paths.
            text = json.dumps(value, ensure_ascii=False, default=str)
            text = str(value) if isinstance(value, float) and not math.isfinite(value) else text
            lines.append(f"{name} = {text}".replace("\x7f", "\\u007f"))
    return "\n".join([f"[{_context.info_name}]", *lines, ""])


def keep_settings(folder: Path, changed: Mapping[str, Any] | None = None) -> None:
    """Write the settings that the command ran with into `folder`; `changed` as of `resolved`."""
    with replacing(folder / SETTINGS_FILE) as temporary:
        temporary.write_text(resolved(changed), encoding="utf-8", newline="\n")
