"""Run one block for the sake of its last position alone.

A block's other tokens matter to the last one as keys and values only. So the block is called twice: with all tokens but
the last ones, until its keys and values are known; then with the last tokens, which attend to them. Whether that is
exact for a family is found by trial against the whole block; where it is not, the block runs whole. What a block
receives besides the hidden state does not change while it is trained, and is kept with the batch.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .activations import Received, forward, hidden_of, pass_through, stop_before
from .chat import Batch, pad
from .inputs import BlockInputs
from .kv_cache import Kept, Keys, KeysRead, KeyValue, attends_to_all
from .model import ChatModel
from .placement import device_of

log = logging.getLogger(__name__)

Disturb = Callable[[torch.Tensor], torch.Tensor]  # hidden states (token, d_model) float32 -> the same, disturbed


@dataclass(frozen=True)
class LastTokens:
    """Some prompts, ready to be run through one block again and again."""

    rows: list[int]
    output: Callable[
        [nn.Module, Disturb], torch.Tensor
    ]  # what it, in float32, returns at last tokens (prompt, d_model)


def undisturbed(hidden: torch.Tensor) -> torch.Tensor:
    """`hidden` as it is."""
    return hidden


@torch.no_grad()
def last_tokens(chat_model: ChatModel, inputs: BlockInputs, groups: Sequence[list[int]]) -> list[LastTokens]:
    """Each of `groups` (rows of `inputs`) ready to run through block `inputs.layer`, which is in float32."""
    order = sorted(range(len(inputs.token_ids)), key=lambda row: len(inputs.token_ids[row]))
    block, trial = chat_model.blocks[inputs.layer], [order[0], order[-1]]  # the shortest and the longest prompt
    short = None
    # Any window will do: keys lie as they do in a padded batch, so that windows see what they always see.
    if len(inputs.token_ids[order[0]]) > 1 and attends_to_all(chat_model.model.config, tokens=0):
        try:
            short = keys_first(chat_model, inputs, trial).output(block, undisturbed)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
            log.debug("this block does not take its keys by way of the cache: %s", error)
    whole = whole_block(chat_model, inputs, trial).output(block, undisturbed)
    exact = short is not None and float((short - whole).abs().max()) <= 1e-4 * float(whole.abs().max())
    if not exact:
        log.info("%s cannot be limited to the last token: training runs it whole", type(block).__name__)
    ready = keys_first if exact else whole_block
    return [ready(chat_model, inputs, rows) for rows in groups]


def whole_block(chat_model: ChatModel, inputs: BlockInputs, rows: list[int]) -> LastTokens:
    """Run the block for all tokens, opening included."""
    if not inputs.padded and len({len(inputs.token_ids[row]) for row in rows}) > 1:
        return _one_by_one(chat_model, inputs, rows)
    batch = pad(inputs.token_ids, rows, chat_model.pad_id, chat_model.device)
    received = _received(chat_model, inputs.layer, batch, None)
    width = batch.input_ids.shape[1]

    def output(block: nn.Module, disturb: Disturb) -> torch.Tensor:
        hidden = torch.zeros(len(rows), width, inputs.hidden.shape[1], device=device_of(block))
        for line, row in enumerate(rows):
            real = inputs.whole(row).to(hidden)
            hidden[line, width - len(real) :] = disturb(real)
        return hidden_of(block(hidden, *received.arguments, **received.keywords))[:, -1]

    return LastTokens(rows, output)


def _one_by_one(chat_model: ChatModel, inputs: BlockInputs, rows: list[int]) -> LastTokens:
    """`whole_block` without padding."""
    each = [whole_block(chat_model, inputs, [row]) for row in rows]
    return LastTokens(rows, lambda block, disturb: torch.cat([one.output(block, disturb) for one in each]))


def keys_first(chat_model: ChatModel, inputs: BlockInputs, rows: list[int]) -> LastTokens:
    """Run the block for keys and values of opening and all tokens but the last, packed in one row; then for those."""
    opening, pad_id, device = inputs.opening, chat_model.pad_id, chat_model.device
    lengths = [len(inputs.token_ids[row]) - 1 for row in rows]
    positions = [*range(opening), *(position for length in lengths for position in range(opening, length))]
    packed, nothing = torch.tensor([positions], device=device), Keys()
    first = Batch([0], torch.full_like(packed, pad_id), torch.ones_like(packed), packed)
    for_keys = _received(chat_model, inputs.layer, first, nothing)

    # Keys lie as opening, padding, prompt; without an opening that is left padding, which windows need.
    padded = pad(inputs.token_ids, rows, pad_id, device, opening)
    before = Keys(padded.attention_mask.shape[1] - 1)
    for_last = _received(chat_model, inputs.layer, padded.last(), before)

    places = [place for row in rows for place in inputs.places(row)[:-1]] + [inputs.places(row)[-1] for row in rows]
    index = _layout(opening, lengths, before.length)

    def output(block: nn.Module, disturb: Disturb) -> torch.Tensor:
        device = device_of(block)
        hidden = torch.cat([inputs.opening_hidden.to(device), inputs.take(places, device)]).float()
        others, ends = disturb(hidden).split([len(positions), len(rows)])
        kept = _keys_of(block, others[None], for_keys, nothing)
        ready = Keys(before.length, {at: _spread(keys, index.to(device)) for at, keys in kept.items()})
        return hidden_of(_call(block, ends[:, None], for_last, before, ready))[:, -1]

    return LastTokens(rows, output)


def _layout(opening: int, lengths: list[int], width: int) -> torch.Tensor:
    """Where in the packed row each key of each prompt is: (prompt, key) int64; padding is masked and takes any."""
    index = torch.zeros(len(lengths), width, dtype=torch.int64)
    index[:, :opening] = torch.arange(opening)
    start = opening
    for line, own in enumerate(length - opening for length in lengths):
        index[line, width - own :] = torch.arange(start, start + own)
        start += own
    return index


def _received(chat_model: ChatModel, layer: int, batch: Batch, keys: Keys | None) -> Received:
    """What block `layer` is called with for `batch`."""
    with pass_through(chat_model, range(layer)), stop_before(chat_model.blocks[layer]) as seen:
        forward(chat_model, batch, keys)
    return seen[0]


def _call(block: nn.Module, hidden: torch.Tensor, received: Received, old: Keys, new: Keys) -> Any:
    """Call `block` with the arguments that it `received`, the cache `new` in the place of `old`."""
    arguments = [new if value is old else value for value in received.arguments]
    return block(
        hidden, *arguments, **{name: new if value is old else value for name, value in received.keywords.items()}
    )


def _keys_of(block: nn.Module, hidden: torch.Tensor, received: Received, nothing: Keys) -> Kept:
    """Keys and values of `hidden` (1, token, d_model) by the number that the block's attention goes by."""
    seen: Kept = {}
    with suppress(KeysRead):
        _call(block, hidden, received, nothing, Keys(seen=seen, leave=True))
        raise ValueError("the block did not put its keys into the cache")
    return seen


def _spread(packed: KeyValue, index: torch.Tensor) -> KeyValue:
    """Keys and values (1, head, token, d_head) as (prompt, head, key, d_head), by `index` (prompt, key)."""
    flat = [values[0].index_select(1, index.flatten()) for values in (packed.keys, packed.values)]
    return KeyValue(*[values.unflatten(1, index.shape).transpose(0, 1) for values in flat])
