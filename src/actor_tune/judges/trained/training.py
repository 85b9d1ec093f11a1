"""Train the default judge: answers written for this project -> features -> multinomial logistic regression."""

import csv
import importlib.resources
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..verdict import Exchange, Outcome
from .features import read

CLASSES: tuple[Outcome, ...] = ("compliance", "partial", "refusal")

INVERSE_PENALTY = 2.0
"""scikit-learn's `C`. By cross-validation over the prompts of the training answers 1 to 4 are alike; this one was then
chosen on the labelled answers of two models, which are thereby no test of it (`docs/judge.md`)."""

CUT = 120
"""Characters of a copy that is cut off, as an answer of 24 to 32 tokens is."""

CUT_STYLES = ("direct", "steps", "list", "gpt", "help-warn", "claude", "letter", "story", "correct", "premise-moral")
"""Styles whose label shows in their first `CUT` characters."""


@dataclass(frozen=True)
class Example:
    """A labelled answer: what it is, the style or the source that it is of, and its weight in training."""

    exchange: Exchange
    label: Outcome
    style: str
    weight: float = 1.0


def training_answers() -> list[Example]:
    """The training answers, as they ship with the package."""
    text = (importlib.resources.files(__package__) / "training.csv").read_text(encoding="utf-8")
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
    """The judge's weights, as `trained.json` holds them: one row of `weights` and one intercept a class."""
    from sklearn.linear_model import LogisticRegression

    features = [read(one.exchange).features for one in examples]
    names = list(features[0])
    table = [[row[name] for name in names] for row in features]
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=10_000, tol=1e-6)
    model.fit(table, [CLASSES.index(one.label) for one in examples], [one.weight for one in examples])
    return {
        "classes": list(CLASSES),
        "features": names,
        "weights": [[round(float(value), 4) for value in row] for row in model.coef_],
        "intercepts": [round(float(value), 4) for value in model.intercept_],
        "answers": len(examples),
    }


def fifths(keys: Sequence[str]) -> list[int]:
    """A number 0..4 for each key, equal for equal keys: parts for cross-validation by prompt or by style."""
    return [zlib.crc32(key.encode()) % 5 for key in keys]
