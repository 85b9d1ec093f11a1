"""From prompts to token batches, by the model's own chat template.

Left padding throughout, so that the last position of every row is the last token of the template with its generation
prompt: the position that the paper reads activations at (section 3.1).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from ..prompts.prompt import Prompt
from ..storage.loading import loading, reason_of
from .control_tokens import Conversation, TokenIds, control_tokens, conversations_with, encode_as_text


@dataclass(frozen=True)
class Batch:
    """Some prompts as one left-padded batch.

    - `rows`: index of each row's prompt in the list that was batched.
    - `input_ids`, `position_ids`: (prompt, token) int64; positions count real tokens, those run before too.
    - `attention_mask`: (prompt, before + token) int64, where `before` counts tokens that were run before.
    """

    rows: list[int]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor

    def lines(self, lines: list[int]) -> "Batch":
        """Some of these prompts, with the padding they have here."""
        ids, mask, positions = self.input_ids[lines], self.attention_mask[lines], self.position_ids[lines]
        return Batch([self.rows[line] for line in lines], ids, mask, positions)

    def last(self) -> "Batch":
        """The last token of each prompt, to be run after all others."""
        return Batch(self.rows, self.input_ids[:, -1:], self.attention_mask, self.position_ids[:, -1:])

    def repeat(self, times: int) -> "Batch":
        """All prompts, `times` times."""
        return self.lines([*range(len(self.rows))] * times)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    chat_template_kwargs: Mapping[str, Any] | None = None,
    rows: int | None = None,
) -> list[TokenIds]:
    """Token ids of each prompt in the chat template, generation prompt included.

    **Arguments:**

    - `chat_template_kwargs`: what the template is told besides, such as `{"enable_thinking": False}`.
    - `rows`: tokens that the model has an embedding of, if known.

    What a prompt says is text to the model, control tokens that it quotes too.

    **Raises:** `UserError` when the tokenizer has no chat template, that refuses a conversation or says nothing, the
    model does not know a token, or a control token in a conversation cannot be written as text.
    """
    check_template(tokenizer, tokenizer.name_or_path)
    where, told = template_of(tokenizer), dict(chat_template_kwargs or {})

    def written(conversation: Conversation) -> str:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True, **told))

    def ids_of(text: str) -> TokenIds:
        # The template writes the special tokens itself: adding them again would give a second beginning of sequence.
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    conversations = [prompt.messages() for prompt in prompts]
    # Some templates refuse system prompts, or roles that do not alternate; broken ones raise anything.
    fix = "give conversations that this model's template takes, or correct it"
    with loading(where, "no complaint", fix, lambda error: (where, f"the chat template says: {reason_of(error)}")):
        texts = [written(conversation) for conversation in conversations]
    if "" in texts:
        raise UserError(where, "the chat template says nothing", "the prompt in it", "correct it")
    said, again = "a tokenizer that takes the prompts", "download tokenizer.json and tokenizer_config.json again"
    with loading(tokenizer.name_or_path, said, again):
        found, control = [ids_of(text) for text in texts], control_tokens(tokenizer)
        quoting = conversations_with(tokenizer, control, conversations)
    for row in quoting:
        found[row] = encode_as_text(tokenizer, control, conversations[row], told, lambda turns: ids_of(written(turns)))
    for ids in found:
        if not ids:
            raise UserError(tokenizer.name_or_path, "the tokenizer makes nothing of a prompt", "tokens", again)
        if rows is not None and max(ids) >= rows:
            what = f"token {max(ids)} ({tokenizer.convert_ids_to_tokens(max(ids))!r}), and a model that knows {rows}"
            raise UserError(tokenizer.name_or_path, what, "the tokenizer of this model", again)
    return found


def template_of(tokenizer: PreTrainedTokenizerBase) -> object:
    """The file that has the chat template of `tokenizer`, or the name of what it was loaded from."""
    files = [Path(tokenizer.name_or_path) / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    return next((file for file in files if file.is_file()), tokenizer.name_or_path)


def check_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Stop with a `UserError` where the tokenizer of the model `name` has no chat template."""
    if not tokenizer.chat_template:
        fix = "choose a chat model, or add chat_template.jinja to its folder"
        raise UserError(name, "the tokenizer has no chat template", "a chat model", fix)


def pad(token_ids: Sequence[TokenIds], rows: list[int], pad_id: int, device: torch.device, opening: int = 0) -> Batch:
    """Left-pad the prompts `rows` of `token_ids`, without their first `opening` tokens, to one length."""
    width = max(len(token_ids[row]) for row in rows) - opening
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(len(rows), opening + width, dtype=torch.int64)
    attention_mask[:, :opening] = 1
    for line, row in enumerate(rows):
        real = len(token_ids[row]) - opening
        input_ids[line, width - real :] = torch.tensor(token_ids[row][opening:])
        attention_mask[line, opening + width - real :] = 1
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, opening:]
    return Batch(rows, input_ids.to(device), attention_mask.to(device), position_ids.to(device))


def rows_by_length(
    token_ids: Sequence[TokenIds], batch_size: int, batch_tokens: int = 0, equal: bool = False
) -> Iterator[list[int]]:
    """Groups of at most `batch_size` indices and, if named, `batch_tokens` tokens, padding included; longest first.

    `equal` makes groups of one length each, without padding.
    """
    order = sorted(range(len(token_ids)), key=lambda row: -len(token_ids[row]))
    while order:
        most = batch_tokens // len(token_ids[order[0]]) if batch_tokens else batch_size
        size = max(1, min(batch_size, most))
        if equal:
            size = sum(len(token_ids[row]) == len(token_ids[order[0]]) for row in order[:size])
        yield order[:size]
        order = order[size:]
