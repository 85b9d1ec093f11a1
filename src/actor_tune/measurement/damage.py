"""What a model lost besides refusal: how far its next-token probabilities moved, how well it predicts plain text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..models.activations import run_model
from ..models.chat import TokenIds, pad
from ..models.control_tokens import text_ids
from ..models.divergence import kl
from ..models.model import ChatModel
from ..models.trials import groups_of
from ..progress import track
from ..prompts.prompt import Prompt

KL_TOKENS = 8
"""First tokens of the baseline's answer over which divergence is averaged: the first alone misses damage after it."""

KL_PROMPTS = 128
"""At most so many harmless prompts: the baseline's log-probabilities are kept, 128 x 8 x vocabulary x 4 bytes."""

WINDOW = 1024
"""Tokens of a window of text; each is predicted from those before it in the window."""

PERPLEXITY_TOKENS = 32_768
"""At most so many tokens of the text are read: enough for two digits, and minutes at most on a CPU."""


@dataclass(frozen=True)
class AnswerLogprobs:
    """What a model gives to the first tokens of given answers.

    - `values`: log-probabilities, (token, vocabulary) float32 on the CPU, tokens of all answers in a row.
    - `first`: which of them are the first of their answer, (token) bool.
    """

    values: torch.Tensor
    first: torch.Tensor

    def of(self, answers: Sequence[int]) -> "AnswerLogprobs":
        """Of some answers alone, by their place among all, in order."""
        if len(answers) == int(self.first.sum()):
            return self
        kept = torch.isin(self.first.cumsum(dim=0) - 1, torch.tensor(answers))
        return AnswerLogprobs(self.values[kept], self.first[kept])


@dataclass(frozen=True)
class Divergence:
    """Mean KL(baseline || model), nats: of the first token of answers, and of their first `KL_TOKENS`."""

    first_token: float
    tokens: float


@torch.inference_mode()
def answer_logprobs(
    chat_model: ChatModel, prompts: Sequence[Prompt], answers: Sequence[str], batch_size: int = 16
) -> AnswerLogprobs:
    """Log-probabilities over the first `KL_TOKENS` tokens of `answers`, each given those before it.

    **Arguments:**

    - `answers`: the baseline's, for both models, so that both predict the same tokens.

    **Raises:** `UserError` when there is no prompt.
    """
    if not prompts:
        raise UserError("`baseline=`", "no harmless prompts", "some to compare on", "add `harmless=FILE`")
    questions = chat_model.encode(prompts)
    # The last of the tokens is only predicted, so it is not part of what the model reads.
    read = [text_ids(chat_model.tokenizer, answer)[: KL_TOKENS - 1] for answer in answers]
    sequences: list[TokenIds] = [question + answer for question, answer in zip(questions, read, strict=True)]
    values: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
    for rows in track(groups_of(chat_model, sequences, batch_size), "Comparing next tokens"):
        batch = pad(sequences, rows, chat_model.pad_id, chat_model.device)
        logits = run_model(chat_model, batch, keep=KL_TOKENS).logits
        for line, row in enumerate(rows):
            values[row] = logits[line, -1 - len(read[row]) :].float().log_softmax(dim=-1).cpu()
    first = torch.zeros(sum(len(value) for value in values), dtype=torch.bool)
    first[torch.tensor([0, *(len(value) for value in values[:-1])]).cumsum(dim=0)] = True
    return AnswerLogprobs(torch.cat(values), first)


def divergence(baseline: AnswerLogprobs, model: AnswerLogprobs) -> Divergence:
    """How far `model` moved from `baseline` on the same answers; `UserError` when their vocabularies differ."""
    if baseline.values.shape != model.values.shape:
        found = f"a vocabulary of {baseline.values.shape[1]} tokens"
        expected = f"{model.values.shape[1]}, as the model has"
        raise UserError("`baseline=`", found, expected, "name the model it was made from")
    each = kl(baseline.values, model.values)
    return Divergence(float(each[baseline.first].mean()), float(each.mean()))


@torch.inference_mode()
def perplexity(chat_model: ChatModel, text: str) -> float:
    """exp of the mean negative log-likelihood of a token of `text`, in windows of `WINDOW` tokens without overlap.

    Comparable between models of one tokenizer, and with figures in papers only where they cut the text the same way.

    **Raises:** `UserError` when the text has fewer than two tokens.
    """
    # Special tokens in it are such: files of texts part their documents with them.
    tokens = chat_model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:PERPLEXITY_TOKENS]
    limit = getattr(chat_model.model.config.get_text_config(), "max_position_embeddings", WINDOW)
    size = min(WINDOW, limit)
    windows = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise UserError("`perplexity=`", f"{len(tokens)} tokens", "at least two", "give a longer text")
    total, count = 0.0, 0
    for window in track(windows, "Predicting text"):
        batch = pad([window], [0], chat_model.pad_id, chat_model.device)
        logits = run_model(chat_model, batch, keep=len(window)).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, batch.input_ids[0, 1:], reduction="sum"))
        count += len(window) - 1
    return float(torch.tensor(total / count).exp())
