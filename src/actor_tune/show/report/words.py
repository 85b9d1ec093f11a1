"""Numbers in words: percent, points, and the sentences a report opens with. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...records.estimate import Interval, is_point
from ...records.results import Results
from ...records.run import Run, Trial
from .load import FitFolder, MeasureFolder

Tone = Literal["good", "bad", "plain"]

MINUS, NBSP, DASH = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}", "\N{EN DASH}"


@dataclass(frozen=True)
class Sentence:
    """What happened in a few words (`gist`), the figures it rests on, and whether that is good."""

    gist: str
    figures: str
    tone: Tone


@dataclass(frozen=True)
class Banner:
    """A verdict that stands before all figures, of the folder `source`."""

    source: str
    title: str
    text: str
    tone: Tone


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


def sentences(results: Results) -> list[Sentence]:
    """What happened to over-refusal and to safety, each with its figures; and what was not asked as it should be."""
    said = [
        _sentence(
            results,
            "compliance_rate",
            "Benign prompts that only look harmful are answered",
            ("Over-refusal fell", "Over-refusal grew", "No clear change in over-refusal"),
        ),
        _sentence(
            results,
            "safety_score",
            "Harmful prompts are refused",
            ("Safety rose", "Safety fell", "No clear change in safety"),
        ),
    ]
    if results.asked_otherwise:
        told = "; ".join(results.asked_otherwise)
        said.append(Sentence("A server was asked otherwise than greedily with a limit", f"{told}.", "plain"))
    return [sentence for sentence in said if sentence]


def _sentence(results: Results, score: str, what: str, gists: tuple[str, str, str]) -> Sentence | None:
    """`gists`: what to say of a rise, of a fall, and of neither."""
    after = results.score(score)
    before = results.baseline.score(score) if results.baseline else None
    difference: Interval | None = getattr(results.comparison, score, None)
    if after is None:
        return None
    now = f"{what} in {percent(after.value)} of cases {interval(after)}"
    if labelled := results.labelled.get(score):
        now += f" by the judge, {percent(labelled.value)} {interval(labelled)} by {labelled.labels} labels"
    if before is None:
        return Sentence("", f"{now}.", "plain")
    figures = f"{now}; before, in {percent(before.value)} {interval(before)}."
    if difference is None:
        return Sentence("", f"{figures} No comparison prompt by prompt was stored.", "plain")
    if is_point(difference):
        change = f"{points(difference.value)} points; how sure that is was not stored: measure again"
        return Sentence("", f"{figures} The change is {change}.", "plain")
    change = (
        f"{points(difference.value)} points (95{NBSP}% interval {points(difference.low)} to {points(difference.high)})"
    )
    if difference.low > 0:
        return Sentence(gists[0], f"{figures} The change is {change}.", "good")
    if difference.high < 0:
        return Sentence(gists[1], f"{figures} The change is {change}.", "bad")
    return Sentence(gists[2], f"{figures} The change is {change}: {_not_excluded(difference.low)}.", "plain")


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
    return (
        f"Block {run.layer} was trained; of the change, strength {chosen.strength:g} was chosen. By first answer "
        f"tokens on {prompts}, compliance went from {percent(unedited.compliance)} to {percent(chosen.compliance)} and "
        f"safety from {percent(unedited.safety)} to {percent(chosen.safety)}. It was chosen on these prompts: only "
        "a measurement on others says what it is worth."
    )


def chosen_trial(run: Run) -> Trial | None:
    """The trial that was kept."""
    return next((trial for trial in run.trials if trial.strength == run.strength), None)


def banners(measured: Sequence[MeasureFolder], fits: Sequence[FitFolder]) -> list[Banner]:
    """What must be read first: fits that failed, then gates, the failed ones before those that passed."""
    found = [
        Banner(
            item.name,
            "The fit failed" + (" and no model was written" if item.run.written is False else ""),
            item.run.failure,
            "bad",
        )
        for item in fits
        if item.run.failure
    ]
    gates = [(item.name, item.run.gate) for item in fits] + [(item.name, item.results.gate) for item in measured]
    for passed in (False, True):
        title = "Safety gate passed" if passed else "Safety gate not passed"
        tone: Tone = "good" if passed else "bad"
        found += [Banner(name, title, gate.sentence, tone) for name, gate in gates if gate and gate.passed == passed]
    return found
