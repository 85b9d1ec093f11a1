"""How long answers will take: from one block of the model, which is run for a second. No prompt is answered for it."""

import logging
from collections.abc import Sequence

from ..engines.engine import Opened
from ..engines.local import AUTO_BATCH_SIZE
from ..engines.reasoning import marks_of
from ..models.batches import is_out_of_memory
from ..models.model import ChatModel
from ..models.speed import block_rates
from ..progress import duration
from ..prompts.prompt import Prompt
from .questions import Questions

log = logging.getLogger(__name__)


def answering_seconds(chat_model: ChatModel, prompts: Sequence[Prompt], new_tokens: int) -> float:
    """About how long answers to `prompts` of `new_tokens` each take, with the blocks in memory."""
    lengths = [len(tokens) for tokens in chat_model.encode(prompts)]
    mean, model = max(2, sum(lengths) // len(lengths)), chat_model.model
    rows = min(AUTO_BATCH_SIZE, len(prompts))
    rates = block_rates(model.config, str(chat_model.device), model.dtype, rows, mean)
    blocks = sum(parameter.numel() for parameter in chat_model.blocks.parameters())
    head, steps = model.get_output_embeddings().weight.numel(), len(prompts) * new_tokens
    return 2 * ((blocks * sum(lengths) + head * steps) / rates.prompts + blocks * steps / rates.steps)


def tell_time(asked: Questions, opened: Opened, name: str, new_tokens: int, max_reasoning_tokens: int) -> None:
    """Where there is a gate, say how long the model `name` will answer, and how much of it is for prompts that the gate
    added, as far as that can be foreseen.
    """
    chat_model, own = opened.chat_model, asked.of_the_gate
    if asked.margin is None or chat_model is None or chat_model.placement.offload != "none":
        return
    reasons = bool(marks_of(chat_model.tokenizer))
    try:
        seconds = answering_seconds(chat_model, asked.prompts, new_tokens + reasons * max_reasoning_tokens)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return  # beside the model there is no room for one more block: answers need less
    about, whole, count = "at most about" if reasons else "about", duration(seconds), len(asked.prompts)
    gates = f", {duration(seconds * len(own) / count)} of it for those of the gate" if own else ""
    log.info("%s: %s %s for %d answers%s", name, about, whole, count, gates)
