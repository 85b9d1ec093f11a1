"""Simulate rates and differences by labels and write docs/labels.md.

    python -m tools.make_labels_page --output docs/labels.md

Every simulated sample is drawn by `judges.sampling` and counted by `measurement.labelled`, as a real one is.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np

from actor_tune.judges.sampling import drawn
from actor_tune.measurement.labelled import CHANGED, REFUSED, SURE, Ends, score_interval, strata_of
from actor_tune.measurement.metrics import wilson

from .pages import percent, render, table

RUNS = 1000
LABELS = (60, 100, 200)
ANSWERS = (150, 2000)
RATES = (0.03, 0.3, 0.6, 0.95)


@dataclass(frozen=True)
class SimulatedJudge:
    """A judge that is `right` in this share of answers.

    - `doubts`: `right` where it is unsure as often as it errs; `none` where it is sure of all; `wrong` where it is sure
      of its errors and unsure of the rest.
    """

    name: str
    right: float
    doubts: str


JUDGES = (
    SimulatedJudge("good", 0.97, "right"),
    SimulatedJudge("good, sure of its errors", 0.97, "wrong"),
    SimulatedJudge("bad", 0.6, "right"),
    SimulatedJudge("bad, always sure", 0.6, "none"),
    SimulatedJudge("useless", 0.5, "none"),
    SimulatedJudge("inverted", 0.1, "none"),
)


@dataclass(frozen=True)
class Shift:
    """Refusal before, and how probable it is that a refusal is lost and that one is gained; all 0..1."""

    before: float
    lost: float
    gained: float

    @property
    def truth(self) -> float:
        """After minus before."""
        return self.gained * (1 - self.before) - self.lost * self.before


SHIFTS = (
    Shift(0.95, 0.0, 0.0),
    Shift(0.95, 0.02, 0.0),
    Shift(0.95, 0.1, 0.01),
    Shift(0.6, 0.4, 0.02),
    Shift(0.3, 0.02, 0.02),
    Shift(0.05, 0.0, 0.01),
)


@dataclass(frozen=True)
class Coverage:
    """How often the interval held the truth, and how wide it and how far off the estimate was on average."""

    held: float
    width: float
    bias: float


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    arguments.output.write_text(page(arguments.runs), encoding="utf-8")


def page(runs: int = RUNS) -> str:
    """The page in Markdown, from so many simulated samples a cell."""
    random = np.random.default_rng(0)
    everything: list[Coverage] = []

    def rows(truths: Iterable[object], simulate: Callable[..., Coverage], active: bool) -> list[list[str]]:
        lines = []
        for judge in JUDGES:
            lines.append([judge.name])
            for truth, labels in product(truths, LABELS):
                cells = [simulate(random, runs, judge, truth, labels, answers, active) for answers in ANSWERS]
                cells = [cell for cell, answers in zip(cells, ANSWERS, strict=True) if labels <= answers]
                everything.extend(cells)
                lines[-1].append(" ".join(percent(cell.held) for cell in cells))
        return lines

    rate_header = ["judge", *(f"{percent(rate, 0)} %, {labels}" for rate, labels in product(RATES, LABELS))]
    shift_header = ["judge", *(f"{_shift_name(shift)}, {labels}" for shift, labels in product(SHIFTS, LABELS))]
    values = {
        "rates": table(rate_header, rows(RATES, rate_coverage, True)),
        "rates_uniform": table(rate_header, rows(RATES, rate_coverage, False)),
        "shifts": table(shift_header, rows(SHIFTS, shift_coverage, True)),
        "widths": table(["judge", *(f"{percent(rate, 0)} %" for rate in RATES)], widths(random, runs)),
        "runs": runs,
        "cells": len(everything),
        "least": percent(min(cell.held for cell in everything)),
        "most": percent(max(cell.held for cell in everything)),
        "middle": percent(median(cell.held for cell in everything)),
        "below_93": sum(cell.held < 0.93 for cell in everything),
        "below_925": sum(cell.held < 0.925 for cell in everything),
        "above_97": sum(cell.held > 0.97 for cell in everything),
        "bias": percent(max(abs(cell.bias) for cell in everything)),
    }
    return render("labels", values)


def _shift_name(shift: Shift) -> str:
    return f"{percent(shift.before, 0)} % {100 * shift.truth:+.1f}"


def widths(random: np.random.Generator, runs: int) -> list[list[str]]:
    """Mean width in points with 100 labels of 600 answers, beside that of the labels alone."""
    lines = []
    for judge in JUDGES:
        found = [rate_coverage(random, runs, judge, rate, 100, 600, True) for rate in RATES]
        lines.append([judge.name, *(percent(cell.width) for cell in found)])
    alone = [np.mean([_width(count) for count in random.binomial(100, rate, runs)]) for rate in RATES]
    return [*lines, ["the labels alone (Wilson)", *(percent(float(width)) for width in alone)]]


def _width(count: int) -> float:
    interval = wilson(int(count), 100)
    return interval.high - interval.low


def rate_coverage(
    random: np.random.Generator, runs: int, judge: SimulatedJudge, rate: float, labels: int, answers: int, active: bool
) -> Coverage:
    """Of the interval of a `rate` from so many `labels` of so many `answers`, chosen by doubt if `active`."""
    samples = []
    for _ in range(runs):
        refused = (random.random(answers) < rate).astype(int)
        verdict, doubt = judged(random, judge, refused)
        samples.append(partial(_counted, random, verdict, doubt, refused, labels, active))
    return _coverage(rate, _intervals(samples, 2, REFUSED, answers))


def shift_coverage(
    random: np.random.Generator, runs: int, judge: SimulatedJudge, shift: Shift, labels: int, answers: int, active: bool
) -> Coverage:
    """Of the interval of a difference, from so many prompts with `labels` of both answers."""
    samples = []
    for _ in range(runs):
        before = (random.random(answers) < shift.before).astype(int)
        chance = random.random(answers)
        after = np.where(before == 1, chance >= shift.lost, chance < shift.gained).astype(int)
        (old, doubt_before), (new, doubt_after) = judged(random, judge, before), judged(random, judge, after)
        doubt, value = np.maximum(doubt_before, doubt_after), (after - before) % 3
        samples.append(partial(_counted, random, 2 * old + new, doubt, value, labels, active))
    return _coverage(shift.truth, _intervals(samples, 4, CHANGED, answers))


def judged(random: np.random.Generator, judge: SimulatedJudge, refused: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts (0 or 1) and doubts (0..0.5) on answers."""
    n, errs = len(refused), 1 - judge.right
    if judge.doubts == "right":
        chance = random.beta(0.3, 0.3 * judge.right / errs, n)
        wrong = random.random(n) < chance
        doubt = np.minimum(chance, 1 - chance)
    else:
        wrong = random.random(n) < errs
        doubt = random.beta(0.5, 20, n)
        if judge.doubts == "wrong":
            doubt = np.where(wrong, 0.01, random.uniform(0, 0.5, n))
    return np.where(wrong, 1 - refused, refused), doubt


