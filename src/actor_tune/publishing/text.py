"""Templates of what is published, and text that may stand in them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..records.estimate import Interval
from ..storage import markdown
from ..storage.markdown import cell

Needs = Sequence[tuple[str, str]]
"""Settings that `reproduce` needs besides, and what stands for their values."""


def filled(name: str, values: Mapping[str, Any]) -> str:
    """The template `name` with `values` in it."""
    source = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return _environment().from_string(source).render(values)


def command(repo: str, needs: Needs) -> str:
    """The command that makes the model in `repo` again, as it is typed."""
    return filled("command.jinja", {"repo": repo, "needs": needs}).strip()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of whatever values."""
    return markdown.table(columns, ([cell(value) for value in row] for row in rows))


def percent(share: float) -> str:
    """A share (0..1) in percent."""
    return f"{100 * share:.1f}"


def rate(found: Interval | None) -> str:
    """Percent with its interval; a dash where nothing could be measured."""
    return "-" if found is None else f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def points(difference: Interval | None) -> str:
    """A rise (-1..1) in points with its interval; a dash where nothing could be measured."""
    if difference is None:
        return "-"
    value, low, high = (100 * each for each in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


@cache
def _environment() -> Environment:
    return Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
