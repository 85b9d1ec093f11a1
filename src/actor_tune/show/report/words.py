"""Numbers in words: percent, points, and what a report opens with. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import hypot
from typing import Literal

from ...prompts.prompt import Kind
from ...records.estimate import Estimate, Interval, is_point, wilson
from ...records.results import Gate, LabelCount, Results
from ...records.run import Run, Trial
from .load import FitFolder, MeasureFolder
from .sets import SetRow, benign_rows, gate_rows, rows_of_gate, set_rows, together

Tone = Literal["good", "bad", "plain"]

MINUS, NBSP, DASH = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}", "\N{EN DASH}"


@dataclass(frozen=True)
class Number:
    """One of the two numbers that a page opens with.

    - `what` it counts, and which answers it `rests` on.
    - `gist`: what happened in a few words, whether that is good (`tone`), and the figures of the `change`.
    - `corrected`: the same by people's labels; `worst`: the harmful set to look at; empty and None where there is none.
    """

    what: str
    rests: str
    before: Interval | None
    after: Interval
    gist: str
    change: str
    tone: Tone
    corrected: str = ""
    worst: SetRow | None = None


@dataclass(frozen=True)
class Banner:
    """A verdict of the folder `source`, on what it `rests`, its harmful sets as `rows`, and `warnings` of some."""

    source: str
    title: str
    rests: str
    text: str
    tone: Tone
    rows: list[SetRow]
    warnings: list[str] = field(default_factory=list)
    benign: list[SetRow] = field(default_factory=list)


def percent(value: float | None) -> str:
    """`81.0 %`, or a dash where there is nothing."""
    return DASH if value is None else f"{100 * value:.1f}{NBSP}%"


def points(value: float | None, signed: bool = True) -> str:
    """A difference of fractions in percentage points, `+57.5`."""
    if value is None:
        return DASH
    size = f"{abs(100 * value):.1f}"
    sign = "" if size == "0.0" or not signed else MINUS if value < 0 else "+"
    return sign + size


def interval(estimate: Interval) -> str:
    """`[75.0, 85.9]` of a rate in percent."""
    return f"[{points(estimate.low, False)}, {points(estimate.high, False)}]".replace(" ", NBSP)


def interval_of_difference(estimate: Interval) -> str:
    """`[+49.1, +65.0]` in points, or that there is none."""
    if is_point(estimate):
        return "no interval"
    return f"[{points(estimate.low)}, {points(estimate.high)}]".replace(" ", NBSP)


def p_value(value: float | None) -> str:
    """`0.031`, `< 0.001`, or a dash."""
    if value is None:
        return DASH
    return f"<{NBSP}0.001" if value < 0.001 else f"{value:.3f}"


COUNTED: tuple[tuple[str, str, Kind, tuple[str, str, str]], ...] = (
    (
        "compliance_rate",
        "Benign prompts answered",
        "pseudo_harmful",
        ("Over-refusal fell", "Over-refusal grew", "No clear change in over-refusal"),
    ),
    (
        "safety_score",
        "Harmful prompts refused",
        "harmful",
        ("Safety rose", "Safety fell", "No clear change in safety"),
    ),
)
"""Of both numbers: the score, what it counts, of which kind, and what to say of a rise, of a fall, and of neither."""


def numbers(results: Results, gates: Sequence[Gate] = ()) -> list[Number]:
    """What a measurement says of over-refusal and of safety, as far as it was measured.

    `gates`: those of the page, of which one that asked more harmful prompts decides about safety.
    """
    most = max((gate.n for gate in gates), default=0)
    found, rows = [], set_rows(results)
    for score, what, kind, gists in COUNTED:
        after, before = results.score(score), results.baseline.score(score) if results.baseline else None
        if after is None:
            continue
        sets = [row.now for row in rows if row.now.kind == kind and not row.now.guard]
        rests = f"this measurement: n = {sum(item.n for item in sets)}"
        rests += f" in {len(sets)} sets, each counting the same" if len(sets) > 1 else ""
        difference: Interval | None = getattr(results.comparison, score, None)
        gist, change, tone = _change(difference, gists) if before else ("", "", "plain")
        if kind == "harmful" and before and most > sum(item.n for item in sets):
            change += f" The safety gate below, with {most} prompts, decides."
        harmful = [row for row in rows if row.now.kind == "harmful" and not row.now.guard]
        worst = harmful[0] if kind == "harmful" and len(harmful) > 1 else None
        found.append(Number(what, rests, before, after, gist, change, tone, _corrected(results, score), worst))
    return found


def fit_numbers(fit: FitFolder) -> list[Number]:
    """What a fit's own judged answers say, where nothing was measured: of validation prompts, and of the gate's."""
    chosen, found = chosen_trial(fit.run), []
    rates = {rate.name: rate for rate in (chosen and chosen.answers) or []}
    for name, (_, what, kind, gists) in zip(("compliance", "safety"), COUNTED, strict=True):
        gate, asked = fit.run.gate, together(fit.answers, kind)
        before, after = (side.rate if side else None for side in ((asked.was, asked.now) if asked else (None, None)))
        if gate and asked and after and before:
            rests = f"the gate of the fit: n = {asked.now.n} held-out prompts"
            moved = Estimate(-gate.drop, -gate.high, -gate.low)
            if kind == "pseudo_harmful":  # of a fit that strengthens refusal
                before, after = (Estimate(1 - side.value, 1 - side.high, 1 - side.low) for side in (before, after))
                moved = _unpaired(before, after)
        elif (rate := rates.get(name)) and rate.n:
            before, after = (wilson(round(share * rate.n), rate.n) for share in (rate.before, rate.after))
            rests = f"short answers to validation prompts, on which the strength was chosen: n = {rate.n}"
            moved = _unpaired(before, after)
        else:
            continue
        found.append(Number(what, rests, before, after, *_change(moved, gists)))
    return found


def _unpaired(before: Estimate, after: Estimate) -> Estimate:
    """The difference of two rates by their score intervals (Newcombe 1998, method 10): which prompts flipped, which
    would make it narrower, was not stored.
    """
    value = after.value - before.value
    low = hypot(after.value - after.low, before.high - before.value)
    high = hypot(after.high - after.value, before.value - before.low)
    return Estimate(value, value - low, value + high)


def _change(difference: Interval | None, gists: tuple[str, str, str]) -> tuple[str, str, Tone]:
    """What happened, its figures, and whether it is good."""
    if difference is None:
        return "", "No comparison prompt by prompt was stored.", "plain"
    if is_point(difference):
        said = f"The change is {points(difference.value)} points; how sure that is was not stored: measure again."
        return "", said, "plain"
    change = f"{points(difference.value)} points (95{NBSP}% interval {points(difference.low)} to "
    change = f"The change is {change}{points(difference.high)})"
    if difference.low > 0:
        return gists[0], f"{change}.", "good"
    if difference.high < 0:
        return gists[1], f"{change}.", "bad"
    return gists[2], f"{change}: {_not_excluded(difference.low)}.", "plain"


def _corrected(results: Results, score: str) -> str:
    """The score as people's labels correct it, and its change."""
    now, was = results.labelled.get(score), results.baseline.labelled.get(score) if results.baseline else None
    if now is None:
        return ""
    rates = " → ".join(f"{percent(item.value)} {interval(item)}" for item in (was, now) if item)
    moved = results.comparison.labelled.get(score) if results.comparison else None
    change = f", a change of {points(moved.value)} points {interval_of_difference(moved)}" if moved else ""
    return f"Corrected by {now.labels} labels: {rates}{change}."


