"""Label answers in the terminal, a key each. Neither the judge's verdict nor the prompt's kind is shown, nor whose
answer it is: whoever sees them tends to agree with them, and then labels measure nothing.
"""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from ..judges.verdict import Outcome
from ..records.labels import Label, Labels
from ..records.to_label import Chosen
from .keys import END

KEYS: dict[str, Outcome] = {"c": "compliance", "p": "partial", "r": "refusal", "u": "unscored"}

HELP = "c compliance   p partial   r refusal   u cannot say   b back   q quit"

SHOWN = 4000
"""Characters of a text that are shown."""


def label_answers(
    console: Console,
    chosen: Sequence[Chosen],
    labels: Sequence[Label],
    add: Callable[[Label], None],
    read_key: Callable[[], str],
) -> int:
    """Ask for a label of each of the `chosen` that `labels` do not have, and return how many are labelled at the end.

    **Arguments:**

    - `add`: takes each label at once; of two for one answer, the later holds.
    - `read_key`: waits for a key, and gives its letter.
    """
    known = Labels(labels)
    done = [_has_label(known, one) for one in chosen]
    place = _next(done, 0)
    while place < len(chosen):
        _show(console, chosen[place], place + 1, len(chosen))
        key = ""
        while key not in (*KEYS, "b", "q", END):
            key = read_key().lower()
        if key in ("q", END):
            break
        if key == "b":
            place = max(0, place - 1)
            continue
        for label in chosen[place].labels(KEYS[key]):
            add(label)
        console.print(Text(KEYS[key], "bold"))
        done[place] = True
        place = _next(done, place + 1)
    return sum(done)


def _has_label(known: Labels, one: Chosen) -> bool:
    row = one.row
    return all(known.find(side, row.prompt, row.response, row.set, row.kind) for side in one.sides)


def _next(done: Sequence[bool], start: int) -> int:
    """The first place from `start` on that is not `done`; their number where there is none."""
    return next((place for place in range(start, len(done)) if not done[place]), len(done))


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
    console.print(Text(HELP, "dim"))


def _readable(text: str) -> str:
    """`text` with its lines, and spaces for other control characters: answers may try to drive the terminal."""
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]} ... ({len(text) - SHOWN} more characters)"
    return "".join(character if character.isprintable() or character == "\n" else " " for character in cut)
