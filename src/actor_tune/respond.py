"""Greedy answers of a model to prompts, in batches."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from .activations import compact_head, forward
from .chat import Batch, TokenIds, encode, pad, rows_by_length
from .model import ChatModel
from .progress import progress_bar
from .prompts import Prompt

log = logging.getLogger(__name__)

AUTO_BATCH_SIZE = 64


@dataclass(frozen=True)
class Response:
    """A prompt and what the model answered, special tokens removed."""

    prompt: Prompt
    text: str


@torch.inference_mode()
def respond(
    chat_model: ChatModel, prompts: Sequence[Prompt], max_new_tokens: int, batch_size: int | None = None
) -> list[Response]:
    """Greedy answers of at most `max_new_tokens` tokens, in the order of `prompts`.

    **Arguments:**

    - `batch_size`: prompts at a time; None starts at 64. Out of memory halves it and goes on.
    """
    token_ids = encode(chat_model.tokenizer, prompts)
    size = batch_size or AUTO_BATCH_SIZE
    answers: dict[int, str] = {}
    waiting = [row for rows in rows_by_length(token_ids, len(token_ids)) for row in rows]
    with progress_bar(len(waiting), f"Answering {len(prompts)} prompts") as advance:
        while waiting:
            rows = waiting[:size]
            try:
                texts = _generate(
                    chat_model, pad(token_ids, rows, chat_model.pad_id, chat_model.device), max_new_tokens
                )
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                log.warning("out of memory: going on with %d prompts at a time", size)
                continue
            for row, text in zip(rows, texts, strict=True):
                answers[row] = text
                advance()
            waiting = waiting[size:]
    return [Response(prompt, answers[row]) for row, prompt in enumerate(prompts)]


def _generate(chat_model: ChatModel, batch: Batch, max_new_tokens: int) -> list[str]:
    with compact_head(chat_model), _plain_decoding(chat_model):
        output = chat_model.model.generate(  # type: ignore[operator]
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=max_new_tokens
        )
    new_tokens = output[:, batch.input_ids.shape[1] :]
    return chat_model.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)


@contextmanager
def _plain_decoding(chat_model: ChatModel) -> Iterator[None]:
    """Greedy decoding and nothing else: no sampling, penalty or banned word that the checkpoint's config may name."""
    model = chat_model.model
    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=chat_model.pad_id,
    )
    try:
        yield
    finally:
        model.generation_config = own


@torch.inference_mode()
def first_token_logprobs(chat_model: ChatModel, token_ids: Sequence[TokenIds], batch_size: int = 32) -> torch.Tensor:
    """Log-probabilities of the first answer token: (prompt, vocabulary) float32, on the CPU."""
    parts, done = [], []
    for rows in rows_by_length(token_ids, batch_size):
        batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device)
        parts.append(forward(chat_model, batch).log_softmax(dim=-1).cpu())
        done += rows
    return torch.cat(parts)[torch.tensor(done).argsort()]
