"""Where a model that reasons begins to answer: behind what it opens every answer with."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from ..engines.local import first_tokens
from ..engines.reasoning import marks_of, says_nothing
from ..models.model import ChatModel
from ..prompts.prompt import KINDS, Prompt, of_kind

ASKED = 4  # prompts of each kind
TOKENS = 16  # of each answer


def where_answers_begin(chat_model: ChatModel, prompts: Sequence[Prompt]) -> ChatModel:
    """`chat_model` with what all its answers to `prompts` begin with, as an empty thought, for a part of the prompt.

    What it decides, it decides behind that. Words are never in it, though all answers may begin with the same: a model
    that refuses everything does just that.
    """
    tokenizer = chat_model.tokenizer
    if not (marks := marks_of(tokenizer)):
        return chat_model
    asked = [prompt for kind in KINDS for prompt in of_kind(prompts, kind)[:ASKED]]
    answers = first_tokens(chat_model, chat_model.encode(asked), TOKENS)
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*answers, strict=False))
    common = [tokens[0] for tokens in same]
    bare = (
        length for length in range(len(common), 0, -1) if says_nothing(str(tokenizer.decode(common[:length])), marks)
    )
    return replace(chat_model, opening=tuple(common[: next(bare, 0)]))
