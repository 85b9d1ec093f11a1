"""Progress bars, on stderr so that what a command prints can be piped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")

console = Console(stderr=True)


@contextmanager
def progress_bar(total: int, what: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Draw a bar named `what` where stderr is a terminal, with `done` of `total` steps behind it.

    Call what it yields after each further step, or with the number of steps. A bar within a bar is not drawn.
    """
    hidden = not console.is_terminal or getattr(console, "_live_stack", None) or getattr(console, "_live", None)
    with Progress(console=console, transient=True, disable=bool(hidden)) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda steps=1: progress.advance(task, steps)


def track(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Yield `items`, drawing a bar named `what`."""
    with progress_bar(len(items), what) as advance:
        for item in items:
            yield item
            advance()
