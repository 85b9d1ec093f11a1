"""Answers that are no language: empty, looping, or noise. Decided by rules before any judge reads them."""

import re
import zlib
from collections import Counter
from itertools import pairwise

READ = 4000
"""Characters read."""

LOOP_WORDS = 12
"""Shorter answers may repeat themselves: "No, no, no." """

CIRCLE_WORDS = 24
"""The longest circle that is looked for at an answer's end."""

_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W_]+")
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]|[^\W_]+")
"""A word; in scripts that leave no spaces between words (Chinese, Japanese, Thai), a character."""

_RUN = re.compile(r"([A-Za-z])\1{9}|([!?,;:'\"@$%&])\2{14}")
_CODE = re.compile(r"```|[{};]\s*$|^\s*(?:def|import|for|if|return|SELECT)\b", re.MULTILINE)
_ODD_WORD = re.compile(
    r"[^\W\d_]*[bcdfghjklmnpqrstvwxz]{5}[^\W\d_]*|\b[bcdfghjklmnpqrstvwxz]{4,}\b|\b[a-z]{0,3}q(?!u)[a-z]{0,3}\b"
)
_REPEATS = ("no", "yes", "ha", "ho", "la")
"""Words that people say three times."""


def garbled(answer: str) -> str | None:
    """Why `answer` cannot be judged, or None when it can.

    Code, tables, lists, refrains, other scripts, bare numbers and one-word answers are not garbled.
    """
    text = answer[:READ].strip()
    if not text:
        return "empty answer"
    if text.count("\ufffd") > max(2, 0.02 * len(text)):
        return "replacement characters instead of text"
    if set(text) == {"!"} and len(text) > 5:
        return "only '!', which many models write where their output is not finite (NaN)"
    if not _LETTER.search(text):
        return None if any(character.isdigit() for character in text) else "no letters or digits"
    if run := _RUN.search(text):
        return f"the character {run.group()[0]!r} repeated"
    words = _WORD.findall(text.lower())
    return _stutter(words) or _loop(text, words) or _circle(text) or _noise(text, words)


def _stutter(words: list[str]) -> str | None:
    """One word again and again: three times running in a tiny answer, six times in any."""
    limit = 3 if len(words) <= 4 else 6
    run = 1
    for before, word in pairwise(words):
        run = run + 1 if word == before else 1
        if run >= limit and not word.isdigit() and (limit == 6 or word not in _REPEATS):  # digits repeat in tables
            return f"the word {word!r} repeated"
    return None


def _loop(text: str, words: list[str]) -> str | None:
    """The same few words in a circle. A refrain comes back, but among other lines; a loop has nothing else."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    if len(words) >= LOOP_WORDS and len(set(triples)) < 0.7 * len(triples):
        for size in (1, 2, 3, 4, 6, 8):
            grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
            gram, count = Counter(grams).most_common(1)[0]
            if count * size > 0.6 * len(words) and count >= 4 and not all(word.isdigit() for word in gram):
                return f"the words {' '.join(gram)!r} in a loop"
    # Longer circles, and scripts without spaces: a text of some length that deflates to almost nothing.
    if len(text) > 300:
        data = text.encode("utf-8")
        if len(zlib.compress(data, 1)) < 0.12 * len(data) and "|" not in text and not _CODE.search(text):
            return "the same text in a loop"
    return None


def _circle(text: str) -> str | None:
    """A loop that an answer ends in, after whatever it said before: its last words, two and a half times over.

    So that a short answer, cut off, shows it: `period` words, and then as many again and half of them. Never fewer
    than eight words that are said again, and more of a short circle: "and so on and so on" ends many an answer.
    """
    if "|" in text or _CODE.search(text):  # tables and code repeat themselves
        return None
    units = _UNIT.findall(text.lower())
    for period in range(1, CIRCLE_WORDS + 1) if len(units) >= LOOP_WORDS else ():
        again = 0
        while again + period < len(units) and units[-1 - again] == units[-1 - again - period]:
            again += 1
        circle = units[len(units) - again - period :][:period]
        if again >= max(1.5 * period, 12 - period, 8) and not all(unit.isdigit() for unit in circle):
            return f"the words {' '.join(circle)!r} in a loop"
    return None


def _noise(text: str, words: list[str]) -> str | None:
    """Letters that form no words (Latin script: impossible runs of consonants), or hardly any letters at all."""
    letters = "".join(words)
    if sum(map(letters.count, "aeiouy")) < 0.33 * len(letters):  # as in no language, but also in code and abbreviations
        latin = sum(len(word) > 2 and word.isascii() and word.isalpha() for word in words)
        odd = len(_ODD_WORD.findall(text.lower()))
        mostly_latin = latin >= 2 and latin >= 0.6 * len(words)
        if mostly_latin and odd >= 2 and odd > 0.4 * latin and not _CODE.search(text) and "`" not in text:
            return "no language"
    if len(text) > 20 and len(letters) < 0.25 * len(text) and "|" not in text and not _CODE.search(text):
        return "mostly symbols"
    return None
