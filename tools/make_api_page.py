"""Make docs/api.md from the signatures and docstrings of `actor_tune`.

python -m tools.make_api_page --output docs/api.md
"""

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import actor_tune

HEAD = """# The Python API

Made by `make pages` from the docstrings; do not edit. `import actor_tune as at`; nothing is printed, and only
`save` and `write_report` write. Every mistake that a user can fix is an `at.UserError` of one line.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.parse_args(sys.argv[1:]).output.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page: functions first, then what they take and return."""
    things = {name: getattr(actor_tune, name) for name in sorted(actor_tune.__all__)}
    functions = [section(name, thing) for name, thing in things.items() if inspect.isroutine(thing)]
    classes = [class_section(name, thing) for name, thing in things.items() if inspect.isclass(thing)]
    constants = [f"`at.{name}` = {thing!r}" for name, thing in things.items() if not callable(thing)]
    parts = [HEAD, "## Functions\n", *functions, "## What they take and return\n", *classes]
    return "\n".join([*parts, "## Defaults\n", *constants, ""])


def section(name: str, function: Any) -> str:
    """A function's signature and docstring."""
    return f"### {name}\n\n```python\n{signature(name, function)}\n```\n\n{text_of(function)}\n"


def class_section(name: str, kind: Any) -> str:
    """A class's docstring, and the first lines of what its public methods and properties say."""
    members = []
    for member, value in vars(kind).items():
        thing = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if member.startswith("_") or not inspect.isfunction(thing) or not thing.__doc__:
            continue
        shown = f"`.{member}`" if isinstance(value, property) else f"`.{signature(member, thing, at='')}`"
        members.append(f"- {shown}: {text_of(thing).split(chr(10) * 2)[0]}")
    return f"### {name}\n\n{text_of(kind)}\n" + "".join(f"\n{line}" for line in members) + "\n" * bool(members)


def signature(name: str, function: Any, at: str = "at.") -> str:
    """As it is called, with types as they are written and without the rooms that they are in."""
    shown = re.sub(r"\((?:self|cls)(?:, )?", "(", str(inspect.signature(function)), count=1)
    shown = re.sub(r"(?<=: )'([^']*)'|(?<=-> )'([^']*)'", r"\1\2", shown)
    shown = re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", shown)
    shown = re.sub(r"<function (\w+) at 0x\w+>", r"\1", shown)
    if at and len(shown) > 80:  # a parameter a line; commas within brackets stay
        shown = re.sub(r", (?=\w+: |\*)", ",\n    ", shown).replace("(", "(\n    ", 1).replace(") ->", "\n) ->")
    return at + name + shown


def text_of(thing: Any) -> str:
    """Its docstring."""
    return inspect.cleandoc(thing.__doc__ or "")


if __name__ == "__main__":
    main()
