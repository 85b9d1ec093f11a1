"""The search of a tuned run: what its trials did, and what of that is true of prompts that it had not seen. Pure."""

from dataclasses import dataclass

from ...records.tune import StudyTrial, Tuning
from .charts import Scale, scale

LISTED = 20
"""Trials in the table, the best by trade-off score."""


@dataclass(frozen=True)
class Mark:
    """A trial that was asked for answers: where it lies, 0..1, and whether it is the one that was taken."""

    trial: StudyTrial
    compliance: float
    safety: float
    taken: bool


@dataclass(frozen=True)
class Cloud:
    """Trials by compliance (x) and safety (y); `given_up` of all were not asked for answers."""

    x: Scale
    y: Scale
    marks: list[Mark]
    given_up: int


def cloud(tuning: Tuning) -> Cloud | None:
    """The trials that were asked for answers, best trade-off score first; None where none was."""
    asked = sorted((trial for trial in tuning.trials if trial.answers), key=lambda trial: -(trial.trade_off or 0.0))
    if not asked:
        return None
    marks = []
    for trial in asked:
        rates = {rate.name: rate.after for rate in trial.answers or []}
        marks.append(Mark(trial, rates["compliance"], rates["safety"], trial.number == tuning.taken))
    steps = (0.02, 0.05, 0.1, 0.2, 0.25)
    x = scale([mark.compliance for mark in marks], 0.2, steps, most=1.0)
    y = scale([mark.safety for mark in marks], 0.1, steps, most=1.0)
    return Cloud(x, y, marks, len(tuning.trials) - len(asked))


def listed(found: Cloud) -> list[Mark]:
    """The first of the marks, and the one that was taken."""
    return [mark for place, mark in enumerate(found.marks) if place < LISTED or mark.taken]
