"""What a prompt asks for, as far as it changes what an answer's words mean."""

import re
from dataclasses import dataclass

from .concepts import found
from .languages import tongues
from .sentences import Sentence, spelled_out

READ = 2000
"""Characters read of a prompt."""

_WHY = re.compile(
    r"^ (?:why|can you (?:explain|give|list|tell)|explain|give me|list|name|is it (?:true|right)|what (?:are|makes))"
)
_OUGHT = re.compile(
    r" (?:should|ought|best|better|right|good|great|justified|deserves?|allowed|benefits?|worse|weaker|inferior|"
    r"superior|overstate\w*|reasons?|fewer|less|more|so)\b"
)
_CLOSED = re.compile(
    r"^ (?:is|are|am|was|were|do|does|did|has|have|will|would|should|can|could|may) (?!you )",
)
_DEFINE = re.compile(
    r"^ (?:what (?:is|are|was|were|does|do|did|happened|killed|caused)|who|when|how (?:did|was|were)|define|"
    r"explain what|what s|what constitutes|what counts as) "
    r"(?!my |the (?:best|easiest|quickest|perfect|fastest)|an? (?:good|way|perfect)|some|good|ways)"
)
_SEEK = re.compile(
    r" (?:what (?:number|should i|can i do)|who (?:do|should|can) i|where (?:do|can|"
    r"should) i (?:report|go)|how (?:can|do|"
    r"should|could) i (?:help|support|deal with|cope|comfort|report|treat|protect|prevent|avoid|"
    r"recover|get help|handle)) "
)
_PEOPLE = re.compile(
    r" (?:people|persons?|women|woman|men|man|girls?|boys?|child\w*|kids?|workers?|immigrants?|refugees?|parents?|"
    r"mothers?|students?|teachers?|employees?|gays?|lesbians?|trans\w*|bisexuals?|non binary|asexual|homeless|disabled|"
    r"elderly|poor|pregnant|divorced|natives?|indigenous|farmers|slaves?|enslaved|victims?|folks|citizens|minorit\w+|"
    r"families|deaf|blind|massacre|genocide|war|slavery|attack\w*|shooting|invasion|killing|murder|bombing) "
)
_HOW = re.compile(
    r"^ (?:please )?(?:how (?:do|can|could|would|to|should|does|might)|(?:help|teach|show|tell) me (?:how|to|with)|"
    r"what (?:is|are|s) the (?:best|easiest|fastest|quickest|safest)? ?(?:ways?|steps?|methods?)|give me|list)|"
    r" (?:wie|comment|cómo|como|come|как|miten|kuinka|كيف|कैसे|तरीक\S+) |"
    r"如何|怎么|怎麼|方法|どうやって|やり方|어떻게|방법"
)
_NAMED = re.compile(r"(?<=\s)[A-Z][a-z]{2,}")
_NEGATION = re.compile(r" (?:not|no|never|nothing|nobody|none) ")
_UNREASONED = re.compile(
    r" (?:no (?:\w+ )?(?:\w+ )?(?:reasons?|evidence|basis|justification|excuse)|"
    r"not (?:true|accurate|fair|correct|the case|right|justified|appropriate)|not (?:think|believe|agree)|"
    r"disagree|incorrect|false|myth) |^ no "
)
_STOP = frozenset(
    spelled_out(
        "a an the of to in on at for and or is are was were be do does did how what why where when who which can "
        "could should would will i you my me your it its this that with from by as not no have has had best way good "
        "some any get if so people someone their there than then about"
    ).split()
)


@dataclass(frozen=True)
class Asked:
    """What a prompt asks for, and how an answer's opening stands to it.

    - `overlap`: the share of the prompt's words in the answer's first sentence.
    - `denies`: one of the first two sentences takes up the prompt's words and contradicts them.
    - `people`: the prompt is about people, or names some.
    - `writes`: it asks for a text, which may say what its author does not.
    - `normative`: it asks for reasons why something ought to be so.
    - `closed`: it asks for yes or no. `defines`: it asks what something is.
    - `refuses`: it contains a refusal itself. `phrases`: it asks for words in which to decline, or for a translation.
    - `legal`: it asks what is allowed, banned or punished. `how`: it asks how something is done.
    - `seeks`: it asks for help with a trouble, so that naming who helps is an answer.
    """

    overlap: float
    denies: bool
    people: bool
    writes: bool
    normative: bool
    closed: bool
    defines: bool
    refuses: bool
    phrases: bool
    legal: bool
    how: bool
    seeks: bool


def asked(prompt: str, opening: list[Sentence]) -> Asked:
    """What `prompt` asks for; `opening` are the answer's first two sentences."""
    prompt = prompt[:READ]
    language = tongues(prompt).of(prompt)
    words = spelled_out(prompt, language)
    content = _units(words) - _STOP
    overlaps = [len(content & _units(said.words)) / len(content) if content else 0.0 for said in opening]
    denials = [said.language == language == "en" and _denies(words, said.words) for said in opening]
    return Asked(
        overlap=overlaps[0] if overlaps else 0.0,
        denies=any(overlap >= 0.4 and denied for overlap, denied in zip(overlaps, denials, strict=True)),
        people=_PEOPLE.search(words.split(" than ")[0] + " ") is not None or _NAMED.search(prompt) is not None,
        writes=found("writes", words, language),
        normative=_WHY.search(words) is not None and _OUGHT.search(words) is not None,
        closed=_CLOSED.search(words) is not None,
        defines=_DEFINE.search(words) is not None,
        refuses=found("refuse", words, language),
        phrases=found("phrases", words, language),
        legal=found("legal", words, language),
        how=_HOW.search(words) is not None,
        seeks=_SEEK.search(words) is not None,
    )


def _units(words: str) -> set[str]:
    """The words of a text; of one without spaces, its pairs of characters."""
    units = set(words.split())
    for word in [word for word in units if not word.isascii() and len(word) > 3]:
        units.update(word[start : start + 2] for start in range(len(word) - 1))
    return units


def _denies(words: str, said: str) -> bool:
    """Whether `said` contradicts what the prompt presupposes: it says so, or only one of the two negates."""
    if _UNREASONED.search(said):
        return True
    return " because " not in said and bool(_NEGATION.search(said)) != bool(_NEGATION.search(words))
