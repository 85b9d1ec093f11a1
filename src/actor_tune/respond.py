"""Greedy answers of a model to prompts, in batches."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

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
    # Every sampling setting that a checkpoint's generation_config.json may carry is set here: answers are greedy.
    with compact_head(chat_model):
        output = chat_model.model.generate(  # type: ignore[operator]
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            pad_token_id=chat_model.pad_id,
        )
    new_tokens = output[:, batch.input_ids.shape[1] :]
    return chat_model.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)


@torch.inference_mode()
def first_token_logprobs(chat_model: ChatModel, token_ids: Sequence[TokenIds], batch_size: int = 32) -> torch.Tensor:
    """Log-probabilities of the first answer token: (prompt, vocabulary) float32, on the CPU."""
    parts, done = [], []
    for rows in rows_by_length(token_ids, batch_size):
        batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device)
        parts.append(forward(chat_model, batch).log_softmax(dim=-1).cpu())
        done += rows
    return torch.cat(parts)[torch.tensor(done).argsort()]
