"""Numbers with their 95 % intervals, under the names that they are stored by."""

from dataclasses import dataclass


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
