"""The text of control tokens in what is tokenised: text it stays, and only what a chat template writes itself is more.

Else a prompt that quotes `<|im_end|>` would end its own turn, and begin another in whatever role it names.
"""

import copy
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from ..storage.text import same_to_a_reader

TokenIds = list[int]
Conversation = list[dict[str, str]]

AS_TEXT = "sanitize_control_tokens"
"""Argument of `apply_chat_template` in newer transformers, which tokenizers with code of their own may lack."""

FIX = "take it out of the prompt"


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The text of each token that structures a conversation, by its id.

    Special tokens, and of others that were added those that the template names or that look like none but these:
    `<think>`, `<|user|>`. The rest, as tags of HTML or runs of spaces, is text to the model too.
    """
    template = tokenizer.get_chat_template()
    return {
        index: token.content
        for index, token in tokenizer.added_tokens_decoder.items()
        if len(token.content.strip()) > 1
        and (token.special or token.content in template or re.fullmatch(r"<[|｜].*[|｜]>", token.content))
    }


def conversations_with(
    tokenizer: PreTrainedTokenizerBase, control: Mapping[int, str], conversations: Sequence[Conversation]
) -> list[int]:
    """Which of `conversations` say the text of a `control` token that the tokenizer would take for the token."""
    texts = list({turn["content"] for conversation in conversations for turn in conversation})
    token_ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    saying = {
        text
        for text, ids in zip(texts, token_ids, strict=True)
        if any(index in control and _says(text, control[index]) for index in set(ids))
    }
    return [row for row, turns in enumerate(conversations) if any(turn["content"] in saying for turn in turns)]


def encode_as_text(
    tokenizer: PreTrainedTokenizerBase,
    control: Mapping[int, str],
    conversation: Conversation,
    chat_template_kwargs: Mapping[str, Any],
    encode: Callable[[Conversation], TokenIds],
) -> TokenIds:
    """Token ids of a `conversation` in the chat template, in which only the template's own `control` tokens are such.

    **Arguments:**

    - `encode`: token ids of a conversation without any, which tells how many the template writes.

    **Raises:** `UserError` when the tokenizer cannot write them as text.
    """
    if AS_TEXT not in inspect.signature(tokenizer.apply_chat_template).parameters:
        raise _refused(tokenizer, control, conversation, f"update transformers, or {FIX}")
    told = copy.copy(tokenizer)  # which is not to be saved with this list
    told.chat_control_tokens = list(control.values())
    ask: dict[str, Any] = {"add_generation_prompt": True, AS_TEXT: True, "return_dict": False}
    try:
        token_ids = list(told.apply_chat_template(conversation, **ask, **chat_template_kwargs))
    except ValueError:  # The tokenizer makes the token of the text too.
        raise _refused(tokenizer, control, conversation, FIX) from None
    marks = re.compile("|".join(map(re.escape, sorted(control.values(), key=len, reverse=True))))
    harmless = [{**turn, "content": marks.sub("x", turn["content"])} for turn in conversation]
    if conversations_with(tokenizer, control, [harmless]) or (
        _count(control, token_ids) != _count(control, encode(harmless))
    ):
        raise _refused(tokenizer, control, conversation, FIX)
    return token_ids


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> TokenIds:
    """Token ids of an answer, or another `text` outside a template. Special tokens in it are text, where it can be.

    Other added tokens are not: the marks of reasoning in an answer are those that the model wrote.
    """
    ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    if not special.isdisjoint(ids):
        split = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids = list(split["input_ids"])
    return ids


def _says(text: str, mark: str) -> bool:
    """Whether `mark` stands in `text`, in whatever form: the token may come from elsewhere, as for what is unknown."""
    return mark in text or same_to_a_reader(mark) in same_to_a_reader(text)


def _count(control: Mapping[int, str], token_ids: Iterable[int]) -> Counter[int]:
    return Counter(index for index in token_ids if index in control)


def _refused(
    tokenizer: PreTrainedTokenizerBase, control: Mapping[int, str], conversation: Conversation, fix: str
) -> UserError:
    turns = [turn["content"] for turn in conversation]
    held = next((mark for mark in control.values() if any(mark in text for text in turns)), "a control token")
    found = f"{held} in it would be a control token of the model, and not text"
    return UserError(
        f"the prompt {turns[-1][:60]!r}", found, f"text to {tokenizer.name_or_path or 'the tokenizer'}", fix
    )
