"""Models that reason before they answer: where the reasoning ends. Only what follows it is an answer."""

from collections.abc import Callable, Sequence
from itertools import chain

from transformers import PreTrainedTokenizerBase

from ..judges.reasoning import KNOWN, Marks, opened

TokenIds = list[int]

TAIL = 32
"""Tokens at the end of a text in which marks are looked for."""


def marks_of(tokenizer: PreTrainedTokenizerBase) -> list[Marks]:
    """Those of `KNOWN` that its chat template or its own tokens have; none for a model that does not reason."""
    template = tokenizer.chat_template
    texts = [*(template.values() if isinstance(template, dict) else [template or ""]), *tokenizer.get_added_vocab()]
    return [marks for marks in KNOWN if any(marks.opens in text or marks.closes in text for text in texts)]


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
