"""From the tokens that a model makes to its answer, and when that is over."""

from bisect import bisect_left
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from ..judges.reasoning import split
from ..models.chat import TokenIds
from .engine import Answer
from .reasoning import TAIL, Watch, marks_of


class Reader:
    """Reads answers of one model, of at most `max_new_tokens`; `ends` are the tokens that end one."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        ends: AbstractSet[int],
        max_new_tokens: int,
        max_reasoning_tokens: int,
    ) -> None:
        self.tokenizer, self.ends = tokenizer, ends
        self.max_new_tokens, self.max_reasoning_tokens = max_new_tokens, max_reasoning_tokens
        self.marks = marks_of(tokenizer)

    @property
    def most(self) -> int:
        """New tokens at most, reasoning included."""
        return self.max_new_tokens + (self.max_reasoning_tokens if self.marks else 0)

    def growth(self, prompt: TokenIds) -> "Growth":
        """What follows the answer to `prompt` as it grows."""
        before = self.raw(prompt[-TAIL:]) if self.marks else ""
        return Growth(self, before, Watch(self.raw, before, self.marks))

    def whole(self, row: int, prompt: TokenIds, tokens: TokenIds, ended: bool) -> Answer:
        """The answer in `tokens`, which another program made; whether it `ended` by itself, as far as it is read."""
        if not tokens:
            return Answer(row, "", ended)
        growth = self.growth(prompt)
        over = next((at for at in range(1, len(tokens) + 1) if growth.is_over(tokens[:at])), len(tokens))
        found = growth.answer(row, tokens)
        return replace(found, finished=ended and over == len(tokens) and not (found.reasoning and not found.text))

    def raw(self, tokens: TokenIds) -> str:
        """Their text, special tokens among it."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))

    def without_special(self, raw: str) -> str:
        """`raw` without special tokens, for which there is no place in what was thought."""
        for special in self.tokenizer.all_special_tokens:
            raw = raw.replace(str(special), "")
        return raw.strip()

    def text(self, tokens: TokenIds) -> str:
        """Their text."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


@dataclass
class Growth:
    """One answer as it grows; `before` is the text that its prompt ends with, `length` its tokens once it is over."""

    reader: Reader
    before: str
    watch: Watch
    length: int = 0

    def is_over(self, tokens: TokenIds) -> bool:
        """Whether the model ended it with the last of `tokens`, or it is as long as it may be."""
        reader, spoken = self.reader, self.watch.answer_tokens(tokens)
        self.length = len(tokens)
        if tokens[-1] in reader.ends:
            return True
        return len(tokens) >= reader.max_reasoning_tokens if spoken is None else spoken >= reader.max_new_tokens

    def answer(self, row: int, tokens: TokenIds) -> Answer:
        """The answer that is over, from `tokens` and whatever fills up the batch behind them."""
        reader, tokens = self.reader, tokens[: self.length]
        finished = tokens[-1] in reader.ends
        parted = split(reader.raw(tokens), self.before, reader.marks) if reader.marks else None
        if parted is None or parted.reasoning is None:
            return Answer(row, reader.text(tokens), finished)
        if not parted.ended:
            return Answer(row, "", False, reader.without_special(parted.reasoning))
        places = range(len(tokens) + 1)
        closed = bisect_left(places, True, key=lambda at: parted.closing in reader.raw(tokens[:at]))
        return Answer(row, reader.text(tokens[closed:]).strip(), finished, reader.without_special(parted.reasoning))
