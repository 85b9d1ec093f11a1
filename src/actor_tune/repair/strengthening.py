"""What a rule is where refusal is strengthened: harmful prompts that slip through are moved, benign ones held.

`HELD_BELOW` and the strengths were set on one model, by its validation prompts and what its gate said of benign ones.
"""

from dataclasses import replace

import torch

from .direction import RefusalDirection
from .rules import HARMFUL, LossFunction, Margins, Rule, distance_loss, odds_rule

GENTLE_STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""All that are tried: benign prompts in forms that were not trained on begin to rise with the harmful ones beyond."""

STRENGTHENED = 3.0
"""Weight of harmful prompts that the unedited model answers, where they are what a fit is for."""

HELD_BELOW = 3.0
"""How far below what they were the log-odds of pseudo-harmful prompts are then held: unseen ones rise with harmful."""


def strengthening(rule: Rule) -> Rule:
    """`rule`, where refusal is to be strengthened: harmful prompts that are answered are what counts.

    `boundary` moves those that lack (`lacking_targets`); `odds` weighs those that are answered as much as the others,
    and holds benign ones below what they were. Weak strengths alone are tried.
    """
    rule = replace(rule, strengths=GENTLE_STRENGTHS)
    if rule.odds_objective is None:
        return replace(rule, parameters={"reach": 1.0}, objective=_lacking)
    margins = replace(Margins(**rule.parameters["margins"]), answered=STRENGTHENED, held=HELD_BELOW)
    return replace(odds_rule(margins, rule.schedule), strengths=rule.strengths)


def lacking_targets(activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection) -> torch.Tensor:
    """Targets of the boundary rule where refusal is strengthened, from the activations of the unedited model.

    A harmful prompt that is nearer to the harmless mean than the harmful mean is, is moved along R by what it lacks.
    All others stay: to move those that are refused would carry benign ones along.
    """
    lack = (1 - direction.position(activations)).clamp(min=0)
    lack[kinds != HARMFUL] = 0
    return activations + lack.unsqueeze(-1) * direction.vector


def _lacking(activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection) -> LossFunction:
    targets, length = lacking_targets(activations, kinds, direction), direction.length
    return lambda now, rows, _current: distance_loss(now, targets[rows], length)
