"""Models that reason before they answer: where the reasoning ends. Only what follows it is an answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from transformers import PreTrainedTokenizerBase

TokenIds = list[int]

TAIL = 32
"""Tokens at the end of a text in which marks are looked for."""


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


def marks_of(tokenizer: PreTrainedTokenizerBase) -> list[Marks]:
    """Those of `KNOWN` that its chat template or its own tokens have; none for a model that does not reason."""
    template = tokenizer.chat_template
    texts = [*(template.values() if isinstance(template, dict) else [template or ""]), *tokenizer.get_added_vocab()]
    return [marks for marks in KNOWN if any(marks.opens in text or marks.closes in text for text in texts)]


def split(text: str, before: str = "", marks: Sequence[Marks] = KNOWN) -> Split:
    """Part `text`, which follows the prompt's end `before`, where its first thought ends.

    What comes before a closing mark is reasoning even where none opens it: some templates open it in the prompt.
    """
    # The mark that closes first: an answer may speak of others.
    for each in sorted(marks, key=lambda each: text.find(each.closes) % (len(text) + 1)):
        thought, closed, answer = text.partition(each.closes)
        if closed:
            return Split(thought.strip().removeprefix(each.opens).strip(), answer.strip(), closing=closed)
    if found := opened(before + text, marks):
        return Split(text.strip().removeprefix(found.opens).strip(), "", ended=False)
    return Split(None, text)


def opened(text: str, marks: Sequence[Marks] = KNOWN) -> Marks | None:
    """The marks of a thought that begins in `text` and does not end there."""
    return next(
        (each for each in marks if each.opens in text and each.closes not in text.rpartition(each.opens)[2]), None
    )


def says_nothing(text: str, marks: Sequence[Marks]) -> bool:
    """Whether `text` is made of marks and white space alone."""
    for mark in chain.from_iterable((each.opens, each.closes) for each in marks):
        text = text.replace(mark, "")
    return not text.strip()


class Watch:
    """Follows one answer as it grows, so that reasoning and answer have limits of their own.

    `decode` gives the text of tokens, special ones among it; `before` is the text that the prompt ends with.
    """

    def __init__(self, decode: Callable[[TokenIds], str], before: str, marks: Sequence[Marks]) -> None:
        self.decode, self.before, self.marks = decode, before, marks
        self.answer_from: int | None = None if marks else 0
        self._thinking = opened(before, marks) is not None

    def answer_tokens(self, tokens: TokenIds) -> int | None:
        """How many of `tokens`, which grow by one from call to call, are of the answer; None while it thinks."""
        if self.answer_from is None:
            if any(each.closes in self.decode(tokens[-TAIL:]) for each in self.marks):
                self.answer_from = len(tokens)
            elif not self._thinking:
                self._look_at_beginning(tokens)
        return None if self.answer_from is None else len(tokens) - self.answer_from

    def _look_at_beginning(self, tokens: TokenIds) -> None:
        text = self.decode(tokens).lstrip()
        whole = chain.from_iterable((each.opens, each.closes) for each in self.marks)
        if opened(text, self.marks):
            self._thinking = True
        elif not any(mark.startswith(text) for mark in whole):  # and it will not be one
            self.answer_from = 0
