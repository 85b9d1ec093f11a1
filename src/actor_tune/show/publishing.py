"""What is published, and what was made again, in the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from .text import plain

if TYPE_CHECKING:  # it brings torch with it
    from ..publishing.published import FileCheck


def files_table(sizes: Mapping[str, int], repo: str) -> Table:
    """One row a file."""
    table = Table(title=f"What is published in {plain(repo)}")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for name, size in sizes.items():
        table.add_row(Text(plain(name)), f"{size:,}")
    return table


def checks_table(checks: "Sequence[FileCheck]") -> Table:
    """One row a file: whether it has the same bytes, and the beginning of both hashes."""
    table = Table(title="Published, and made again")
    for column in ("file", "bytes", "published", "here"):
        table.add_column(column)
    for check in checks:
        said = "the same" if check.same else "not made" if check.here is None else "others"
        row = Text(plain(check.name)), said, plain(check.published)[:12] or "-", (check.here or "-")[:12]
        table.add_row(*row, style=None if check.same else "bold red")
    return table
