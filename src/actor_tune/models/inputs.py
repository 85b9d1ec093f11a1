"""What a block receives from those below it, which never change: computed once, and kept.

Where weights are on disk, all prompts go through one block before the next is fetched.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import psutil
import torch

from .activations import (
    forward,
    not_finite,
    not_finite_at,
    opening_pass,
    run_block,
    start_at,
    stop_after,
    stop_before,
)
from .batches import run_batches
from .chat import Batch, TokenIds, pad, rows_by_length
from .kv_cache import Keys, common_opening
from .machine import give_back
from .model import ChatModel
from .placement import device_of, held, is_elsewhere
from .trials import padding_is_exact

log = logging.getLogger(__name__)

# Prompts, and tokens with padding, that are run at a time.
PREFIX_BATCH = 32
PREFIX_TOKENS = 8192

KEPT_SHARE = 0.25  # of the free memory of a device, or of RAM: larger inputs are kept in RAM, or in a file


@dataclass(frozen=True)
class BlockInputs:
    """What block `layer` receives for some prompts, from blocks that never change.

    - `token_ids`: one list a prompt, chat template included.
    - `opening`: tokens with which all prompts begin and which are kept once.
    - `opening_hidden`: (opening, d_model); `hidden`: (token, d_model), the tokens after the opening of all prompts in a
      row, that of prompt i from `starts[i]` on; in the dtype of the model, on its device, in RAM, or in a file.
    - `padded`: whether prompts of unlike length may be run together.
    """

    layer: int
    token_ids: list[TokenIds]
    opening: int
    opening_hidden: torch.Tensor
    hidden: torch.Tensor
    starts: list[int]
    padded: bool

    def places(self, row: int) -> range:
        """Where in `hidden` the tokens of prompt `row` are."""
        return range(self.starts[row], self.starts[row] + len(self.token_ids[row]) - self.opening)

    def take(self, places: list[int], device: torch.device) -> torch.Tensor:
        """(place, d_model) of `hidden`, on `device`."""
        return self.hidden[torch.tensor(places, device=self.hidden.device)].to(device)

    def last(self) -> torch.Tensor:
        """What the block receives at the last token of each prompt: (prompt, d_model) float32, on the CPU."""
        places = [self.places(row)[-1] for row in range(len(self.token_ids))]
        return self.take(places, torch.device("cpu")).float()

    def batch(self, rows: list[int], chat_model: ChatModel) -> tuple[Batch, torch.Tensor]:
        """The prompts `rows`, left-padded, without the opening: tokens, and hidden state (prompt, token, d_model)."""
        batch = pad(self.token_ids, rows, chat_model.pad_id, chat_model.device, self.opening)
        width = batch.input_ids.shape[1]
        # The padding repeats the first token: finite, and masked.
        index = [at for real in map(self.places, rows) for at in [real[0]] * (width - len(real)) + list(real)]
        hidden = self.take(index, device_of(chat_model.blocks[min(self.layer, len(chat_model.blocks) - 1)]))
        return batch, hidden.unflatten(0, (len(rows), width))

    def whole(self, row: int) -> torch.Tensor:
        """(token, d_model) of prompt `row`, opening included."""
        real = self.places(row)
        return torch.cat([self.opening_hidden, self.hidden[real.start : real.stop].to(self.opening_hidden.device)])

    def put(self, rows: list[int], hidden: torch.Tensor) -> None:
        """Replace what is kept of `rows` by the left-padded `hidden` (prompt, token, d_model)."""
        for line, row in enumerate(rows):
            real = self.places(row)
            self.hidden[real.start : real.stop] = hidden[line, hidden.shape[1] - len(real) :]

    def select(self, rows: Sequence[int]) -> "BlockInputs":
        """The prompts `rows` alone; the tensors are shared."""
        return replace(self, token_ids=[self.token_ids[row] for row in rows], starts=[self.starts[row] for row in rows])

    def groups(self) -> list[list[int]]:
        """All rows in batches of like length."""
        return self.batches(PREFIX_BATCH, PREFIX_TOKENS)

    def batches(self, batch_size: int, batch_tokens: int = 0) -> list[list[int]]:
        """All rows in batches of like length, or of one where prompts are not padded."""
        return list(rows_by_length(self.token_ids, batch_size, batch_tokens, equal=not self.padded))


@torch.no_grad()
def block_inputs(chat_model: ChatModel, layer: int, token_ids: Sequence[TokenIds]) -> BlockInputs:
    """Run blocks 0..layer-1 once over all prompts and keep what block `layer` receives.

    **Raises:** `UserError` when something that is not a finite number comes out of them.
    """
    opening = common_opening(chat_model.model.config, token_ids)
    if opening and not opening_is_exact(chat_model, token_ids, opening):
        log.info("the opening of %d tokens that all prompts share cannot be run apart here", opening)
        opening = 0
    streamed = any(is_elsewhere(block) for block in chat_model.blocks[:layer])
    with held(chat_model.model.get_input_embeddings()):
        inputs = _run_to(chat_model, 0 if streamed else layer, list(token_ids), opening)
        if streamed:
            inputs = advance(chat_model, inputs, layer)
    give_back()
    for row in range(len(inputs.token_ids)):
        if not inputs.whole(row).isfinite().all():
            raise not_finite(chat_model, pad(inputs.token_ids, [row], chat_model.pad_id, chat_model.device))
    return inputs


def _run_to(chat_model: ChatModel, layer: int, token_ids: list[TokenIds], opening: int) -> BlockInputs:
    """What block `layer` receives, the blocks below run batch by batch."""
    block, keys = chat_model.blocks[layer], Keys(opening) if opening else None
    if keys is not None:  # a cache without layers is false
        with stop_before(block) as first:
            _forward_opening(chat_model, token_ids, keys)
    lengths = [len(ids) - opening for ids in token_ids]
    below = layer if layer and any(map(is_elsewhere, chat_model.blocks[layer:])) else None
    padded = padding_is_exact(chat_model, token_ids, below)
    starts = [0, *accumulate(lengths)][:-1]
    kept: list[BlockInputs] = []

    def run(rows: list[int]) -> None:
        batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device, opening)
        with stop_before(block) as received:
            forward(chat_model, batch, keys)
        hidden = received[0].hidden
        if not kept:
            opening_hidden = first[0].hidden[0] if opening else hidden[0, :0]
            room = storage(sum(lengths), hidden)
            kept.append(BlockInputs(layer, token_ids, opening, opening_hidden, room, starts, padded))
        kept[0].put(rows, hidden)

    groups = rows_by_length(token_ids, PREFIX_BATCH, PREFIX_TOKENS, equal=not padded)
    run_batches(groups, run, f"Running blocks 0 to {layer - 1} once" if layer else "Embedding prompts")
    return kept[0]


def _forward_opening(chat_model: ChatModel, token_ids: Sequence[TokenIds], keys: Keys) -> None:
    """Run the opening of `keys.length` tokens, and put its keys into `keys`."""
    batch = pad([token_ids[0][: keys.length]], [0], chat_model.pad_id, chat_model.device)
    with opening_pass():
        forward(chat_model, batch, Keys(seen=keys.kept))


@torch.no_grad()
def advance(chat_model: ChatModel, inputs: BlockInputs, layer: int) -> BlockInputs:
    """What block `layer` receives, from `inputs` of a block below it, whose place in memory the result takes.

    The number of blocks as `layer`: what the last one returns.
    """
    for index in range(inputs.layer, layer):
        with held(chat_model.blocks[index]):
            opening_hidden, keys = run_opening(chat_model, inputs, index, inputs.opening_hidden)
            run = partial(_through_block, chat_model, inputs, keys)
            run_batches(inputs.groups(), run, f"All prompts through block {index}")
            if not inputs.hidden.isfinite().all():
                raise not_finite_at(chat_model, index)
        inputs = replace(inputs, layer=index + 1, opening_hidden=opening_hidden)
    return inputs


def _through_block(chat_model: ChatModel, inputs: BlockInputs, keys: Keys | None, rows: list[int]) -> None:
    batch, hidden = inputs.batch(rows, chat_model)
    inputs.put(rows, run_block(chat_model, inputs.layer, batch, hidden, keys))


def run_opening(
    chat_model: ChatModel, inputs: BlockInputs, layer: int, hidden: torch.Tensor
) -> tuple[torch.Tensor, Keys | None]:
    """The opening through block `layer`: what comes out for `hidden`, both (opening, d_model), and its keys there."""
    if not inputs.opening:
        return hidden, None
    keys = Keys(inputs.opening)
    with start_at(chat_model, layer, hidden[None]), stop_after(chat_model.blocks[layer]) as seen:
        _forward_opening(chat_model, inputs.token_ids, keys)
    return seen[0][0], keys


@torch.no_grad()
def opening_keys(chat_model: ChatModel, inputs: BlockInputs) -> Keys | None:
    """Keys of the opening in blocks `inputs.layer` and above, with their weights as they are now."""
    if not inputs.opening:
        return None
    keys = Keys(inputs.opening)
    with start_at(chat_model, inputs.layer, inputs.opening_hidden[None]):
        _forward_opening(chat_model, inputs.token_ids, keys)
    return keys


@torch.no_grad()
def last_activations(
    chat_model: ChatModel, token_ids: Sequence[TokenIds], layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """What each of `layers` returns at the last token of each prompt: (prompt, d_model) float32, on the CPU."""
    inputs = block_inputs(chat_model, 0, token_ids)
    activations = {}
    for layer in sorted(layers):
        inputs = advance(chat_model, inputs, layer + 1)
        activations[layer] = inputs.last()
    return activations


def storage(tokens: int, like: torch.Tensor) -> torch.Tensor:
    """An empty (token, d_model) tensor of the dtype of `like`: on its device, in RAM, or in a file, as room allows."""
    size, shape = tokens * like.shape[-1] * like.element_size(), (tokens, like.shape[-1])
    if like.device.type == "cuda" and size < KEPT_SHARE * torch.cuda.mem_get_info(like.device)[0]:
        return like.new_empty(shape)
    if size < KEPT_SHARE * psutil.virtual_memory().available:
        return torch.empty(shape, dtype=like.dtype)
    log.info("activations of %.1f GiB are kept in a file", size / 2**30)
    with tempfile.NamedTemporaryFile(prefix="actor-tune-") as file:  # mapped, it outlives its name
        return torch.from_file(file.name, shared=True, size=tokens * like.shape[-1], dtype=like.dtype).view(shape)


@torch.no_grad()
def opening_is_exact(chat_model: ChatModel, token_ids: Sequence[TokenIds], opening: int) -> bool:
    """Whether the shortest and the longest prompt leave the first blocks the same with the opening run apart."""
    order = sorted(token_ids, key=len)
    layer = min(2, len(chat_model.blocks) - 1)
    apart, plain = (_run_to(chat_model, layer, [order[0], order[-1]], shared) for shared in (opening, 0))
    tolerance = 1e-4 if apart.hidden.dtype == torch.float32 else 0.05
    ends = [(apart.whole(row)[-1], plain.whole(row)[-1]) for row in range(2)]
    return all(float((one - other).norm()) <= tolerance * float(other.norm()) for one, other in ends)
