"""Take an answer apart into sentences that patterns can read. Pure text, no statistics."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 4000
"""Characters read of an answer: refusals and help alike show themselves by then, and time stays bounded."""

READ = 12
"""Sentences whose words are spelled out; the last two are as well."""

_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'})
_ROLE = re.compile(r"^\s*(?:assistant|ai|bot|answer|response|a)\s*:\s*", re.IGNORECASE)
_CODE = re.compile(r"```.*?(?:```|$)", re.DOTALL)
_QUOTED = re.compile(r'"[^"\n]{2,500}"')
_SHORT_QUOTED = re.compile(r'"[^"\s]+(?:\s[^"\s]+){0,2}"')
# A number's point ends no sentence ("1. Open"), but a year's does; a list may run on within a line.
_BREAK = re.compile(
    r"[.!?](?:(?<!\d.)|(?<=\d\d\d.))[\"')*_]*\s+|[\n。！？]+|[ ](?=\d{1,2}[.)]\s)",
)
_ITEM = re.compile(r"^\s*(?:\d{1,2}[.):](?=\s)|[-*•+–](?=\s)|\(?[a-h1-9]\)|step\s+\d+|\|)\s*", re.IGNORECASE)
_NO_WORD = re.compile(r"[^\w']+")
_CONTRACTIONS = (
    ("can't", "can not"),
    ("cannot", "can not"),
    ("won't", "will not"),
    ("shan't", "shall not"),
    ("n't", " not"),
    ("'m ", " am "),
    ("'ll ", " will "),
    ("'re ", " are "),
    ("'ve ", " have "),
    ("'d ", " would "),
    ("it's ", "it is "),
    ("that's ", "that is "),
    ("here's ", "here is "),
    ("there's ", "there is "),
    ("what's ", "what is "),
    (" cant ", " can not "),
    (" wont ", " will not "),
    (" dont ", " do not "),
    (" im ", " i am "),
    ("let's ", "let us "),
)


@dataclass(frozen=True)
class Sentence:
    """One sentence, line or list item.

    - `text`: as it stands in the answer, quotations replaced by `"..."`.
    - `words`: lower case, contractions spelled out, words apart by single spaces, one space at each end. Empty where
      the sentence stands between the first `READ` and the last two.
    - `item`: it is an entry of a list.
    """

    text: str
    words: str
    item: bool


@dataclass(frozen=True)
class Parts:
    """An answer taken apart; `code`: it has a code block, which is no sentence."""

    sentences: list[Sentence]
    code: bool


def spelled_out(text: str) -> str:
    """`text` in lower case as words apart by single spaces, contractions spelled out: " i can not do that "."""
    words = f" {_NO_WORD.sub(' ', text.lower()).strip()} "
    for short, long in _CONTRACTIONS:
        if short in words:
            words = words.replace(short, long)
    return words


def take_apart(answer: str) -> Parts:
    """The sentences of `answer`.

    What the answer quotes is not what it says: quotations are left out, short ones (a word under discussion) kept.
    """
    text = _ROLE.sub("", answer[:LONGEST].translate(_TYPOGRAPHY)).strip()
    text, blocks = _CODE.subn("\n", text)
    unquoted = _QUOTED.sub(lambda match: match.group() if _SHORT_QUOTED.fullmatch(match.group()) else '"..."', text)
    if len(unquoted) > 0.3 * len(text):  # else the whole answer stands in quotation marks, and is what it says
        text = unquoted
    said = []
    for part in _split(text):
        item = _ITEM.match(part)
        sentence = (part[item.end() :] if item else part).strip(' *_#>\t\r\n"')
        if sentence:
            said.append((sentence, item is not None))
    sentences = [
        Sentence(sentence, spelled_out(sentence) if index < READ or index >= len(said) - 2 else "", item)
        for index, (sentence, item) in enumerate(said)
    ]
    return Parts(sentences, blocks > 0)


def _split(text: str) -> Iterator[str]:
    start = 0
    for pause in _BREAK.finditer(text):
        yield text[start : pause.end()]
        start = pause.end()
    yield text[start:]
