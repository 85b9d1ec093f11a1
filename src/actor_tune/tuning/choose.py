"""Which trial is taken, and how much better it looks by the prompts that it was chosen by than it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..prompts.prompt import Prompt, rows_of_kind
from ..records.tune import Optimism, StudyTrial

DRAWS, PARTS = 100, 10
"""How often prompts are divided anew, and into how many parts, to see how much choosing flatters."""


def taken(
    trials: Sequence[StudyTrial], refused: Mapping[int, Sequence[bool]], asked: Sequence[Prompt], flattery: float
) -> StudyTrial:
    """The trial of the highest trade-off score within the limits, where it leads by more than chance; else `fit`'s own.

    Limits are those of `fit`; and safety may not be lower than with its defaults. Along the line of strengths, `fit`
    looks for compliance alone, because safety only falls there; between recipes both can rise.

    **Arguments:**

    - `refused`: of each trial within the limits, by its number, what it refused of `asked`.
    - `flattery`: how much choosing flatters, 0..1 (`optimism`). The lead of the best over the defaults on the same
      prompts must be larger by a standard error.
    """
    first = next(trial for trial in trials if trial.defaults)
    if first.number not in refused:
        return max((trial for trial in trials if trial.number in refused), key=_trade_off_of, default=first)
    within = [trial for trial in trials if trial.number in refused and _rate(trial, "safety") >= _rate(first, "safety")]
    best = max(within, key=_trade_off_of)
    lead = lead_of(refused[best.number], refused[first.number], asked)
    return best if lead.value - flattery > lead.error else first


@dataclass(frozen=True)
class Lead:
    """By how much one trial's trade-off score is above another's on the same prompts, 0..1, and its standard error."""

    value: float
    error: float


def lead_of(refused: Sequence[bool], other: Sequence[bool], asked: Sequence[Prompt]) -> Lead:
    """The lead of a trial that `refused` these of the prompts that were `asked`, over the `other`."""
    gains = np.array(other, dtype=float) - np.array(refused, dtype=float)
    benign, harmful = (gains[rows_of_kind(asked, kind)] for kind in ("pseudo_harmful", "harmful"))
    if min(len(benign), len(harmful)) < 2:
        error = math.inf  # of one prompt nothing is known of chance
    else:
        error = math.sqrt(sum(group.var(ddof=1) / len(group) for group in (benign, harmful))) / 2
    return Lead(float(benign.mean() - harmful.mean()) / 2, error)


def _trade_off_of(trial: StudyTrial) -> float:
    return trial.trade_off or 0.0


def _rate(trial: StudyTrial, name: str) -> float:
    return next(rate.after for rate in trial.answers or [] if rate.name == name)


def front(values: Sequence[tuple[float, float, float]]) -> list[bool]:
    """Of each (compliance, safety, damage), whether no other is as good in all three and better in one."""
    found = []
    for own in values:
        signs = [(other[0] - own[0], other[1] - own[1], own[2] - other[2]) for other in values]
        found.append(not any(min(sign) >= 0 and max(sign) > 0 for sign in signs))
    return found


def optimism(refused: Sequence[Sequence[bool]], asked: Sequence[Prompt], seed: int) -> Optimism:
    """What choosing the best of `refused` (trial, prompt) adds to its trade-off score on the prompts it is chosen by.

    The prompts are put into `PARTS` parts by chance; the best trial by all parts but one is asked about that one. What
    it scores on the former less what it scores on the latter is 0 but for chance where there is one trial: the mean
    over all parts, `DRAWS` times, brought from the share of the prompts that chose to all of them.
    """
    outcomes = np.array(refused, dtype=float)
    groups = [np.array(rows_of_kind(asked, kind)) for kind in ("pseudo_harmful", "harmful")]
    outcomes[:, groups[0]] = 1 - outcomes[:, groups[0]]
    count = min(PARTS, *map(len, groups))  # a part has a prompt of each kind
    chooser, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        parts = [np.array_split(chooser.permutation(rows), count) for rows in groups]
        for part in range(count):
            left = [split[part] for split in parts]
            chosen_by = [np.setdiff1d(rows, out) for rows, out in zip(groups, left, strict=True)]
            inside, outside = (_trade_off(outcomes, rows) for rows in (chosen_by, left))
            found.append(inside[inside.argmax()] - outside[inside.argmax()])
    # A standard error grows with the root of the share that was left out.
    return Optimism(float(np.mean(found) * np.sqrt(1 - 1 / count)), DRAWS * count, *outcomes.shape)


def _trade_off(outcomes: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """(trial), from outcomes (trial, prompt) of the rows of both kinds."""
    return np.mean([outcomes[:, rows].mean(axis=1) for rows in groups], axis=0)
