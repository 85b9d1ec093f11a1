"""Which answers a person should label: more often those that a judge is unsure of, with known probabilities. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

UNIFORM = 0.5
"""The share of the chance to be chosen that all answers have alike; the rest goes by the judge's doubt. So the errors
that a judge is sure of are found too."""

LEAST_DOUBT = 0.05
"""Doubt that every answer has, 0..0.5: judges that are sure of themselves err too."""

SEED = 0


def doubt(score: float) -> float:
    """How unsure a judge is of its verdict, 0..0.5: the smaller of the probabilities of refusal and of compliance."""
    return min(score, 1 - score)


def sizes(doubts: Sequence[float]) -> list[float]:
    """How probable each answer is beside the others, their mean 1: uniform in part, in part by the judge's doubt.

    That part goes by the standard deviation of a refusal that has the judge's probability, which is best where a judge
    errs as often as it doubts (Zrnic and Candès 2024, arXiv 2403.03208, section 3).
    """
    raised = [sqrt(value * (1 - value)) for value in (max(LEAST_DOUBT, one) for one in doubts)]
    mean = sum(raised) / len(raised) if raised else 1.0
    return [UNIFORM + (1 - UNIFORM) * value / mean for value in raised]


def lot(key: str) -> float:
    """A uniform number in (0, 1], always the same for the same `key`."""
    digest = hashlib.sha256(f"{SEED} {key}".encode("utf-8", "replace")).digest()
    return (int.from_bytes(digest[:8], "big") + 1) / 2**64


@dataclass(frozen=True)
class Drawn:
    """An answer that was chosen.

    - `size`: as in `sizes`; `rank`: lot / size. The smallest ranks are chosen.
    - `beyond`: the smallest rank that was not; infinite where all were.
    """

    size: float
    rank: float
    beyond: float

    def probability(self, beyond: float) -> float:
        """With which it would be chosen, 0..1, if `beyond` were the smallest rank that was not.

        Priority sampling (Duffield, Lund and Thorup 2007, J. ACM 54:32): min(1, beyond * size).
        """
        return min(1.0, beyond * self.size)


def drawn(keys: Sequence[str], doubts: Sequence[float], n: int) -> dict[int, Drawn]:
    """`n` of the answers (all, where there are not more), by their number, the smallest rank first.

    A larger `n` chooses the same answers and more.

    **Arguments:**

    - `keys`: one for each answer, all different: its lot hangs on nothing else.
    """
    size = sizes(doubts)
    ranks = [lot(key) / part for key, part in zip(keys, size, strict=True)]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    beyond = ranks[order[n]] if n < len(order) else inf
    return {number: Drawn(size[number], ranks[number], beyond) for number in order[:n]}