def judge_errors(count: LabelCount | None) -> str:
    """How the judge erred on the labelled answers; empty where that was not counted."""
    if count is None or count.errors is None:
        return ""
    found = count.errors
    return (
        "Errors of the judge on the labelled answers, which are more often those it is unsure of: it took "
        f"{found.missed} of {found.refused} refusals for answers, and {found.false_alarms} of {found.answered} answers "
        "for refusals."
    )


def _not_excluded(low: float) -> str:
    """What an interval with 0 in it, and this lower end, leaves open."""
    if low >= 0:
        return "no fall lies in the interval, but no change at all cannot be excluded"
    size = points(low, False)
    fall = f"up to {size}" if size != "0.0" else "less than 0.1"
    return f"a fall of {fall} points cannot be excluded"


def fit_sentence(run: Run) -> str:
    """What the chosen strength did on the validation prompts; empty where that was not stored."""
    chosen = chosen_trial(run)
    unedited = next((trial for trial in run.trials if trial.strength == 0), None)
    if chosen is None or unedited is None or chosen is unedited:
        return ""
    prompts = f"{run.validated_on} validation prompts" if run.validated_on else "validation prompts"
    meant = ""
    if names := run.settings.get("categories"):
        meant = f" to free benign prompts of {', '.join(map(str, names))}, and to hold all others"
    elif run.settings.get("strengthen"):
        meant = " to refuse harmful prompts that slip through, and to hold benign ones"
    return (
        f"Block {run.layer} was trained{meant}; of the change, strength {chosen.strength:g} was chosen. By first "
        f"answer tokens on {prompts}, compliance went from {percent(unedited.compliance)} to "
        f"{percent(chosen.compliance)} and safety from {percent(unedited.safety)} to {percent(chosen.safety)}. It was "
        "chosen on these prompts: only a measurement on others says what it is worth."
    )


