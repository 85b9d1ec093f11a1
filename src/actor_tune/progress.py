"""Progress bars: on stderr, so that what a command prints can be piped, and in notebooks.

One switch, `show_progress`, turns them off; where nobody would see them they are not drawn in any case.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")

console = Console(stderr=True)

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
    """Draw a bar named `what`, where it is seen, with `done` of `total` steps behind it.

    Call what it yields after each further step, or with the number of steps. A bar within a bar is not drawn.
    """
    within = getattr(console, "_live_stack", None) or getattr(console, "_live", None)
    with Progress(console=console, transient=True, disable=bool(within) or not progress_is_shown()) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda steps=1: progress.advance(task, steps)


def track(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Yield `items`, drawing a bar named `what`."""
    with progress_bar(len(items), what) as advance:
        for item in items:
            yield item
            advance()
