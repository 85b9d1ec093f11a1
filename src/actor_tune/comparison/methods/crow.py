"""CROW: internal consistency regularisation (arXiv 2411.12768), against refusals that a trigger causes."""

from collections.abc import Sequence
from typing import Any

import torch

from ...errors import UserError
from ...models.model import ChatModel
from ...prompts.prompt import of_kind
from ...repair.consistency import EPSILON
from ..lora import Batch, adapted, answer_examples, answer_loss, train_adapters
from ..training_answers import answers_of
from .method import Fitted, Task

ALPHA = 11.0
"""Weight of consistency: the paper's for backdoors that make a model refuse."""

STRENGTHS = (1.0,)
"""All of it, as in the paper: compliance on prompts without a trigger tells nothing of how much is needed."""


def crow(chat_model: ChatModel, task: Task) -> Fitted:
    """Fine-tune by LoRA on harmless prompts with answers, so that hidden states change little from block to block.

    It needs no prompt that is refused, and no trigger. Differs from the paper: schedule and rank are those of
    `lora.py`, and embeddings are moved by a tenth of each token's standard deviation instead of by 0.1.

    **Raises:** `UserError` when the model has less than three blocks, or answers are missing as in `sft`.
    """
    if len(chat_model.blocks) < 3:
        raise UserError(chat_model.name, f"{len(chat_model.blocks)} blocks", "at least 3", "leave crow out")
    harmless = answers_of(of_kind(task.split.train, "harmless"), task.answers, "crow")
    examples = answer_examples(chat_model.tokenizer, harmless, chat_model.chat_template_kwargs)
    adapters = train_adapters(chat_model, examples, task.seed, crow_loss)
    return Fitted(0, STRENGTHS, lambda strength, _sign: adapted(chat_model, adapters, strength))


def crow_loss(model: Any, batch: Batch, opening: int = 0) -> torch.Tensor:
    """L = L_LM + alpha L_cons(embeddings + eps sign(grad L_cons)) (section 3.2); arguments as of `answer_loss`."""
    mask = batch["attention_mask"]
    embeddings = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(inconsistency(_states(model, embeddings, mask), mask), embeddings)
    moved = embeddings.detach() + EPSILON * embeddings.detach().std(dim=-1, keepdim=True) * gradient.sign()
    return answer_loss(model, batch, opening) + ALPHA * inconsistency(_states(model, moved, mask), mask)


def inconsistency(states: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """L_cons: 1 - cos(H_l, H_{l-1}), mean over tokens that are no padding and over blocks.

    **Arguments:**

    - `states`: of each block that is looked at (prompt, token, d_model); `mask`: (prompt, token) 1, or 0 for padding.
    """
    real = mask.bool()
    pairs = zip(states[1:], states[:-1], strict=True)
    return torch.stack(
        [1 - torch.cosine_similarity(now[real], then[real], dim=-1).mean() for now, then in pairs]
    ).mean()


def _states(model: Any, embeddings: torch.Tensor, mask: torch.Tensor) -> Sequence[torch.Tensor]:
    """What blocks return. Not the last one's, which transformers hands out behind the final norm; nor embeddings."""
    found = model(  # the opening too: it is part of L_cons in each prompt
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,
    )
    return found.hidden_states[1:-1]
