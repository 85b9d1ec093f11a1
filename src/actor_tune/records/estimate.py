"""Numbers with their 95 % intervals, under the names that they are stored by."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

Z = 1.959963984540054
"""Quantile of the normal distribution for two-sided 95 % intervals."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. Rates are fractions in 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Labelled:
    """A rate (0..1) or a difference (-1..1) by people's labels, with its 95 % interval (`measurement.labelled`).

    - `labels`: how many it rests on; of a difference, prompts with a label before and after.
    """

    value: float
    low: float
    high: float
    labels: int


@dataclass(frozen=True)
class Difference:
    """After minus before, -1..1."""

    difference: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The difference."""
        return self.difference


def wilson(count: int, n: int) -> Estimate:
    """The rate `count` / `n`, 0..1, with its 95 % score interval (Wilson 1927).

    **Raises:** `ValueError` when `n` is 0: a rate of nothing is not 0 %.
    """
    if n == 0:
        raise ValueError("a rate needs at least one answer")
    rate, square = count / n, Z * Z / n
    middle, half = rate + square / 2, sqrt(rate * (1 - rate) * square + square * square / 4)
    low, high = ((middle + sign * half) / (1 + square) for sign in (-1, 1))
    # Where all are alike an end is the rate itself, and rounding would miss it.
    return Estimate(rate, low if count else 0.0, high if count < n else 1.0)


Interval = Estimate | Labelled | Difference


def is_point(interval: Interval) -> bool:
    """Whether the interval has no width: so older versions stored a difference where no answer flipped, or all did.

    They took a bootstrap, which then says nothing of how sure it is.
    """
    return interval.low == interval.high


def score(record: object, name: str) -> Estimate | None:
    """The score `name` of a record that keeps its value under that name and its ends in `intervals`."""
    value, ends = getattr(record, name), getattr(record, "intervals").get(name)  # noqa: B009
    return None if value is None or ends is None else Estimate(value, *ends)


def points(interval: Interval) -> str:
    """In points, as "9.8 (2.1 to 19.0)"."""
    value, low, high = (f"{100 * end + 0.0:.1f}" for end in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def sets_that_fell(drops: Sequence[tuple[str, int | None, Estimate]], margin: float) -> str:
    """Of sets, their prompts and drops, those that are more than `margin`, in words, worst first; "" where none is."""
    fell = sorted((item for item in drops if item[2].value > margin), key=lambda item: -item[2].value)
    named = []
    for name, n, drop in fell:
        chance = "" if drop.low > margin else ", which may be chance"
        named.append(f"{name}, by {points(drop)}{f' over {n} prompts' if n else ''}{chance}")
    what = f"refusal fell by more than {100 * margin:.1f} points (95 % intervals in brackets)"
    return f"{what}: {'; '.join(named)}" if named else ""
