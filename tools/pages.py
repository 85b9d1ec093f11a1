"""What the programs that write pages share: templates, figures as text, tables, and the command `actor`."""

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import jinja2

from actor_tune.records.estimate import Interval
from actor_tune.show.text import rate_text


def render(template: str, values: Mapping[str, object], *functions: Callable[..., object]) -> str:
    """The page that `templates/NAME.md` makes of `values`; it can use `functions`, as filters too."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    named = {function.__name__: function for function in (percent, fixed, gib, points, table, *functions)}
    environment.filters |= named | {"rate": rate_text}
    environment.globals |= named
    return environment.get_template(f"{template}.md").render(values)


def percent(share: float | None, digits: int = 1) -> str:
    """A share (0..1) in %; a dash where nothing was measured."""
    return fixed(None if share is None else 100 * share, digits)


def fixed(value: float | None, digits: int = 1) -> str:
    """With so many digits after the point; a dash where nothing was measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def gib(amount: float) -> str:
    """Bytes in GiB."""
    return f"{amount / 2**30:.2f} GiB"


def points(difference: Interval) -> str:
    """A difference (-1..1) in points with its interval."""
    return f"{100 * difference.value:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def table(header: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """In Markdown."""
    lines = [header, *rows]
    texts = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([texts[0], f"|{'---|' * len(header)}", *texts[1:]])


def actor(*arguments: object, quiet: bool = False) -> None:
    """Run the command `actor`, which has to end well."""
    output = subprocess.DEVNULL if quiet else None
    subprocess.run([sys.executable, "-m", "actor_tune", *map(str, arguments)], check=True, stdout=output)
