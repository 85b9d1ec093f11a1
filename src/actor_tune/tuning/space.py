"""What is searched: the block, a rule's numbers, how and on what is trained. The defaults of `fit` are one point."""

from dataclasses import dataclass, replace
from typing import Any, cast

from optuna import Trial

from ..records.scan import Scan
from ..repair.changes import Changes, Direction
from ..repair.coreset import Selection
from ..repair.rules import BOUNDARY_SCHEDULE, BOUNDARY_SHIFTS, ODDS_MARGINS, ODDS_SCHEDULE, RuleName
from ..repair.settings import Settings

BLOCKS = 6
"""At most so many blocks are searched: those with the largest effect."""

LEAST_EFFECT = 0.5
"""A block with less than this share of the largest effect is not searched."""

BATCH = 40
"""Prompts in a step of a trial, twice as many as by default: a step waits for weights more than for prompts."""

SELECTED = 0.8
"""The share of prompts that `upcore` keeps in a trial."""


@dataclass(frozen=True)
class Space:
    """Where to search.

    - `blocks`: that may be trained, the one that `fit` would take first.
    - `rule`: the one that suits the model, or was named.
    """

    blocks: list[int]
    rule: RuleName


def blocks_to_search(scanned: Scan) -> list[int]:
    """The blocks of the largest effect on refusal, largest first."""
    candidates = [block for block in scanned.blocks if block.layer in scanned.candidates]
    best, *others = sorted(candidates, key=lambda block: -block.effect)
    near = [block for block in others if block.effect >= LEAST_EFFECT * best.effect]
    return [block.layer for block in (best, *near)][:BLOCKS]


def defaults(space: Space) -> dict[str, Any]:
    """The point at which the rule has its own numbers, at the block that `fit` would take."""
    schedule = BOUNDARY_SCHEDULE if space.rule == "boundary" else ODDS_SCHEDULE
    own: dict[str, Any] = (
        {
            "pseudo_harmful": BOUNDARY_SHIFTS.pseudo_harmful,
            "harmful": BOUNDARY_SHIFTS.harmful,
            "direction": "means",
        }
        if space.rule == "boundary"
        else {
            "pseudo_harmful": ODDS_MARGINS.pseudo_harmful,
            "harmful": ODDS_MARGINS.harmful,
            "answered": ODDS_MARGINS.answered,
        }
    )
    return own | {
        "block": space.blocks[0],
        "epochs": schedule.epochs,
        "learning_rate": 1.0,
        "noise": schedule.noise,
        "hold": 1.0,
        "given": 1.0,
        "select": "none",
        "strength": 1.0,
    }


def suggest(trial: Trial, space: Space, settings: Settings, batch_size: int | None = BATCH) -> Settings:
    """`settings` with what `trial` is to try; without `batch_size`, with the rule's own."""
    direction: Direction = "means"
    answered = None
    if space.rule == "boundary":
        push = trial.suggest_float("pseudo_harmful", 1.0, 3.5)
        pull = trial.suggest_float("harmful", 0.25, 2.5)
        direction = cast(Direction, trial.suggest_categorical("direction", ["means", "behaviour"]))
    else:
        push = trial.suggest_float("pseudo_harmful", 1.0, 6.0)
        pull = trial.suggest_float("harmful", 0.5, 4.0)
        answered = trial.suggest_float("answered", 0.1, 3.0, log=True)
    changes = Changes(
        pseudo_harmful=push,
        harmful=pull,
        hold=trial.suggest_float("hold", 0.3, 3.0, log=True),
        answered=answered,
        epochs=trial.suggest_int("epochs", 4, 12),
        batch_size=batch_size,
        learning_rate=trial.suggest_float("learning_rate", 0.5, 4.0, log=True),
        noise=trial.suggest_float("noise", 0.0, 0.2),
        direction=direction,
        given=trial.suggest_float("given", 1.0, 5.0, log=True),
        strength=trial.suggest_float("strength", 0.7, 1.3),
    )
    select = cast(Selection, trial.suggest_categorical("select", ["none", "upcore"]))
    return replace(
        settings,
        layer=trial.suggest_categorical("block", space.blocks),
        rule=space.rule,
        changes=changes,
        select=select,
        select_fraction=SELECTED if select == "upcore" else settings.select_fraction,
    )
