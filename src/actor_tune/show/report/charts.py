"""Where the marks of the charts lie, in percent of a plot's width and height; `charts.html` draws them. Pure.

In percent, so that a chart takes any width without its text and dots being scaled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

from ...prompts.prompt import Kind
from ...records.estimate import Estimate
from ...records.results import Measured, Results
from ...records.run import Position, PromptPath, Trial
from ...records.scan import BlockEffect
from ..text import CHANCES, within_chances
from .load import FitFolder
from .sets import WISHES
from .words import MINUS, chosen_trial

SERIES = 6
"""Colours there are for the series of the frontier; `page.css` has them."""

DENSITY_POINTS = 96


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with labelled `ticks`."""

    low: float
    high: float
    ticks: list[float]

    def at(self, value: float) -> float:
        """Where `value` lies, in percent of the axis from its low end; what is beyond an end is drawn there."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 3)


def scale(values: Sequence[float], least: float, steps: Sequence[float], most: float = math.inf) -> Scale:
    """An axis that holds all `values`, spans at least `least`, does not go beyond `most`, and ends on ticks.

    Ticks are a step apart: the first of `steps` by which there are at most seven of them.
    """
    low, high = min(values), max(values)
    missing = max(0.0, least - (high - low)) / 2
    high = min(high + missing, most)
    low = min(low, max(low - missing, high - least))
    step = next((step for step in steps if (high - low) / step <= 6), (high - low) / 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(first * step, last * step, [round(step * number, 6) for number in range(first, last + 1)])


SHARES = Scale(0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0])


@dataclass(frozen=True)
class Ridge:
    """How the prompts of one kind are spread along the direction: mean and outline, before and after."""

    kind: Kind
    n: int
    mean_before: float
    mean_after: float
    outline_before: str
    outline_after: str


@dataclass(frozen=True)
class Ridges:
    """The spread of each kind on one axis."""

    axis: Scale
    rows: list[Ridge]


def ridges(positions: Sequence[Position]) -> Ridges:
    """The spread of each kind among `positions`, of which there must be some."""
    everywhere = [value for position in positions for value in (position.before, position.after)]
    margin = 0.08 * (max(everywhere) - min(everywhere))  # for the tails of the densities
    axis = scale(
        [0.0, 1.0, min(everywhere) - margin, max(everywhere) + margin], 1.0, (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)
    )
    rows = []
    for kind in WISHES:
        before = [position.before for position in positions if position.kind == kind]
        after = [position.after for position in positions if position.kind == kind]
        if before:
            curves = density(before, axis), density(after, axis)
            top = max(max(curve) for curve in curves)
            rows.append(Ridge(kind, len(before), fmean(before), fmean(after), *(outline(c, top) for c in curves)))
    return Ridges(axis, rows)


def density(values: Sequence[float], axis: Scale) -> list[float]:
    """A Gaussian kernel estimate at `DENSITY_POINTS` places along `axis`, its width by Silverman's rule."""
    width = max(1.06 * pstdev(values) * len(values) ** -0.2, (axis.high - axis.low) / 150)
    step = (axis.high - axis.low) / (DENSITY_POINTS - 1)
    # Counted into fine bins first, so that thousands of prompts cost no more than a few.
    counts: dict[int, int] = {}
    for value in values:
        place = round((value - axis.low) / step * 4)
        counts[place] = counts.get(place, 0) + 1
    return [
        sum(count * math.exp(-(((place / 4 - point) * step / width) ** 2) / 2) for place, count in counts.items())
        / (len(values) * width * math.sqrt(2 * math.pi))
        for point in range(DENSITY_POINTS)
    ]


def outline(curve: Sequence[float], top: float) -> str:
    """`curve` as an SVG path in a box of 100 by 100, of which `top` reaches the upper edge but for a little."""
    points = [f"{100 * place / (len(curve) - 1):.2f},{100 - 94 * value / top:.2f}" for place, value in enumerate(curve)]
    return "M" + "L".join(points)


@dataclass(frozen=True)
class Course:
    """One figure of a prompt after each block; `before` and `after` are SVG paths in a box of 100 by 100.

    `labels` are of the ticks of `axis`.
    """

    name: str
    axis: Scale
    labels: list[str]
    before: str
    after: str
    last_before: float
    last_after: float


@dataclass(frozen=True)
class PathChart:
    """What becomes of one prompt on its way through the blocks."""

    path: PromptPath
    blocks: Scale
    courses: list[Course]


def path_charts(paths: Sequence[PromptPath]) -> list[PathChart]:
    """Position and chance of refusal of each prompt, in the order of kinds."""
    kinds = [*WISHES]
    return [_path_chart(path) for path in sorted(paths, key=lambda path: kinds.index(path.kind))]


