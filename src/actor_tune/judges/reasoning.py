"""What was thought before an answer, in its text: only what follows it is an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Marks:
    """What stands before and after reasoning."""

    opens: str
    closes: str


KNOWN = (
    Marks("<think>", "</think>"),  # Qwen3, DeepSeek-R1, SmolLM3, GLM, MiniMax and many others
    Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("◁think▷", "◁/think▷"),  # Kimi
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
    Marks("<reasoning>", "</reasoning>"),
)


# In English and Chinese.
_THINKS = re.compile(
    r"\s*(?:(?:okay|ok|alright|hmm|well)[,.] (?:so )?the user\b|"
    r"the user (?:is asking|asks|asked|has asked|just asked|wants me|wants to know)\b|"
    r"(?:好的|嗯|好吧)[，,](?:这个)?用户)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Split:
    """An answer, and what was thought before it.

    - `reasoning`: None where nothing was thought, not even an empty thought.
    - `ended`: False where it was cut off while it was thinking; then there is no answer.
    - `closing`: the mark between both.
    """

    reasoning: str | None
    answer: str
    ended: bool = True
    closing: str = ""


def split(text: str, before: str = "", marks: Sequence[Marks] = KNOWN) -> Split:
    """Part `text`, which follows the prompt's end `before`, where its first thought ends.

    What comes before a closing mark is reasoning even where none opens it: some templates open it in the prompt. But an
    answer may speak of marks: reasoning is only what it begins with.
    """
    # The mark that closes first: an answer may speak of others.
    for each in sorted(marks, key=lambda each: text.find(each.closes) % (len(text) + 1)):
        thought, closed, answer = text.partition(each.closes)
        thought = thought.strip()
        if closed and (thought.startswith(each.opens) or each.opens not in thought):
            return Split(thought.removeprefix(each.opens).strip(), answer.strip(), closing=closed)
    begun = next((each for each in marks if text.lstrip().startswith(each.opens)), None)
    if found := begun or opened(before, marks):
        return Split(text.strip().removeprefix(found.opens).strip(), "", ended=False)
    return Split(None, text)


def begins_to_think(text: str) -> bool:
    """Whether `text`, in which no mark is, begins as reasoning does: a template that opens it leaves no mark."""
    return _THINKS.match(text) is not None


def opened(text: str, marks: Sequence[Marks] = KNOWN) -> Marks | None:
    """The marks of a thought that begins in `text` and does not end there."""
    return next(
        (each for each in marks if each.opens in text and each.closes not in text.rpartition(each.opens)[2]), None
    )