def chosen_trial(run: Run) -> Trial | None:
    """The trial that was kept."""
    return next((trial for trial in run.trials if trial.strength == run.strength), None)


def limits(run: Run) -> dict[str, float]:
    """What a fit was allowed to cost, by name (`repair.strength.Limits`)."""
    stored = run.settings.get("limits")
    parts = stored.items() if isinstance(stored, dict) else ()
    return {name: float(value) for name, value in parts if type(value) in (int, float)}


def dates(measured: Sequence[MeasureFolder], fits: Sequence[FitFolder]) -> str:
    """When all was made, as far as that was stored: `Fitted 2026-01-30. Measured 2026-01-31.`"""
    days = (
        ("Fitted", sorted({item.run.date for item in fits if item.run.date})),
        ("Measured", sorted({item.results.date for item in measured if item.results.date})),
    )
    return " ".join(f"{what} {', '.join(found)}." for what, found in days if found)


def banners(measured: Sequence[MeasureFolder], fits: Sequence[FitFolder]) -> list[Banner]:
    """Fits that failed, then gates, the failed ones before those that passed; or that no gate was asked."""
    found = [
        Banner(
            item.name,
            "The fit failed" + (" and no model was written" if item.run.written is False else ""),
            "",
            item.run.failure,
            "bad",
            [],
        )
        for item in fits
        if item.run.failure
    ]
    gates: list[Banner] = []
    for fit in fits:
        if fit.run.gate:
            rests = f"answers to {fit.run.gate.n} held-out harmful prompts that the fit asked itself"
            gates.append(_gate(fit.name, fit.run.gate, rests, gate_rows(fit.answers), fit.run.fallen))
    for item in measured:
        if gate := item.results.gate:
            rests = f"answers to the {gate.n} harmful prompts of this measurement, all counted alike; in the number "
            rests += "above each set counts the same, which can make its interval wider"
            gates.append(_gate(item.name, gate, rests, set_rows(item.results)))
    if not gates:
        text = "Whether refusal of harmful prompts held was not put to a test: it takes a baseline and max_safety_drop."
        gates = [Banner("", "Safety gate not asked", "", text, "plain", [])]
    return found + sorted(gates, key=lambda banner: banner.tone == "good")


def _gate(name: str, gate: Gate, rests: str, older: Sequence[SetRow], fallen: Sequence[str] = ()) -> Banner:
    """`older`: rows where the gate kept none; `fallen`: what a fit found of single sets, else what the gate knows."""
    title = "Safety gate passed" if gate.passed else "Safety gate failed"
    text = gate.sentence.removeprefix(f"{title}: ")
    rows = rows_of_gate(gate) or [row for row in older if row.now.kind == "harmful"]
    warnings = list(fallen) or ([gate.warning] if gate.warning else [])
    tone: Tone = "good" if gate.passed else "bad"
    benign = benign_rows(gate.over_refusal.sets) if gate.over_refusal else []
    return Banner(name, title, rests, text[:1].upper() + text[1:], tone, rows, warnings, benign)
