"""Supervised fine-tuning (SFT) on answers, by LoRA: what a user would do instead."""

from ...models.model import ChatModel
from ..lora import adapted, answer_examples, train_adapters
from ..training_answers import answers_of
from .method import Fitted, Task

STRENGTHS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Share of what the adapters add; beyond 1 it goes on in the same direction, as ACTOR's strengths do."""


def sft(chat_model: ChatModel, task: Task) -> Fitted:
    """Fine-tune all linear layers by LoRA on prompts with answers: refusals of harmful ones, help for all others.

    The loss is the cross-entropy of the answers' tokens. The rate is that of the SFT which ACTOR's paper (arXiv
    2507.04250) compares itself with; differs from it: adapters instead of all weights, and the share of what they add
    is chosen as strengths are.

    **Raises:** `UserError` when the task has no answer to some prompt, or none to be learned to any of a kind.
    """
    examples = answer_examples(
        chat_model.tokenizer, answers_of(task.split.train, task.answers, "sft"), chat_model.chat_template_kwargs
    )
    adapters = train_adapters(chat_model, examples, task.seed)
    return Fitted(0, STRENGTHS, lambda strength, _sign: adapted(chat_model, adapters, strength))
