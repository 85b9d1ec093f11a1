"""Make docs/commands.md from what `actor --help` is made of.

python -m tools.make_commands_page --output docs/commands.md
"""

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

import typer

from actor_tune.commands.cli import app

from .pages import table

HEAD = """# The commands

Made by `make pages` from the commands themselves; do not edit. `actor COMMAND --help` says the same in a terminal.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.parse_args().output.write_text(page(), encoding="utf-8")


def commands() -> dict[str, Any]:
    """What `actor` has, by name, in the order of its help."""
    group: Any = typer.main.get_command(app)
    return {name: command for name, command in group.commands.items() if not command.hidden}


def options(command: Any) -> set[str]:
    """All names of its options, --help too."""
    return {"--help"} | {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def page() -> str:
    """The whole page: what all commands share, then each."""
    group: Any = typer.main.get_command(app)
    shared = [_text(group.help), _parameters(group, "actor"), _text(group.epilog)]
    told = [_section(name, command) for name, command in commands().items()]
    return "\n\n".join(part.strip() for part in [HEAD, *shared, *told] if part.strip()) + "\n"


def _section(name: str, command: Any) -> str:
    asked = " ".join(_brackets(param) for param in command.params if param.param_type_name == "argument")
    usage = f"```\nactor {name} {asked} [OPTIONS]\n```".replace("  ", " ")
    parts = [
        f"## actor {name}",
        _text(command.help),
        usage,
        _parameters(command, f"actor {name}"),
        _text(command.epilog),
    ]
    return "\n\n".join(part for part in parts if part)


def _brackets(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _parameters(command: Any, name: str) -> str:
    """Its arguments and options with what its help says of them."""
    context = command.context_class(command, info_name=name, terminal_width=1000, max_content_width=1000)
    records = [param.get_help_record(context) for param in command.params if not getattr(param, "hidden", False)]
    rows = [[f"`{_cell(called)}`", _cell(said)] for called, said in filter(None, records)]
    return table(["option", "what it is"], rows) if rows else ""


def _cell(text: str) -> str:
    """In a table of Markdown: on one line, and a bar is no border."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _text(text: str | None) -> str:
    return inspect.cleandoc(text or "").replace("\b", "").strip()


if __name__ == "__main__":
    main()
