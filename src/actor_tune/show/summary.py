"""A measurement as some lines of markdown, for the page of a check or a pull request."""

import html
from pathlib import Path

from ..records.estimate import wilson
from ..records.file import read
from ..records.results import FAILED, PASSED, Results, SetChange, SetResult
from ..storage.markdown import table
from .categories import category_rows
from .measurement import SCORES
from .text import plain, points_text, rate_text


def summary(folder: str | Path) -> str:
    """What the measurement in `folder` found: the gate, then each harmful set, worst first, then the others.

    ```python
    print(at.summary("after"))
    ```

    **Raises:** `UserError` when there is none, or it is damaged.
    """
    found = read(Results, Path(folder))
    title = f"{_safe(found.model)} since {_safe(found.baseline.model)}" if found.baseline else _safe(found.model)
    lines = [f"## {title}", ""]
    if found.gate:
        decided = PASSED if found.gate.passed else FAILED
        why = found.gate.sentence.removeprefix(f"{decided}: ")
        lines += [f"**{decided}.** {_safe(why[:1].upper() + why[1:])}", ""]
    return "\n".join([*lines, *(_changes(found) if found.baseline else _rates(found)), *_categories(found), ""])


def _rates(found: Results) -> list[str]:
    rows = [(_name(item), str(item.n), rate_text(item.rate)) for item in found.sets]
    scores = [(label, "", rate_text(found.score(name))) for label, name in SCORES]
    return [table(("refused, % with 95 % intervals", ">n", ">refused"), [*rows, *scores])]


def _changes(found: Results) -> list[str]:
    before, change = found.baseline, found.comparison
    if before is None or change is None:
        return _rates(found)
    rows: list[tuple[str, ...]] = []
    gated = found.gate.sets if found.gate else []
    for each in gated:  # as the gate counted
        was, now = (wilson(count, each.n) for count in (each.refused_before, each.refused_after))
        rows.append((_name(each), str(each.n), rate_text(was), rate_text(now), points_text(each.estimate)))
    changed = {(item.name, item.kind): item for item in change.sets}
    pairs = [(old, new, changed.get((new.name, new.kind))) for old, new in zip(before.sets, found.sets, strict=True)]
    for old, new, item in sorted(pairs, key=_worst_first):
        if gated and new.kind == "harmful":
            continue
        moved = points_text(item.estimate if item else None)
        rows.append((_name(new), str(item.n if item else 0), rate_text(old.rate), rate_text(new.rate), moved))
    for label, name in SCORES:
        scores = (rate_text(side.score(name)) for side in (before, found))
        rows.append((label, "", *scores, points_text(getattr(change, name))))
    return [table(("refused, % with 95 % intervals", ">n", ">before", ">after", ">change"), rows)]


def _categories(found: Results) -> list[str]:
    rows = []
    for row in category_rows(found):
        rates = rate_text(row.before), rate_text(row.after), points_text(row.change)
        rows.append((f"{_safe(row.name)} ({row.kind}, {row.done})", str(row.n), *rates))
    title = "by category, % with 95 % intervals"
    return ["", table((title, ">n", ">before", ">after", ">change"), rows)] if rows else []


def _worst_first(pair: tuple[SetResult, SetResult, SetChange | None]) -> tuple[bool, float]:
    _, new, item = pair
    return new.kind != "harmful", (item.difference if item else -1.0) if new.kind == "harmful" else 0.0


def _name(item: SetResult | SetChange) -> str:
    return f"{_safe(item.name)} ({item.kind})"


def _safe(text: str) -> str:
    """Text of others, which may be neither HTML nor markdown here."""
    escaped = html.escape(plain(text, 1000), quote=False)
    return "".join(f"\\{character}" if character in "\\`*_[]|#!" else character for character in escaped)
