"""Refusal read off the first token of an answer."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch

from ..errors import UserError
from .activations import forward, last_logits, start_at
from .batches import run_batches
from .chat import TokenIds, pad
from .inputs import PREFIX_BATCH, PREFIX_TOKENS, BlockInputs, advance, opening_keys
from .model import ChatModel
from .placement import held, is_elsewhere
from .trials import alike, groups_of, holds, some_of_all_lengths


def refusal_token_ids(harmful: torch.Tensor, harmless: torch.Tensor, model_name: str) -> torch.Tensor:
    """Ids of the first answer tokens that are more likely by 0.01 or more after harmful than after harmless prompts.

    From log-probabilities (prompt, vocabulary) of the model itself: no phrases, and no language, are built in.

    **Raises:** `UserError` when there is none: without a sign of refusal nothing can be said about safety.
    """
    surplus = harmful.exp().mean(dim=0) - harmless.exp().mean(dim=0)
    tokens = (surplus > 0.01).nonzero().flatten()
    if not len(tokens):
        found = "harmful and harmless prompts begin their answers with the same tokens"
        raise UserError(model_name, found, "a model that refuses harmful prompts at once", "choose an aligned model")
    return tokens


def first_token_refusal(logprobs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The probability (...), 0..1, that an answer begins with one of `tokens`, from `logprobs` (..., vocabulary)."""
    return logprobs[..., tokens].exp().sum(dim=-1)


@torch.no_grad()
def first_token_logprobs(chat_model: ChatModel, inputs: BlockInputs) -> torch.Tensor:
    """Log-probabilities of the first answer token, (prompt, vocabulary), running only blocks from `inputs.layer` on.

    Where the model does not say the same so, as one whose blocks use what earlier blocks left behind, it runs whole.
    """
    if _restarts(chat_model, inputs):
        return _from_block(chat_model, inputs)
    return plain_logprobs(chat_model, inputs.token_ids)


def _restarts(chat_model: ChatModel, inputs: BlockInputs) -> bool:
    """Whether starting at the block is exact, tried once for each block on some prompts."""
    few = inputs.select(some_of_all_lengths(inputs.token_ids))

    def trial() -> bool:
        return alike(_from_block(chat_model, few), plain_logprobs(chat_model, few.token_ids), chat_model.model.dtype)

    return holds(chat_model, f"starting at block {inputs.layer}", inputs.token_ids, trial)


def _from_block(chat_model: ChatModel, inputs: BlockInputs) -> torch.Tensor:
    streamed = any(is_elsewhere(block) for block in chat_model.blocks[inputs.layer :])
    with ExitStack() as memory:
        if streamed:
            memory.enter_context(held(chat_model.model.get_input_embeddings()))
            own = replace(inputs, hidden=inputs.hidden.clone())
            inputs = advance(chat_model, own, len(chat_model.blocks))
            memory.enter_context(held(chat_model.model.get_output_embeddings()))
        keys = None if streamed else opening_keys(chat_model, inputs)

        def logits(rows: list[int]) -> torch.Tensor:
            batch, hidden = inputs.batch(rows, chat_model)
            if streamed:
                return last_logits(chat_model, batch, hidden)
            with start_at(chat_model, inputs.layer, hidden):
                return forward(chat_model, batch, keys)

        return _logprobs(chat_model, inputs.token_ids, logits)


@torch.no_grad()
def plain_logprobs(chat_model: ChatModel, token_ids: Sequence[TokenIds]) -> torch.Tensor:
    """Log-probabilities of the first answer token, (prompt, vocabulary), by whole forward passes."""

    def logits(rows: list[int]) -> torch.Tensor:
        return forward(chat_model, pad(token_ids, rows, chat_model.pad_id, chat_model.device))

    return _logprobs(chat_model, token_ids, logits)


def _logprobs(
    chat_model: ChatModel, token_ids: Sequence[TokenIds], logits: Callable[[list[int]], torch.Tensor]
) -> torch.Tensor:
    """Log-probabilities (prompt, vocabulary), from `logits` of some rows at a time."""
    found: dict[int, torch.Tensor] = {}

    def run(rows: list[int]) -> None:
        found.update(zip(rows, logits(rows).log_softmax(dim=-1).cpu(), strict=True))

    # Blocks above the inputs' may have come since these were made, so that what they take is asked anew.
    groups = groups_of(chat_model, token_ids, PREFIX_BATCH, PREFIX_TOKENS)
    run_batches(groups, run, "Reading first tokens")
    return torch.stack([found[row] for row in range(len(token_ids))])
