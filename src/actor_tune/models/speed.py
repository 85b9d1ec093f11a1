"""How fast this machine runs a model's blocks: measured on one of them, with made-up weights, in a second or two."""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from .batches import is_out_of_memory
from .machine import free_memory, measured_rate
from .model import block_lists
from .structure import model_class

log = logging.getLogger(__name__)

SECONDS = 0.3  # that each of two ways is run for
VOCABULARY = 64


@dataclass(frozen=True)
class Rates:
    """FLOPs a second that a block does, two a parameter and token.

    - `prompts`: where it runs whole prompts; `steps`: where each prompt has one token more, as in an answer.
    """

    prompts: float
    steps: float


@torch.inference_mode()
def block_rates(config: PreTrainedConfig, device: str, dtype: torch.dtype, rows: int, tokens: int) -> Rates:
    """Those of the first block of the model of `config` on `device`, with `rows` prompts of `tokens` tokens at a time.

    Where a model of one block cannot be made of the config, those of plain matrix products, which are too high.
    """
    try:
        model = _one_block(config, device, dtype)
        ids = torch.zeros(rows, tokens, dtype=torch.int64, device=device)
        parameters = sum(
            parameter.numel() for blocks in block_lists(model).values() for parameter in blocks.parameters()
        )
        cache = DynamicCache(config=model.config)
        lengths = count(tokens)

        def run(new: torch.Tensor, length: int) -> torch.Tensor:
            mask = torch.ones(rows, length, dtype=torch.int64, device=device)
            logits: torch.Tensor = model(new, attention_mask=mask, past_key_values=cache, use_cache=True).logits
            return logits

        def step() -> torch.Tensor:
            return run(ids[:, :1], next(lengths))

        run(ids, next(lengths))
        whole = _seconds(lambda: model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits)
        return Rates(2 * parameters * rows * tokens / whole, 2 * parameters * rows / _seconds(step))
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        log.info("the time is estimated from matrix products alone: no single block could be run (%s)", error)
        rate = measured_rate(device, dtype)
        return Rates(rate, rate)


def _one_block(config: PreTrainedConfig, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model of one block, with a small vocabulary and all weights alike: values do not matter to time."""
    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    text = config.get_text_config()
    layers = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list | tuple) and len(value) == layers:
            setattr(text, name, value[:1])
    text.num_hidden_layers, text.vocab_size = 1, VOCABULARY
    text.pad_token_id = text.bos_token_id = text.eos_token_id = 0
    with torch.device("meta"):
        empty = model_class(config).from_config(config, dtype=dtype)
    needed, free = sum(parameter.nbytes for parameter in empty.parameters()), free_memory(device).device
    if needed > free:  # asking for it would be an error, or the end of the process
        raise ValueError(f"a block needs {needed:,} bytes, and {free:,} are free")
    model: PreTrainedModel = empty.to_empty(device=device).eval()
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    return model


def _seconds(run: Callable[[], torch.Tensor]) -> float:
    """The median of several runs."""
    found: list[float] = []
    run()
    while sum(found) < SECONDS or len(found) < 2:
        start = time.perf_counter()
        run().flatten()[0].item()  # reading a value waits for the device
        found.append(time.perf_counter() - start)
    return sorted(found)[len(found) // 2]
