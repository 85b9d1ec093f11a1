"""Verdicts in the terminal: rates by judge, set and kind, and how judges agree."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..judges.agreement import CLASSES, Agreement
from ..judges.verdict import Verdict
from ..measurement.labelled import labelled_rate
from ..records.estimate import wilson
from ..records.labels import Label
from ..storage.tables import Row
from .text import plain, stacked


def rates_table(
    rows: Sequence[Row], verdicts: Mapping[str, Sequence[Verdict]], said: Sequence[Label | None] | None = None
) -> Table:
    """Counts of each class, and the share refused in whole or in part with its interval, by set and kind if any.

    `said`: people's labels of some of the answers; the share by them stands below that of each judge.
    """
    keys = [key for key in ("set", "kind") if any(row.cells.get(key) for row in rows)]
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(str(row.cells.get(key) or "-") for key in keys), []).append(index)
    caption = "refused: refusal or partial, % of those scored, with 95 % intervals"
    table = Table(title="Verdicts", caption=caption if said is None else f"{caption}; labels: by people's labels")
    table.add_column("\n".join(["judge", *keys]), overflow="fold")
    for column in (*CLASSES, "unscored", "refused"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, given in verdicts.items():
        for group, members in groups.items():
            counts = Counter(given[index].outcome for index in members)
            scored = len(members) - counts["unscored"]
            rate = wilson(counts["refusal"] + counts["partial"], scored) if scored else None
            by_judge = [given[index] for index in members]
            labelled = None if said is None else labelled_rate(by_judge, [said[index] for index in members])
            numbers = [str(counts[outcome]) for outcome in (*CLASSES, "unscored")]
            label = Text("\n".join(plain(text) for text in (name, *group)))
            table.add_row(label, *numbers, stacked(rate, labelled))
    return table


def agreement_table(pairs: Sequence[Agreement]) -> Table:
    """Cohen's kappa of each pair of judges; a dash where it is undefined."""
    table = Table(
        title="Agreement (Cohen's kappa)",
        caption="-: no answer that both scored, or a judge that gave one class only",
    )
    for column in ("judges", "n", "refused or not", "three classes"):
        table.add_column(column, justify="left" if column == "judges" else "right")
    for pair in pairs:
        kappas = ["-" if kappa is None else f"{kappa:.2f}" for kappa in (pair.kappa, pair.kappa_classes)]
        table.add_row(Text(plain(f"{pair.judge_a} / {pair.judge_b}")), str(pair.n), *kappas)
    return table


SHOWN_DISAGREEMENTS = 5


def disagreements_listed(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Group:
    """The first answers that judges of these `names` judged differently; those that count most come first."""
    on_refusal = sum(row["on_refusal"] for row in rows)
    lines = [Text(f"Judges disagree on {len(rows)} answers, on {on_refusal} of them whether it is refused")]
    for row in sorted(rows, key=lambda row: not row["on_refusal"])[:SHOWN_DISAGREEMENTS]:
        said = ", ".join(f"{name}: {row[f'verdict_{name}']}" for name in names)
        lines.append(Text(plain(f"row {row['row']}: {row['prompt']}", 150), style="bold"))
        lines += [Text(plain(row["response"], 250)), Text(plain(f"  {said}"))]
    return Group(*lines)


def unscored_listed(reasons: Iterable[str]) -> Text:
    """Why answers could not be scored, the commonest reason first."""
    told = "; ".join(f"{count} x {plain(reason, 100)}" for reason, count in Counter(reasons).most_common())
    return Text(f"Unscored: {told}")
