"""Numbers of a rule other than its own, such as a search finds for one model and its prompts."""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ..errors import UserError
from .rules import (
    BOUNDARY_SCHEDULE,
    BOUNDARY_SHIFTS,
    ODDS_MARGINS,
    ODDS_SCHEDULE,
    RULES,
    Rule,
    RuleName,
    Schedule,
    boundary_rule,
    odds_rule,
)

Number = TypeVar("Number", int, float)
Direction = Literal["means", "behaviour"]

WEAKER = (0.7, 0.85)
"""Of a strength that is given, the shares that are tried too: it is kept where all limits are."""


@dataclass(frozen=True)
class Changes:
    """What takes the place of a rule's own numbers (`rules.py`); None, or a factor of 1: the rule's own.

    - `pseudo_harmful`, `harmful`: how far prompts are to move: `Shifts` of `boundary`, `Margins` of `odds`.
    - `hold`: factor of the weights that hold harmless prompts, and of `Margins.hold`.
    - `answered`: weight of harmful prompts that the unedited model answers; of `odds` alone.
    - `epochs`, `batch_size`, `noise`: of the `Schedule`; `learning_rate`: factor of its own.
    - `direction`: what R is made from: the means of harmful and harmless prompts (Eq. 1), or by behaviour those of
      prompts that the unedited model refuses and of those that it answers, by their first tokens. Differs from the
      paper where it is by behaviour.
    - `given`: how many times as much a given prompt counts in the loss as a starter prompt.
    - `strength`: this one is kept, or a weaker one where it does not keep the limits; None: the rule's own are tried.
    """

    pseudo_harmful: float | None = None
    harmful: float | None = None
    hold: float = 1.0
    answered: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 1.0
    noise: float | None = None
    direction: Direction = "means"
    given: float = 1.0
    strength: float | None = None


UNCHANGED = Changes()


def rule_with(name: RuleName, changes: Changes) -> Rule:
    """The rule `name` with `changes`.

    **Raises:** `UserError` when there are some and the rule is the paper's or its control.
    """
    if changes == UNCHANGED:
        return RULES[name]
    if name == "boundary":
        shifts = replace(
            BOUNDARY_SHIFTS,
            pseudo_harmful=_or(changes.pseudo_harmful, BOUNDARY_SHIFTS.pseudo_harmful),
            harmful=_or(changes.harmful, BOUNDARY_SHIFTS.harmful),
            hold=changes.hold * BOUNDARY_SHIFTS.hold,
        )
        rule = boundary_rule(shifts, _schedule(BOUNDARY_SCHEDULE, changes))
    elif name == "odds":
        margins = replace(
            ODDS_MARGINS,
            pseudo_harmful=_or(changes.pseudo_harmful, ODDS_MARGINS.pseudo_harmful),
            harmful=_or(changes.harmful, ODDS_MARGINS.harmful),
            hold=changes.hold * ODDS_MARGINS.hold,
            hold_harmless=changes.hold * ODDS_MARGINS.hold_harmless,
            answered=_or(changes.answered, ODDS_MARGINS.answered),
        )
        rule = odds_rule(margins, _schedule(ODDS_SCHEDULE, changes))
    else:
        expected = "auto, boundary or odds"
        raise UserError(f"`rule={name}`", "changes to its numbers", expected, "choose one of these, or leave them out")
    if changes.strength is None:
        return rule
    return replace(rule, strengths=(0.0, *(share * changes.strength for share in WEAKER), changes.strength))


def _schedule(own: Schedule, changes: Changes) -> Schedule:
    return replace(
        own,
        epochs=_or(changes.epochs, own.epochs),
        batch_size=_or(changes.batch_size, own.batch_size),
        learning_rate=changes.learning_rate * own.learning_rate,
        noise=_or(changes.noise, own.noise),
    )


def _or(given: Number | None, own: Number) -> Number:
    return own if given is None else given
