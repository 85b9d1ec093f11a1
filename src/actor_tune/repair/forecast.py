"""How fast the loaded model is: from batches that it runs itself, in some seconds."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..engines.local import local_engine
from ..models.model import ChatModel
from ..models.placement import is_elsewhere
from ..models.speed import Rates, block_rates
from ..prompts.prompt import Prompt
from .cost import Cost, Speed

ROWS = 16  # prompts of the batch: enough to be like what follows, few enough to be a small part of it
STEPS = 8  # tokens of an answer that are timed, after the first


def measured_speed(chat_model: ChatModel, prompts: Sequence[Prompt], need: Cost) -> Speed:
    """From answers of one token, and of `STEPS` more, to some of `prompts` of the middle length.

    Where weights are on disk, reading them is most of that: then they are read once, for one token, and computing is
    timed on one block with made-up weights, as training is in any case.
    """
    order = sorted(prompts, key=lambda prompt: len(prompt.text))
    few = order[max(0, len(order) // 2 - ROWS // 2) :][:ROWS]
    tokens = sum(map(len, chat_model.encode(few)))
    config, device, mean = chat_model.model.config, need.placement.device, max(2, tokens // len(few))
    training = block_rates(config, device, torch.float32, need.rule.schedule.batch_size, mean)
    if any(map(is_elsewhere, chat_model.blocks)):
        block = Speed(block_rates(config, device, chat_model.model.dtype, len(few), mean), training)
        if not need.streamed:  # some blocks come later, and then stay
            return block
        return replace(block, disk=need.stored(need.every) / _answer(chat_model, few, 1))
    _answer(chat_model, few, 1)  # what is done once alone is done
    first = _answer(chat_model, few, 1)
    rest = max(_answer(chat_model, few, 1 + STEPS) - first, 1e-9)
    whole = need.computing(need.every, tokens, len(few))
    later = need.computing(need.every, 0, STEPS * len(few), steps=STEPS * len(few))
    rate = whole.prompts / first
    # A token of an answer takes no less than one of a prompt: below that is noise.
    return Speed(Rates(rate, later.steps / max(rest - later.prompts / rate, later.steps / rate)), training)


def _answer(chat_model: ChatModel, prompts: Sequence[Prompt], tokens: int) -> float:
    """Seconds that answers of `tokens` tokens take."""
    start = time.perf_counter()
    list(local_engine(chat_model, max_reasoning_tokens=1)(prompts, tokens))
    return time.perf_counter() - start
