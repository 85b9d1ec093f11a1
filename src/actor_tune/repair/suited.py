"""Which of our two rules suits a model: whether it refuses the more, the further a prompt lies along R.

`boundary` moves prompts along the refusal direction R (paper, Eq. 1), and does well where that is what refusal follows.
The paper takes it for granted. Here it is looked at: on pseudo-harmful prompts, which R was not made from, by rank
correlation of their positions along R with their log-odds of refusal. Where it is weak, `odds`, which does not rest on
R, is the rule. docs/results.md has the correlations of the models that were measured.
"""

import math
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr

from ..models.first_token import first_token_logprobs
from ..models.inputs import BlockInputs
from ..models.model import ChatModel
from .odds import log_odds
from .refusals import Refusals
from .rules import HELD, PSEUDO_HARMFUL, RuleName

TELLING = 0.5
"""The rank correlation from which on R is taken for what refusal follows."""

MOST_PROMPTS = 256
"""Read at most: with so many, chance moves a correlation by about .06."""


@dataclass(frozen=True)
class Suited:
    """The rule that suits a model.

    - `correlation`: Spearman's, -1..1, of position along R and log-odds of refusal, of `prompts` pseudo-harmful ones.
    """

    rule: RuleName
    correlation: float
    prompts: int

    @property
    def reason(self) -> str:
        """Why, in words."""
        follows = "follows" if self.rule == "boundary" else "does not follow"
        return (
            f"Rule {self.rule}: refusal {follows} the refusal direction. Rank correlation of position and log-odds of "
            f"refusal of {self.prompts} pseudo-harmful prompts: {self.correlation:.2f} (standard error where there is "
            f"none: {(self.prompts - 1) ** -0.5:.2f}); {TELLING} is asked for."
        )


def suited_rule(
    chat_model: ChatModel, inputs: BlockInputs, kinds: torch.Tensor, positions: torch.Tensor, refusals: Refusals | None
) -> Suited:
    """The rule by what the model, as it is, would say to the pseudo-harmful ones of the training prompts.

    **Arguments:**

    - `inputs`: what the block receives for the training prompts, of `kinds` (prompt), which lie at `positions`
      (prompt) along R when they leave it.
    - `refusals`: how the model refuses.
    """
    if refusals is None:
        raise ValueError("to choose a rule, it must be known how the model refuses")
    rows = ((kinds == PSEUDO_HARMFUL) | (kinds == HELD)).nonzero().flatten().tolist()
    rows = rows[:: math.ceil(len(rows) / MOST_PROMPTS)]
    logprobs = first_token_logprobs(chat_model, inputs.select(rows))
    return by_correlation(positions[rows], log_odds(logprobs, refusals.start.tokens))


def by_correlation(positions: torch.Tensor, odds: torch.Tensor) -> Suited:
    """The rule by positions along R and log-odds of refusal of pseudo-harmful prompts, (prompt) each."""
    # Of constant values nothing is known, and then R tells nothing.
    varied = min(len(positions.unique()), len(odds.unique())) > 1
    found = float(spearmanr(positions.tolist(), odds.tolist()).statistic) if varied else 0.0
    if math.isnan(found):
        raise ValueError("positions and log-odds must be finite")
    return Suited("boundary" if found >= TELLING else "odds", found, len(positions))
