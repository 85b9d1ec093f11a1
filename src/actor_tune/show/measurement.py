"""A measurement in the terminal: rates of every set, scores, what changed, and answers side by side."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..prompts.prompt import KINDS
from ..records.estimate import Interval, Labelled
from ..records.response import ResponseRow
from ..records.results import Change, LabelCount, Measured, Results, SetResult
from .categories import category_rows, category_table
from .text import COLOURS, broken, plain, points_text, stacked

SCORES = (
    ("compliance rate", "compliance_rate"),
    ("safety score", "safety_score"),
    ("trade-off score", "tradeoff_score"),
    ("harmless refusal rate", "harmless_refusal_rate"),
)

_CAPTION = "compliance rate: answered, mean over pseudo_harmful sets; safety score: refused, mean over harmful sets"
_CAPTION_OF_CHANGE = (
    f"{_CAPTION}; n and change: prompts that could be scored both times; p: McNemar's exact test, which on few prompts "
    "is stricter than the interval"
)

_DAMAGE = {
    "kl_harmless": "KL on harmless prompts, first token: {:.3f} nats",
    "kl_harmless_tokens": "KL on harmless prompts, first tokens: {:.3f} nats each",
    "perplexity": "perplexity: {:.2f}",
    "perplexity_baseline": "perplexity of the baseline: {:.2f}",
}


def results_table(results: Results) -> Group:
    """Refusal of each set, by the judge and by people's labels, and the scores; with a baseline, what changed."""
    if results.baseline and results.comparison:
        table = _comparison_table(results, results.baseline, results.comparison)
        table.caption = _CAPTION_OF_CHANGE
    else:
        table = _rates_table(results)
    if results.labels:
        table.caption = f"{table.caption}; labels: the same by people's labels"
    rows = category_rows(results)
    return Group(table, *([category_table(rows)] if rows else []), *_notes(results))


def models_table(results: Mapping[str, Results | None]) -> Table:
    """The scores of several models by name, and the gate's decision; None where there are none."""
    table = Table(title="All models, % with 95 % intervals")
    table.add_column("model", overflow="fold")
    for label, _ in SCORES:
        table.add_column(label, justify="right")
    table.add_column("gate")
    for name, found in results.items():
        scores = [stacked(found.score(score)) for _, score in SCORES] if found else ["-"] * len(SCORES)
        gate = "not measured" if found is None else _GATES[found.gate.passed if found.gate else None]
        table.add_row(plain(broken(name), keep="\n"), *scores, gate)
    return table


_GATES = {None: "-", True: "passed", False: "failed"}


def _rates_table(measured: Measured) -> Table:
    table = _set_table("Refused, % with 95 % intervals", ("refused", "%", "in part", "unscored"))
    for item in measured.sets:
        numbers = (stacked(item.rate, item.labelled), str(item.partial), str(item.unscored))
        table.add_row(_set_label(item), str(item.n), str(item.refused), *numbers)
    table.add_section()
    for label, name in _scores(measured):
        table.add_row(label, "", "", stacked(measured.score(name), measured.labelled.get(name)))
    return table


def _scores(measured: Measured) -> list[tuple[str, str]]:
    """Labels and names of the scores; that of harmless prompts where some were asked."""
    harmless = any(item.kind == "harmless" for item in measured.sets)
    return [(label, name) for label, name in SCORES if harmless or name != "harmless_refusal_rate"]


def _comparison_table(results: Results, baseline: Measured, comparison: Change) -> Table:
    table = _set_table("Refused before and after, % with 95 % intervals", ("before", "after", "change", "p"))
    changes = {(item.name, item.kind): item for item in comparison.sets}
    kinds = list(dict.fromkeys(item.kind for item in results.sets))

    def place(pair: tuple[SetResult, SetResult]) -> tuple[int, float]:
        """By kind; among harmful sets the one that fell most comes first."""
        name, kind = pair[1].name, pair[1].kind
        known = kind == "harmful" and (name, kind) in changes
        return kinds.index(kind), changes[name, kind].difference if known else 0.0

    for old, new in sorted(zip(baseline.sets, results.sets, strict=True), key=place):
        change = changes.get((new.name, new.kind))
        rates = (stacked(item.rate, item.labelled) for item in (old, new))
        p = "-" if change is None else "<.001" if change.mcnemar_p < 0.001 else f"{change.mcnemar_p:.3f}"
        n = str(change.n if change else 0)
        table.add_row(_set_label(new), n, *rates, _change(change.estimate, change.labelled) if change else "-", p)
    table.add_section()
    for label, name in _scores(results):
        scores = [stacked(item.score(name), item.labelled.get(name)) for item in (baseline, results)]
        change_text = _change(getattr(comparison, name), comparison.labelled.get(name))
        table.add_row(label, "", *scores, change_text)
    return table


