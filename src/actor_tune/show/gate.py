"""The safety gate in the terminal: its decision, and each harmful set beside it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..prompts.starter import TWINS
from ..records.estimate import points
from ..records.results import Gate, SetChange
from ..repair.harm import Harm, harm_by_answers
from .text import broken


def gate_told(gate: Gate, fallen: Sequence[str] = ()) -> Group:
    """Each harmful set, worst first, the decision, and what has `fallen`: in a fit, else what the gate knows of."""
    told: list[RenderableType] = []
    if rows := harm_by_answers(gate):
        told.append(harm_table("Refusal of harmful prompts by set, judged answers of the safety gate", rows))
    if gate.over_refusal:
        told.append(benign_table(gate.over_refusal.sets))
    told.append(Text(gate.sentence, "green" if gate.passed else "bold red"))
    named = fallen or ([gate.warning] if gate.warning else [])
    return Group(*told, *[Text(said, "bold yellow") for said in named])


def benign_table(sets: Sequence[SetChange]) -> Table:
    """Benign sets that the gate of a fit asked that strengthens refusal, in the order given."""
    table = Table(title="Refusal of benign prompts by set, judged answers of the safety gate")
    table.add_column("set", overflow="fold")
    for column in ("n", "before", "after", "rise, points (95 %)"):
        table.add_column(column, justify="right", no_wrap=True)
    for item in sets:
        shares = (f"{100 * count / item.n:.1f} %" for count in (item.refused_before, item.refused_after))
        table.add_row(Text(broken(item.name)), str(item.n), *shares, points(item.estimate))
    return table


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
