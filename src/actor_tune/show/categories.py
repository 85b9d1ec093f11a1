"""What became of each category of prompts, as rows for the terminal and for pages. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ..prompts.prompt import Kind
from ..records.estimate import Estimate, wilson
from ..records.results import Measured, Results
from ..records.run import Yours
from .text import COLOURS, broken, plain, points_text, stacked

DONE: dict[Kind, str] = {"pseudo_harmful": "answered", "harmful": "refused", "harmless": "answered"}
"""What is counted of each kind, in the order that they are shown in: what should happen to its prompts."""


@dataclass(frozen=True)
class CategoryRow:
    """The prompts of one category and kind: the share `done`, answered or refused; None where it was not measured.

    - `aim`: what a fit trained them for; empty in a measurement.
    - `given`: of which `n` were asked.
    """

    name: str
    kind: Kind
    n: int
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None = None
    aim: str = ""
    given: int = 0

    @property
    def done(self) -> str:
        """What is counted."""
        return DONE[self.kind]


def category_rows(results: Results) -> list[CategoryRow]:
    """A row for each category and kind of a measurement, by name; none where no prompt has a category."""
    kinds = [*DONE]
    before = _rates(results.baseline) if results.baseline else {}
    changes = {(item.name, item.kind): item for item in results.comparison.categories} if results.comparison else {}
    rows = []
    for item in sorted(results.categories, key=lambda item: (item.name.casefold(), kinds.index(item.kind))):
        which = item.name, item.kind
        change = changes[which].estimate if which in changes else None
        flipped = change and item.kind != "harmful"
        rows.append(
            CategoryRow(
                *which,
                n=item.n,
                before=before.get(which),
                after=_done(item.kind, item.rate),
                change=Estimate(-change.value, -change.high, -change.low) if change and flipped else change,
            )
        )
    return rows


def _rates(measured: Measured) -> dict[tuple[str, Kind], Estimate | None]:
    return {(item.name, item.kind): _done(item.kind, item.rate) for item in measured.categories}


def _done(kind: Kind, refused: Estimate | None) -> Estimate | None:
    if refused is None or kind == "harmful":
        return refused
    return Estimate(1 - refused.value, 1 - refused.high, 1 - refused.low)


def own_rows(yours: Yours | None) -> list[CategoryRow]:
    """A row for each category of a user's own prompts, the freed ones first, as a fit found them."""
    groups = sorted(yours.categories if yours else [], key=lambda group: (group.aim != "freed", group.name.casefold()))
    return [
        CategoryRow(
            group.name,
            "pseudo_harmful",
            group.n,
            wilson(group.before, group.n) if group.n else None,
            wilson(group.after, group.n) if group.n else None,
            aim=group.aim,
            given=group.given,
        )
        for group in groups
    ]


def category_table(rows: Sequence[CategoryRow]) -> Table:
    """The rows of a measurement; narrow enough for 80 characters."""
    compared = any(row.before or row.change for row in rows)
    table = Table(title="By category: benign prompts answered, harmful ones refused, % with 95 % intervals")
    table.add_column("category", overflow="fold")
    for column in ("n", *(("before", "after", "change") if compared else ("rate",))):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        label = Text(f"{broken(plain(row.name))}\n").append(f"{row.kind} {row.done}", COLOURS[row.kind])
        moved = points_text(row.change).replace(" [", "\n[")
        rates = (stacked(row.before), stacked(row.after), moved) if compared else (stacked(row.after),)
        table.add_row(label, str(row.n), *rates)
    return table


def own_table(rows: Sequence[CategoryRow]) -> Table:
    """The rows of a fit."""
    table = Table(title="Your benign prompts by category: answered, % with 95 % intervals; learned from")
    table.add_column("category", overflow="fold")
    for column in ("trained to be", "asked", "before", "now"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        asked = f"{row.n} of {row.given}"
        table.add_row(Text(broken(plain(row.name))), row.aim, asked, stacked(row.before), stacked(row.after))
    return table
