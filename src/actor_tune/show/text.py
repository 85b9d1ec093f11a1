"""Numbers as text, and the colours of kinds."""

import re

from ..prompts.prompt import Kind
from ..records.estimate import Interval, Labelled

CHANCES = (1e-6, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99)
"""Ticks of axes of chances, by log-odds: what is nearly nothing still grows. What lies beyond is drawn at the end."""


def within_chances(chance: float) -> float:
    """`chance`, or the tick of `CHANCES` that it lies beyond."""
    return min(max(chance, CHANCES[0]), CHANCES[-1])


COLOURS: dict[Kind, str] = {"harmful": "#c1121f", "harmless": "#2a6f97", "pseudo_harmful": "#e09f3e"}


def rate_text(rate: Interval | None) -> str:
    """Percent with its interval, as in `42.0 [35.3, 48.9]`; a dash where nothing could be measured."""
    return "-" if rate is None else f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def points_text(change: Interval | None) -> str:
    """Points gained or lost with their interval, as in `-2.1 [-4.0, +0.3]`; a dash where nothing could be measured."""
    if change is None:
        return "-"
    return f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def stacked(rate: Interval | None, labelled: Labelled | None = None) -> str:
    """As `rate_text`, on two lines, with the rate by people's labels on two more."""
    lines = rate_text(rate).replace(" [", "\n[")
    return f"{lines}\nlabels {rate_text(labelled)}".replace(" [", "\n[") if labelled else lines


def broken(name: str, width: int = 18) -> str:
    """`name` on lines of at most `width` characters where it can be broken behind `_`, `-` or `/`."""
    lines = [""]
    for part in re.findall("[^_/-]*[_/-]?", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def score_text(score: float | None) -> str:
    """Percent, or a dash where nothing was measured."""
    return "-" if score is None else f"{100 * score:.1f} %"


def plain(text: str, length: int = 100, keep: str = "") -> str:
    """At most `length` characters, control characters as spaces but for those to `keep`, as line ends.

    Answers may try to drive the terminal.
    """
    cut = text if len(text) <= length else text[:length] + " ..."
    return "".join(character if character.isprintable() or character in keep else " " for character in cut)
