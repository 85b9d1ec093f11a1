"""What an engine is, and what it is that can be asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..prompts.prompt import Prompt

if TYPE_CHECKING:
    from ..models.model import ChatModel

ANSWER_TOKENS = 32
"""Enough to tell a refusal from an answer, and few enough for a CPU: the default length of answers."""

REASONING_TOKENS = 1024
"""The default length of what is thought before an answer. What thinks for longer has not answered."""


@dataclass(frozen=True)
class Answer:
    """A model's answer to the prompt at index `row` of those given.

    - `text`: without special tokens, and without reasoning.
    - `finished`: the model ended it; False where the limit of tokens cut it off.
    - `reasoning`: what it thought before; None where it does not reason. If that did not end, there is no `text`.
    - `filtered`: a filter of the provider's stopped it, and not the model.
    - `asked_otherwise`: how a server had to be asked otherwise than greedily with a limit, in words.
    """

    row: int
    text: str
    finished: bool
    reasoning: str | None = None
    filtered: bool = False
    asked_otherwise: tuple[str, ...] = ()


Engine = Callable[[Sequence[Prompt], int], Iterator[Answer]]
"""Greedy answers to (prompts, of at most so many new tokens), as they come, in any order, each prompt's once."""


PORTION = 256
"""Prompts that a model in this process answers in one go, as the default. What stands beside a prompt in a batch rounds
its numbers otherwise, and where two tokens are as likely, that decides."""


@dataclass(frozen=True)
class Opened:
    """A model that answers now.

    - `chat_model`: where it is loaded in this process; None where a server or vLLM answers, and then its probabilities
      cannot be had.
    """

    engine: Engine
    chat_model: "ChatModel | None" = None

    @property
    def portion(self) -> int | None:
        """How many prompts are to be answered in one go (`respond`); None: as many as are missing."""
        return PORTION if self.chat_model else None


@dataclass(frozen=True)
class Subject:
    """A model to be asked.

    - `name`: as the user gave it.
    - `open`: makes it ready when its turn comes, because two need not fit into memory.
    - `engine`, `base_url`, `dtype`, `quantization`, `chat_template_kwargs`, `max_reasoning_tokens`: what its answers
      depend on besides, for the record.
    - `engine_kwargs`: what vLLM is told besides, for the record.
    - `in_memory`: it is loaded, and its weights may be others than those in the folder or on the Hub.
    """

    name: str
    open: Callable[[], Opened]
    engine: str = "transformers"
    base_url: str | tuple[str, ...] | None = None
    dtype: str = "auto"
    quantization: str = "none"
    in_memory: bool = False
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_reasoning_tokens: int = REASONING_TOKENS
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict)


def model_of(subject: Subject) -> "ChatModel":
    """The model of `subject`, opened in this process.

    **Raises:** `UserError` when a server or another engine answers for it.
    """
    chat_model = subject.open().chat_model
    if chat_model is None:
        raise UserError(subject.name, f"answered by {subject.engine}", "a model in this process", "leave `engine=` out")
    return chat_model
