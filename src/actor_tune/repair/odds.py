"""Odds of refusal at the last token, and how a block's output moves them: the boundary that the paper leaves open.

The paper's theory (Eq. 4-7) has a boundary R.a = d, and the least shift that brings an over-refused query there is
parallel to R. Neither d nor whether R is the boundary's normal is looked at there. Here both are read off the model:
z(a) is the log-odds that the answer to a query begins as this model's refusals do, and its gradient at a is the normal,
query by query. On real models it is nearly the same for all queries, and far from R (docs/method.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..models.above import Above, Slope


@dataclass(frozen=True)
class RefusalStart:
    """What refusals begin with: ids `tokens` (token) int64, and the log-odds of them above which a prompt is refused.

    `boundary` is the paper's d (Eq. 4).
    """

    tokens: torch.Tensor
    boundary: float = 0.0


@dataclass(frozen=True)
class Odds:
    """Log-odds of refusal around some activations, one row a prompt.

    - `at`: activations (prompt, d_model) float32.
    - `slope`: log-odds there (prompt), and their gradients (prompt, d_model).
    """

    at: torch.Tensor
    slope: Slope

    def near(self, activations: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Log-odds (row) at `activations` (row, d_model) of the prompts `rows`, to the first order."""
        moved = (activations - self.at[rows]) * self.slope.gradients[rows]
        return self.slope.values[rows] + moved.sum(dim=-1)


OddsReader = Callable[[torch.Tensor], Odds]
"""Activations (prompt, d_model) float32 of all training prompts -> the odds around them."""


def log_odds(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) (prompt), p the probability that an answer begins with one of `tokens`.

    `logits` are (prompt, vocabulary) float32. p is taken for at most 1 - 1e-6, so that all is finite.
    """
    inside = logits.log_softmax(dim=-1)[:, tokens.to(logits.device)].logsumexp(dim=-1)
    return inside - torch.log1p(-inside.exp().clamp(max=1 - 1e-6))


def odds_reader(above: Above, tokens: torch.Tensor) -> OddsReader:
    """Reads the odds of beginning with one of `tokens` off what `above` runs."""

    def read(activations: torch.Tensor) -> Odds:
        return Odds(activations, above.slope(activations, lambda logits: log_odds(logits, tokens)))

    return read
