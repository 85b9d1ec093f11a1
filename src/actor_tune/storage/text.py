"""Text as it came from a file: whether there is any in it, and whether two are the same to a reader."""

import json
import re
import unicodedata
from collections import Counter
from typing import Any

from ..errors import UserError

LEVELS = 100
"""Lists and objects within each other that JSON may have; deeper ones cannot even be shown."""

_FILLERS = set("\N{HANGUL FILLER}\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}\N{HALFWIDTH HANGUL FILLER}")
_FILLERS |= {"\N{BRAILLE PATTERN BLANK}"}
"""Blank, though Unicode counts them as letters and signs."""


def text_of(value: Any, where: str, name: str) -> str:
    """The text `value`, stripped; `where` it stands, and its `name` there, are for messages.

    **Raises:** `UserError` when it is no string, there is nothing to be seen in it, or it cannot be encoded.
    """
    if not isinstance(value, str):
        raise UserError(where, f"`{name}` is {value!r}", "a string", "write the column as strings")
    check_text(value, where, name)
    if not has_text(value):
        raise UserError(where, f"an empty {name}", "text", "fill it in or remove the row")
    return value.strip()


def has_text(text: str) -> bool:
    """Whether there is anything to be seen in `text`."""
    return any(map(_visible, text))


def check_text(text: str, where: str, name: str) -> None:
    """Stop with a `UserError` at what no text has: NUL, or half of a surrogate pair, which no tokenizer takes."""
    if wrong := re.search("[\\0\\ud800-\\udfff]", text):
        what = "NUL" if wrong[0] == "\0" else "half of a surrogate pair"
        found = f"{what} in {name}, after {text[: wrong.start()][-60:]!r}"
        raise UserError(where, found, "text", "write the file again, as UTF-8 text")


def same_to_a_reader(text: str) -> str:
    """What `text` has in common with those that differ from it in case, spacing, Unicode form or unseen characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(char for char in folded if char.isspace() or not _unseen(char)).split())


def json_of_text(text: str, where: str, expected: str, fix: str) -> Any:
    """The value of a JSON `text`; the other arguments are for messages.

    **Raises:** `UserError` when it is not JSON, an object in it has a key twice, or it is more than can be read.
    """

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := repeated([name for name, _ in pairs]):
            raise UserError(where, f"the key `{twice}` twice in an object", "each once", "remove one of them")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=object_of)
        if _levels(value) <= LEVELS:
            return value
        found = "nested too deeply"
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        found = f"not JSON ({error.msg}{line})"
    except RecursionError:
        found = "nested too deeply"
    except ValueError:  # Python reads no number of more than some thousand digits
        found = "a number of too many digits"
    raise UserError(where, found, expected, fix)


def repeated(names: list[str]) -> str | None:
    """The first of `names` that is there twice."""
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _levels(value: Any) -> int:
    """How many lists and objects are within each other."""
    count, parts = 0, [value]
    while parts := [part for part in parts if isinstance(part, dict | list)]:
        count += 1
        parts = [inner for part in parts for inner in (part.values() if isinstance(part, dict) else part)]
    return count


def _visible(char: str) -> bool:
    """A letter, digit or sign, or of a font of its own."""
    category = unicodedata.category(char)
    return category == "Co" or (category[0] in "LNPS" and char not in _FILLERS)


def _unseen(char: str) -> bool:
    """Of no width: joiners, marks of direction, soft hyphens, selectors of a variant, control characters."""
    return unicodedata.category(char) in ("Cc", "Cf") or "\ufe00" <= char <= "\ufe0f" or char == "\u034f"
