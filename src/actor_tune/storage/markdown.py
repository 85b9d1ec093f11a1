"""Markdown: text of others that may stand in it, and tables."""

import html
import re
from collections.abc import Iterable, Sequence

from ..errors import shown


def line(value: object) -> str:
    """Text that is taken neither for HTML nor for a new line: names and sentences may have anything in them."""
    text = " ".join(str(value).split())
    return html.escape("".join(char if char.isprintable() else repr(char)[1:-1] for char in text), quote=False)


def escaped(value: object) -> str:
    """`line`, whose characters make no column, code or link."""
    return re.sub(r"([|`\\\[\]])", r"\\\1", line(value))


def cell(value: object) -> str:
    """`escaped`, cut where it is long."""
    return escaped(shown(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells as given, or nothing where there are no rows; a column whose name begins with > has numbers."""
    found = [
        [column.removeprefix(">") for column in columns],
        ["---:" if column.startswith(">") else "---" for column in columns],
        *rows,
    ]
    return "\n".join(f"| {' | '.join(each)} |" for each in found) if len(found) > 2 else ""
