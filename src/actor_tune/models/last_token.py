"""Run one block for the sake of its last position alone.

A block's other tokens matter to the last one as keys and values only. So the block is called twice: with all tokens but
the last ones, until its keys and values are known; then with the last tokens, which attend to them. Whether that is
exact for a family is found by trial against the whole block, not from a table; where it is not, the block runs whole.

What a block receives besides the hidden state (mask, rotary embeddings, whatever its forward takes) does not change
while it is trained, and is kept with the batch.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .activations import Received, forward, hidden_of, pass_through, stop_before
from .chat import Batch, pad
from .inputs import BlockInputs
from .keys import Keys, KeysRead, KeyValue, attends_to_all
from .model import ChatModel
from .placement import device_of

log = logging.getLogger(__name__)

Disturb = Callable[[torch.Tensor], torch.Tensor]
"""Hidden states (token, d_model) float32 -> the same, disturbed."""


@dataclass(frozen=True)
class LastTokens:
    """Some prompts, ready to be run through one block again and again.

    - `output`: (block, disturb) -> what the block, in float32, returns at their last tokens, (prompt, d_model).
    """

    rows: list[int]
    output: Callable[[nn.Module, Disturb], torch.Tensor]


def undisturbed(hidden: torch.Tensor) -> torch.Tensor:
    """`hidden` as it is."""
    return hidden


@torch.no_grad()
def last_tokens(chat_model: ChatModel, inputs: BlockInputs, groups: Sequence[list[int]]) -> list[LastTokens]:
    """Each of `groups` (rows of `inputs`) ready to run through block `inputs.layer`, which is in float32.

    The shortcut is taken where it gives what the whole block gives, on the shortest and the longest prompt.
    """
    order = sorted(range(len(inputs.token_ids)), key=lambda row: len(inputs.token_ids[row]))
    block, trial = chat_model.blocks[inputs.layer], [order[0], order[-1]]
    short = None
    # Any window will do: keys lie as they do in a padded batch, so that windows see what they always see.
    if len(inputs.token_ids[order[0]]) > 1 and attends_to_all(chat_model.model, tokens=0):
        short = _or_none(lambda: keys_first(chat_model, inputs, trial).output(block, undisturbed))
    whole = whole_block(chat_model, inputs, trial).output(block, undisturbed)
    if short is not None and float((short - whole).abs().max()) <= 1e-4 * float(whole.abs().max()):
        return [keys_first(chat_model, inputs, rows) for rows in groups]
    log.info("%s cannot be limited to the last token: training runs it whole", type(block).__name__)
    return [whole_block(chat_model, inputs, rows) for rows in groups]


def _or_none(run: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    try:
        return run()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
        log.debug("the shortcut fails: %s", error)
        return None  # This block does not take its keys and values by way of the cache.


def whole_block(chat_model: ChatModel, inputs: BlockInputs, rows: list[int]) -> LastTokens:
    """Run the block for all tokens, opening included."""
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


def keys_first(chat_model: ChatModel, inputs: BlockInputs, rows: list[int]) -> LastTokens:
    """Run the block for keys and values of all tokens but the last, packed in one row without padding; then for those.

    The opening is in that row once, whatever the number of prompts.
    """
    opening, pad_id, device = inputs.opening, chat_model.pad_id, chat_model.device
    lengths = [len(inputs.token_ids[row]) - 1 for row in rows]
    positions = [*range(opening), *(position for length in lengths for position in range(opening, length))]
    packed = torch.tensor([positions], device=device)
    nothing = Keys()
    first = Batch([0], 0, torch.full_like(packed, pad_id), torch.ones_like(packed), packed)
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
        arguments, keywords = _with(for_last, before, ready)
        return hidden_of(block(ends[:, None], *arguments, **keywords))[:, -1]

    return LastTokens(rows, output)


def _layout(opening: int, lengths: list[int], width: int) -> torch.Tensor:
    """Where in the packed row each key of each prompt is: (prompt, key) int64; padding is masked and takes any."""
    index = torch.zeros(len(lengths), width, dtype=torch.int64)
    index[:, :opening] = torch.arange(opening)
    start = opening
    for line, length in enumerate(lengths):
        end = start + length - opening
        index[line, width - (end - start) :] = torch.arange(start, end)
        start = end
    return index


def _received(chat_model: ChatModel, layer: int, batch: Batch, keys: Keys | None) -> Received:
    """What block `layer` is called with for `batch`."""
    with pass_through(chat_model, range(layer)), stop_before(chat_model.blocks[layer]) as seen:
        forward(chat_model, batch, keys)
    return seen[0]


def _with(received: Received, old: Keys, new: Keys) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a block with the cache `new` in the place of `old`."""
    arguments = [new if value is old else value for value in received.arguments]
    return arguments, {name: new if value is old else value for name, value in received.keywords.items()}


def _keys_of(block: nn.Module, hidden: torch.Tensor, received: Received, nothing: Keys) -> dict[int, KeyValue]:
    """Keys and values of `hidden` (1, token, d_model) by the number that the block's attention goes by."""
    seen: dict[int, KeyValue] = {}
    arguments, keywords = _with(received, nothing, Keys(seen=seen, leave=True))
    try:
        block(hidden, *arguments, **keywords)
    except KeysRead:
        return seen
    raise ValueError("the block did not put its keys into the cache")


def _spread(packed: KeyValue, index: torch.Tensor) -> KeyValue:
    """Keys and values (1, head, token, d_head) as (prompt, head, key, d_head), by `index` (prompt, key)."""

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values[0].index_select(1, index.flatten()).unflatten(1, index.shape).transpose(0, 1)

    return KeyValue(spread(packed.keys), spread(packed.values))
