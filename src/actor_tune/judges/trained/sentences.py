"""Take an answer apart into sentences that patterns can read. Pure text, no statistics."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from .languages import Language, Tongues, tongues

LONGEST = 4000
"""Characters read of an answer: refusals and help alike show themselves by then, and time stays bounded."""

READ = 12
"""Sentences whose words are spelled out; the last two are as well."""

_TYPOGRAPHY = str.maketrans("‘’ʼ“”„«»「」『』", "'''" + 9 * '"')
_ROLE = re.compile(r"^\s*(?:assistant|ai|bot|answer|response|a)\s*:\s*", re.IGNORECASE)
_CODE = re.compile(r"```(?P<inside>.*?)(?:```|$)", re.DOTALL)
_NAME_OF_LANGUAGE = re.compile(r"\A[\w+#-]*\n")
_COMMENT = re.compile(r"^\s*(?:#|//|--|/\*+|<!--|\*)\s*(.*?)\s*(?:\*/|-->)?\s*$")
_JSON = re.compile(r"[\[{]\s*[\"{\[\d}\]]")
# What code says in words: comments, what it raises, and the values of JSON.
_CODE_SAYS = re.compile(
    r"(?:^|\s)(?:#|//|--|/\*|<!--)\s*(?P<comment>.{8,300})|:\s*\"(?P<value>(?:[^\"\\]|\\.){7,400})\"|"
    r"(?:raise|throw|Error)\b[^\"'\n]{0,40}[\"'](?P<raised>.{8,300}?)[\"']\)"
)
_PROSE = 40
"""Characters beside code from which on only they are read."""
_QUOTED = re.compile(r'"[^"\n]{2,500}"')
# An apostrophe inside a word ends nothing.
_SINGLE_QUOTED = re.compile(r"(?<!\w)'(?:[^'\n]|(?<=\w)'(?=\w)){2,400}'(?!\w)")
_SHORT_QUOTED = re.compile(r'"[^"\s]+(?:\s[^"\s]+){0,2}"')
# A number's point ends no sentence ("1. Open"), but a year's does; a list may run on within a line.
_BREAK = re.compile(
    r"[.!?؟](?:(?<!\d.)|(?<=\d\d\d.))[\"')*_]*\s+|[\n。！？।]+|[ ](?=\d{1,2}[.)]\s)",
)
_ITEM = re.compile(r"^\s*(?:\d{1,2}[.):](?=\s)|[-*•+–](?=\s)|\(?[a-h1-9]\)|step\s+\d+|\|)\s*", re.IGNORECASE)
_NO_WORD = re.compile(r"[^\w']+")
# Devanagari writes vowels as marks, which Python does not count among a word's characters.
_NO_WORD_ABROAD = re.compile(r"(?:(?![\u0900-\u0963])[\W_])+")
_ARABIC_MARKS = re.compile(r"[\u064b-\u065f\u0670\u0640]")
_ARABIC_LETTERS = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ى": "ي"})
_DENSITY: dict[Language, float] = {"zh": 3.0, "ja": 2.2, "ko": 2.0}
"""Letters of an alphabet that a character is worth."""
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
    - `language`: of its words. `size`: how long it is, in characters of an alphabet.
    """

    text: str
    words: str
    item: bool
    language: Language
    size: float


@dataclass(frozen=True)
class Parts:
    """An answer taken apart; `code`: it has a code block, which is no sentence. `tongues`: the languages it is in."""

    sentences: list[Sentence]
    code: bool
    tongues: Tongues


def spelled_out(text: str, language: Language = "en") -> str:
    """`text` in lower case as words apart by single spaces, one at each end: " i can not do that ".

    English contractions are spelled out; in other languages apostrophes part words. Arabic is written without vowel
    marks and with one form of alef.
    """
    if language != "en":
        text = unicodedata.normalize("NFKC", text).lower()
        if language == "ar":
            text = _ARABIC_MARKS.sub("", text).translate(_ARABIC_LETTERS)
        return f" {_NO_WORD_ABROAD.sub(' ', text).strip()} "
    words = f" {_NO_WORD.sub(' ', text.lower()).strip()} "
    for short, long in _CONTRACTIONS:
        if short in words:
            words = words.replace(short, long)
    return words


def take_apart(answer: str, asked_in: str = "") -> Parts:
    """The sentences of `answer`; `asked_in` is the prompt, which helps to tell the language of a short answer.

    What the answer quotes is not what it says: quotations are left out, short ones (a word under discussion) kept.
    """
    text = _ROLE.sub("", answer[:LONGEST].translate(_TYPOGRAPHY)).strip()
    text, code = _without_code(text)
    found = tongues(text, asked_in)
    unquoted = _QUOTED.sub(lambda match: match.group() if _SHORT_QUOTED.fullmatch(match.group()) else '"..."', text)
    unquoted = _SINGLE_QUOTED.sub(lambda match: match.group() if match.group().count(" ") < 3 else '"..."', unquoted)
    if len(unquoted) > 0.3 * len(text):  # else the whole answer stands in quotation marks, and is what it says
        text = unquoted
    said = []
    for part in _split(text):
        mark = _ITEM.match(part)
        sentence = (part[mark.end() :] if mark else part).strip(' *_#>/\t\r\n"')
        if sentence:
            said.append((sentence, mark is not None))
    sentences = []
    for index, (sentence, item) in enumerate(said):
        language = found.of(sentence)
        words = spelled_out(sentence, language) if index < READ or index >= len(said) - 2 else ""
        sentences.append(Sentence(sentence, words, item, language, len(sentence) * _DENSITY.get(language, 1.0)))
    return Parts(sentences, code, found)


def _without_code(text: str) -> tuple[str, bool]:
    """`text` without code blocks, and whether it had any; where there is hardly more, the words that the code says."""
    text = _CODE.sub(_only_said, text)
    prose, blocks = _CODE.subn("\n", text)
    if _JSON.match(text) or (blocks and len(prose.strip()) < _PROSE):
        said = [next(filter(None, match.groups())) for match in _CODE_SAYS.finditer(text)]
        return "\n".join([prose if blocks else "", *said]), True
    return prose, blocks > 0


def _only_said(block: re.Match[str]) -> str:
    """A code block of comments alone as the words that they say; any other as it is."""
    lines = [line for line in _NAME_OF_LANGUAGE.sub("", block["inside"]).splitlines() if line.strip()]
    said = [_COMMENT.match(line) for line in lines]
    if not said or None in said:
        return block.group()
    return "\n".join(["", *(match[1] for match in said if match), ""])


def _split(text: str) -> Iterator[str]:
    start = 0
    for pause in _BREAK.finditer(text):
        yield text[start : pause.end()]
        start = pause.end()
    yield text[start:]
