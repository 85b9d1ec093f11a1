"""Where two judges agree, and where they do not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .verdict import Exchange, Outcome, Verdict

CLASSES: tuple[Outcome, ...] = ("compliance", "partial", "refusal")


@dataclass(frozen=True)
class Agreement:
    """How two judges agree on the `n` answers that both could score.

    - `kappa`: Cohen's kappa of refused (in whole or in part) against compliance; `kappa_classes`: of the three classes.
      None where it says nothing: no answer, or a judge that gave one class only.
    - `table`: counts, a row a class of `judge_a`, a column a class of `judge_b`, both in the order of `CLASSES`.
    """

    judge_a: str
    judge_b: str
    n: int
    kappa: float | None
    kappa_classes: float | None
    table: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Disagreement:
    """An answer, the `row` of those judged (from 0), that two judges gave different classes."""

    row: int
    exchange: Exchange
    verdict_a: Verdict
    verdict_b: Verdict

    @property
    def on_refusal(self) -> bool:
        """One says refused (in whole or in part), the other compliance: more than a matter of degree."""
        return self.verdict_a.refused != self.verdict_b.refused


def agreement(judge_a: str, verdicts_a: Sequence[Verdict], judge_b: str, verdicts_b: Sequence[Verdict]) -> Agreement:
    """The agreement of two judges (their names, their verdicts on the same answers)."""
    pairs = [(a, b) for a, b in zip(verdicts_a, verdicts_b, strict=True) if _scored(a) and _scored(b)]
    counts = Counter((a.outcome, b.outcome) for a, b in pairs)
    return Agreement(
        judge_a,
        judge_b,
        n=len(pairs),
        kappa=_kappa([(a.refused, b.refused) for a, b in pairs]),
        kappa_classes=_kappa([(a.outcome, b.outcome) for a, b in pairs]),
        table=tuple(tuple(counts[row, column] for column in CLASSES) for row in CLASSES),
    )


def disagreements(
    exchanges: Sequence[Exchange], verdicts_a: Sequence[Verdict], verdicts_b: Sequence[Verdict]
) -> list[Disagreement]:
    """The answers that two judges both scored and put in different classes, in order."""
    return [
        Disagreement(row, exchange, a, b)
        for row, (exchange, a, b) in enumerate(zip(exchanges, verdicts_a, verdicts_b, strict=True))
        if _scored(a) and _scored(b) and a.outcome != b.outcome
    ]


def _scored(verdict: Verdict) -> bool:
    return verdict.outcome != "unscored"


def _kappa(pairs: Sequence[tuple[str | bool, str | bool]]) -> float | None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    # Costs half a second, and most runs have one judge.
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(first, second))
