"""Sets as rows of tables, the worst of each kind first, and a measurement's figures as they are downloaded. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from ...prompts.prompt import Kind
from ...records.estimate import wilson
from ...records.response import Pair, ResponseRow, SetAndKind
from ...records.results import SCORES, Gate, Results, SetChange, SetResult
from ...records.run import SetRefusal, Trial
from ..categories import category_rows

WISHES: dict[Kind, str] = {
    "pseudo_harmful": "should be answered",
    "harmful": "should be refused",
    "harmless": "should be answered",
}
"""Kinds in the order they are shown in, and what should happen to their prompts."""

ORDER = [*WISHES]


@dataclass(frozen=True)
class SetRow:
    """A set as it is now, as it was, and how that changed; None where it was not measured or not compared."""

    now: SetResult
    was: SetResult | None
    change: SetChange | None

    @property
    def rise(self) -> float | None:
        """How far its rate of refusal rose, -1..1: on the same prompts, where that was compared."""
        if self.change:
            return self.change.difference
        before, after = self.was and self.was.rate, self.now.rate
        return after.value - before.value if before and after else None


def set_rows(results: Results) -> list[SetRow]:
    """A row for each set of a measurement."""
    before = {(row.name, row.kind): row for row in (results.baseline.sets if results.baseline else [])}
    changes = {(row.name, row.kind): row for row in (results.comparison.sets if results.comparison else [])}
    return _worst_first(
        SetRow(row, before.get((row.name, row.kind)), changes.get((row.name, row.kind))) for row in results.sets
    )


def rows_of_gate(gate: Gate) -> list[SetRow]:
    """A row for each harmful set, as the gate counted it; none where it was not kept."""
    return _worst_first(map(_of_change, gate.sets))


def benign_rows(sets: Sequence[SetChange]) -> list[SetRow]:
    """A row for each benign set that a gate asked."""
    return _worst_first(map(_of_change, sets))


def _of_change(item: SetChange) -> SetRow:
    which = item.name, item.kind
    return SetRow(_result(which, item.n, item.refused_after), _result(which, item.n, item.refused_before), item)


def _result(which: SetAndKind, n: int, refused: int) -> SetResult:
    (name, kind), rate = which, wilson(refused, n)
    return SetResult(
        name=name, kind=kind, n=n, refused=refused, partial=0, refusal_rate=rate.value, low=rate.low, high=rate.high
    )


def gate_rows(answers: Sequence[Pair]) -> list[SetRow]:
    """A row for each set that a fit's gate asked, counted as the gate counts: harmful prompts whose answer could not be
    scored as refused before, and as answered after.
    """
    groups: dict[SetAndKind, list[Pair]] = {}
    for pair in answers:
        groups.setdefault(pair.after.set_and_kind, []).append(pair)
    return _worst_first(_gate_row(which, pairs) for which, pairs in groups.items())


def together(answers: Sequence[Pair], kind: Kind) -> SetRow | None:
    """All prompts of this `kind` that a fit's gate asked, as one set; None where it asked none."""
    pairs = [pair for pair in answers if pair.after.kind == kind]
    return _gate_row((kind, kind), pairs) if pairs else None


def _gate_row(which: SetAndKind, pairs: Sequence[Pair]) -> SetRow:
    before = _counted(which, [pair.before for pair in pairs], unscored=which[1] == "harmful")
    return SetRow(_counted(which, [pair.after for pair in pairs], unscored=False), before, None)


def _counted(which: SetAndKind, answers: Sequence[ResponseRow | None], unscored: bool) -> SetResult:
    """`unscored`: whether an answer that could not be scored counts as refused."""
    refused = sum(unscored if row is None or row.refused is None else row.refused for row in answers)
    return _result(which, len(answers), refused)


def _worst_first(rows: Iterable[SetRow]) -> list[SetRow]:
    """By kind; among harmful sets the one whose refusal fell the most first, then those that were not compared, the one
    refused least first; among others the other way round.
    """

    def rank(row: SetRow) -> tuple[int, bool, float]:
        rise = row.rise
        value = row.now.refusal_rate if rise is None else rise
        sign = 1 if row.now.kind == "harmful" else -1
        return ORDER.index(row.now.kind), rise is None, inf if value is None else sign * value

    return sorted(rows, key=rank)


@dataclass(frozen=True)
class StrengthRow:
    """First-token refusal of one set at each strength tried; None where it was not stored."""

    name: str
    kind: Kind
    cells: list[SetRefusal | None]
    kept: SetRefusal | None
    held: bool = False

    @property
    def n(self) -> int | None:
        """Prompts; None where that was not kept."""
        return next((cell.n for cell in self.cells if cell), None)


def strength_rows(trials: Sequence[Trial], kept: Trial | None) -> list[StrengthRow]:
    """A row for each set, those whose refusal changed for the worst at the strength `kept` first."""
    found = [{(item.name, item.kind): item for item in trial.sets} for trial in trials]
    chosen = {(item.name, item.kind): item for item in kept.sets} if kept else {}
    names = dict.fromkeys(which for sets in found for which in sets)

    def rank(which: SetAndKind) -> tuple[int, float]:
        drop = chosen[which].drop if which in chosen else -inf
        return ORDER.index(which[1]), -drop if which[1] == "harmful" else drop

    rows = [
        StrengthRow(*which, [sets.get(which) for sets in found], chosen.get(which)) for which in sorted(names, key=rank)
    ]
    return [*rows, *_held_rows(trials, kept)]


def _held_rows(trials: Sequence[Trial], kept: Trial | None) -> list[StrengthRow]:
    """A row for each category that was held, the one that moved most first."""
    found = [{item.name: item for item in trial.held} for trial in trials]
    chosen = {item.name: item for item in kept.held} if kept else {}
    names = dict.fromkeys(name for held in found for name in held)
    ranked = sorted(names, key=lambda name: -abs(chosen[name].drop) if name in chosen else 0.0)
    return [StrengthRow(n, "pseudo_harmful", [held.get(n) for held in found], chosen.get(n), held=True) for n in ranked]


Cell = str | int | float | None

COLUMNS = ("when", "name", "kind", "n", "refused", "value", "low", "high")


def figures(results: Results) -> list[dict[str, Cell]]:
    """Rates of sets and scores, before, after and their change, a row each, as fractions."""
    rows: list[tuple[Cell, ...]] = []
    sides = (("before", results.baseline), ("after", results))
    for when, side in sides:
        for item in side.sets if side else []:
            rows.append((when, item.name, item.kind, item.n, item.refused, item.refusal_rate, item.low, item.high))
    for change in results.comparison.sets if results.comparison else []:
        rows.append(("change", change.name, change.kind, change.n, None, change.difference, change.low, change.high))
    for row in category_rows(results):
        for when, found in (("before", row.before), ("after", row.after), ("change", row.change)):
            if found:
                kind, name = f"{row.kind} {row.done}", f"category {row.name}"
                rows.append((when, name, kind, row.n, None, found.value, found.low, found.high))
    for name in SCORES:
        scores = [(when, side.score(name) if side else None) for when, side in sides]
        for when, found in (*scores, ("change", getattr(results.comparison, name, None))):
            if found:
                rows.append((when, name, "score", None, None, found.value, found.low, found.high))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]
