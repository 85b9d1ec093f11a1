"""Which language an answer is in. Scripts that one language of ours uses decide alone; else py3langid is asked."""

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

Language = Literal["en", "de", "fr", "es", "pt", "it", "ru", "fi", "zh", "ja", "ko", "ar", "hi"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
"""The languages whose refusals the judge knows, by their ISO 639-1 codes."""

READ = 1500
"""Characters that decide."""

SURE = 0.9
"""From which probability on another language is believed."""

LIKELY = 0.3
"""From which probability on one of ours is believed."""

FEW_LETTERS = 12
"""Up to here a text may be a name or a number with its unit: it is taken for the language that was asked in."""

Script = Literal["latin", "hangul", "kana", "han", "cyrillic", "arabic", "devanagari", "other"]

_SCRIPTS: dict[Script, re.Pattern[str]] = {
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
    "hangul": re.compile(r"[\uac00-\ud7a3\u1100-\u11ff\u3130-\u318f]"),
    "kana": re.compile(r"[\u3041-\u30fa\u30fc-\u30ff]"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "arabic": re.compile(r"[\u0620-\u06d3]"),
    "devanagari": re.compile(r"[\u0900-\u0963]"),
}
_WRITTEN_IN: dict[Script, tuple[Language, ...]] = {
    "latin": ("en", "de", "fr", "es", "pt", "it", "fi"),
    "cyrillic": ("ru",),
    "arabic": ("ar",),
    "devanagari": ("hi",),
}
"""The languages of ours in scripts that other languages use as well."""
_FOREIGN: dict[Script, re.Pattern[str]] = {
    "cyrillic": re.compile(r"[іїєґўјљњћђ]", re.IGNORECASE),
    "arabic": re.compile(r"[پچژگیکٹڈڑںے]"),
}
"""Letters that the languages of ours in a script do not have."""

_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
# Frequent in English, and words of hardly any other language.
_FREQUENT = """
the and that you with this it's i'm can't don't won't not are have has your be would should because there their they
what which from about been were when how sorry cannot could help these those here for to of if or as by i'd i'll
that's isn't doesn't
"""
_ENGLISH = frozenset(_FREQUENT.split())


@dataclass(frozen=True)
class Tongues:
    """The languages of one text: of what stands in Latin script, Han and so on.

    - `main`: the code of the language of most of it; one of `LANGUAGES`, or another's.
    """

    main: str
    by_script: dict[Script, str]

    @property
    def known(self) -> bool:
        """Whether `main` is one of `LANGUAGES`."""
        return self.main in LANGUAGES

    def of(self, sentence: str) -> Language:
        """The language of a `sentence` of the text; English where that is not known."""
        script = _script(sentence)
        if script == "latin" and _english_share(sentence) >= 0.3:
            return "en"
        code = self.by_script.get(script, "en")
        return code if code in LANGUAGES else "en"


def tongues(text: str, asked_in: str = "") -> Tongues:
    """The languages of `text`, which may be short; `asked_in` is the prompt that it answers."""
    text = text[:READ]
    letters = {script: len(pattern.findall(text)) for script, pattern in _SCRIPTS.items()}
    letters["other"] = len(_LETTER.findall(text)) - sum(letters.values())
    if letters["kana"]:  # Japanese writes in both
        letters["kana"] += letters.pop("han")
    by_script = {script: _language(script, text, asked_in) for script, count in letters.items() if count > 0}
    if not by_script:
        return Tongues("en", {})
    # A word of Han or Hangul says as much as several letters.
    weights: dict[Script, float] = {"han": 3.0, "kana": 2.0, "hangul": 2.0}
    main = max(by_script, key=lambda script: letters[script] * weights.get(script, 1.0))
    return Tongues(by_script[main], by_script)


def _language(script: Script, text: str, asked_in: str) -> str:
    alone: dict[Script, Language] = {"hangul": "ko", "kana": "ja", "han": "zh"}
    if script in alone:
        return alone[script]
    pattern = _SCRIPTS.get(script)
    written = " ".join(word for word in _words(text) if pattern is None or pattern.search(word))
    if script == "latin" and _english_share(written) >= 0.2:
        return "en"
    ours = _WRITTEN_IN.get(script, ())
    ranked = _identifier().rank(written)
    code, probability = ranked[0]
    if not ours:
        return str(code)
    if code in ours:
        return str(code) if probability >= LIKELY else _guess(ours, asked_in, ranked)
    foreign = _FOREIGN.get(script)
    few = len(_LETTER.findall(written)) <= FEW_LETTERS
    if (probability >= SURE and not few) or (foreign and foreign.search(written)):
        return str(code)
    return _guess(ours, asked_in, ranked)


def _guess(ours: tuple[Language, ...], asked_in: str, ranked: list[tuple[str, float]]) -> str:
    """Of `ours`, where the text is too short to tell: the prompt's language, if it is one of them, or the likeliest."""
    if asked_in:
        asked = tongues(asked_in).main
        if asked in ours or asked == ranked[0][0]:
            return asked
    return next((str(code) for code, _ in ranked if code in ours), ours[0])


def _script(text: str) -> Script:
    if _SCRIPTS["kana"].search(text):
        return "kana"
    counts = {script: len(pattern.findall(text)) for script, pattern in _SCRIPTS.items()}
    return max(counts, key=lambda script: counts[script])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.replace("’", "'"))


def _english_share(text: str) -> float:
    words = _words(text.lower())
    return sum(word in _ENGLISH for word in words) / len(words) if words else 0.0


@functools.cache
def _identifier() -> "LanguageIdentifier":
    # A second of loading, which English alone does not need.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
