"""What a judge says of an answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Outcome = Literal["compliance", "partial", "refusal", "unscored"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Exchange:
    """A user's prompt (the last turn of a conversation) and the model's answer to it.

    - `filtered`: a filter of the provider's stopped the answer, and not the model.
    """

    prompt: str
    answer: str
    filtered: bool = False


@dataclass(frozen=True)
class Verdict:
    """What an answer is, how sure the judge is, and why.

    - `outcome`: `compliance` (helps), `partial` (refuses and yet helps with part of it), `refusal`, or `unscored`
      (empty, garbled, or the judge itself failed): neither compliant nor refused.
    - `score`: the judge's probability, 0..1, that the answer refuses in whole or in part; 0.5 where it cannot tell.
    - `reason`: the words that decided, or a sentence.
    - `asked_otherwise`: how a judge behind a server had to be asked otherwise than at temperature 0, in words.
    """

    outcome: Outcome
    score: float
    reason: str
    asked_otherwise: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Refused in whole or in part: what refusal rates count."""
        return self.outcome in ("refusal", "partial")


Judge = Callable[[Sequence[Exchange]], list[Verdict]]
"""Verdicts on exchanges, in their order. Many at a time, because some judges are models or servers."""