def _path_chart(path: PromptPath) -> PathChart:
    last = len(path.position_before) - 1
    old, new = path.position_before, path.position_after
    axis = scale([0.0, 1.0, *old, *new], 1.0, (0.5, 1, 2, 5, 10, 20, 50, 100))
    labels = [f"{tick:g}".replace("-", MINUS) for tick in axis.ticks]
    position = Course(
        "Position along the refusal direction", axis, labels, _course(old, axis), _course(new, axis), old[-1], new[-1]
    )
    # As log-odds: below the last blocks a chance is nearly nothing, and still grows.
    ticks = [_log_odds(chance) for chance in CHANCES]
    odds = Scale(ticks[0], ticks[-1], ticks)
    was, now = ([_log_odds(chance) for chance in both] for both in (path.refusal_before, path.refusal_after))
    chance = Course(
        "Chance of refusal, read after that block",
        odds,
        [f"{100 * chance:g}\u00a0%" for chance in CHANCES],
        _course(was, odds),
        _course(now, odds),
        path.refusal_before[-1],
        path.refusal_after[-1],
    )
    return PathChart(path, Scale(0.0, float(max(last, 1)), [0.0, float(last)]), [position, chance])


def _log_odds(chance: float) -> float:
    inside = within_chances(chance)
    return math.log(inside / (1 - inside))


def _course(values: Sequence[float], axis: Scale) -> str:
    """`values`, one a block, as an SVG path in a box of 100 by 100."""
    across = max(len(values) - 1, 1)
    return "M" + "L".join(f"{100 * x / across:.2f},{100 - axis.at(value):.2f}" for x, value in enumerate(values))


@dataclass(frozen=True)
class Bars:
    """One figure of every block: (block, value) in order."""

    name: str
    note: str
    axis: Scale
    values: list[tuple[BlockEffect, float]]


def scan_bars(blocks: Sequence[BlockEffect]) -> list[Bars]:
    """Effect and silhouette of each block, as far as they were measured."""
    effects = [(block, block.effect) for block in blocks]
    silhouettes = [(block, block.silhouette) for block in blocks if block.silhouette is not None]
    found = []
    for name, note, values in (
        ("Effect", "how far refusal moves when the block's output is moved along the direction", effects),
        ("Silhouette", "how far apart harmful and harmless prompts lie there: the paper's criterion", silhouettes),
    ):
        if values:
            axis = scale([0.0, *(value for _, value in values)], 0.1, (0.05, 0.1, 0.2, 0.25, 0.5, 1))
            found.append(Bars(name, note, axis, values))
    return found


@dataclass(frozen=True)
class Point:
    """What was measured of one model."""

    compliance: Estimate
    safety: Estimate


@dataclass(frozen=True)
class Series:
    """What of one folder lies on axes of compliance and safety.

    - `trials`: of a fit, by strength; `chosen` is among them.
    - `before`, `after`: of a measurement.
    """

    name: str
    number: int
    trials: list[Trial]
    chosen: Trial | None
    before: Point | None
    after: Point | None


@dataclass(frozen=True)
class Frontier:
    """Compliance (x) against safety (y), all by first tokens or all by judged answers, which are not the same scale."""

    x: Scale
    y: Scale
    series: list[Series]


def frontier(measured: Sequence[tuple[str, Results]], least: int = 2) -> Frontier | None:
    """Of judged answers, by names; None where fewer than `least` have both scores."""
    points = [(name, _point(results.baseline), _point(results)) for name, results in measured]
    known = [(name, before, after) for name, before, after in points if after]
    series = [
        Series(name, number % SERIES, [], None, before, after) for number, (name, before, after) in enumerate(known)
    ]
    return _frontier(series) if len(series) >= least else None


def strengths(fit: FitFolder) -> Frontier | None:
    """Of first tokens, at each strength that a fit tried; None where it tried none but the unedited model."""
    trials = sorted(fit.run.trials, key=lambda trial: trial.strength)
    return _frontier([Series(fit.name, 0, trials, chosen_trial(fit.run), None, None)]) if len(trials) > 1 else None


def _frontier(series: list[Series]) -> Frontier:
    steps = (0.02, 0.05, 0.1, 0.2, 0.25)
    x = scale([value for item in series for value in _values(item, "compliance")], 0.2, steps, most=1.0)
    y = scale([value for item in series for value in _values(item, "safety")], 0.1, steps, most=1.0)
    return Frontier(x, y, series)


def _point(model: Measured | None) -> Point | None:
    if model is None:
        return None
    compliance, safety = model.score("compliance_rate"), model.score("safety_score")
    return None if compliance is None or safety is None else Point(compliance, safety)


def _values(series: Series, name: Literal["compliance", "safety"]) -> list[float]:
    estimates = [getattr(point, name) for point in (series.before, series.after) if point]
    ends = [value for item in estimates for value in (item.value, item.low, item.high)]
    return [getattr(trial, name) for trial in series.trials] + ends