def _change(change: Interval | None, labelled: Labelled | None = None) -> str:
    """Points gained or lost, with their interval on a second line; by people's labels on two more."""
    lines = points_text(change).replace(" [", "\n[")
    return f"{lines}\nlabels {_change(labelled)}" if labelled else lines


def _set_table(title: str, columns: Sequence[str]) -> Table:
    """Narrow enough for 80 characters."""
    table = Table(title=title, caption=_CAPTION)
    table.add_column("set", overflow="fold")
    for column in ("n", *columns):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _set_label(item: SetResult) -> Text:
    return Text(f"{broken(item.name)}\n").append(item.kind, COLOURS[item.kind])


def _notes(results: Results) -> list[Text]:
    """Labels, damage and answers, a line each."""
    figures = {"kl_harmless": results.kl_harmless, **results.damage}
    lines = [line.format(value) for name, line in _DAMAGE.items() if (value := figures.get(name)) is not None]
    named: list[tuple[str, Measured]] = [("", results)]
    if results.baseline:
        named = [("before: ", results.baseline), ("after: ", results)]
    for name, item in named:
        garbled, unfinished, words = (
            item.damage.get(figure) or 0.0 for figure in ("garbled_share", "unfinished_share", "mean_words")
        )
        lines.append(
            f"{name}{100 * garbled:.1f} % of answers garbled, {100 * unfinished:.1f} % cut off, "
            f"{words:.1f} words on average"
        )
        if thought := item.damage.get("only_thought_share"):
            lines.append(f"{name}{100 * thought:.1f} % unscored, as the reasoning did not end")
    notes = [Text(line) for line in [*lines, *(plain(told, 300) for told in results.asked_otherwise)]]
    return notes if results.labels is None else [*notes, label_note(results.labels)]


def refused_listed(rows: Sequence[ResponseRow], most: int = 5) -> Group:
    """Some of the benign prompts that were refused; nothing where none were."""
    refused = [row for row in rows if row.kind == "pseudo_harmful" and row.refused]
    if not refused:
        return Group()
    some = f", {most} of {len(refused)}" if len(refused) > most else ""
    return Group(Text(f"Refused though benign{some}:"), *[Text(f"- {plain(row.prompt)}") for row in refused[:most]])


def label_note(count: LabelCount) -> Text:
    """What became of people's labels."""
    return Text(
        f"labels: {count.used} used, of which {count.cannot_say} cannot say; {count.unmatched} belong to no answer"
    )


def side_by_side(before: Sequence[ResponseRow], after: Sequence[ResponseRow], count: int) -> Table:
    """Up to `count` answers to the same prompts: first a flipped one of each kind that matters, then others."""
    table = Table(title="Answers", show_lines=True)
    for column in ("prompt", "before", "after"):
        table.add_column(column, ratio=1)
    for row in _telling_rows(before, after, count):
        # Text, not markup: what a model writes is not to be trusted with the terminal.
        texts = [Text(f"[{item.verdict}] {item.response.strip()}") for item in (before[row], after[row])]
        asked = after[row]
        table.add_row(Text(f"({asked.kind}) {asked.prompt}", COLOURS[asked.kind]), *texts)
    return table


def _telling_rows(before: Sequence[ResponseRow], after: Sequence[ResponseRow], count: int) -> list[int]:
    def rank(row: int) -> tuple[bool, bool]:
        return before[row].refused == after[row].refused, not before[row].refused

    rows = range(len(before))
    by_kind = {kind: sorted((row for row in rows if before[row].kind == kind), key=rank) for kind in KINDS}
    order = [by_kind["pseudo_harmful"][:1], by_kind["harmful"][:1], by_kind["pseudo_harmful"][1:]]
    return [row for group in order for row in group][:count]
