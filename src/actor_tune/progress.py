"""How far something is: progress bars on stderr and in notebooks, phases in the log, figures to whoever wants them.

One switch, `show_progress`, turns bars off. Where nobody would see them they are not drawn: the log says the same every
half minute.
"""

import importlib.util
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")

log = logging.getLogger(__name__)

Report = Callable[[str, Mapping[str, float], int], None]
"""What takes figures as they come: what they are of, the figures by name, and the step, from 0."""

console = Console(stderr=True)

EVERY = 30.0
"""Seconds between the lines that stand for a bar."""

SURE = 10.0
"""Seconds after which what a phase took says as much of the others as what was expected of them."""

_wanted = True


def show_progress(wanted: bool = True) -> None:
    """Draw progress bars from now on, or draw none: neither ours nor those of transformers.

    ```python
    import actor_tune as at

    at.show_progress(False)
    ```
    """
    global _wanted
    _wanted = wanted


def progress_is_shown() -> bool:
    """Whether bars are wanted and somebody sees them: a terminal, or a notebook that can draw them."""
    drawn = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return _wanted and (console.is_terminal or drawn)


@contextmanager
def progress_bar(total: int, what: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Draw a bar named `what`, where it is seen, with `done` of `total` steps behind it; elsewhere tell the log.

    Call what it yields after each further step, or with the number of steps. A bar within a bar is not drawn.
    """
    if not progress_is_shown():
        yield _Told(total, what, done)
        return
    within = getattr(console, "_live_stack", None) or getattr(console, "_live", None)
    with Progress(console=console, transient=True, disable=bool(within)) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda steps=1: progress.advance(task, steps)


class _Told:
    """Counts steps, and every half minute logs how many there are, and at their pace how long the rest takes."""

    def __init__(self, total: int, what: str, done: int) -> None:
        self._total, self._what, self._first, self._done = total, what, done, done
        self._began = self._last = time.perf_counter()

    def __call__(self, steps: int = 1) -> None:
        self._done += steps
        now = time.perf_counter()
        if now - self._last >= EVERY and self._done < self._total:
            left = (now - self._began) * (self._total - self._done) / (self._done - self._first)
            log.info("%s: %d of %d, about %s left", self._what, self._done, self._total, duration(left))
            self._last = now


def track(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Yield `items`, drawing a bar named `what`."""
    with progress_bar(len(items), what) as advance:
        for item in items:
            yield item
            advance()


class Stages:
    """What is done one after the other: how long each took, and in the log, at the start of each, how far that is.

    - `names`: all that will be done, in order; what has another name is timed, and the log says nothing of it.
    - `seconds`: by name, of those that are done.
    - `expected`: seconds by name, once they are known. What is said follows the machine: where the phases so far took
      half of what was expected of them, so will the others.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self.seconds: dict[str, float] = {}
        self.expected: Mapping[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done within it."""
        start = time.perf_counter()
        if name in self.names:
            log.info("%s", self._line(name, start - self._began))
        yield
        end = time.perf_counter()
        self.seconds[name] = round(end - start, 2)
        if name in self.names[-1:]:
            log.info("%d phases in %s", len(self.names), duration(end - self._began))

    def _line(self, name: str, passed: float) -> str:
        number = self.names.index(name)
        line = f"{number + 1} of {len(self.names)}: {name}"
        if name in self.expected:
            left = sum(self.expected.get(later, 0.0) for later in self.names[number:])
            here, rest = (duration(self._pace() * seconds) for seconds in (self.expected[name], left))
            line += f", about {here}; about {rest} left"
        return f"{line}; {duration(passed)} passed" if number else line

    def _pace(self) -> float:
        """How many times as long as expected the phases that are done took; seconds alone say little."""
        done = [name for name in self.seconds if name in self.expected]
        taken, expected = (sum(seconds[name] for name in done) for seconds in (self.seconds, self.expected))
        return (taken + SURE) / (expected + SURE)


def duration(seconds: float) -> str:
    """As people say it: 42 s, 7 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def no_report(_of: str, _figures: Mapping[str, float], _step: int) -> None:
    """Takes figures, and does nothing."""
