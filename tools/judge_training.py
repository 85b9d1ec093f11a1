"""Train the default judge: labelled answers -> features -> two logistic regressions."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from actor_tune.judges.trained.features import read
from actor_tune.judges.verdict import Exchange, Outcome

ANSWERS = Path(__file__).parent / "judge_training.csv"

INVERSE_PENALTY = 1.0
"""scikit-learn's `C`."""

CUT = 120
"""Characters of a copy that is cut off, as an answer of 24 to 32 tokens is."""

CUT_STYLES = ("direct", "steps", "list", "gpt", "help-warn", "claude", "letter", "story", "correct", "premise-moral")
"""Styles whose label shows in their first `CUT` characters."""


@dataclass(frozen=True)
class Example:
    """A labelled answer: what it is, the style or the source that it is of, and its weight in training;
    `written` for this project, or else another's.
    """

    exchange: Exchange
    label: Outcome
    style: str
    weight: float = 1.0
    written: bool = True


def training_answers() -> list[Example]:
    """The training answers, which stay out of the package."""
    text = ANSWERS.read_text(encoding="utf-8")
    return [
        Example(Exchange(row["prompt"], row["answer"]), cast(Outcome, row["label"]), row["style"])
        for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


def with_cuts(examples: Sequence[Example]) -> list[Example]:
    """`examples`, and of the long ones whose opening tells what they are also the opening alone."""
    cuts = [
        Example(Exchange(one.exchange.prompt, one.exchange.answer[:CUT]), one.label, "cut", one.weight)
        for one in examples
        if one.style in CUT_STYLES and one.label != "partial" and len(one.exchange.answer) > CUT + 30
    ]
    return [*examples, *cuts]


def train(examples: Sequence[Example]) -> dict[str, Any]:
    """The judge's weights, as `trained.json` holds them.

    Two logistic regressions on the same features: whether an answer is refused in whole or in part, and whether a
    refused one is partial. The second learns from written answers alone: other sources hardly know partial refusals.
    """
    return train_on([read(one.exchange).features for one in examples], examples)


def train_on(features: Sequence[Mapping[str, float]], examples: Sequence[Example]) -> dict[str, Any]:
    """As `train`, from features that were read before, an example each."""
    names = list(features[0])
    table = [[row[name] for name in names] for row in features]
    refused = [one.label != "compliance" for one in examples]
    parts = [row for row, one in enumerate(examples) if refused[row] and one.written]
    return {
        "features": names,
        "refused": _fitted(table, refused, [one.weight for one in examples]),
        "partial": _fitted([table[row] for row in parts], [examples[row].label == "partial" for row in parts]),
        "answers": len(examples),
    }


def _fitted(
    table: Sequence[Sequence[float]], said: Sequence[bool], weights: Sequence[float] | None = None
) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=10_000, tol=1e-6)
    model.fit(table, said, weights)
    return {
        "weights": [round(float(value), 4) for value in model.coef_[0]],
        "intercept": round(float(model.intercept_[0]), 4),
    }
