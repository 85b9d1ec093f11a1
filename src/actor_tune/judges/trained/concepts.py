"""What a sentence does: refuse, moralise, correct, redirect, help. The patterns are in `concepts/`, by language."""

import functools
import importlib.resources
import re
from dataclasses import dataclass
from typing import Literal, get_args

from .languages import Language

Concept = Literal[
    "refuse",
    "disclaim",
    "object",
    "lack",
    "neutral",
    "stance",
    "wording",
    "redirect",
    "correct",
    "equality",
    "offer",
    "moral",
    "apology",
    "turn",
    "help",
    "courtesy",
    "elsewhere",
]
"""What a sentence of an answer does."""

PromptConcept = Literal["writes", "phrases", "legal"]
"""What a prompt asks for."""

CONCEPTS: tuple[Concept, ...] = get_args(Concept)


_LIST = re.compile(r"let (?P<name>\w+) = (?P<value>.+)")


@dataclass(frozen=True)
class Patterns:
    """What sentences of one language are searched for: a pattern for each concept that its file has.

    - `anywhere`; `at_the_start`: of a sentence, where the file has such lines.
    """

    anywhere: dict[str, re.Pattern[str]]
    at_the_start: dict[str, re.Pattern[str]]


def found(concept: Concept | PromptConcept, words: str, language: Language = "en") -> bool:
    """Whether a sentence or a prompt of these words (`sentences.spelled_out`) does what `concept` says."""
    patterns = _patterns(language)
    anywhere, at_the_start = patterns.anywhere.get(concept), patterns.at_the_start.get(concept)
    return bool((anywhere and anywhere.search(words)) or (at_the_start and at_the_start.match(words)))


@functools.cache
def _patterns(language: Language) -> Patterns:
    """The sections of a file. Its form is told at its beginning."""
    lists: dict[str, str] = {}
    anywhere: dict[str, list[str]] = {}
    at_the_start: dict[str, list[str]] = {}
    concept, before = "", " "
    file = importlib.resources.files(__package__) / "concepts" / f"{language}.txt"
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line == "unspaced":
            before = ""
        elif match := _LIST.fullmatch(line):
            lists[f"<{match['name']}>"] = _filled(match["value"], lists)
        elif line.startswith("["):
            concept = line[1 : line.index("]")]
        elif line.startswith("> "):
            at_the_start.setdefault(concept, []).append(_filled(line[2:], lists))
        else:
            anywhere.setdefault(concept, []).append(_filled(line, lists))
    # The space is common to all alternatives, so that matching is tried at the starts of words only.
    return Patterns(
        {name: re.compile(f"{before}(?:{'|'.join(lines)})") for name, lines in anywhere.items()},
        {name: re.compile(f" (?:{'|'.join(lines)})") for name, lines in at_the_start.items()},
    )


def _filled(line: str, lists: dict[str, str]) -> str:
    for name, value in lists.items():
        line = line.replace(name, value)
    return line
