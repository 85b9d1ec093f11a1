"""What a comparison of methods leaves: `METHOD-SEED.json` of each, and `compare.json` over all."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .estimate import Estimate, score
from .file import Record

ANSWER_TOKENS = 24
"""Enough to tell a refusal from an answer; every method answers all evaluation prompts with every seed."""


@dataclass(frozen=True)
class MethodOutcome:
    """What one method did with one seed.

    - `strength`: the one chosen, and whether it is `within_limits`; if none was, it is the safest.
    - `curve`: every strength on the validation prompts.
    - `scores`: by name, on the evaluation prompts; `sets`: refusal of each set, 0..1.
    - `kl_harmless`: of the first answer token to harmless evaluation prompts, nats.
    - `garbled_share`: answers that are empty, looping or in no language, 0..1.
    - `fit_seconds`: to learn and to choose the strength; `answer_seconds`: to answer, None where some answers were
      there from a run that was cut off; `all_seconds`: with what was measured besides.
    - `figures`: what else the method tells, such as how its detector errs.
    - `refused`: of each set of evaluation prompts, one character a prompt, in order: 1 refused, 0 answered.
    """

    method: str
    seed: int
    strength: float
    within_limits: bool
    curve: list[dict[str, float]]
    scores: dict[str, Estimate | None]
    sets: dict[str, float | None]
    kl_harmless: float | None
    garbled_share: float
    fit_seconds: float
    answer_seconds: float | None
    all_seconds: float
    figures: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """What one method did over all seeds: means.

    - `intervals`: of each score, allowing for the choice of prompts and for the spread of the seeds.
    - `strengths`: of each seed, and `strength` their mean; `within_limits`: for how many of them.
    - `seconds`: to learn and to choose the strength.
    """

    method: str
    compliance_rate: float | None
    safety_score: float | None
    tradeoff_score: float | None
    kl_harmless: float | None
    intervals: dict[str, tuple[float, float] | None]
    strength: float
    strengths: list[float]
    within_limits: int
    seconds: float
    garbled_share: float
    figures: dict[str, float]
    curve: list[dict[str, float]]

    def score(self, name: str) -> Estimate | None:
        """The score of this name with its interval."""
        return score(self, name)


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """A comparison of methods: what was asked for, and what came of it.

    - `train`: hash of the file that was learned from, or its name.
    - `not_learned`: prompts whose answers were not as they should be, so that fine-tuning left them out.
    - `leaked`: how many evaluation prompts were like some learned from, and `left_out`, which.
    """

    FILE: ClassVar[str] = "compare.json"
    SCHEMA: ClassVar[int] = 1

    model: str
    train_sha256: str
    evaluation_sha256: str
    starter: bool
    max_new_tokens: int
    dtype: str = "auto"
    answers_from: str | None = None
    train: str = ""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    computed_in: str = ""
    not_learned: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    leaked: int = 0
    left_out: list[str] = field(default_factory=list)
    methods: list[MethodSummary] = field(default_factory=list)
    outcomes: list[MethodOutcome] = field(default_factory=list)
