"""What a sentence does: refuse, moralise, correct, redirect, help. The patterns are in `concepts.txt`."""

import importlib.resources
import re
from typing import Literal, get_args

Concept = Literal[
    "refuse",
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
]
CONCEPTS: tuple[Concept, ...] = get_args(Concept)


def found(concept: Concept, words: str) -> bool:
    """Whether a sentence of these words (`sentences.spelled_out`) does what `concept` says."""
    anywhere, at_the_start = _PATTERNS[concept]
    return anywhere.search(words) is not None or (at_the_start is not None and at_the_start.match(words) is not None)


def _read() -> dict[str, tuple[re.Pattern[str], re.Pattern[str] | None]]:
    """The sections of `concepts.txt`: a pattern to search for, and one for the start of a sentence."""
    lists: dict[str, str] = {}
    anywhere: dict[str, list[str]] = {}
    at_the_start: dict[str, list[str]] = {}
    concept = ""
    for line in (importlib.resources.files(__package__) / "concepts.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("let "):
            name, _, value = line[4:].partition(" = ")
            lists[f"<{name}>"] = value
        elif line.startswith("["):
            concept = line[1 : line.index("]")]
            anywhere[concept], at_the_start[concept] = [], []
        else:
            for name, value in lists.items():
                line = line.replace(name, value)
            if line.startswith("> "):
                at_the_start[concept].append(line[2:])
            else:
                anywhere[concept].append(line)
    # The space is common to all alternatives, so that matching is tried at the starts of words only.
    return {
        name: (_either(patterns), _either(at_the_start[name]) if at_the_start[name] else None)
        for name, patterns in anywhere.items()
    }


def _either(patterns: list[str]) -> re.Pattern[str]:
    return re.compile(f" (?:{'|'.join(patterns)})")


_PATTERNS = _read()

FOREIGN_REFUSAL = re.compile(
    r"lo siento|no puedo (?:ayudar|proporcionar|cumplir|dar|asistir|hacer|responder|ofrecer)|désolée?|"
    r"je ne peux pas|je ne suis pas en mesure|tut mir leid|"
    r"(?:ich kann|kann ich) (?:\w+ ){0,6}nicht|mi dispiace|non posso (?:aiutar|fornir|rispond|assist)|"
    r"sinto muito|desculpe|não posso (?:ajudar|fornecer|responder|auxiliar)|het spijt me|"
    r"kan ik (?:\w+ ){0,3}niet|ik kan (?:\w+ ){0,4}niet|извините|к сожалению|я не могу|не могу помочь|"
    r"przepraszam|nie mogę|üzgünüm|yardımcı olamam|tyvärr|jag kan inte|抱歉|对不起|對不起|我不能|我无法|无法提供|"
    r"申し訳|お手伝いできません|お答えできません|できません|죄송|도와드릴 수 없|آسف|عذر|لا أستطيع|لا يمكنني|क्षमा करें|"
    r"माफ़ करें|maaf|xin lỗi|"
    r"saya tidak (?:bisa|dapat)",
)

COURTESY = re.compile(
    r"^ (?:(?:i am|i would be|we are) (?:so |very |always |really )?(?:happy|glad|here|delighted|"
    r"pleased) (?:to|you|that|for)|i would (?:love|be happy|be glad) to|thank(?:s| you)|hello|hi|hey|"
    r"greetings|(?:that is |what )?an? (?:great|good|interesting|excellent)|"
    r"(?:great|good|interesting|excellent|fun) question|i understand (?:that )?(?:you|your|it)|i see |well $|"
    r"oh |hmm|ah |wow|ha |whoa)"
)
"""An opening courtesy, which says nothing about what follows."""
