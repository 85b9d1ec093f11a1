"""The safety gate in the terminal: its decision, and each harmful set beside it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..prompts.starter import TWINS
from ..records.estimate import points
from ..records.results import Gate
from ..repair.harm import Harm, harm_by_answers
from .text import broken


def gate_told(gate: Gate, fallen: Sequence[str] = ()) -> Group:
    """Each harmful set, worst first, the decision, and what has `fallen`: in a fit, else what the gate knows of."""
    told: list[RenderableType] = []
    if rows := harm_by_answers(gate):
        told.append(harm_table("Refusal of harmful prompts by set, judged answers of the safety gate", rows))
    told.append(Text(gate.sentence, "green" if gate.passed else "bold red"))
    named = fallen or ([gate.warning] if gate.warning else [])
    return Group(*told, *[Text(said, "bold yellow") for said in named])


def harm_table(title: str, rows: Sequence[Harm]) -> Table:
    """Shares refused, in the order given."""
    twins = any(row.name.endswith(TWINS) for row in rows)
    caption = f"{TWINS}: built-in harmful prompts in the words of benign ones"
    table = Table(title=title, caption=caption if twins else None)
    table.add_column("set", overflow="fold")
    for column in ("n", "before", "after", "drop, points (95 %)"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        shares = (f"{100 * share:.1f} %" for share in (row.before, row.after))
        table.add_row(Text(broken(row.name)), str(row.n or ""), *shares, points(row.drop))
    return table
