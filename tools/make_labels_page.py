"""Simulate rates and differences by labels and write docs/labels.md.

    python -m tools.make_labels_page --output docs/labels.md

Every simulated sample is drawn by `judges.sampling` and counted by `measurement.labelled`, as a real one is.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from actor_tune.judges.sampling import drawn
from actor_tune.measurement.labelled import CHANGED, LEAST, REFUSED, SURE, Ends, score_interval, strata_of
from actor_tune.records.estimate import wilson

from .pages import percent, render, table

RUNS = 1000
SIZES = ((20, 100), (60, 150), (60, 2000), (100, 150), (100, 2000), (200, 2000))
"""Labels, and answers among which they are chosen."""
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
class Sampling:
    """So many `labels` of so many `answers` of a `judge`, chosen by its doubt, or else evenly."""

    judge: SimulatedJudge
    labels: int
    answers: int
    by_doubt: bool


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
    rates = {f"{percent(rate, 0)} %": partial(rate_coverage, rate) for rate in RATES}
    shifts = {f"{percent(one.before, 0)} %, {100 * one.truth:+.1f}": partial(shift_coverage, one) for one in SHIFTS}
    by_doubt = cells(random, runs, rates, True)
    evenly = cells(random, runs, rates, False)
    changes = cells(random, runs, shifts, True)
    every = [cell for line in (*by_doubt, *evenly, *changes) for cell in line.cells]
    header = [f"{labels} of {answers}" for labels, answers in SIZES]
    tables = {
        "rates": table(["judge", "rate", *header], map(_texts, by_doubt)),
        "evenly": table(["judge", "rate", *header], map(_texts, evenly)),
        "changes": table(["judge", "before, change", *header], map(_texts, changes)),
        "widths": table(["judge", *rates], widths(random, runs)),
    }
    held = [cell.held for cell in every]
    counts = {"below_93": sum(one < 0.93 for one in held), "above_97": sum(one > 0.97 for one in held)}
    counts |= {"least_labels": LEAST, "below_925": sum(one < 0.925 for one in held), "cells": len(held), "runs": runs}
    shares = {"least": min(held), "most": max(held), "middle": median(held)}
    return render("labels", tables | counts | shares | {"bias": max(abs(cell.bias) for cell in every)})


@dataclass(frozen=True)
class Line:
    """What was found of one judge and one truth, for each of `SIZES`."""

    judge: str
    truth: str
    cells: list[Coverage]


Simulation = Callable[[np.random.Generator, int, Sampling], Coverage]
"""From a generator, the number of samples, and how each is drawn."""


def cells(random: np.random.Generator, runs: int, truths: Mapping[str, Simulation], by_doubt: bool) -> list[Line]:
    """A line for each judge and each of the named `truths`."""
    return [
        Line(judge.name, name, [simulate(random, runs, Sampling(judge, *size, by_doubt)) for size in SIZES])
        for judge in JUDGES
        for name, simulate in truths.items()
    ]


def _texts(line: Line) -> list[str]:
    return [line.judge, line.truth, *(percent(cell.held) for cell in line.cells)]


def widths(random: np.random.Generator, runs: int) -> list[list[str]]:
    """Mean width in points with 100 labels of 600 answers, beside that of the labels alone."""
    lines = []
    for judge in JUDGES:
        found = [rate_coverage(rate, random, runs, Sampling(judge, 100, 600, True)) for rate in RATES]
        lines.append([judge.name, *(percent(cell.width) for cell in found)])
    alone = [np.mean([_width(count) for count in random.binomial(100, rate, runs)]) for rate in RATES]
    return [*lines, ["the labels alone (Wilson)", *(percent(float(width)) for width in alone)]]


def _width(count: int) -> float:
    interval = wilson(int(count), 100)
    return interval.high - interval.low


def rate_coverage(rate: float, random: np.random.Generator, runs: int, way: Sampling) -> Coverage:
    """Of the interval of a `rate`."""
    samples = []
    for _ in range(runs):
        refused = (random.random(way.answers) < rate).astype(int)
        verdict, doubt = judged(random, way.judge, refused)
        samples.append(partial(_counted, random, verdict, doubt, refused, way))
    return _coverage(rate, _intervals(samples, 2, REFUSED, way.answers))


def shift_coverage(shift: Shift, random: np.random.Generator, runs: int, way: Sampling) -> Coverage:
    """Of the interval of a difference, from prompts with labels of both answers."""
    samples = []
    for _ in range(runs):
        before = (random.random(way.answers) < shift.before).astype(int)
        chance = random.random(way.answers)
        after = np.where(before == 1, chance >= shift.lost, chance < shift.gained).astype(int)
        (old, doubt_before), (new, doubt_after) = (judged(random, way.judge, refused) for refused in (before, after))
        doubt, value = np.maximum(doubt_before, doubt_after), (after - before) % 3
        samples.append(partial(_counted, random, 2 * old + new, doubt, value, way))
    return _coverage(shift.truth, _intervals(samples, 4, CHANGED, way.answers))


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
    random: np.random.Generator, verdict: np.ndarray, doubt: np.ndarray, value: np.ndarray, way: Sampling
) -> _Sample:
    run = random.integers(2**62)
    doubts: Sequence[float] = doubt.tolist() if way.by_doubt else [0.0] * len(doubt)
    chosen = drawn([f"{run} {row}" for row in range(len(doubt))], doubts, way.labels)
    rows, said, probability = list(chosen), np.full(len(doubt), -1), np.ones(len(doubt))
    said[rows], probability[rows] = value[rows], [one.probability(one.beyond) for one in chosen.values()]
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