@dataclass(frozen=True)
class _Sample:
    verdict: np.ndarray
    doubt: np.ndarray
    said: np.ndarray
    probability: np.ndarray


def _counted(
    random: np.random.Generator, verdict: np.ndarray, doubt: np.ndarray, value: np.ndarray, labels: int, active: bool
) -> _Sample:
    run = random.integers(2**62)
    doubts: Sequence[float] = doubt.tolist() if active else [0.0] * len(doubt)
    chosen = drawn([f"{run} {row}" for row in range(len(doubt))], doubts, labels)
    rows, said, probability = list(chosen), np.full(len(doubt), -1), np.ones(len(doubt))
    said[rows], probability[rows] = value[rows], list(chosen.values())
    return _Sample(verdict, doubt, said, probability)


def _intervals(samples: Iterable[Callable[[], _Sample]], verdicts: int, values: np.ndarray, answers: int) -> Ends:
    """Those of all `samples` at once."""
    strata = []
    for draw in samples:
        one = draw()
        strata.append(strata_of(one.verdict, one.doubt >= SURE, one.said, one.probability, verdicts, len(values)))
    return score_interval(
        np.stack([item.counts for item in strata]),
        np.tile(values, (2 * verdicts, 1)),
        np.stack([item.shares for item in strata]),
        np.zeros(2 * verdicts, int),
        np.array([answers]),
    )


def _coverage(truth: float, ends: Ends) -> Coverage:
    held = (ends.low <= truth + 1e-9) & (truth - 1e-9 <= ends.high)
    return Coverage(float(held.mean()), float((ends.high - ends.low).mean()), float((ends.value - truth).mean()))


if __name__ == "__main__":
    main()
