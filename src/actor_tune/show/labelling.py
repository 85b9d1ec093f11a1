"""Label answers in the terminal, a key each. Neither the judge's verdict nor the prompt's kind is shown, nor whose
answer it is: whoever sees them tends to agree with them, and then labels measure nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from ..judges.verdict import Outcome
from ..records.to_label import Chosen
from .keys import END
from .text import plain

KEYS: dict[str, Outcome] = {"c": "compliance", "p": "partial", "r": "refusal", "u": "unscored"}

HELP = "c compliance   p partial   r refusal   u cannot say   b back   q quit"
HELP_AT_THE_END = "b back   q quit"

SHOWN = 4000
"""Characters of a text that are shown."""


def label_answers(
    console: Console, chosen: Sequence[Chosen], said: Mapping[int, Outcome], read_key: Callable[[], str]
) -> Iterator[dict[int, Outcome]]:
    """Ask about each of the `chosen` of which nothing is `said`; after each key that says something, yield all that is.

    Both by number of `chosen`. `read_key` waits for a key, and gives its letter.
    """
    told = dict(said)
    place = _next(told, 0, len(chosen))
    while True:
        if place < len(chosen):
            _show(console, chosen[place], place + 1, len(chosen))
            console.print(Text(HELP, "dim"))
        else:
            console.print(Rule("All are labelled"))
            console.print(Text(HELP_AT_THE_END, "dim"))
        key = _key(read_key, (*KEYS, "b", "q", END) if place < len(chosen) else ("b", "q", END))
        if key in ("q", END):
            return
        if key == "b":
            place = max(0, place - 1)
            continue
        told[place] = KEYS[key]
        console.print(Text(KEYS[key], "bold"))
        yield dict(told)
        place = _next(told, place + 1, len(chosen))


def _key(read_key: Callable[[], str], known: Sequence[str]) -> str:
    while (key := read_key().lower()) not in known:
        continue
    return key


def _next(said: Mapping[int, Outcome], start: int, end: int) -> int:
    """The first place from `start` on of which nothing is `said`; `end` where there is none."""
    return next((place for place in range(start, end) if place not in said), end)


def _show(console: Console, one: Chosen, number: int, total: int) -> None:
    console.print(Rule(f"{number} of {total}"))
    for turn in one.row.context:
        console.print(Text(f"{turn.role}: ", "dim").append(_readable(turn.content)))
    console.print(Text(_readable(one.row.prompt), "bold"))
    console.print()
    console.print(Text(_readable(one.row.response) if one.row.response.strip() else "(empty)"))
    if not one.row.finished:
        console.print(Text("(cut off by the limit of tokens)", "dim"))
    console.print()


def _readable(text: str) -> str:
    left = len(text) - SHOWN
    return plain(text, SHOWN, keep="\n") + (f" ({left} more characters)" if left > 0 else "")
